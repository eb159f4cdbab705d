"""A differentiable search in PyTorch: which blocks of a network can be made smaller or left out, given their latency.

The blocks of a drawn network matter less and less. In a supernet, each of them is as it was, or half as wide, or left
out. Training adapts the weights and, with a Gumbel softmax as in FBNet (arXiv 1812.03443), learns which choice to take.
The loss is the error of what the network computes, plus its expected latency from a latency table. It takes some ten
seconds on one core and needs torch, numpy and latlas.

    python3 examples/differentiable_search.py
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path

import latlas
import torch
from torch import Tensor, nn
from torch.nn import functional

TABLE = Path(__file__).parent.parent / "python/tests/table.json"

# The part of a network that works on 32 maps of 28x28. Stem and head are the same for all networks.
INPUT = (1, 32, 28, 28)
SMALL = {"op": "MBConv3_3x3", "c_out": 32, "stride": 1}
LARGE = {"op": "MBConv6_3x3", "c_out": 32, "stride": 1}
LAST = {"op": "Conv3x3", "c_out": 64, "stride": 2}
CHOICES = [[SMALL, LARGE], *[[SMALL, LARGE, None]] * 4, [LAST]]

# How much each block of the drawn network matters.
STRENGTHS = [1.0, 0.6, 0.3, 0.1, 0.03]

# Training sees smaller maps, since only the table has to know about the real ones.
TRAINED_SIZE = 6
BATCH = 16


def mbconv(expansion: int) -> nn.Sequential:
    """An inverted residual of 32 channels without its shortcut, as the op of this name."""
    inner = 32 * expansion
    return nn.Sequential(
        nn.Conv2d(32, inner, 1),
        nn.ReLU6(),
        nn.Conv2d(inner, inner, 3, padding=1, groups=inner),
        nn.ReLU6(),
        nn.Conv2d(inner, 32, 1),
    )


def half(large: nn.Sequential) -> nn.Sequential:
    """A block with half of the inner channels of another."""
    small = mbconv(3)
    kept = 32 * 3
    for place in (0, 2):
        small[place].weight = nn.Parameter(large[place].weight[:kept].clone())
        small[place].bias = nn.Parameter(large[place].bias[:kept].clone())
    small[4].weight = nn.Parameter(large[4].weight[:, :kept].clone())
    small[4].bias = nn.Parameter(large[4].bias.clone())
    return small


class Supernet(nn.Module):
    """All networks at once, with the weights of the drawn one."""

    def __init__(self) -> None:
        super().__init__()
        self.large = nn.ModuleList(mbconv(6) for _ in STRENGTHS)
        with torch.no_grad():
            for block, strength in zip(self.large, STRENGTHS):
                block[4].weight *= 20 * strength
        self.small = nn.ModuleList(half(block) for block in self.large)
        self.last = nn.Conv2d(32, 64, 3, stride=2, padding=1)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """The output for one gate of each choice, in the order of `CHOICES`."""
        for gate, small, large in zip(gates, self.small, self.large):
            # None lets the shortcut through alone.
            x = x + gate[0] * small(x) + gate[1] * large(x)
        return self.last(x)


def network(places: list[int]) -> latlas.Network:
    """The network with one choice of each layer."""
    chosen = [choices[place] for choices, place in zip(CHOICES, places)]
    n, c, h, w = INPUT
    layers = [layer for layer in chosen if layer is not None]
    return latlas.Network.from_dict({"input": {"n": n, "c": c, "h": h, "w": w}, "layers": layers})


def one_hot(places: list[int], shape: torch.Size) -> Tensor:
    return functional.one_hot(torch.tensor(places), shape[1]).float()


class Search:
    """The supernet, its latencies, and the drawn network that it has to imitate."""

    def __init__(self, table: latlas.Table) -> None:
        latency, self.mask = table.latency_tensor(CHOICES, input=INPUT)
        # A choice that a layer lacks gets the probability 0, and NaN times 0 would be NaN.
        self.latency = latency.nan_to_num()
        self.supernet = Supernet()
        self.drawn = Supernet().requires_grad_(False)
        self.drawn.load_state_dict(self.supernet.state_dict())

    def error(self, gates: Tensor) -> Tensor:
        """The error on drawn maps: 0 for the drawn network at first, 1 for a network without blocks."""
        x = torch.randn(BATCH, 32, TRAINED_SIZE, TRAINED_SIZE)
        wanted = self.drawn(x, one_hot([1] * len(CHOICES), self.latency.shape))
        without = self.drawn(x, torch.zeros(self.latency.shape))
        return functional.mse_loss(self.supernet(x, gates), wanted) / functional.mse_loss(without, wanted)

    def run(self, steps: int, weight: float) -> list[int]:
        """Trains, with a loss of `weight` for each millisecond, and returns the choice of each layer."""
        alpha = torch.zeros(self.latency.shape, requires_grad=True)
        weights = torch.optim.Adam(self.supernet.parameters(), lr=1e-3)
        choices = torch.optim.Adam([alpha], lr=0.05)
        for step in range(steps):
            logits = alpha.masked_fill(~self.mask, -math.inf)
            error = self.error(functional.gumbel_softmax(logits, hard=True))
            expected = (logits.softmax(-1) * self.latency).sum()
            (error + weight * expected).backward()
            for optimizer in (weights, choices):
                optimizer.step()
                optimizer.zero_grad()
            if step % 50 == 0 or step == steps - 1:
                print(f"step {step:3}  error {error.item():.3f}  expected latency {expected.item():.3f} ms", flush=True)
        return alpha.masked_fill(~self.mask, -math.inf).argmax(-1).tolist()

    def mean_error(self, places: list[int]) -> float:
        with torch.no_grad():
            gates = one_hot(places, self.latency.shape)
            return sum(self.error(gates).item() for _ in range(20)) / 20


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--table", default=TABLE, help="a latency table with the rows of the supernet")
    options.add_argument("--steps", type=int, default=200, help="steps of training")
    options.add_argument("--weight", type=float, default=0.1, help="loss for each millisecond")
    given = options.parse_args()
    # Maps this small are not worth more threads.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = latlas.Table.load(given.table)
    search = Search(table)
    found = search.run(given.steps, given.weight)

    dice = random.Random(0)
    fastest = search.latency.masked_fill(~search.mask, math.inf).argmin(-1).tolist()
    slowest = search.latency.masked_fill(~search.mask, -math.inf).argmax(-1).tolist()
    drawn = [[dice.randrange(len(choices)) for choices in CHOICES] for _ in range(200)]
    print(f"\n{table.hardware_id}, table {table.version}")
    for name, places in (("chosen", found), ("fastest", fastest), ("slowest", slowest), ("random", drawn[0])):
        p = table.predict(network(places))
        ops = [choices[place] for choices, place in zip(CHOICES, places)]
        blocks = " ".join("-" if op is None else op["op"] for op in ops)
        error = search.mean_error(places)
        print(f"{name:8}  {p.ms:.3f} ms ({p.low:.3f} to {p.high:.3f})  error {error:.3f}  {blocks}")
    mean = table.predict_many([network(places) for places in drawn]).ms.mean()
    print(f"{len(drawn)} random networks take {mean:.3f} ms in the mean")


if __name__ == "__main__":
    main()
