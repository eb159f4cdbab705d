"""Whole networks predicted from a table, against the networks measured; beside it the sum of plain means."""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import pytorch

REAL = (
    "resnet18 resnet50 mobilenet_v2 mobilenet_v3_large efficientnet_b0 vit_b_32 "
    "squeezenet1_1 shufflenet_v2_x1_0 mnasnet1_0 regnet_y_400mf convnext_tiny"
).split()
RANDOM = 40


def latlas(*arguments):
    return common.run("latlas", *map(str, arguments))


def bench(out, *arguments):
    """`latlas-agent bench` into a file; its last line says where the time went."""
    done = subprocess.run(
        [common.BIN / "latlas-agent", "bench", "--out", out, *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(f"latlas-agent ended with {done.returncode}: {done.stderr[-2000:]}")
    print(done.stderr.splitlines()[-1])
    return [json.loads(line) for line in out.read_text().splitlines()]


def is_network(measurement):
    return "network" in measurement["subject"]


def network_micros(measurements):
    """Quiet quantile of each network that was measured, by name."""
    return {
        m["subject"]["network"]["spec"]["name"]: m["latency"]["curve"][0]["quiet_micros"]
        for m in measurements
        if is_network(m) and m["latency"]
    }


def accuracy(folder, name, measurements):
    """The accuracy that a table of these measurements states of itself."""
    rows = folder / f"{name}.ndjson"
    rows.write_text("".join(json.dumps(m) + "\n" for m in measurements))
    table = folder / f"{name}.json"
    latlas("table", "build", rows, "-o", table)
    return json.loads(latlas("accuracy", "--table", table, "--json"))


def back_to_back(key):
    """The usual protocol: 10 calls, then the mean of 100 in microseconds."""
    with pytorch.torch.inference_mode():
        reference = pytorch.Reference(key)
        for _ in range(10):
            reference.op(reference.input)
        start = time.perf_counter()
        for _ in range(100):
            reference.op(reference.input)
        return (time.perf_counter() - start) / 100 * 1e6


def share(errors, most):
    return 100 * sum(abs(error) <= most for error in errors) / len(errors)


def summed_means(table, arch, truth):
    """Relative errors of the sums of such means, over the networks of a file."""
    means = {}
    errors = []
    for text in latlas("predict", "--table", table, "--arch", arch, "--json").splitlines():
        prediction = json.loads(text)
        keys = [op["key"] for op in prediction["ops"]]
        for key in keys:
            if key not in means:
                means[key] = back_to_back(key)
        errors.append(sum(means[key] for key in keys) / truth[prediction["name"]] - 1)
    return errors


def line(name, summary):
    def shown(figure, factor, form):
        value = summary[figure]
        return "-" if value is None else format(factor * value, form)

    print(
        f"  {name:<40} MAPE {shown('mape', 100, '.1f')}%   within 5% {shown('within_5', 100, '.1f')}%   "
        f"within 10% {shown('within_10', 100, '.1f')}%   bias {shown('bias', 100, '+.1f')}%   "
        f"tau {shown('kendall_tau', 1, '.3f')}   inside the interval {shown('covered', 100, '.0f')}%"
    )


def halved(measurements, needed, seed):
    """Without a random half of the rows that networks need, of which each op keeps one: an op that was never
    measured is not estimated."""
    rows = sorted({m["subject"]["op"]["key"] for m in measurements if not is_network(m)} & needed)
    chance = random.Random(seed)
    chance.shuffle(rows)
    first = {key.split(":")[0]: key for key in rows}
    gone = set([key for key in rows if key not in first.values()][: len(rows) // 2])
    return [m for m in measurements if is_network(m) or m["subject"]["op"]["key"] not in gone]


def networks_within_10(summary):
    """Share of all networks, one without a prediction counting as wrong."""
    return 100 * (summary["within_10"] or 0) * summary["predicted"] / summary["networks"]


def curve_of_order(folder, table, networks, minutes, seed):
    """Accuracy from parts of the rows, profiled in the agent's informative order, which learns from each batch,
    in the one that a coordinator hands a space out in, and in a random one.

    The orders are of the same measurements; the time is the share of the rows in the time that all took.
    """
    replay = subprocess.run(
        [common.BIN / "examples/replay", table, "mobilenet"], stdout=subprocess.PIPE, text=True, check=True
    )
    *batches, (_, *in_advance) = [line.split() for line in replay.stdout.splitlines()]
    informative = [key for _, *keys in batches for key in keys]
    shuffled = sorted(informative)
    random.Random(seed).shuffle(shuffled)
    by_key = {m["subject"]["op"]["key"]: m for m in rows_of(folder / "all.ndjson")}
    enough = {}
    taken = 0
    print("\nrows profiled in three orders (networks within 10%, those without a prediction count as wrong):")
    print("  rows  minutes  expected error   informative   in advance   at random")
    orders = {"informative": informative, "in_advance": in_advance, "random": shuffled}
    for expected, *keys in batches[:-1]:
        taken += len(keys)
        shares = []
        for name, order in orders.items():
            part = [by_key[key] for key in order[:taken]]
            shares.append(networks_within_10(accuracy(folder, "part", part + networks)["overall"]))
            if shares[-1] >= 90:
                enough.setdefault(name, taken)
        print(
            f"  {taken:>4}  {minutes * taken / len(informative):>7.1f}  {100 * float(expected):>13.1f}%"
            f"  {shares[0]:>11.1f}%  {shares[1]:>10.1f}%  {shares[2]:>9.1f}%"
        )
    return enough


def rows_of(file):
    measurements = map(json.loads, file.read_text().splitlines())
    return [m for m in measurements if not is_network(m)]


def keys_of(*networks):
    return json.loads(latlas("networks", "keys", "--json", *networks))["keys"]


def main():
    pytorch.torch.set_num_threads(1)
    seed = random.SystemRandom().randrange(1 << 32)
    folder = Path(tempfile.mkdtemp())
    drawn = latlas("networks", "draw", "--family", "mobilenet", "--count", RANDOM, "--seed", seed)
    arch = folder / "drawn.ndjson"
    arch.write_text(drawn)
    networks = ["--arch", str(arch)] + [word for name in REAL for word in ("--network", name)]
    keys = [word for key in keys_of(*networks) for word in ("--key", key)]
    print(f"seed {seed}: {RANDOM} random networks and {len(REAL)} real ones, {len(keys) // 2} rows")
    start = time.monotonic()
    measurements = bench(folder / "all.ndjson", *keys, *networks)
    minutes = (time.monotonic() - start) / 60
    truth = network_micros(measurements)
    again = network_micros(bench(folder / "again.ndjson", *networks))
    floor = [again[name] / truth[name] - 1 for name in truth if name in again]
    whole = accuracy(folder, "whole", measurements)
    drawn_only = [m for m in measurements if not is_network(m) or m["subject"]["network"]["spec"]["name"] not in REAL]
    half = accuracy(folder, "half", halved(drawn_only, set(keys_of("--arch", arch)), seed))
    naive = summed_means(folder / "whole.json", arch, truth)
    drawn_networks = [m for m in drawn_only if is_network(m)]
    enough = curve_of_order(folder, folder / "whole.json", drawn_networks, minutes, seed)

    print("\nworst predicted from the rows alone:")
    for network in [n for n in whole["networks"] if n["prediction"]][:8]:
        print(
            f"  {network['name']:<28} {network['measured_micros'] / 1e3:8.2f} ms measured, "
            f"{network['prediction']['predicted_micros'] / 1e3:8.2f} predicted "
            f"({100 * network['prediction']['error']:+.1f}%)"
        )
    print("\npredictions of all networks:")
    line("the rows alone", whole["overall"])
    for family, summary in whole["families"].items():
        line(f"  family {family}", summary)
    calibrated = {entry["fitted_on"]: entry["summary"] for entry in whole["calibrated"]}
    for count, summary in calibrated.items():
        line(f"calibrated on {count}, judged on the rest", summary)
    line("half of the needed rows missing", half["overall"])
    print(f"    predicted at all: {half['overall']['predicted']} of {half['overall']['networks']}")
    print(
        f"  {'mean of 100 calls, summed (random)':<34} MAPE {100 * sum(map(abs, naive)) / len(naive):5.1f}%   "
        f"within 5% {share(naive, 0.05):5.1f}%   within 10% {share(naive, 0.1):5.1f}%"
    )
    print(
        f"  {'the same networks measured again':<34} MAPE {100 * sum(map(abs, floor)) / len(floor):5.1f}%   "
        f"within 5% {share(floor, 0.05):5.1f}%   within 10% {share(floor, 0.1):5.1f}%"
    )
    figures = common.Figures()
    for name, summary in [("rows_alone", whole["overall"])] + [
        (f"calibrated_{count}", summary) for count, summary in calibrated.items()
    ]:
        figures.at_least(f"{name}_within_10", 100 * summary["within_10"], 95, "%")
        figures.at_most(f"{name}_mape", 100 * summary["mape"], 4, "%")
        figures.at_least(f"{name}_tau", summary["kendall_tau"], 0.95)
    figures.at_least("half_missing_within_10", networks_within_10(half["overall"]), 90, "%")
    # Rows until nine networks in ten are predicted within 10%.
    last = len({m["subject"]["op"]["key"] for m in drawn_only if not is_network(m)})
    for name in ("informative", "in_advance"):
        rows = enough.get(name, last) / enough.get("random", last)
        figures.at_most(f"{name}_order_rows", rows, 0.8, "x")
    figures.finish()


if __name__ == "__main__":
    main()
