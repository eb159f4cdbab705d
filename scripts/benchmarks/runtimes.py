"""Whole networks of torchvision in three runtimes: eager Python, frozen TorchScript, and the agent."""

import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import common
import pytorch

torch = pytorch.torch
# The release for the torch that Latlas links, and what it imports.
PACKAGES = ["torchvision==0.28.0", "numpy", "pillow"]
NETWORKS = "resnet18 mobilenet_v2 mobilenet_v3_large efficientnet_b0".split()
ROUNDS = 3
INFERENCES = 40
WARM_UP = 10


def torchvision():
    """The models, from a folder of their own: the Python of the reference has torch alone."""
    site = common.ROOT / "target/torchvision"
    if not (site / "torchvision").is_dir():
        pip = [sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--target", str(site)]
        subprocess.run([*pip, *PACKAGES], check=True)
    sys.path.append(str(site))
    import torchvision.models

    return torchvision.models


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


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    models = torchvision()
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
    figures.finish()


if __name__ == "__main__":
    main()
