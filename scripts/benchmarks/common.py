"""What the benchmarks share: Latlas' programs, PyTorch's own benchmark as the reference, figures."""

import json
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import torch.utils.benchmark as benchmark

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = ROOT / "target/release"
SIXTY = ROOT / "scripts/benchmarks/sixty.yaml"


def run(*command):
    """Standard output of one of Latlas' programs."""
    done = subprocess.run([BIN / command[0], *command[1:]], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}")
    return done.stdout


def measure(*arguments):
    """`latlas-agent bench`: measurements by op key, and the seconds it took."""
    start = time.monotonic()
    lines = run("latlas-agent", "bench", *arguments).splitlines()
    seconds = time.monotonic() - start
    measurements = {}
    for line in lines:
        measurement = json.loads(line)
        key = measurement["subject"]["op"]["key"]
        if measurement["latency"] is None:
            sys.exit(f"{key} could not be measured: {measurement['reason']}")
        measurements[key] = measurement
    return measurements, seconds


def point(measurement):
    """The point of the curve that the row reports."""
    reference = measurement["run_config"]["reuse_distance_bytes"]
    (found,) = [
        point
        for point in measurement["latency"]["curve"]
        if point["reuse_distance_bytes"] == reference
    ]
    return found


class Reference(torch.nn.Module):
    """An op of the catalog as PyTorch runs it, from the same definition that the agent lowers."""

    definitions = {}

    def __init__(self, key):
        super().__init__()
        self.op, sizes = key.split(":")
        n, h, w, c_in, c_out, stride = (int(part[1:]) for part in sizes.split("-"))
        self.variables = {"c_in": c_in, "c_out": c_out, "stride": stride}
        self.keeps_shape = stride == 1 and c_in == c_out
        if self.op not in self.definitions:
            shown = json.loads(run("latlas", "ops", "show", self.op, "--json"))
            self.definitions[self.op] = shown["definition"]
        self.input = torch.randn(n, c_in, h, w)
        self.steps = []
        shapes = {"input": self.input}
        previous = "input"
        for index, node in enumerate(self.definitions[self.op]["nodes"]):
            name = node.get("id", str(index))
            inputs = node.get("inputs", [previous])
            holds = {
                None: True,
                "keeps_shape": self.keeps_shape,
                "changes_shape": not self.keeps_shape,
            }[node.get("when")]
            apply = node["apply"] if holds else "identity"
            kind, sizes = (apply, {}) if isinstance(apply, str) else next(iter(apply.items()))
            values = [shapes[i] for i in inputs]
            function = self.function(kind, sizes, values[0])
            shapes[name] = function(*values)
            self.steps.append((name, function, inputs))
            previous = name
        self.eval()

    def size(self, sizes, name, default=None):
        value = sizes.get(name, default)
        if isinstance(value, int):
            return value
        factor, _, rest = value.rpartition("*")
        variable, _, divisor = rest.partition("/")
        result = float(factor or 1) * self.variables[variable] / int(divisor or 1)
        return round(result)

    def module(self, name, module):
        self.add_module(f"{name}{len(self.steps)}", module)
        return module

    def function(self, kind, sizes, x):
        channels = x.shape[1]
        if kind == "conv2d":
            kernel = self.size(sizes, "kernel")
            return self.module(
                kind,
                torch.nn.Conv2d(
                    channels,
                    self.size(sizes, "out"),
                    kernel,
                    self.size(sizes, "stride", 1),
                    sizes.get("padding", (kernel - 1) // 2),
                    groups=self.size(sizes, "groups", 1),
                ),
            )
        if kind in ("max_pool", "avg_pool"):
            pool = torch.nn.MaxPool2d if kind == "max_pool" else torch.nn.AvgPool2d
            kernel = self.size(sizes, "kernel")
            padding = sizes.get("padding", (kernel - 1) // 2)
            return self.module(kind, pool(kernel, self.size(sizes, "stride"), padding))
        if kind == "global_avg_pool":
            return self.module(kind, torch.nn.AdaptiveAvgPool2d(1))
        if kind == "linear":
            layer = self.module(kind, torch.nn.Linear(channels, self.size(sizes, "out")))
            return lambda x: layer(x.flatten(1))[:, :, None, None]
        if kind == "self_attention":
            return self.attention(channels, self.size(sizes, "heads"))
        simple = {
            "relu": lambda x: F.relu(x, inplace=True),
            "relu6": lambda x: F.relu6(x, inplace=True),
            "add": torch.add,
            "identity": lambda x: x,
        }
        return simple[kind]

    def attention(self, channels, heads):
        project = self.module("qkv", torch.nn.Linear(channels, 3 * channels))
        out = self.module("out", torch.nn.Linear(channels, channels))

        def attend(x):
            tokens = x.flatten(2).transpose(1, 2)
            n, l, c = tokens.shape
            q, k, v = project(tokens).view(n, l, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v)
            result = out(mixed.transpose(1, 2).reshape(n, l, c))
            return result.transpose(1, 2).reshape(x.shape)

        return attend

    def forward(self, x):
        values = {"input": x}
        for name, function, inputs in self.steps:
            values[name] = function(*(values[i] for i in inputs))
        return values[name]


def autorange(key):
    """`blocked_autorange` with its defaults, and the seconds it took with all preparation."""
    start = time.monotonic()
    with torch.inference_mode():
        module = Reference(key)
        timer = benchmark.Timer("module(x)", globals={"module": module, "x": module.input})
        measurement = timer.blocked_autorange()
    return measurement.median * 1e6, time.monotonic() - start


def autorange_all(keys):
    """The same for many keys: microseconds by key, and the seconds it took."""
    values = {}
    total = 0.0
    for key in keys:
        values[key], seconds = autorange(key)
        total += seconds
    return values, total


def quantile(values, q):
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median(values):
    return quantile(values, 0.5)


class Figures:
    """Collects figures and prints them at the end."""

    def __init__(self):
        self.lines = []
        self.short = False

    def at_most(self, name, value, bar, unit=""):
        self.add(name, value, f"<={bar:g}{unit}", value <= bar, unit)

    def at_least(self, name, value, bar, unit=""):
        self.add(name, value, f">={bar:g}{unit}", value >= bar, unit)

    def add(self, name, value, bar, holds, unit):
        self.short |= not holds
        self.lines.append(f"figure {name} {value:.4g}{unit} {bar} {'ok' if holds else 'short'}")

    def finish(self):
        print()
        for line in self.lines:
            print(line)
        sys.exit(1 if self.short else 0)
