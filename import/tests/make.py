"""Writes the models of import/tests/data. Needs torch, onnx and onnxscript. The weights are random.

Usage: python import/tests/make.py
"""

import copy
import io
import json
import logging
import warnings
import zipfile
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional as F

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
DATA = Path(__file__).parent / "data"


class Cnn(nn.Module):
    """Convolution, batch norm and ReLU in place, a residual, poolings, a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding="same")
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.pool(self.stem(x))
        y = self.conv(x)
        y += x
        y = F.adaptive_avg_pool2d(F.relu_(y), 1)
        return self.fc(torch.flatten(y, 1))


class Mobile(nn.Module):
    """An inverted residual: depthwise convolution, squeeze-and-excite, hardswish."""

    def __init__(self):
        super().__init__()
        self.expand = nn.Conv2d(8, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 5, 1, 2, groups=24)
        self.reduce, self.restore = nn.Conv2d(24, 8, 1), nn.Conv2d(8, 24, 1)
        self.project = nn.Conv2d(24, 8, 1)

    def forward(self, x):
        y = F.hardswish(self.depthwise(F.hardswish(self.expand(x))))
        gate = self.restore(F.relu(self.reduce(F.adaptive_avg_pool2d(y, 1))))
        return x + self.project(y * F.hardsigmoid(gate))


class Transformer(nn.Module):
    """Patches, a class token, a layer of self-attention."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 17, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.layers(x)[:, 0])


class Swin(nn.Module):
    """A block of attention in shifted windows, with a relative position bias and a mask."""

    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.proj = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.table = nn.Parameter(torch.randn(49, 2))
        grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
        offset = grid[:, :, None] - grid[:, None, :] + 3
        self.register_buffer("index", (offset[0] * 7 + offset[1]).flatten())

    def forward(self, x):
        y = torch.roll(self.norm(x), (-2, -2), (1, 2))
        y = y.view(1, 2, 4, 2, 4, 16).permute(0, 1, 3, 2, 4, 5).reshape(4, 16, 16)
        q, k, v = self.qkv(y).reshape(4, 16, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * 8**-0.5) @ k.transpose(-2, -1)
        scores = scores + self.table[self.index].view(16, 16, 2).permute(2, 0, 1).unsqueeze(0)
        region = x.new_zeros((8, 8))
        for i, rows in enumerate(((0, -4), (-4, -2), (-2, None))):
            for j, columns in enumerate(((0, -4), (-4, -2), (-2, None))):
                region[rows[0] : rows[1], columns[0] : columns[1]] = 3 * i + j
        region = region.view(2, 4, 2, 4).permute(0, 2, 1, 3).reshape(4, 16)
        mask = region.unsqueeze(1) - region.unsqueeze(2)
        mask = mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)
        y = F.softmax(scores + mask.unsqueeze(1), -1) @ v
        y = self.proj(y.transpose(1, 2).reshape(4, 16, 16))
        y = y.view(1, 2, 2, 4, 4, 16).permute(0, 1, 3, 2, 4, 5).reshape(1, 8, 8, 16)
        return x + torch.roll(y, (2, 2), (1, 2))


