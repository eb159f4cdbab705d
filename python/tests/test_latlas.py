"""The package, as its users meet it. The environment variable LATLAS names the program `latlas` to compare with."""

from __future__ import annotations

import copy
import doctest
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import unittest
import unittest.mock
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import latlas

HERE = Path(__file__).parent
TABLE = HERE / "table.json"
PROGRAM = os.environ.get("LATLAS")
os.environ.pop("LATLAS_TOKEN", None)
os.environ.pop("LATLAS_COORDINATOR", None)


def layers(*names: str, size: int = 28) -> dict[str, Any]:
    """A sequence of ops with 32 channels."""
    return {
        "input": {"n": 1, "c": 32, "h": size, "w": size},
        "layers": [{"op": name, "c_out": 32, "stride": 1} for name in names],
    }


class Tables(unittest.TestCase):
    def setUp(self) -> None:
        self.table = latlas.Table.load(TABLE)

    def test_a_table_is_a_mapping(self) -> None:
        self.assertEqual(len(self.table), len(list(self.table)))
        self.assertEqual(self.table.keys(), list(self.table))
        for key, row in self.table.items():
            self.assertEqual(row.key, key)
            self.assertEqual(self.table[key].to_dict(), row.to_dict())
            self.assertIn(key, self.table)
        self.assertIsNone(self.table.get("Conv3x3:n1-h1-w1-i1-o1-s1"))
        self.assertEqual(self.table.get("nonsense", 7), 7)
        self.assertNotIn("nonsense", self.table)

    def test_it_is_what_the_file_says(self) -> None:
        written = json.loads(TABLE.read_text())
        self.assertEqual(self.table.to_dict(), written)
        self.assertEqual(self.table.run_config, written["run_config"])
        self.assertEqual(self.table.hardware_id, written["hardware_id"])
        self.assertEqual(self.table.version, written["version"])
        for row, columns in zip(self.table.values(), written["rows"], strict=True):
            self.assertEqual(row.latency_us, columns["latency_micros"])
            self.assertEqual(row.latency_ms, columns["latency_micros"] / 1000)
            self.assertEqual(row.status, columns["status"])
            assert row.interval_us is not None and row.latency_us is not None
            self.assertLess(row.interval_us[0], row.latency_us)
            self.assertLess(row.latency_us, row.interval_us[1])

    @unittest.skipUnless(importlib.util.find_spec("pandas"), "pandas is not installed")
    def test_a_frame_of_pandas(self) -> None:
        frame = self.table.to_pandas()
        self.assertEqual(frame["key"].tolist(), self.table.keys())
        self.assertEqual(frame["latency_micros"].tolist(), [row.latency_us for row in self.table.values()])
        self.assertEqual(str(frame["energy_mj"].dtype), "float64")

    @unittest.skipUnless(importlib.util.find_spec("polars"), "polars is not installed")
    def test_a_frame_of_polars(self) -> None:
        frame = self.table.to_polars()
        self.assertEqual(frame["key"].to_list(), self.table.keys())
        self.assertEqual(frame["latency_micros"].to_list(), [row.latency_us for row in self.table.values()])
        self.assertEqual(frame["energy_mj"].null_count(), len(self.table))

    @unittest.skipUnless(importlib.util.find_spec("pyarrow"), "pyarrow is not installed")
    def test_libraries_share_the_memory_of_its_columns(self) -> None:
        import pyarrow

        first, second = pyarrow.table(self.table), pyarrow.table(self.table)
        self.assertEqual(first["key"].to_pylist(), self.table.keys())
        self.assertEqual(first["latency_micros"].to_pylist(), [row.latency_us for row in self.table.values()])
        self.assertEqual(first["channels_in"].to_pylist(), [row.channels_in for row in self.table.values()])
        self.assertEqual(first["energy_mj"].null_count, len(self.table))
        for name in first.column_names:
            places = [[b and b.address for b in table[name].chunk(0).buffers()] for table in (first, second)]
            self.assertEqual(places[0], places[1], name)
        # What was handed over outlives the table.
        keys = self.table.keys()
        del self.table, second
        self.assertEqual(first["key"].to_pylist(), keys)
        empty = latlas.Table.from_json(json.dumps({**json.loads(TABLE.read_text()), "rows": []}))
        self.assertEqual(pyarrow.table(empty).schema, first.schema)

    def test_it_can_be_copied_and_sent_to_another_process(self) -> None:
        network = latlas.Network.builtin("demo_conv")
        for table, net in (copy.deepcopy((self.table, network)), pickle.loads(pickle.dumps((self.table, network)))):
            self.assertEqual(net, network)
            self.assertEqual(table.predict(net).ms, self.table.predict(network).ms)

    def test_a_missing_row_is_a_key_error_with_a_plain_text(self) -> None:
        for key, text in {
            "Conv3x3:n1-h1-w1-i1-o1-s1": "Conv3x3:n1-h1-w1-i1-o1-s1: not measured",
            "Conv3x3": "op key `Conv3x3`: there is no `:` after the op; a key looks like",
            "Conv3x4:n1-h1-w1-i1-o1-s1": "op Conv3x4: there is no such op; the closest names are",
        }.items():
            with self.assertRaises(KeyError) as caught:
                self.table[key]
            self.assertIsInstance(caught.exception, latlas.UnknownKey)
            self.assertTrue(str(caught.exception).startswith(text), str(caught.exception))


