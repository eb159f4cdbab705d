"""Networks in three runtimes, eager Python, frozen TorchScript and the agent; then predictions with ONNX Runtime"""
# needs: torchvision onnx onnxruntime

import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import common
import pytorch
from accuracy import REAL, accuracy, bench, keys_of, line, network_micros

torch = pytorch.torch
NETWORKS = "resnet18 mobilenet_v2 mobilenet_v3_large efficientnet_b0".split()
ROUNDS = 3
INFERENCES = 40
WARM_UP = 10


def agent_micros(folder):
    """Quiet quantile of each network by the agent."""
    out = folder / "networks.ndjson"
    names = [word for name in NETWORKS for word in ("--network", name)]
    subprocess.run(
        [common.BIN / "latlas-agent", "bench", "--out", out, *names], check=True, stderr=subprocess.DEVNULL
    )
    measurements = map(json.loads, out.read_text().splitlines())
    return {
        m["subject"]["network"]["spec"]["name"]: m["latency"]["curve"][0]["quiet_micros"] for m in measurements
    }


def quiet_micros(model, image):
    """The 10th percentile of single inferences, as the agent's."""
    micros = []
    for count in range(WARM_UP + INFERENCES):
        start = time.perf_counter()
        model(image)
        if count >= WARM_UP:
            micros.append((time.perf_counter() - start) * 1e6)
    return common.quantile(micros, 0.1)


def with_onnxruntime(dtype, figures):
    """A table of ONNX Runtime: predictions of twenty networks, against the networks measured with it."""
    folder = Path(tempfile.mkdtemp())
    command = json.dumps([sys.executable, str(common.ROOT / "runtimes/onnxruntime_worker.py")])
    runtimes = folder / "runtimes.toml"
    runtimes.write_text(f"[runtime.onnxruntime]\ncommand = {command}\n")
    arch = folder / "drawn.ndjson"
    drawn = str(20 - len(REAL))
    arch.write_text(common.run("latlas", "networks", "draw", "--family", "mobilenet", "--count", drawn, "--seed", "1"))
    networks = ["--arch", str(arch)] + [word for name in REAL for word in ("--network", name)]
    keys = [word for key in keys_of(*networks) for word in ("--key", key)]
    options = ["--runtime", "onnxruntime", "--runtimes", str(runtimes), "--dtype", dtype]
    measured = bench(folder / "all.ndjson", *options, *keys, *networks, state=folder / "state")
    config = measured[0]["run_config"]
    print(f"\nONNX Runtime {config['runtime']} {dtype}: {len(network_micros(measured))} networks, {len(keys) // 2} rows")
    found = accuracy(folder, "table", measured)
    for network in found["networks"]:
        if network["prediction"]:
            print(
                f"  {network['name']:<28} {network['measured_micros'] / 1e3:8.2f} ms measured, "
                f"{100 * network['prediction']['error']:+.1f}% from the rows alone"
            )
    line("the rows alone", found["overall"])
    (five,) = [entry["summary"] for entry in found["calibrated"] if entry["fitted_on"] == 5]
    line("calibrated on 5, judged on the rest", five)
    figures.at_least(f"onnxruntime_{dtype}_within_10", 100 * five["within_10"], 95, "%")
    figures.at_most(f"onnxruntime_{dtype}_mape", 100 * five["mape"], 4, "%")


def main():
    from torchvision import models

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    image = torch.randn(1, 3, 224, 224)
    eager = {name: getattr(models, name)(weights=None).eval() for name in NETWORKS}
    with torch.inference_mode():
        frozen = {name: torch.jit.freeze(torch.jit.trace(model, image)) for name, model in eager.items()}
        folder = Path(tempfile.mkdtemp())
        found = {name: {"eager": [], "frozen": [], "agent": []} for name in NETWORKS}
        # In turns, so that all meet the same machine.
        for _ in range(ROUNDS):
            for name, micros in agent_micros(folder).items():
                found[name]["agent"].append(micros)
            for name in NETWORKS:
                found[name]["eager"].append(quiet_micros(eager[name], image))
                found[name]["frozen"].append(quiet_micros(frozen[name], image))
    print(f"{'network':<22} {'eager Python':>14} {'frozen TorchScript':>20} {'agent':>10}   agent over frozen")
    ratios = []
    for name, times in found.items():
        millis = {runtime: common.median(values) / 1e3 for runtime, values in times.items()}
        ratios.append(millis["agent"] / millis["frozen"])
        print(
            f"{name:<22} {millis['eager']:>11.2f} ms {millis['frozen']:>17.2f} ms {millis['agent']:>7.2f} ms"
            f"   {ratios[-1]:.3f}"
        )
    figures = common.Figures()
    figures.at_most("agent_over_frozen_off", 100 * abs(common.median(ratios) - 1), 5, "%")
    for dtype in ("f32", "int8"):
        with_onnxruntime(dtype, figures)
    figures.finish()


if __name__ == "__main__":
    main()
