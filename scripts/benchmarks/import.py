"""Import of models: those of torchvision and twenty of timm and transformers, by torch.export and by ONNX"""
# needs: torchvision timm transformers onnx onnxscript safetensors

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from accuracy import accuracy, bench, keys_of, line, network_micros
from common import BIN, ROOT, Figures, run

# Networks above this are not measured.
MOST_FLOPS = 6e9

# The networks that are measured. HALF=predict measures those that HALF=import left here: the import takes hours of
# processor time on a small machine, and the measurement wants a machine without other work.
KEPT = ROOT / "target/bench-import/networks"

# Outputs are compared for these, with the weights of the file.
COMPARED = """alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 maxvit_t mnasnet1_0
mobilenet_v2 mobilenet_v3_large regnet_y_400mf resnet18 resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_1 swin_t vgg11_bn
vit_b_32""".split()

# Models of other packages, which they build without a download: the source and the name there.
OTHERS = [
    *(("timm", name) for name in """deit_tiny_patch16_224 mobilevit_s efficientformer_l1 mobilenetv4_conv_small
      vit_small_patch16_224 mixer_s32_224 resnetv2_50 ghostnet_100 repvgg_a0 convmixer_768_32 poolformer_s12 levit_128s
      swinv2_tiny_window8_256 edgenext_small""".split()),
    *(("transformers", name) for name in "bert distilbert gpt2 llama vit t5encoder".split()),
]


def torchvision_model(name):
    import torchvision

    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **extra)


def transformers_model(name):
    import transformers as t

    small = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    if name == "bert":
        return t.BertModel(t.BertConfig(**small, vocab_size=1000))
    if name == "distilbert":
        return t.DistilBertModel(t.DistilBertConfig(dim=256, n_layers=4, n_heads=4, hidden_dim=1024, vocab_size=1000))
    if name == "gpt2":
        return t.GPT2Model(t.GPT2Config(n_embd=256, n_layer=4, n_head=4, vocab_size=1000, use_cache=False))
    if name == "llama":
        config = t.LlamaConfig(**small, num_key_value_heads=2, vocab_size=1000, use_cache=False)
        return t.LlamaModel(config)
    if name == "vit":
        return t.ViTModel(t.ViTConfig(**small), add_pooling_layer=False)
    return t.T5EncoderModel(t.T5Config(d_model=256, num_layers=4, num_heads=4, d_kv=64, d_ff=1024, vocab_size=1000))


def build(source, name):
    """A model in eval mode, and its input."""
    import torch

    torch.manual_seed(0)
    if source == "torchvision":
        model = torchvision_model(name)
        return model.eval(), torch.randn(1, 3, *[299 if name == "inception_v3" else 224] * 2)
    if source == "timm":
        import timm

        model = timm.create_model(name, pretrained=False)
        return model.eval(), torch.randn(1, *model.default_cfg["input_size"])
    model = transformers_model(name)
    if name == "vit":
        return model.eval(), torch.randn(1, 3, 224, 224)
    return model.eval(), torch.randint(0, 1000, (1, 64))


def whiten(model):
    """Statistics and affine parameters of norms that are not those of a new model, so that folding them shows."""
    import torch

    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.8, 1.25, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(0.8, 1.25, generator=generator)
    # New models have zeros and ones where trained ones have neither: outputs would not depend on their inputs, and the
    # exporter to ONNX drops biases of zeros.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.min() == parameter.max():
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))


def expected_params(program):
    """Parameters that the graph uses, with batch norms after convolutions and linear layers folded."""
    graph = program.graph_module.graph
    signature = program.graph_signature
    names = signature.inputs_to_parameters
    params = 0
    for node in graph.nodes:
        if node.op == "placeholder" and node.name in names and node.users:
            params += program.state_dict[names[node.name]].numel()
    for node in graph.nodes:
        if "batch_norm" in str(node.target):
            before = node.args[0]
            width = node.meta["val"].shape[1]
            target = str(before.target)
            if len(before.users) == 1 and ("conv" in target or "linear" in target):
                has_bias = len(before.args) > 2 and before.args[2] is not None
                # Its scale and shift become a bias, which is there already or is new.
                params -= 2 * width if has_bias else width
    return params


