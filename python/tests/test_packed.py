"""Networks as arrays of row numbers."""

from __future__ import annotations

import json
import unittest
from pathlib import Path
from typing import Any

import latlas
import numpy

TABLE = Path(__file__).parent / "table.json"


class Packed(unittest.TestCase):
    def setUp(self) -> None:
        self.table = latlas.Table.load(TABLE)
        self.keys = [latlas.Network.builtin(name).keys() for name in ("demo_mobile", "demo_conv")]

    def packed(self) -> Any:
        array = numpy.full((2, max(map(len, self.keys))), -1, dtype=numpy.int32)
        for place, keys in enumerate(self.keys):
            array[place, : len(keys)] = self.table.index(keys)
        return array

    def test_numbers_are_places_in_the_keys(self) -> None:
        numbers = self.table.index(self.table.keys())
        self.assertEqual((numbers.dtype, numbers.tolist()), (numpy.int32, list(range(len(self.table)))))
        self.assertEqual(self.table.index(iter([])).tolist(), [])

    def test_predictions_are_those_of_the_keys(self) -> None:
        wanted = self.table.predict_many(self.keys)
        packed = self.packed()
        for array in (packed, packed.astype(numpy.int64), numpy.asfortranarray(packed), packed[::-1][::-1]):
            for column, known in zip(self.table.predict_many(array), wanted, strict=True):
                self.assertEqual(column.tolist(), known.tolist())

    def test_threads_do_not_change_numbers(self) -> None:
        many = numpy.tile(self.packed(), (1500, 1))
        one = self.table.predict_many(many, threads=1)
        for columns in (self.table.predict_many(many), self.table.predict_many(many, threads=2)):
            for column, known in zip(columns, one, strict=True):
                self.assertEqual(column.tolist(), known.tolist())
        self.assertEqual(len(set(one.ms.tolist())), 2)

    def test_merges_count(self) -> None:
        keys = ["Conv3x3:n1-h28-w28-i32-o32-s1", "Add:n1-h24-w24-i64-o32-s1"]
        (packed,) = self.table.predict_many(self.table.index(keys)[None]).ms.tolist()
        self.assertEqual([packed], self.table.predict_many([keys]).ms.tolist())

    def test_rows_without_a_number_are_missing(self) -> None:
        document = self.table.to_dict()
        row = document["rows"][3]
        row.update(status="failed", reason="out of memory", latency_micros=None, median_micros=None, ci95_rel=None)
        row["curve"] = []
        table = latlas.Table.from_json(json.dumps(document))
        array = numpy.array([[3, 4], [4, 4]], dtype=numpy.int32)
        with self.assertRaises(latlas.MissingRows) as caught:
            table.predict_many(array)
        self.assertEqual(caught.exception.why, {table.keys()[3]: "it could not be measured: out of memory"})
        many = table.predict_many(array, missing="nan")
        self.assertEqual(numpy.isnan(many.ms).tolist(), [True, False])

    def test_mistakes(self) -> None:
        table = self.table
        missing = ["Conv3x3:n1-h9-w9-i32-o32-s1", "Conv5x5:n1-h9-w9-i32-o32-s1"]
        with self.assertRaises(latlas.MissingRows) as caught:
            table.index([*missing, table.keys()[0]])
        self.assertEqual(caught.exception.keys, missing)
        cases: list[tuple[type[Exception], str, Any]] = [
            (latlas.UnknownKey, "op key `x`", lambda: table.index(["x"])),
            (TypeError, "", lambda: table.index([7])),  # type: ignore[list-item]
            (IndexError, r"networks\[1\]: there is no row 39", lambda: table.predict_many(numpy.array([[1], [39]]))),
            (IndexError, r"networks\[0\]: there is no row -2", lambda: table.predict_many(numpy.array([[-2]]))),
            (IndexError, "32 bits", lambda: table.predict_many(numpy.array([[1 << 40]]))),
            (TypeError, r"the shape \(3,\)", lambda: table.predict_many(numpy.array([1, 2, 3]))),
            (latlas.NetworkError, r"networks\[1\]: it has no op", lambda: table.predict_many(numpy.array([[1], [-1]]))),
            (latlas.NetworkError, "it has no op", lambda: table.predict_many(numpy.zeros((2, 0), dtype=numpy.int32))),
        ]
        for kind, text, call in cases:
            with self.subTest(text), self.assertRaisesRegex(kind, text):
                call()
        self.assertEqual(len(table.predict_many(numpy.zeros((0, 4), dtype=numpy.int32)).ms), 0)
        self.assertEqual(len(table.predict_many(numpy.zeros((0, 0), dtype=numpy.int32)).ms), 0)

    def test_arrays_of_keys_are_lists_of_keys(self) -> None:
        array = numpy.array([self.keys[0]])
        wanted = self.table.predict_many([self.keys[0]])
        self.assertEqual(self.table.predict_many(array).ms.tolist(), wanted.ms.tolist())
