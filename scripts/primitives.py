"""Records what PyTorch computes for the primitives of the catalog: output, parameters and multiply-accumulates.

    python3 scripts/primitives.py > lowering/src/tests/torch.json

Each case is a definition of an op and the same computation written with PyTorch. Values of inputs and weights follow
from names and indices, so the test `primitives_compute_what_pytorch_computes` of latlas_lowering makes the same ones.
It needs torch, and nothing else. CONTRIBUTING.md says how to add a case.
"""

import json
import math
import sys
import warnings

warnings.filterwarnings("ignore", message=".*NumPy.*")

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

# Functions that add a case, by its name.
CASES = {}


def wave(name, dims):
    """The values of a tensor: a sine over its elements, with a phase from its name."""
    phase = sum(name.encode()) % 100
    index = torch.arange(math.prod(dims), dtype=torch.float64)
    values = torch.sin(0.37 * index + phase) * 0.5
    # A variance is positive.
    values = values + 1.0 if name.endswith("running_var") else values
    return values.to(torch.float32).reshape(dims)


class Weights:
    """Hands out weights by the names that the lowering uses, and counts the parameters."""

    def __init__(self):
        self.params = 0

    def __call__(self, name, *dims):
        self.params += 0 if "running_" in name else math.prod(dims)
        return wave(name, dims)

    def into(self, module, **names):
        """Fills the parameters of a module: each by its name here, with `__` for a dot."""
        named = dict(module.named_parameters()) | dict(module.named_buffers())
        with torch.no_grad():
            for own, name in names.items():
                tensor = named[own.replace("__", ".")]
                tensor.copy_(self(name, *tensor.shape))
        return module.eval()


def case(name, nodes, shape, c_out=None, stride=1, tokens=False):
    """Registers the computation of a case: a function of the input and the weights.

    `shape` is that of the input tensor. `nodes` is the definition in YAML's flow form.
    """

    def register(compute):
        assert name not in CASES, name
        CASES[name] = (nodes, shape, c_out, stride, tokens, compute)
        return compute

    return register


def record(name, nodes, dims, c_out, stride, tokens, compute):
    x, weights = wave("input", dims), Weights()
    with torch.no_grad():
        # Only the computation itself is counted.
        with FlopCounterMode(display=False) as counter:
            output = compute(x, weights)
    n, c, h, w = dims if not tokens else (dims[0], dims[2], dims[1], 1)
    flat = output.to(torch.float64).flatten()
    factors = torch.cos(0.7 * torch.arange(len(flat), dtype=torch.float64))
    channels = output.shape[2] if output.dim() == 3 else output.shape[1]
    assert c_out in (None, channels), f"{name}: {channels} channels"
    return {
        "name": name,
        "input": "tokens" if tokens else "map",
        "nodes": nodes,
        "shape": {
            "batch": n, "input_h": h, "input_w": w,
            "channels_in": c, "channels_out": channels, "stride": stride,
        },
        "output": list(output.shape),
        "params": weights.params,
        "flops": counter.get_total_flops() // 2,
        "first": [round(value, 6) for value in flat[:4].tolist()],
        "sum": round(float((flat * factors).sum()), 6),
    }  # fmt: skip