class Networks(unittest.TestCase):
    def test_every_builtin_network_comes_back_as_it_was(self) -> None:
        for name in latlas.Network.builtin_names():
            network = latlas.Network.builtin(name)
            again = latlas.Network.from_dict(network.to_dict())
            self.assertEqual((again, again.keys(), again.name), (network, network.keys(), name))
            self.assertEqual(hash(again), hash(network))

    def test_costs_add_up(self) -> None:
        cost = latlas.Network.builtin("resnet18").cost()
        self.assertEqual(cost.flops, sum(op.flops for op in cost.ops))
        self.assertEqual(cost.params, sum(op.params for op in cost.ops))
        self.assertEqual(cost.weight_bytes(), 2 * cost.weight_bytes("bf16"))
        self.assertEqual(cost.peak_memory_bytes(), cost.weight_bytes() + cost.peak_activation_bytes())

    def test_integers_may_be_those_of_numpy(self) -> None:
        import numpy

        network = layers("Conv3x3")
        network["layers"][0]["c_out"] = numpy.int64(32)
        self.assertEqual(latlas.Network.from_dict(network), latlas.Network.from_dict(layers("Conv3x3")))

    def test_a_model_is_a_network(self) -> None:
        data = HERE.parent.parent / "import" / "tests" / "data"
        onnx = latlas.Network.from_onnx(data / "cnn.17.onnx")
        archive = latlas.Network.from_onnx(data / "cnn.pt2", name="cnn.17")
        self.assertEqual(onnx.name, "cnn.17")
        self.assertEqual(onnx.keys(), archive.keys())
        self.assertEqual(onnx.cost().params, archive.cost().params)
        self.assertGreater(onnx.cost().params, 0)
        with self.assertRaisesRegex(latlas.NetworkError, "call model.eval"):
            latlas.Network.from_onnx(data / "cnn.train.pt2")
        with self.assertRaisesRegex(latlas.NetworkError, "give a number for each dimension"):
            latlas.Network.from_onnx(data / "cnn.dynamic.onnx")
        fixed = latlas.Network.from_onnx(data / "cnn.dynamic.onnx", input=[1, 3, 32, 32])
        self.assertGreater(fixed.cost().flops, 0)

    def test_files(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "nets.json"
            line = json.dumps(layers("Conv3x3"))
            path.write_text(line)
            self.assertEqual(latlas.Network.from_file(path).to_dict(), layers("Conv3x3"))
            path.write_text(f"{line}\n{line}\n")
            self.assertEqual(len(latlas.Network.all_from_file(str(path))), 2)
            with self.assertRaisesRegex(latlas.NetworkError, "it has 2 networks"):
                latlas.Network.from_file(path)
            path.write_text(f'{line}\n{{"layers": 7}}\n')
            with self.assertRaisesRegex(latlas.NetworkError, "nets.json: line 2, "):
                latlas.Network.all_from_file(path)


class Predictions(unittest.TestCase):
    def setUp(self) -> None:
        self.table = latlas.Table.load(TABLE)
        self.nets = [latlas.Network.builtin(name) for name in ("demo_mobile", "demo_conv")]

    def test_many_are_as_one_by_one(self) -> None:
        single = [self.table.predict(net) for net in self.nets]
        for threads in (None, 1, 3):
            many = self.table.predict_many(self.nets * 5, threads=threads)
            self.assertEqual(many.ms.tolist(), [p.ms for p in single] * 5)
            self.assertEqual(many.low.tolist(), [p.low for p in single] * 5)
            self.assertEqual(many.high.tolist(), [p.high for p in single] * 5)

    def test_lists_of_keys_get_the_same_numbers(self) -> None:
        ms, low, high = self.table.predict_many([net.keys() for net in self.nets])
        for place, net in enumerate(self.nets):
            p = self.table.predict(net)
            self.assertAlmostEqual(ms[place] / p.ms, 1, delta=1e-12)
            self.assertAlmostEqual(low[place] / p.low, 1, delta=1e-12)
            self.assertAlmostEqual(high[place] / p.high, 1, delta=1e-12)

    def test_keys_may_be_any_objects(self) -> None:
        keys = self.nets[0].keys()
        alike = (tuple(keys), list(keys), iter(keys), (f"{key[:3]}{key[3:]}" for key in keys))
        ms = self.table.predict_many(alike).ms.tolist()
        self.assertEqual(ms, [ms[0]] * 4)
        # More objects than are remembered, of which none lives long.
        def networks() -> Iterator[list[str]]:
            for _ in range(7000):
                yield [f"{key[:3]}{key[3:]}" for key in keys]

        self.assertEqual(set(self.table.predict_many(networks()).ms.tolist()), {ms[0]})

    def test_none_is_an_empty_array(self) -> None:
        self.assertEqual([len(column) for column in self.table.predict_many([])], [0, 0, 0])

    def test_missing_rows_are_listed_once(self) -> None:
        net = layers("Conv1x1", "Conv5x5", "Conv1x1", size=27)
        missing = ["Conv1x1:n1-h27-w27-i32-o32-s1", "Conv5x5:n1-h27-w27-i32-o32-s1"]
        network = latlas.Network.from_dict(net)
        for predict in (
            lambda: self.table.predict(net),
            lambda: self.table.predict_many([network, network]),
            lambda: self.table.predict_many([network.keys(), network.keys()]),
        ):
            with self.assertRaises(latlas.MissingRows) as caught:
                predict()
            self.assertEqual(caught.exception.keys, missing)
            self.assertEqual(set(caught.exception.why.values()), {"not measured"})
            self.assertIn("missing from the table:\n  Conv", str(caught.exception))
            again = pickle.loads(pickle.dumps(caught.exception))
            self.assertEqual((again.keys, str(again)), (missing, str(caught.exception)))
        many = self.table.predict_many([network, self.nets[0], network.keys()], missing="nan")
        self.assertEqual([number == number for number in many.ms], [False, True, False])

    def test_a_prediction_says_what_it_rests_on(self) -> None:
        p = self.table.predict(self.nets[0], missing="interpolate")
        self.assertEqual((p.missing, p.measured_share), ([], 1.0))
        p = self.table.predict(layers("Conv3x3_ReLU", "Conv3x3_ReLU", size=20), missing="interpolate")
        self.assertEqual((p.missing, str(p.measured_share)), (["Conv3x3_ReLU:n1-h20-w20-i32-o32-s1"], "0.0"))
        self.assertEqual([op.origin for op in p.ops], ["interpolated"] * 2)

    def test_a_search_uses_several_threads(self) -> None:
        keys = [net.keys() for net in self.nets]
        wanted = self.table.predict_many(keys).ms.tolist()
        got: list[list[float]] = []
        threads = [
            threading.Thread(target=lambda: got.append(self.table.predict_many(keys).ms.tolist())) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(got, [wanted] * 8)

    def test_numpy_is_imported_when_it_is_needed(self) -> None:
        code = f"import sys, latlas; latlas.Table.load({str(TABLE)!r}); assert 'numpy' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)


@unittest.skipUnless(PROGRAM, "LATLAS does not name the program latlas")
class LikeTheProgram(unittest.TestCase):
    """Numbers and texts are those of the program."""

    def setUp(self) -> None:
        self.table = latlas.Table.load(TABLE)

    def run_program(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(PROGRAM), *arguments], input=stdin, capture_output=True, text=True, check=False)

    def test_predictions(self) -> None:
        nets: list[dict[str, Any]] = [latlas.Network.builtin(n).to_dict() for n in ("demo_mobile", "demo_conv")]
        rows = [row for row in self.table.values() if row.channels_in == 32 and row.stride == 1]
        nets += [layers(a.op_type, b.op_type) for a in rows for b in rows]
        for missing in ("error", "interpolate"):
            lines = "\n".join(json.dumps(net) for net in nets)
            ran = self.run_program(
                "predict", "--table", str(TABLE), "--arch", "-", "--json", "--missing", missing, stdin=lines
            )
            said = [json.loads(line) for line in ran.stdout.splitlines()]
            self.assertEqual(len(said), len(nets))
            predicted = 0
            for net, line in zip(nets, said, strict=True):
                try:
                    p = self.table.predict(net, missing=missing)
                except latlas.MissingRows as error:
                    self.assertEqual(error.why, {op["key"]: op["why"] for op in line["missing"]})
                    continue
                except latlas.NetworkError as error:
                    self.assertEqual(str(error), line["invalid"])
                    continue
                predicted += 1
                wanted = {name: value for name, value in line.items() if name not in ("line", "id")}
                self.assertEqual(p.to_dict(), wanted)
                self.assertEqual(p.ms, line["latency_micros"] / 1000)
                self.assertEqual(p.low, line["low_micros"] / 1000)
                self.assertEqual(p.high, line["high_micros"] / 1000)
                self.assertEqual(p.measured_share, line["measured_share"])
                for op, told in zip(p.ops, line["ops"], strict=True):
                    self.assertEqual(
                        (op.key, op.where, op.ms, op.origin),
                        (told["key"], told["place"], told["latency_micros"] / 1000, told["origin"]),
                    )
            self.assertGreater(predicted, 2)

    def test_costs(self) -> None:
        for name in latlas.Network.builtin_names():
            ran = self.run_program("networks", "cost", "--network", name, "--dtype", "f16", "--json")
            self.assertEqual(latlas.Network.builtin(name).cost().to_dict("f16"), json.loads(ran.stdout))

    def test_hashes(self) -> None:
        nets = [latlas.Network.builtin(name).to_dict() for name in latlas.Network.builtin_names()]
        nets += [layers("Conv3x3", "Identity"), layers("Conv3x3"), layers("Conv3x4")]
        ran = self.run_program("arch", "hash", "--arch", "-", stdin="\n".join(json.dumps(net) for net in nets))
        said = [json.loads(line) for line in ran.stdout.splitlines()]
        for net, line in zip(nets[:-1], said[:-1], strict=True):
            hashes = latlas.arch_hash(net)
            told = (line["topology"], line["shaped"], line["computation"], line["exact"])
            self.assertEqual((hashes.topology, hashes.shaped, hashes.computation, hashes.exact), told)
            self.assertEqual(hashes, latlas.arch_hash(latlas.Network.from_dict(net)))
        spliced, plain = map(latlas.arch_hash, nets[-3:-1])
        self.assertEqual(spliced.computation, plain.computation)
        self.assertNotEqual((spliced, hash(spliced)), (plain, hash(plain)))
        with self.assertRaises(latlas.NetworkError) as failed:
            latlas.arch_hash(nets[-1])
        self.assertEqual(str(failed.exception), said[-1]["invalid"])

    def test_errors(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.json"
            for content in (None, "", "{}", "[1", "\x00\x01", '{"schema": 99}', TABLE.read_text()[:5000]):
                if content is not None:
                    path.write_text(content)
                ran = self.run_program("predict", "--table", str(path), "--network", "demo_conv")
                with self.assertRaises(latlas.Error) as caught:
                    latlas.Table.load(path)
                self.assertEqual(f"error: {caught.exception}\n", ran.stderr)
                self.assertIsInstance(caught.exception, latlas.FileError if content is None else latlas.TableError)
            for net in (
                {},
                {"layers": 7},
                {**layers("Conv3x3"), "layer": 1},
                layers("Conv3x4"),
                {"input": {"n": 1, "c": 3, "h": 2, "w": 2}, "layers": [{"op": "Conv3x3", "c_out": 8, "stride": 0}]},
                {"input": {"n": 1, "c": 3, "h": 2, "w": 2}, "layers": [{"op": "Add", "c_out": 8, "stride": 1}]},
            ):
                path.write_text(json.dumps(net))
                ran = self.run_program("networks", "cost", "--arch", str(path))
                with self.assertRaises(latlas.NetworkError) as failed:
                    latlas.Network.from_file(path).cost()
                self.assertTrue(ran.stderr.endswith(f" {failed.exception}\n"), (failed.exception, ran.stderr))


class BadArguments(unittest.TestCase):
    def test_each_has_an_exception_that_says_why(self) -> None:
        table = latlas.Table.load(TABLE)
        network = latlas.Network.builtin("demo_conv")
        cases: list[tuple[type[Exception], str, Any]] = [
            (latlas.UsageError, "missing: `x` is not known", lambda: table.predict(network, missing="x")),  # type: ignore[arg-type]
            (latlas.UsageError, "dtype: `f64` is not known", lambda: network.cost().weight_bytes("f64")),  # type: ignore[arg-type]
            (latlas.UsageError, "threads: ", lambda: table.predict_many([], threads=0)),
            (TypeError, "a network is a latlas.Network or a dict", lambda: table.predict(7)),  # type: ignore[arg-type]
            (TypeError, r"networks\[0\]: a network is", lambda: table.predict_many(["Conv3x3"])),
            (TypeError, r"networks\[0\]: a network is", lambda: table.predict_many([7])),  # type: ignore[list-item]
            (TypeError, r"networks\[1\]: a network is", lambda: table.predict_many([network, [7]])),  # type: ignore[list-item]
            (latlas.NetworkError, r"networks\[1\]: it has no", lambda: table.predict_many([network, []])),
            (latlas.UnknownKey, "op key `x`", lambda: table.predict_many([["x"]])),
            (latlas.UnknownKey, "op X: there is no such op", lambda: table.predict_many([["X:n1-h1-w1-i1-o1-s1"]])),
            (latlas.NetworkError, "there is no network|no such network|there is no such", lambda: latlas.Network.builtin("x")),
            (latlas.NetworkError, "`quick` is a space", lambda: latlas.Network.builtin("quick")),
            (latlas.FileError, "there is no such file", lambda: latlas.Network.from_file("/nowhere/x.json")),
            (OSError, "it is a directory", lambda: latlas.Table.load("/")),
            (latlas.UsageError, "is not the address of a coordinator", lambda: latlas.Client("farm")),
            (latlas.Error, "", lambda: latlas.Client("http://127.0.0.1:9").table("A B")),
            (latlas.UsageError, "a version is", lambda: latlas.Client("http://127.0.0.1:9").table("a", version="../x")),
            (latlas.CoordinatorError, "does not answer", lambda: latlas.Client("http://127.0.0.1:9").hardware()),
            (latlas.CoordinatorError, "does not answer", lambda: latlas.Table.load("http://127.0.0.1:9/v1/tables/x")),
            (latlas.CoordinatorError, "token", lambda: latlas.Client("http://127.0.0.1:9", token="a b").hardware()),
            (latlas.NetworkError, "", lambda: latlas.Network.from_dict({"layers": [float("nan")]})),
        ]
        for kind, text, call in cases:
            with self.subTest(text), self.assertRaisesRegex(kind, text):
                call()

    def test_a_surrogate_is_no_panic(self) -> None:
        table = latlas.Table.load(TABLE)
        for call in (
            lambda: table["\ud800"],
            lambda: table.predict_many([["\ud800"]]),
            lambda: latlas.Network.builtin("\ud800"),
            lambda: latlas.Network.from_dict({"name": "\ud800"}),
            lambda: latlas.Table.load("\ud800"),
        ):
            with self.assertRaises(Exception) as caught:
                call()
            self.assertNotEqual(type(caught.exception).__name__, "PanicException")


class Coordinator(BaseHTTPRequestHandler):
    """A coordinator that knows one table."""

    def do_GET(self) -> None:
        token = self.headers.get("Authorization")
        if self.path == "/v1/hardware":
            page = {"items": [{"hardware_id": "a.cpu", "agents": 2, "configs": ["f32"]}], "next_cursor": None}
            self.answer(200, json.dumps(page))
        elif self.path.startswith("/v1/tables/stale.cpu"):
            self.answer(200, TABLE.read_text(), {"latlas-stale": "disk-full"})
        elif self.path in ("/v1/tables/a.cpu?config=f32&format=json", "/v1/tables/a.cpu", "/files/table.json"):
            self.answer(200, TABLE.read_text() if token == "Bearer secret" else "no table")
        else:
            self.answer(404, json.dumps({"type": "x", "title": "Not found", "status": 404, "detail": "no such table"}))

    def answer(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Clients(unittest.TestCase):
    def setUp(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Coordinator)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def tearDown(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def test_hardware(self) -> None:
        (entry,) = latlas.Client(self.url).hardware()
        self.assertEqual((entry.hardware_id, entry.agents, entry.configs), ("a.cpu", 2, ["f32"]))

    def test_tables(self) -> None:
        version = latlas.Table.load(TABLE).version
        client = latlas.Client(self.url, token="secret")
        self.assertEqual(client.table("a.cpu", config="f32").version, version)
        for path in ("v1/tables/a.cpu", "files/table.json"):
            self.assertEqual(latlas.Table.load(f"{self.url}/{path}", token="secret").version, version)
        with self.assertRaisesRegex(latlas.TableError, "files/table.json: this is not a latency table"):
            latlas.Table.load(f"{self.url}/files/table.json")

    def test_only_the_own_coordinator_gets_the_token_of_the_environment(self) -> None:
        address = f"{self.url}/v1/tables/a.cpu"
        with unittest.mock.patch.dict(os.environ, {"LATLAS_TOKEN": "secret"}):
            self.assertEqual(len(latlas.Client(self.url).table("a.cpu", config="f32")), 39)
            with self.assertRaises(latlas.TableError):
                latlas.Table.load(address)
            with unittest.mock.patch.dict(os.environ, {"LATLAS_COORDINATOR": f"{self.url}/"}):
                self.assertEqual(len(latlas.Table.load(address)), 39)

    def test_a_stale_table_comes_with_a_warning(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            latlas.Client(self.url).table("stale.cpu")
        self.assertEqual([warning.category for warning in caught], [latlas.StaleTable])
        self.assertIn("(disk-full)", str(caught[0].message))

    def test_a_refusal_has_its_status(self) -> None:
        with self.assertRaisesRegex(latlas.CoordinatorError, "the coordinator refused: no such table") as caught:
            latlas.Client(self.url).table("b.cpu")
        assert isinstance(caught.exception, latlas.CoordinatorError)
        self.assertEqual(caught.exception.status, 404)


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None) -> unittest.TestSuite:
    """The examples in the package and in its page are tests too; they run beside the table."""
    here = os.getcwd()

    def enter(_: doctest.DocTest) -> None:
        os.chdir(HERE)

    def leave(_: doctest.DocTest) -> None:
        os.chdir(here)

    tests.addTests(doctest.DocTestSuite(latlas, setUp=enter, tearDown=leave))
    page = HERE.parent.parent / "docs" / "python.md"
    tests.addTests(doctest.DocFileSuite(str(page), module_relative=False, setUp=enter, tearDown=leave))
    return tests
