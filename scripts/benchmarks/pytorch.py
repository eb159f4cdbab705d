"""PyTorch's own benchmark, of the same ops: the reference of the benchmarks of measuring."""

import json
import time
import warnings

# Nothing here needs numpy, and torch would warn that it is missing.
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
import torch  # noqa: E402
import torch.nn.functional as F
import torch.utils.benchmark as benchmark

from common import run


def input_dims(key):
    n, h, w, c_in, *_ = (int(part[1:]) for part in key.split(":")[1].split("-"))
    return n, c_in, h, w


class Reference:
    """An op of the catalog in PyTorch, from the same definition that the agent lowers.

    It is written as one flat Python function of calls to torch, since modules and loops would cost more than some of
    these ops.
    """

    definitions = {}

    def __init__(self, key):
        op, sizes = key.split(":")
        *_, c_in, c_out, stride = (int(part[1:]) for part in sizes.split("-"))
        self.variables = {"c_in": c_in, "c_out": c_out, "stride": stride}
        keeps_shape = stride == 1 and c_in == c_out
        if op not in self.definitions:
            shown = json.loads(run("latlas", "ops", "show", op, "--json"))
            self.definitions[op] = shown["definition"]
        self.names = {"torch": torch, "F": F, "x": torch.randn(input_dims(key))}
        lines = []
        places = {"input": "x"}
        previous = "input"
        for index, node in enumerate(self.definitions[op]["nodes"]):
            inputs = [places[name] for name in node.get("inputs", [previous])]
            holds = {"keeps_shape": keeps_shape, "changes_shape": not keeps_shape}
            previous = node.get("id", str(index))
            if not holds.get(node.get("when"), True):
                # A skipped node passes on its first input.
                places[previous] = inputs[0]
                continue
            apply = node["apply"]
            kind, sizes = (apply, {}) if isinstance(apply, str) else next(iter(apply.items()))
            call = self.call(kind, sizes, inputs)
            places[previous] = f"v{index}"
            # Run as written, for the shapes that the next node needs.
            self.names[f"v{index}"] = eval(call, self.names)
            lines.append(f"    v{index} = {call}")
        source = "def op(x):\n" + "\n".join(lines) + f"\n    return {places[previous]}\n"
        exec(source, self.names)
        self.op, self.input = self.names["op"], self.names["x"]

    def size(self, sizes, name, default=None):
        value = sizes.get(name, default)
        if isinstance(value, int):
            return value
        factor, _, rest = value.rpartition("*")
        variable, _, divisor = rest.partition("/")
        return round(float(factor or 1) * self.variables[variable] / int(divisor or 1))

    def weight(self, *dims):
        name = f"w{len(self.names)}"
        self.names[name] = torch.randn(dims) * 0.05
        return name

    def call(self, kind, sizes, inputs):
        x = inputs[0]
        channels = self.names[x].shape[1]
        if kind == "conv2d":
            kernel, groups = self.size(sizes, "kernel"), self.size(sizes, "groups", 1)
            out, stride = self.size(sizes, "out"), self.size(sizes, "stride", 1)
            padding = sizes.get("padding", (kernel - 1) // 2)
            weight = self.weight(out, channels // groups, kernel, kernel)
            return f"torch.conv2d({x}, {weight}, {self.weight(out)}, {stride}, {padding}, 1, {groups})"
        if kind in ("max_pool", "avg_pool"):
            kernel, stride = self.size(sizes, "kernel"), self.size(sizes, "stride")
            padding = sizes.get("padding", (kernel - 1) // 2)
            function = "torch.max_pool2d" if kind == "max_pool" else "F.avg_pool2d"
            return f"{function}({x}, {kernel}, {stride}, {padding})"
        if kind == "linear":
            out = self.size(sizes, "out")
            weight, bias = self.weight(out, channels), self.weight(out)
            return f"F.linear({x}.flatten(1), {weight}, {bias})[:, :, None, None]"
        if kind == "self_attention":
            return self.attention(x, channels, self.size(sizes, "heads"))
        if kind == "squeeze_excite":
            return self.squeeze_excite(x, channels, sizes)
        return {
            "hardswish": f"F.hardswish({x}, True)",
            "silu": f"F.silu({x}, True)",
            "relu": f"torch.relu_({x})",
            "relu6": f"F.relu6({x}, True)",
            "global_avg_pool": f"F.adaptive_avg_pool2d({x}, 1)",
            "add": "torch.add({})".format(", ".join(inputs)),
        }[kind]

    def squeeze_excite(self, x, channels, sizes):
        squeeze, divisor = self.size(sizes, "squeeze"), sizes.get("divisor", 1)
        squeeze = max(divisor, (squeeze + divisor // 2) // divisor * divisor)
        reduce, reduce_bias = self.weight(squeeze, channels, 1, 1), self.weight(squeeze)
        expand, expand_bias = self.weight(channels, squeeze, 1, 1), self.weight(channels)
        activation = {"relu": "torch.relu", "silu": "F.silu"}[sizes.get("activation", "relu")]
        gate = {"sigmoid": "torch.sigmoid", "hardsigmoid": "F.hardsigmoid"}[sizes.get("gate", "sigmoid")]
        pooled = f"F.adaptive_avg_pool2d({x}, 1)"
        inner = f"{activation}(torch.conv2d({pooled}, {reduce}, {reduce_bias}))"
        return f"{x} * {gate}(torch.conv2d({inner}, {expand}, {expand_bias}))"

    def attention(self, x, channels, heads):
        qkv, out = torch.randn(3 * channels, channels), torch.randn(channels, channels)
        qkv_bias, out_bias = torch.randn(3 * channels), torch.randn(channels)

        def attend(x):
            tokens = x.flatten(2).transpose(1, 2)
            n, l, c = tokens.shape
            parts = F.linear(tokens, qkv, qkv_bias).view(n, l, 3, heads, c // heads)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v)
            result = F.linear(mixed.transpose(1, 2).reshape(n, l, c), out, out_bias)
            return result.transpose(1, 2).reshape(x.shape)

        self.names["attend"] = attend
        return f"attend({x})"


def autorange(key):
    """`blocked_autorange` with its defaults, and its seconds including all preparation."""
    start = time.monotonic()
    with torch.inference_mode():
        reference = Reference(key)
        names = {"op": reference.op, "x": reference.input}
        measurement = benchmark.Timer("op(x)", globals=names).blocked_autorange()
    return measurement.median * 1e6, time.monotonic() - start


def autorange_all(keys):
    """The same for many keys: microseconds by key, and the seconds in total."""
    values = {}
    total = 0.0
    for key in keys:
        values[key], seconds = autorange(key)
        total += seconds
    return values, total