def conv(x, w, node, out, kernel, groups=1, bias=True, **options):
    """A convolution of the node `node`."""
    weight = w(f"{node}.weight", out, x.shape[1] // groups, *kernel)
    bias = w(f"{node}.bias", out) if bias else None
    return F.conv2d(x, weight, bias, groups=groups, **options)


# Convolutions.


@case("conv2d 3x3", "[{apply: {conv2d: {out: c_out, kernel: 3}}}]", (2, 6, 9, 11))
def _(x, w):
    return conv(x, w, "conv2d-0", 8, (3, 3), padding=1)


@case("conv2d 1x7 and 7x1, no bias", """[{apply: {conv2d: {out: c_out, kernel: [1, 7], bias: false}}},
 {apply: {conv2d: {out: c_out, kernel: [7, 1], bias: false}}}]""", (2, 6, 9, 11))  # fmt: skip
def _(x, w):
    x = conv(x, w, "conv2d-0", 8, (1, 7), bias=False, padding=(0, 3))
    return conv(x, w, "conv2d-1", 8, (7, 1), bias=False, padding=(3, 0))


@case("conv2d 3x5, stride 2x1, dilation 1x2, groups", """[{apply: {conv2d: {out: c_out, kernel: [3, 5], stride: [2, 1],
 dilation: [1, 2], groups: 2, padding: [1, 3]}}}]""", (2, 6, 9, 11))  # fmt: skip
def _(x, w):
    options = {"stride": (2, 1), "dilation": (1, 2), "padding": (1, 3)}
    return conv(x, w, "conv2d-0", 8, (3, 5), groups=2, **options)


@case("conv2d with padding below and at the right",
      "[{apply: {conv2d: {out: c_out, kernel: 3, stride: 2, padding: [0, 1, 0, 1]}}}]", (1, 3, 224, 224))  # fmt: skip
def _(x, w):
    return conv(F.pad(x, (0, 1, 0, 1)), w, "conv2d-0", 4, (3, 3), stride=2)


@case("conv2d, SAME at stride 1",
      "[{apply: {conv2d: {out: c_out, kernel: [4, 3], dilation: [1, 2], padding: same}}}]", (2, 6, 9, 11))  # fmt: skip
def _(x, w):
    module = nn.Conv2d(6, 8, (4, 3), dilation=(1, 2), padding="same")
    return w.into(module, weight="conv2d-0.weight", bias="conv2d-0.bias")(x)


@case("conv2d, depthwise, SAME at stride 2",
      "[{apply: {conv2d: {out: c_in, kernel: 5, stride: 2, groups: c_in, padding: same}}}]", (2, 6, 10, 11))  # fmt: skip
def _(x, w):
    # TensorFlow's rule: 3 more than the map along the height, 4 along the width.
    return conv(F.pad(x, (2, 2, 1, 2)), w, "conv2d-0", 6, (5, 5), groups=6, stride=2)


@case("conv_transpose2d, figures of a report", "[{apply: {conv_transpose2d: {out: c_out, kernel: 3, padding: 0}}}]", (1, 32, 1, 1))
def _(x, w):
    return w.into(nn.ConvTranspose2d(32, 1, 3), weight="conv_transpose2d-0.weight", bias="conv_transpose2d-0.bias")(x)


@case("conv_transpose2d that doubles a map", "[{apply: {conv_transpose2d: {out: c_out, kernel: 2, stride: 2}}}]", (1, 3, 2, 2))
def _(x, w):
    return w.into(nn.ConvTranspose2d(3, 1, 2, 2), weight="conv_transpose2d-0.weight", bias="conv_transpose2d-0.bias")(x)


@case("conv_transpose2d with everything", """[{apply: {conv_transpose2d: {out: c_out, kernel: [3, 4], stride: [2, 3],
 dilation: [2, 1], groups: 2, padding: [1, 0], output_padding: [1, 2], bias: false}}}]""", (2, 6, 5, 7))  # fmt: skip
def _(x, w):
    options = {"groups": 2, "bias": False, "dilation": (2, 1)}
    module = nn.ConvTranspose2d(6, 4, (3, 4), (2, 3), (1, 0), (1, 2), **options)
    return w.into(module, weight="conv_transpose2d-0.weight")(x)


@case("conv_transpose2d, SAME", "[{apply: {conv_transpose2d: {out: c_out, kernel: 3, stride: 2, padding: same}}}]", (2, 6, 5, 7))
def _(x, w):
    # One row and one column of the whole output are too many, and are cut at the bottom and at the right.
    module = nn.ConvTranspose2d(6, 4, 3, 2)
    return w.into(module, weight="conv_transpose2d-0.weight", bias="conv_transpose2d-0.bias")(x)[:, :, :-1, :-1]


@case("conv1d over tokens", """[{apply: {conv1d: {out: c_out, kernel: 5, stride: 2, dilation: 2, groups: 2}}}]""",
      (2, 11, 6), tokens=True)  # fmt: skip
def _(x, w):
    module = nn.Conv1d(6, 8, 5, 2, 4, 2, groups=2)
    return w.into(module, weight="conv1d-0.weight", bias="conv1d-0.bias")(x.transpose(1, 2)).transpose(1, 2)


@case("conv1d, causal and depthwise", "[{apply: {conv1d: {out: c_in, kernel: 4, groups: c_in, causal: true}}}]",
      (2, 11, 6), tokens=True)  # fmt: skip
def _(x, w):
    module = w.into(nn.Conv1d(6, 6, 4, groups=6), weight="conv1d-0.weight", bias="conv1d-0.bias")
    return module(F.pad(x.transpose(1, 2), (3, 0))).transpose(1, 2)


@case("conv1d over a map of width 1", "[{apply: {conv1d: {out: c_out, kernel: 3}}}]", (2, 6, 11, 1))
def _(x, w):
    return w.into(nn.Conv1d(6, 4, 3, padding=1), weight="conv1d-0.weight", bias="conv1d-0.bias")(x[..., 0])[..., None]


# Pools.


@case("max_pool, ceil_mode", "[{apply: {max_pool: {kernel: 3, stride: 2, padding: 0, ceil_mode: true}}}]", (1, 4, 54, 54))
def _(x, w):
    return nn.MaxPool2d(3, 2, ceil_mode=True)(x)


@case("max_pool 3x2, dilation 1x2, ceil_mode", """[{apply: {max_pool: {kernel: [3, 2], stride: [2, 3], dilation: [1, 2],
 padding: 1, ceil_mode: true}}}]""", (2, 4, 10, 12))  # fmt: skip
def _(x, w):
    return nn.MaxPool2d((3, 2), (2, 3), 1, (1, 2), ceil_mode=True)(x)


@case("max_pool, SAME", "[{apply: {max_pool: {kernel: 3, stride: 2, padding: same}}}]", (2, 4, 8, 9))
def _(x, w):
    return nn.MaxPool2d(3, 2)(F.pad(x, (1, 1, 0, 1), value=-math.inf))


@case("avg_pool, ceil_mode", "[{apply: {avg_pool: {kernel: 3, stride: 2, ceil_mode: true}}}]", (2, 4, 10, 12))
def _(x, w):
    return nn.AvgPool2d(3, 2, 1, ceil_mode=True)(x)


@case("avg_pool without its padding", """[{apply: {avg_pool: {kernel: [3, 5], stride: [1, 2], ceil_mode: true,
 count_include_pad: false}}}]""", (2, 4, 10, 12))  # fmt: skip
def _(x, w):
    return nn.AvgPool2d((3, 5), (1, 2), (1, 2), ceil_mode=True, count_include_pad=False)(x)


@case("avg_pool, SAME", "[{apply: {avg_pool: {kernel: 2, stride: 1, padding: same}}}]", (2, 4, 8, 9))
def _(x, w):
    return nn.AvgPool2d(2, 1)(F.pad(x, (0, 1, 0, 1)))


@case("avg_pool, SAME, without its padding",
      "[{apply: {avg_pool: {kernel: 2, stride: 1, padding: same, count_include_pad: false}}}]", (2, 4, 8, 9))  # fmt: skip
def _(x, w):
    pool = nn.AvgPool2d(2, 1)
    return pool(F.pad(x, (0, 1, 0, 1))) / pool(F.pad(torch.ones_like(x), (0, 1, 0, 1)))


@case("adaptive pools", """[{id: a, apply: {adaptive_avg_pool: {size: [3, 7]}}},
 {id: m, inputs: [input], apply: {adaptive_max_pool: {size: [3, 7]}}}, {inputs: [a, m], apply: concat}]""", (2, 4, 8, 5))  # fmt: skip
def _(x, w):
    return torch.cat([nn.AdaptiveAvgPool2d((3, 7))(x), nn.AdaptiveMaxPool2d((3, 7))(x)], 1)


@case("head of VGG", "[{apply: {adaptive_avg_pool: {size: 2}}}, {apply: flatten}, {apply: {linear: {out: c_out}}}]", (2, 6, 5, 7))
def _(x, w):
    x = nn.Flatten()(nn.AdaptiveAvgPool2d(2)(x))
    return linear(x, w, "linear-2", 9)[..., None, None]


@case("global_avg_pool of tokens", "[{apply: global_avg_pool}]", (2, 7, 6), tokens=True)
def _(x, w):
    return x.mean(1)[..., None, None]


# Changes of shape.


@case("pad and slice", """[{apply: {pad: {padding: [1, 2, 0, 3]}}},
 {apply: {slice: {along: height, start: 1, length: 3, step: 2}}}, {apply: {slice: {along: width, length: 4}}},
 {apply: {slice: {along: channels, start: 2, length: c_in/2}}}]""", (2, 6, 5, 7))  # fmt: skip
def _(x, w):
    return F.pad(x, (0, 3, 1, 2))[:, 2:5, 1:6:2, :4]


@case("slice of tokens", "[{apply: {slice: {along: tokens, start: 1, length: 3, step: 2}}}]", (2, 7, 6), tokens=True)
def _(x, w):
    return x[:, 1:6:2]


@case("space_to_depth", "[{apply: {space_to_depth: {block: 2}}}]", (2, 3, 4, 6))
def _(x, w):
    return nn.PixelUnshuffle(2)(x)


@case("depth_to_space", "[{apply: {depth_to_space: {block: 3}}}]", (2, 18, 4, 5))
def _(x, w):
    return nn.PixelShuffle(3)(x)


@case("upsample", "[{apply: {upsample: {scale: 2}}}, {apply: {upsample: {scale: 3, mode: bilinear}}}]", (2, 3, 4, 5))
def _(x, w):
    return nn.Upsample(scale_factor=3, mode="bilinear")(nn.Upsample(scale_factor=2)(x))


@case("sequences", """[{id: t, apply: {to_tokens: {class_token: true, positions: false}}}, {id: p, apply: position_embedding},
 {id: more, apply: {prepend_tokens: {count: 2}}}, {inputs: [more, t], apply: concat_tokens},
 {apply: {select_token: {index: 3}}}]""", (2, 6, 3, 4))  # fmt: skip
def _(x, w):
    tokens = x.flatten(2).transpose(1, 2)
    t = torch.cat([w("t.class_token", 6).expand(2, 1, 6), tokens], 1)
    p = t + w("p.positions", 1, 13, 6)
    more = torch.cat([w("more.tokens", 1, 2, 6).expand(2, 2, 6), p], 1)
    return torch.cat([more, t], 1)[:, 3, :, None, None]


@case("a map as tokens and back", """[{id: t, apply: {to_tokens: {class_token: false, positions: false}}},
 {id: n, apply: layer_norm}, {inputs: [n, input], apply: to_map}, {apply: position_embedding}]""", (2, 6, 3, 4))  # fmt: skip
def _(x, w):
    y = x.flatten(2).transpose(1, 2)
    y = F.layer_norm(y, (6,), w("n.weight", 6), w("n.bias", 6), 1e-6)
    return y.transpose(1, 2).unflatten(2, (3, 4)) + w("position_embedding-3.positions", 1, 6, 3, 4)


@case("unfold and fold, as MobileViT", """[{id: u, apply: {unfold: {patch: 2}}}, {id: t, apply: {linear: {out: 8}}},
 {inputs: [t, input], apply: {fold: {patch: 2}}}]""", (2, 6, 4, 6))  # fmt: skip
def _(x, w):
    # transformers' MobileViTLayer.unfolding and folding.
    n, c, h, width, area, patches = 2, 6, 4, 6, 4, 6
    y = x.reshape(n * c * (h // 2), 2, width // 2, 2).transpose(1, 2).reshape(n, c, patches, area)
    y = linear(y.transpose(1, 3).reshape(n * area, patches, c), w, "t", 8)
    y = y.view(n, area, patches, 8).transpose(1, 3).reshape(n * 8 * (h // 2), width // 2, 2, 2)
    return y.transpose(1, 2).reshape(n, 8, h, width)


@case("embedding", "[{id: e, apply: {embedding: {rows: 5, out: 6}}}]", (2, 1, 7, 1))
def _(x, w):
    return F.embedding(x.flatten(1).floor().long() % 5, w("e.weight", 5, 6))


# Activations and gates.


@case("prelu", "[{apply: {prelu: {}}}, {apply: {prelu: {shared: true}}}]", (2, 6, 5, 7))
def _(x, w):
    own = w.into(nn.PReLU(6), weight="prelu-0.slope")
    return w.into(nn.PReLU(), weight="prelu-1.slope")(own(x))


@case("prelu of tokens", "[{apply: {prelu: {}}}]", (2, 7, 6), tokens=True)
def _(x, w):
    return w.into(nn.PReLU(6), weight="prelu-0.slope")(x.transpose(1, 2)).transpose(1, 2)


@case("softmax", "[{apply: softmax}]", (2, 6, 5, 7))
def _(x, w):
    return nn.Softmax(dim=1)(x)


@case("softmax of tokens", "[{apply: softmax}]", (2, 7, 6), tokens=True)
def _(x, w):
    return nn.Softmax(dim=2)(x)


@case("activations", """[{id: a, apply: leaky_relu}, {id: b, inputs: [input], apply: elu},
 {id: c, inputs: [input], apply: gelu_tanh}, {id: d, inputs: [input], apply: tanh},
 {id: e, inputs: [input], apply: hardsigmoid}, {id: f, inputs: [input], apply: mish},
 {inputs: [a, b, c, d, e, f], apply: concat}]""", (2, 6, 5, 7))  # fmt: skip
def _(x, w):
    functions = nn.LeakyReLU(), nn.ELU(), nn.GELU("tanh"), nn.Tanh(), nn.Hardsigmoid(), nn.Mish()
    return torch.cat([function(x) for function in functions], 1)


@case("activations of a value that is overwritten", """[{id: s, apply: {conv2d: {out: c_in, kernel: 1}}}, {apply: leaky_relu},
 {apply: elu}, {apply: gelu_tanh}, {apply: tanh}, {apply: hardsigmoid}, {apply: mish}]""", (2, 6, 5, 7))  # fmt: skip
def _(x, w):
    x = conv(x, w, "s", 6, (1, 1))
    for function in nn.LeakyReLU(), nn.ELU(), nn.GELU("tanh"), nn.Tanh(), nn.Hardsigmoid(), nn.Mish():
        x = function(x)
    return x


@case("norms", """[{id: g, apply: {group_norm: {groups: 2}}}, {id: r, apply: rms_norm}]""", (2, 6, 5, 7))
def _(x, w):
    x = w.into(nn.GroupNorm(2, 6), weight="g.weight", bias="g.bias")(x)
    norm = w.into(nn.RMSNorm(6, eps=1e-6), weight="r.weight")
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@case("batch_norm that was not folded", "[{id: b, apply: batch_norm}]", (2, 6, 5, 7))
def _(x, w):
    names = {"weight": "b.weight", "bias": "b.bias", "running_mean": "b.running_mean", "running_var": "b.running_var"}
    return w.into(nn.BatchNorm2d(6), **names)(x)


@case("rms_norm of tokens", "[{id: r, apply: rms_norm}]", (2, 7, 6), tokens=True)
def _(x, w):
    return w.into(nn.RMSNorm(6, eps=1e-6), weight="r.weight")(x)


@case("gates and differences", """[{id: g, apply: global_avg_pool}, {id: p, inputs: [input], apply: {conv2d: {out: 1, kernel: 1}}},
 {id: m, inputs: [input, g, p], apply: mul}, {inputs: [m, input], apply: sub}]""", (2, 6, 5, 7))  # fmt: skip
def _(x, w):
    return x * x.mean((2, 3), keepdim=True) * conv(x, w, "p", 1, (1, 1)) - x


@case("mul", "[{id: a, apply: sigmoid}, {inputs: [a, input, input], apply: mul}]", (2, 6, 5, 7))
def _(x, w):
    return torch.sigmoid(x) * x * x


@case("concat of any parts", """[{id: a, apply: {conv2d: {out: 5, kernel: 1}}}, {id: b, inputs: [input], apply: relu},
 {id: c, apply: {conv2d: {out: 1, kernel: 1}}}, {inputs: [a, b, c, input], apply: concat}]""", (2, 6, 5, 7))  # fmt: skip
def _(x, w):
    a, b = conv(x, w, "a", 5, (1, 1)), torch.relu(x)
    return torch.cat([a, b, conv(b, w, "c", 1, (1, 1)), x], 1)


@case("zero", "[{apply: {zero: {out: c_out, stride: [2, 3]}}}]", (2, 6, 5, 7), c_out=9)
def _(x, w):
    return x.new_zeros(2, 9, *x[:, :, ::2, ::3].shape[2:])


# Attention.


def linear(x, w, node, out, bias=True):
    return F.linear(x, w(f"{node}.weight", out, x.shape[-1]), w(f"{node}.bias", out) if bias else None)


def heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


QKV = """[{{id: q, inputs: [input], apply: {{linear: {{out: {0}, bias: false}}}}}},
 {{id: k, inputs: [{3}], apply: {{linear: {{out: {1}, bias: false}}}}}},
 {{id: v, inputs: [{3}], apply: {{linear: {{out: {2}, bias: false}}}}}},"""


@case("attention, as torch.nn.MultiheadAttention", """[{id: qkv, apply: {linear: {out: 3*c_in}}},
 {id: p, apply: {split: {parts: 3}}}, {inputs: [p.0, p.1, p.2], apply: {attention: {heads: 2}}},
 {id: out, apply: {linear: {out: c_out}}}]""", (2, 7, 8), tokens=True)  # fmt: skip
def _(x, w):
    module = nn.MultiheadAttention(8, 2, batch_first=True)
    names = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias"}
    w.into(module, **names, out_proj__weight="out.weight", out_proj__bias="out.bias")
    # Asked for weights, it takes the path that the counter sees.
    return module.train()(x, x, x, need_weights=True)[0]


@case("attention with grouped queries, a head size of its own, causal", QKV.format(24, 12, 6, "input")
      + "{inputs: [q, k, v], apply: {attention: {heads: 4, kv_heads: 2, causal: true}}}]", (2, 7, 10), tokens=True)  # fmt: skip
def _(x, w):
    q, k, v = linear(x, w, "q", 24, False), linear(x, w, "k", 12, False), linear(x, w, "v", 6, False)
    options = {"is_causal": True, "enable_gqa": True}
    y = F.scaled_dot_product_attention(heads(q, 4), heads(k, 2), heads(v, 2), **options)
    return y.transpose(1, 2).flatten(2)


@case("cross attention of a map with a smaller one", """[{id: m, apply: {avg_pool: {kernel: 2, stride: 2}}},
 {id: q, inputs: [input], apply: {conv2d: {out: 8, kernel: 1}}}, {id: k, inputs: [m], apply: {conv2d: {out: 4, kernel: 1}}},
 {id: v, inputs: [m], apply: {conv2d: {out: 4, kernel: 1}}},
 {inputs: [q, k, v], apply: {attention: {heads: 2, kv_heads: 1}}}]""", (2, 6, 8, 6))  # fmt: skip
def _(x, w):
    def tokens(y):
        return y.flatten(2).transpose(1, 2)

    m = F.avg_pool2d(x, 2)
    q, k, v = conv(x, w, "q", 8, (1, 1)), conv(m, w, "k", 4, (1, 1)), conv(m, w, "v", 4, (1, 1))
    k, v = heads(tokens(k), 1), heads(tokens(v), 1)
    y = F.scaled_dot_product_attention(heads(tokens(q), 2), k, v, enable_gqa=True)
    return y.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, (8, 6))


@case("attention with position biases, as EfficientFormer", QKV.format(8, 8, 12, "input")
      + "{id: a, inputs: [q, k, v], apply: {attention: {heads: 2, position_bias: true}}}]", (2, 7, 10), tokens=True)  # fmt: skip
def _(x, w):
    # timm's Attention of efficientformer.py, with its biases as evaluation keeps them.
    q, k, v = linear(x, w, "q", 8, False), linear(x, w, "k", 8, False), linear(x, w, "v", 12, False)
    scores = heads(q, 2).matmul(heads(k, 2).transpose(2, 3)) * 4**-0.5 + w("a.positions", 1, 2, 7, 7)
    return scores.softmax(-1).matmul(heads(v, 2)).transpose(1, 2).flatten(2)


def windows(x, w, count, window, shift, cosine=False, biased=True):
    """`shifted_window_attention` of torchvision's swin_transformer.py, for the node `w`."""
    x = x.permute(0, 2, 3, 1)
    n, h, width, c = x.shape
    x = F.pad(x, (0, 0, 0, -width % window, 0, -h % window))
    _, high, wide, _ = x.shape
    down, across = (0 if window >= high else shift), (0 if window >= wide else shift)
    x = torch.roll(x, (-down, -across), (1, 2))
    total = (high // window) * (wide // window)

    def partition(y):
        y = y.view(-1, high // window, window, wide // window, window, y.shape[-1])
        return y.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, y.shape[-1])

    qkv = F.linear(partition(x), w("w.qkv.weight", 3 * c, c), w("w.qkv.bias", 3 * c))
    q, k, v = qkv.reshape(-1, window * window, 3, count, c // count).permute(2, 0, 3, 1, 4)
    if cosine:
        scores = F.normalize(q, dim=-1).matmul(F.normalize(k, dim=-1).transpose(-2, -1))
        scores = scores * w("w.scale", count)[:, None, None]
    else:
        scores = (q * (c // count) ** -0.5).matmul(k.transpose(-2, -1))
    places = torch.stack(torch.meshgrid([torch.arange(window)] * 2, indexing="ij")).flatten(1)
    offsets = (places[:, :, None] - places[:, None, :]).permute(1, 2, 0) + window - 1
    if biased:
        table = w("w.positions", (2 * window - 1) ** 2, count)
        bias = table[(offsets[..., 0] * (2 * window - 1) + offsets[..., 1]).view(-1)]
        scores = scores + bias.view(window * window, window * window, -1).permute(2, 0, 1)
    if down + across > 0:
        mask, number = torch.zeros(1, high, wide, 1), 0
        for rows in (0, -window), (-window, -down), (-down, None):
            for columns in (0, -window), (-window, -across), (-across, None):
                mask[:, rows[0] : rows[1], columns[0] : columns[1]] = number
                number += 1
        mask = partition(mask).squeeze(-1)
        mask = (mask[:, None, :] - mask[:, :, None] != 0) * -100.0
        scores = scores.view(-1, total, *scores.shape[1:]) + mask[:, None]
        scores = scores.flatten(0, 1)
    y = scores.softmax(-1).matmul(v).transpose(1, 2).reshape(-1, window * window, c)
    y = F.linear(y, w("w.out.weight", c, c), w("w.out.bias", c))
    y = y.view(n, high // window, wide // window, window, window, c).permute(0, 1, 3, 2, 4, 5)
    y = torch.roll(y.reshape(n, high, wide, c), (down, across), (1, 2))
    return y[:, :h, :width].permute(0, 3, 1, 2)


@case("window_attention", "[{id: w, apply: {window_attention: {heads: 2, window: 3}}}]", (2, 8, 6, 9))
def _(x, w):
    return windows(x, w, 2, 3, 0)


@case("window_attention, shifted and padded", "[{id: w, apply: {window_attention: {heads: 2, window: 3, shift: 1}}}]", (2, 8, 7, 8))
def _(x, w):
    return windows(x, w, 2, 3, 1)


@case("window_attention on a map of one row of windows", "[{id: w, apply: {window_attention: {heads: 2, window: 4, shift: 2}}}]",
      (1, 8, 3, 8))  # fmt: skip
def _(x, w):
    return windows(x, w, 2, 4, 2)


@case("window_attention over a grid, as MaxViT", "[{id: w, apply: {window_attention: {heads: 2, window: 3, grid: true}}}]", (2, 8, 6, 9))
def _(x, w):
    # Positions at equal distances, brought together, are a window.
    n, c, h, width = x.shape
    near = x.view(n, c, 3, h // 3, 3, width // 3).permute(0, 1, 3, 2, 5, 4).reshape(x.shape)
    y = windows(near, w, 2, 3, 0)
    return y.reshape(n, c, h // 3, 3, width // 3, 3).permute(0, 1, 3, 2, 5, 4).reshape(x.shape)


def cosines(q, k, v, factors, bias=0.0):
    """Attention by cosines, as torchvision's swin_transformer.py writes it out."""
    scores = F.normalize(q, dim=-1).matmul(F.normalize(k, dim=-1).transpose(-2, -1))
    return (scores * factors[:, None, None] + bias).softmax(-1).matmul(v)


@case("attention by cosines, with position biases", QKV.format(8, 8, 12, "input")
      + "{id: a, inputs: [q, k, v], apply: {attention: {heads: 2, position_bias: true, cosine: true}}}]", (2, 7, 10), tokens=True)  # fmt: skip
def _(x, w):
    q, k, v = linear(x, w, "q", 8, False), linear(x, w, "k", 8, False), linear(x, w, "v", 12, False)
    y = cosines(heads(q, 2), heads(k, 2), heads(v, 2), w("a.scale", 2), w("a.positions", 1, 2, 7, 7))
    return y.transpose(1, 2).flatten(2)


@case("attention by cosines, causal", QKV.format(8, 4, 6, "input")
      + "{id: a, inputs: [q, k, v], apply: {attention: {heads: 4, kv_heads: 2, causal: true, cosine: true}}}]", (2, 7, 10), tokens=True)  # fmt: skip
def _(x, w):
    q, k, v = linear(x, w, "q", 8, False), linear(x, w, "k", 4, False), linear(x, w, "v", 6, False)
    unseen = torch.full((7, 7), -math.inf).triu(1)
    k, v = heads(k, 2).repeat_interleave(2, 1), heads(v, 2).repeat_interleave(2, 1)
    return cosines(heads(q, 4), k, v, w("a.scale", 4), unseen).transpose(1, 2).flatten(2)


@case("window_attention by cosines, as Swin V2",
      "[{id: w, apply: {window_attention: {heads: 2, window: 3, shift: 1, cosine: true}}}]", (2, 8, 7, 8))  # fmt: skip
def _(x, w):
    return windows(x, w, 2, 3, 1, cosine=True)


@case("window_attention without biases, as MobileViT",
      "[{id: w, apply: {window_attention: {heads: 2, window: 3, grid: true, position_bias: false}}}]", (2, 8, 6, 9))  # fmt: skip
def _(x, w):
    # timm's MobileVitBlock of mobilevit.py: patches of 2x3 positions, with attention over the patches.
    n, c, h, width = x.shape
    y = x.reshape(n * c * 3, 2, 3, 3).transpose(1, 2).reshape(n, c, 9, 6).transpose(1, 3).reshape(n * 6, 9, c)
    qkv = F.linear(y, w("w.qkv.weight", 3 * c, c), w("w.qkv.bias", 3 * c))
    q, k, v = qkv.reshape(n * 6, 9, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
    y = (q * (c // 2) ** -0.5).matmul(k.transpose(-2, -1)).softmax(-1).matmul(v)
    y = F.linear(y.transpose(1, 2).flatten(2), w("w.out.weight", c, c), w("w.out.bias", c))
    y = y.view(n, 6, 9, c).transpose(1, 3).reshape(n * c * 3, 3, 2, 3).transpose(1, 2)
    return y.reshape(n, c, h, width)


@case("window_attention, shifted, without biases",
      "[{id: w, apply: {window_attention: {heads: 2, window: 3, shift: 1, position_bias: false}}}]", (2, 8, 7, 8))  # fmt: skip
def _(x, w):
    return windows(x, w, 2, 3, 1, biased=False)


CHANNELS = "{id: a, inputs: [q, k, v], apply: {channel_attention: {heads: 2, cosine: true}}}]"


@case("channel_attention of tokens, as EdgeNeXt", QKV.format(10, 10, 10, "input") + CHANNELS, (2, 7, 10), tokens=True)
def _(x, w):
    # timm's CrossCovarianceAttn of edgenext.py.
    q, k, v = (linear(x, w, name, 10, False) for name in "qkv")
    q, k, v = (heads(part, 2).transpose(-2, -1) for part in (q, k, v))
    return cosines(q, k, v, w("a.scale", 2)).permute(0, 3, 1, 2).flatten(2)


@case("channel_attention of a map", """[{id: q, apply: {conv2d: {out: 8, kernel: 1}}},
 {id: k, inputs: [input], apply: {conv2d: {out: 8, kernel: 1}}}, {id: v, inputs: [input], apply: {conv2d: {out: 8, kernel: 1}}},
 """ + CHANNELS, (2, 6, 5, 7))  # fmt: skip
def _(x, w):
    q, k, v = (conv(x, w, name, 8, (1, 1)).reshape(2, 2, 4, 35) for name in "qkv")
    return cosines(q, k, v, w("a.scale", 2)).reshape(2, 8, 5, 7)


@case("channel_attention of tokens without cosines, as DaViT", QKV.format(10, 10, 10, "input")
      + "{inputs: [q, k, v], apply: {channel_attention: {heads: 2}}}]", (2, 7, 10), tokens=True)  # fmt: skip
def _(x, w):
    # timm's ChannelAttentionV2 of davit.py.
    q, k, v = (heads(linear(x, w, name, 10, False), 2).transpose(-2, -1) for name in "qkv")
    y = (q * 7**-0.5).matmul(k.transpose(-2, -1)).softmax(-1).matmul(v)
    return y.permute(0, 3, 1, 2).flatten(2)


@case("response_norm, as ConvNeXt V2", "[{id: r, apply: response_norm}]", (2, 6, 5, 7))
def _(x, w):
    # timm's GlobalResponseNorm of grn.py.
    lengths = x.norm(p=2, dim=(2, 3), keepdim=True)
    shares = lengths / (lengths.mean(dim=1, keepdim=True) + 1e-6)
    return x + torch.addcmul(w("r.bias", 6).view(1, -1, 1, 1), w("r.weight", 6).view(1, -1, 1, 1), x * shares)


@case("affine layers", "[{id: a, apply: layer_shift}, {id: b, apply: layer_scale}, {id: c, apply: shift}]", (2, 6, 5, 7))
def _(x, w):
    x = (x + w("a.shift", 6)[:, None, None]) * w("b.factor", 6)[:, None, None]
    # One number is stored, and is no parameter.
    return x + wave("c.shift", (1,))


@case("an affine layer of tokens", "[{id: a, apply: layer_scale}, {id: b, apply: layer_shift}]", (2, 7, 6), tokens=True)
def _(x, w):
    return torch.addcmul(w("b.shift", 6), w("a.factor", 6), x)


@case("factors for channels times factors for positions", """[{id: g, apply: global_avg_pool}, {id: p, inputs: [input],
 apply: {conv2d: {out: 1, kernel: 1}}}, {inputs: [g, p], apply: mul}]""", (2, 6, 5, 7))  # fmt: skip
def _(x, w):
    return x.mean((2, 3), keepdim=True) * conv(x, w, "p", 1, (1, 1))


@case("a layer that mixes positions, as MLP-Mixer", """[{id: t, apply: transpose}, {id: a, apply: {linear: {out: 9}}}, {apply: gelu},
 {id: b, apply: {linear: {out: 7}}}, {id: u, apply: transpose}, {inputs: [u, input], apply: add}]""", (2, 7, 6), tokens=True)  # fmt: skip
def _(x, w):
    y = F.gelu(linear(x.transpose(1, 2), w, "a", 9))
    return x + linear(y, w, "b", 7).transpose(1, 2)


@case("tokens as a map of a size", """[{apply: silu}, {apply: {to_map_of: {size: [2, 3]}}}, {id: c, apply: {conv2d: {out: c_out, kernel: 3}}}]""",
      (2, 6, 4), c_out=5, tokens=True)  # fmt: skip
def _(x, w):
    return conv(F.silu(x).transpose(1, 2).unflatten(2, (2, 3)), w, "c", 5, (3, 3), padding=1)


@case("product with one number", "[{id: s, apply: scale}]", (2, 6, 5, 7))
def _(x, w):
    # It is stored, and is no parameter.
    return x * wave("s.factor", (1,))


@case("rotary, as Llama", "[{apply: {rotary: {heads: 2}}}]", (2, 7, 12), tokens=True)
def _(x, w):
    # transformers' LlamaRotaryEmbedding and apply_rotary_pos_emb.
    x = heads(x, 2)
    frequencies = 1.0 / (10000.0 ** (torch.arange(0, 6, 2).float() / 6))
    angles = torch.outer(torch.arange(7).float(), frequencies)
    angles = torch.cat([angles, angles], -1)
    turned = torch.cat([-x[..., 3:], x[..., :3]], -1)
    return (x * angles.cos() + turned * angles.sin()).transpose(1, 2).flatten(2)


def main():
    records = [record(name, *parts) for name, parts in CASES.items()]
    lines = ",\n".join(json.dumps(entry) for entry in records)
    sys.stdout.write(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