def export(source, name, folder):
    """Writes a model in all formats, and what PyTorch says of it."""
    import logging
    import warnings

    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    # The fast path is one operation that the counter does not know.
    torch.backends.mha.set_fastpath_enabled(False)
    model, x = build(source, name)
    whiten(model)
    if source == "transformers":
        inner = model

        class First(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = inner

            def forward(self, x):
                return self.inner(x)[0]

        model = First().eval()
    with torch.no_grad():
        output = model(x)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(x)
    program = torch.export.export(model, (x,))
    torch.export.save(program, folder / "model.pt2")
    facts = {"params": expected_params(program), "flops": counter.get_total_flops() / 2}
    (folder / "facts.json").write_text(json.dumps(facts))
    if name in COMPARED:
        from safetensors.torch import save_file

        save_file({"input": x.float(), "output": output.contiguous()}, folder / "values.safetensors")
    torch.onnx.export(model, (x,), folder / "model.onnx", dynamo=True, external_data=True, verbose=False)


def imported(file, name, output):
    """The cost of an imported model, or what its import says."""
    start = time.monotonic()
    done = subprocess.run(
        [BIN / "latlas", "networks", "import", file, "--name", name, "-o", output], capture_output=True, text=True
    )
    seconds = time.monotonic() - start
    if done.returncode:
        return None, done.stderr.strip(), seconds
    cost = subprocess.run(
        [BIN / "latlas", "networks", "cost", "--arch", output, "--json"], capture_output=True, text=True, check=True
    )
    return json.loads(cost.stdout), done.stderr.strip(), seconds


def judge(source, name, keep, keys):
    """One model by both routes: a line of the table."""
    line = {"source": source, "name": name, "routes": 0, "params": False, "flops": False, "difference": None}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        done = subprocess.run([sys.executable, __file__, source, name, folder], capture_output=True, text=True)
        if not (folder / "facts.json").exists():
            print(f"{name}: it cannot be exported: {done.stderr.strip().splitlines()[-1][:200]}", flush=True)
            return None
        facts = json.loads((folder / "facts.json").read_text())
        for route in ("pt2", "onnx"):
            file = folder / f"model.{route}"
            if not file.exists():
                print(f"{name}.{route}: the exporter failed: {done.stderr.strip().splitlines()[-1][:200]}", flush=True)
                continue
            cost, said, seconds = imported(file, name, folder / f"{route}.json")
            if cost is None:
                print(f"{name}.{route}: {said[:1500]}", flush=True)
                continue
            line["routes"] += 1
            same = cost["params"] == facts["params"]
            near = abs(cost["flops"] / facts["flops"] - 1) <= 1e-3 if facts["flops"] else False
            if not (same and near):
                print(
                    f"{name}.{route}: params {cost['params']} and {facts['params']}, "
                    f"FLOPs {cost['flops']:.0f} and {facts['flops']:.0f}",
                    flush=True,
                )
            if route == "pt2":
                line.update(params=same, flops=near, seconds=seconds)
                used = {op["key"] for op in cost["ops"]}
                line["new"] = len(used - keys)
                keys |= used
                if cost["flops"] < MOST_FLOPS and source == "torchvision":
                    (keep / f"{name}.json").write_text((folder / "pt2.json").read_text())
        if name in COMPARED and line["routes"]:
            done = subprocess.run(
                [BIN / "examples/imported", folder / "model.pt2", folder / "values.safetensors"],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                print(f"{name}: {done.stderr.strip()[:300]}", flush=True)
            else:
                line["difference"] = float(done.stdout)
    told = line["difference"]
    print(
        f"{name:28} {line['routes']} of 2 routes, {line.get('new', 0):4} new keys, "
        f"params {'equal' if line['params'] else 'differ'}, FLOPs {'equal' if line['flops'] else 'differ'}"
        + (f", outputs {told:.1e} apart" if told is not None else ""),
        flush=True,
    )
    return line


def python_micros(name):
    """Medians of a model's calls in microseconds: eager Python, and TorchScript, frozen."""
    import torch

    torch.set_num_threads(1)
    model, x = build("torchvision", name)
    medians = []
    with torch.inference_mode():
        for run in (model, torch.jit.freeze(torch.jit.trace(model, x))):
            for _ in range(5):
                run(x)
            times = []
            for _ in range(15):
                start = time.perf_counter()
                run(x)
                times.append(time.perf_counter() - start)
            medians.append(1e6 * sorted(times)[len(times) // 2])
    return medians


def predictions(folder, figures):
    """Measures the smaller models and their rows, and compares predictions with measured latencies."""
    arch = sorted(folder.glob("*.json"))
    networks = [word for file in arch for word in ("--arch", str(file))]
    folder = Path(tempfile.mkdtemp())
    space = folder / "space.yaml"
    space.write_text(run("latlas", "networks", "keys", *networks))
    print(f"\n{len(arch)} models below {MOST_FLOPS / 1e9:.0f} GFLOPs, {len(keys_of(*networks))} rows")
    measured = bench(folder / "all.ndjson", "--space", str(space), *networks)
    truth = network_micros(measured)
    # Their own ops are defined in their files.
    found = accuracy(folder, "table", measured, *[word for file in arch for word in ("--op-file", file)])
    for network in sorted(found["networks"], key=lambda network: -abs((network["prediction"] or {"error": 1})["error"])):
        error = network["prediction"] and f"{100 * network['prediction']['error']:+.1f}%"
        print(f"  {network['name']:<24} {network['measured_micros'] / 1e3:8.2f} ms measured, from the rows alone {error}")
    print("the models, and how long they take in Python over what the agent measures:")
    for file in arch:
        name = file.stem
        if name in truth:
            eager, frozen = python_micros(name)
            print(
                f"  {name:<24} {truth[name] / 1e3:8.2f} ms   TorchScript, frozen {frozen / truth[name]:.2f}x   "
                f"eager Python {eager / truth[name]:.2f}x",
                flush=True,
            )
    line("the rows alone", found["overall"])
    (five,) = [entry["summary"] for entry in found["calibrated"] if entry["fitted_on"] == 5]
    line("calibrated on 5, judged on the rest", five)
    figures.at_least("predicted_within_10", 100 * five["within_10"], 95, "%")
    figures.at_most("predicted_mape", 100 * five["mape"], 4, "%")


def main():
    if len(sys.argv) == 4:
        return export(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    chosen = os.environ.get("MODELS", "").split()
    half = os.environ.get("HALF")
    figures = Figures()
    if half != "predict":
        shutil.rmtree(KEPT, ignore_errors=True)
        KEPT.mkdir(parents=True)
        imports(names, chosen, figures)
    if half != "import":
        predictions(KEPT, figures)
    figures.finish()


def imports(names, chosen, figures):
    """Imports all models, and leaves the networks that are to be measured in KEPT."""
    keys = set()
    ours = [("torchvision", name) for name in names]
    lines = {}
    for source, name in [*ours, *OTHERS]:
        if not chosen or name in chosen:
            lines[source, name] = judge(source, name, KEPT, keys)
    vision = [line for (source, _), line in lines.items() if source == "torchvision" and line]
    others = [line for (source, _), line in lines.items() if source != "torchvision" and line]
    compared = [line for line in vision if line["name"] in COMPARED]
    both = sum(line["routes"] == 2 for line in vision)
    figures.at_least("torchvision_imported", 100 * both / max(1, len(vision)), 95, "%")
    figures.at_least("params_equal", 100 * sum(line["params"] for line in vision) / max(1, len(vision)), 95, "%")
    figures.at_least("flops_within_0.1", 100 * sum(line["flops"] for line in vision) / max(1, len(vision)), 95, "%")
    figures.at_least(
        "outputs_equal",
        sum(line["difference"] is not None and line["difference"] <= 1e-4 for line in compared),
        min(12, len(compared) or 12),
        "",
    )
    figures.at_least("others_imported", sum(line["routes"] > 0 for line in others), 16, "")


if __name__ == "__main__":
    main()