class Shuffle(nn.Module):
    """Halves of channels, a channel shuffle, a resize and a pixel shuffle."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.PReLU(4), nn.Conv2d(4, 4, 1))

    def forward(self, x):
        left, right = x.chunk(2, 1)
        x = torch.cat((left, self.branch(right)), 1)
        x = x.view(1, 2, 4, 8, 8).transpose(1, 2).contiguous().view(1, 8, 8, 8)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.interpolate(x, size=(24, 24), mode="bilinear", align_corners=False)
        return F.pixel_shuffle(F.pad(x, (0, 1, 0, 1)), 2)


def small_archive(data, change=None):
    """The archive with its program and weights, without traces of the source and without sample inputs."""
    old, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if "/data/sample_inputs/" in name:
                continue
            if name.endswith("models/model.json"):
                program = json.loads(content)
                for node in program["graph_module"]["graph"]["nodes"]:
                    node["metadata"] = {}
                program["graph_module"]["module_call_graph"] = []
                content = json.dumps(program)
            new.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def old_archive(data):
    """The same program in the layout before torch 2.8, with what older versions left out."""
    archive, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    program = json.loads(archive.read(next(n for n in archive.namelist() if n.endswith("models/model.json"))))
    for node in program["graph_module"]["graph"]["nodes"]:
        node.pop("name", None), node.pop("is_hop_single_tensor_return", None)
        for argument in node["inputs"]:
            argument.pop("kind", None)
    program["schema_version"] = {"major": 7, "minor": 3}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in (("serialized_exported_program.json", json.dumps(program)), ("version", "7.3")):
            new.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def archive(program):
    out = io.BytesIO()
    torch.export.save(program, out)
    return small_archive(out.getvalue())


def write_onnx(path, model):
    """Writes a model without traces of the source."""
    for item in [model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer,
                 *model.graph.input, *model.graph.output]:
        item.ClearField("metadata_props")
        if "doc_string" in item.DESCRIPTOR.fields_by_name:
            item.ClearField("doc_string")
    path.write_bytes(model.SerializeToString(deterministic=True))


def write(name, model, inputs, opsets):
    model.eval()
    (DATA / f"{name}.pt2").write_bytes(archive(torch.export.export(model, inputs)))
    dynamo = torch.onnx.export(model, inputs, dynamo=True, verbose=False)
    write_onnx(DATA / f"{name}.dynamo.onnx", dynamo.model_proto)
    for opset in opsets:
        out = io.BytesIO()
        torch.onnx.export(copy.deepcopy(model), inputs, out, dynamo=False, opset_version=opset)
        write_onnx(DATA / f"{name}.{opset}.onnx", onnx.load_from_string(out.getvalue()))


def newest():
    """What only the newest versions of ONNX have."""
    weight = helper.make_tensor("scale", TensorProto.FLOAT, [16], [1.0] * 16)
    nodes = [
        helper.make_node("RMSNormalization", ["x", "scale"], ["normed"], epsilon=1e-6),
        helper.make_node("Attention", ["normed", "normed", "normed"], ["attended"], q_num_heads=4, kv_num_heads=4,
                         is_causal=1),
        helper.make_node("Swish", ["attended"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "newest", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6, 16])], [weight])
    opset = onnx.defs.onnx_opset_version()
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    DATA.mkdir(exist_ok=True)
    image = torch.randn(1, 3, 32, 32)
    write("cnn", Cnn(), (image,), (11, 17))
    write("mobile", Mobile(), (torch.randn(1, 8, 8, 8),), (17,))
    write("transformer", Transformer(), (image,), (14, 17))
    write("swin", Swin(), (torch.randn(1, 8, 8, 16),), (17,))
    write("shuffle", Shuffle(), (torch.randn(1, 8, 8, 8),), (11, 20))
    cnn, transformer = Cnn().eval(), Transformer().eval()
    (DATA / "cnn.old.pt2").write_bytes(old_archive((DATA / "cnn.pt2").read_bytes()))
    for name, model in (("cnn", cnn), ("transformer", transformer)):
        core = torch.export.export(model, (image,)).run_decompositions()
        (DATA / f"{name}.core.pt2").write_bytes(archive(core))
    batch = {"x": {0: torch.export.Dim("n", min=1, max=64)}}
    images = torch.randn(2, 3, 32, 32)
    (DATA / "transformer.dynamic.pt2").write_bytes(
        archive(torch.export.export(transformer, (images,), dynamic_shapes=batch)))
    out = io.BytesIO()
    torch.onnx.export(cnn, (images,), out, dynamo=False, opset_version=17, input_names=["x"],
                      dynamic_axes={"x": {0: "n", 2: "h"}})
    write_onnx(DATA / "cnn.dynamic.onnx", onnx.load_from_string(out.getvalue()))
    (DATA / "cnn.train.pt2").write_bytes(archive(torch.export.export(Cnn().train(), (image,))))
    write_onnx(DATA / "newest.onnx", newest())
    total = sum(path.stat().st_size for path in DATA.iterdir())
    print(f"{total} bytes")
    assert total < 300_000


main()
