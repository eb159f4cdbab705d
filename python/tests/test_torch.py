"""What needs PyTorch: the latencies of a supernet, and the example of a differentiable search."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import latlas

HERE = Path(__file__).parent
TABLE = HERE / "table.json"
EXAMPLE = HERE.parent.parent / "examples" / "differentiable_search.py"

INPUT = (1, 32, 28, 28)
NAMES = ["MBConv3_3x3", "MBConv6_3x3", "Conv3x3"]


def layer(name: str, c_out: int = 32, stride: int = 1) -> dict[str, Any]:
    return {"op": name, "c_out": c_out, "stride": stride}


CHOICES: list[list[dict[str, Any] | None]] = [
    [layer(name) for name in NAMES],
    [layer("Conv1x1"), None],
    [layer("Conv3x3", 64, 2)],
]


@unittest.skipUnless(importlib.util.find_spec("torch"), "torch is not installed")
class Models(unittest.TestCase):
    def model(self) -> Any:
        import torch

        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(16, 10),
        )

    def test_a_model_is_a_network_of_the_catalog(self) -> None:
        import torch

        network = latlas.Network.from_torch(self.model().eval(), (torch.randn(1, 3, 32, 32),))
        self.assertEqual(network.name, "Sequential")
        self.assertEqual(
            network.keys(),
            [
                "Conv3x3_ReLU:n1-h32-w32-i3-o16-s2",
                "GlobalAvgPool:n1-h16-w16-i16-o16-s1",
                "Linear:n1-h1-w1-i16-o10-s1",
            ],
        )

    def test_a_model_in_train_mode_is_refused(self) -> None:
        import torch

        with self.assertRaisesRegex(latlas.NetworkError, "call model.eval"):
            latlas.Network.from_torch(self.model(), torch.randn(1, 3, 32, 32))


@unittest.skipUnless(importlib.util.find_spec("torch"), "torch is not installed")
class LatencyTensors(unittest.TestCase):
    def setUp(self) -> None:
        self.table = latlas.Table.load(TABLE)

    def networks(self) -> list[tuple[tuple[int, ...], latlas.Network]]:
        """Each network of the supernet, with its choices."""
        every = []
        for places in itertools.product(*(range(len(choices)) for choices in CHOICES)):
            chosen = [choices[place] for choices, place in zip(CHOICES, places, strict=True)]
            network = {
                "input": dict(zip("nchw", INPUT, strict=True)),
                "layers": [choice for choice in chosen if choice is not None],
            }
            every.append((places, latlas.Network.from_dict(network)))
        return every

    def test_the_choices_of_a_network_add_up_to_its_prediction(self) -> None:
        for places, network in self.networks():
            weight_bytes = network.cost().weight_bytes()
            ms, _ = self.table.latency_tensor(CHOICES, input=INPUT, weight_bytes=weight_bytes)
            total = sum(ms[layer, place].item() for layer, place in enumerate(places))
            self.assertAlmostEqual(total / self.table.predict(network).ms, 1, delta=1e-6)

    def test_without_the_bytes_of_a_network_they_are_close(self) -> None:
        ms, _ = self.table.latency_tensor(CHOICES, input=INPUT)
        for places, network in self.networks():
            total = sum(ms[layer, place].item() for layer, place in enumerate(places))
            self.assertAlmostEqual(total / self.table.predict(network).ms, 1, delta=0.02)

    def test_padding_is_masked_nan(self) -> None:
        import torch

        latencies = self.table.latency_tensor(CHOICES, input=INPUT)
        self.assertEqual((latencies.ms.dtype, latencies.ms.shape), (torch.float32, (3, 3)))
        mask = [[True, True, True], [True, True, False], [True, False, False]]
        self.assertEqual(latencies.mask.tolist(), mask)
        self.assertEqual((~latencies.ms.isnan()).tolist(), mask)
        self.assertEqual(latencies.ms[1, 1].item(), 0.0)
        self.assertFalse(latencies.ms.requires_grad)

    def test_an_expected_latency_has_gradients(self) -> None:
        import torch

        ms, mask = self.table.latency_tensor(CHOICES, input=INPUT)
        alpha = torch.zeros(ms.shape, requires_grad=True)
        probability = alpha.masked_fill(~mask, -torch.inf).softmax(-1)
        expected = (probability * ms.nan_to_num()).sum()
        torch.autograd.backward(expected)
        mean = sum(row[real].mean().item() for row, real in zip(ms, mask, strict=True))
        self.assertAlmostEqual(expected.item(), mean, places=5)
        assert alpha.grad is not None
        # A step against the gradient prefers the fastest op of the first layer.
        self.assertEqual(alpha.grad[0].argmin().item(), ms[0].argmin().item())
        self.assertTrue(torch.isfinite(alpha.grad).all())

    def test_op_keys_are_choices_too(self) -> None:
        shape = "n1-h28-w28-i32-o32-s1"
        keys: list[list[str | None]] = [[f"{name}:{shape}" for name in NAMES], [f"Conv1x1:{shape}", None]]
        by_key = self.table.latency_tensor(keys, weight_bytes=1e6).ms
        by_layer = self.table.latency_tensor(CHOICES[:2], input=INPUT, weight_bytes=1e6).ms
        with_input = self.table.latency_tensor(keys, input=INPUT, weight_bytes=1e6).ms
        for other in (by_layer, with_input):
            self.assertEqual(by_key.nan_to_num(-1).tolist(), other.nan_to_num(-1).tolist())

    def test_missing_rows_are_listed_or_estimated(self) -> None:
        choices = [[layer("Conv3x3", 40), layer("Conv1x1", 40)], [layer("Conv3x3", 32)]]
        with self.assertRaises(latlas.MissingRows) as caught:
            self.table.latency_tensor(choices, input=INPUT)
        self.assertEqual(len(caught.exception.keys), 3)
        estimated = [[layer("Conv3x3_ReLU")], [layer("Conv3x3_ReLU")]]
        network = {"input": {"n": 1, "c": 32, "h": 20, "w": 20}, "layers": [row[0] for row in estimated]}
        wanted = self.table.predict(network, missing="interpolate")
        weight_bytes = latlas.Network.from_dict(network).cost().weight_bytes()
        ms, _ = self.table.latency_tensor(
            estimated, input=(1, 32, 20, 20), weight_bytes=weight_bytes, missing="interpolate"
        )
        self.assertAlmostEqual(ms.sum().item() / wanted.ms, 1, delta=1e-6)

    def test_mistakes_have_a_place(self) -> None:
        table = self.table
        empty: list[list[Any]] = [[layer("Conv3x3")], []]
        unknown = [["X:n1-h1-w1-i1-o1-s1"]]
        cases: list[tuple[type[Exception], str, Any]] = [
            (latlas.NetworkError, "there is no layer", lambda: table.latency_tensor([])),
            (latlas.NetworkError, r"choices\[1\]: it is empty", lambda: table.latency_tensor(empty, INPUT)),
            (latlas.NetworkError, r"choices\[0\]\[0\]: .* give `input`", lambda: table.latency_tensor(CHOICES)),
            (
                latlas.NetworkError,
                r"choices\[0\]\[1\]: its output is .* and that of choices\[0\]\[0\] is",
                lambda: table.latency_tensor([[layer("Conv3x3"), layer("Conv3x3", 64, 2)]], INPUT),
            ),
            (
                latlas.NetworkError,
                r"choices\[0\]\[0\]: .* does not fit: after these layers it is Conv3x3:n1-h28",
                lambda: table.latency_tensor([["Conv3x3:n1-h14-w14-i32-o32-s1"]], INPUT),
            ),
            (latlas.NetworkError, r"choices\[0\]\[0\], op X: ", lambda: table.latency_tensor(unknown)),
            (TypeError, r"choices\[0\]\[0\]: a choice is", lambda: table.latency_tensor([[7]])),  # type: ignore[list-item]
            (latlas.UsageError, "weight_bytes", lambda: table.latency_tensor(CHOICES, INPUT, -1)),
        ]
        for kind, text, call in cases:
            with self.subTest(text), self.assertRaisesRegex(kind, text):
                call()

    @unittest.skipUnless(importlib.util.find_spec("numpy"), "numpy is not installed")
    def test_the_example_finds_a_network(self) -> None:
        ran = subprocess.run(
            [sys.executable, str(EXAMPLE), "--steps", "2"], capture_output=True, text=True, check=True
        )
        for line in ("chosen    ", "fastest   ", "slowest   ", "random    "):
            self.assertIn(f"\n{line}", ran.stdout)


class WithoutTorch(unittest.TestCase):
    def test_torch_is_imported_when_it_is_needed(self) -> None:
        code = f"import sys, latlas; latlas.Table.load({str(TABLE)!r}); assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)
