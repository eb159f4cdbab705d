"""Whole networks predicted from a table, against the networks measured; beside it the sum of plain means."""

import contextlib
import json
import math
import multiprocessing
import os
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
SEEDS = 3


def latlas(*arguments):
    return common.run("latlas", *map(str, arguments))


def bench(out, *arguments, state=None):
    """`latlas-agent bench` into a file; its last line reports how the time was spent. `state`: a separate folder for
    what the agent remembers of this machine."""
    done = subprocess.run(
        [common.BIN / "latlas-agent", "bench", "--out", out, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ({"XDG_STATE_HOME": str(state)} if state else {}),
    )
    if done.returncode:
        sys.exit(f"latlas-agent ended with {done.returncode}: {done.stderr[-2000:]}")
    print(done.stderr.splitlines()[-1])
    return [json.loads(line) for line in out.read_text().splitlines()]


def is_network(measurement):
    return "network" in measurement["subject"]


def network_micros(measurements):
    """Quiet quantile of each measured network, by name."""
    return {
        m["subject"]["network"]["spec"]["name"]: m["latency"]["curve"][0]["quiet_micros"]
        for m in measurements
        if is_network(m) and m["latency"]
    }


def accuracy(folder, name, measurements, *options):
    """The accuracy in the table built from these measurements, with further options of `table build`."""
    rows = folder / f"{name}.ndjson"
    rows.write_text("".join(json.dumps(m) + "\n" for m in measurements))
    table = folder / f"{name}.json"
    latlas("table", "build", rows, "-o", table, *options)
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
    """The measurements without a random half of the rows that networks need. Each op keeps at least one row, since an
    op without rows is not estimated."""
    rows = sorted({m["subject"]["op"]["key"] for m in measurements if not is_network(m)} & needed)
    chance = random.Random(seed)
    chance.shuffle(rows)
    first = {key.split(":")[0]: key for key in rows}
    gone = set([key for key in rows if key not in first.values()][: len(rows) // 2])
    return [m for m in measurements if is_network(m) or m["subject"]["op"]["key"] not in gone]


def networks_within_10(summary):
    """Share of all networks; a network without a prediction counts as wrong."""
    return 100 * (summary["within_10"] or 0) * summary["predicted"] / summary["networks"]


def curve_of_order(folder, table, networks, minutes, seed):
    """Accuracy from parts of the rows, profiled in three orders: the agent's informative order, which learns from each
    batch, the order in which a coordinator hands out a space, and a random order.

    All orders use the same measurements; the time is the rows' share of the total time.
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


def pooled(first, again):
    """The measurements of `first`, with the geometric mean of both runs as each network's latency."""
    later = network_micros(again)
    for m in first:
        if is_network(m) and m["latency"]:
            point = m["latency"]["curve"][0]
            other = later.get(m["subject"]["network"]["spec"]["name"])
            factor = math.sqrt(other / point["quiet_micros"]) if other else 1
            for field in ("quiet_micros", "median_micros", "ci95_low_micros", "ci95_high_micros"):
                point[field] *= factor
    return first


def networks_of(folder, seed, count):
    """Arguments that name the networks of one seed, and the file of the drawn networks."""
    arch = folder / f"drawn-{seed}.ndjson"
    arch.write_text(latlas("networks", "draw", "--family", "mobilenet", "--count", count, "--seed", seed))
    return ["--arch", str(arch)] + [word for name in REAL for word in ("--network", name)], arch


def one_seed(folder, seed):
    """Measures the networks of a seed with their rows, then the networks again; returns the accuracy in the resulting
    table."""
    networks, arch = networks_of(folder, seed, RANDOM)
    keys = [word for key in keys_of(*networks) for word in ("--key", key)]
    print(f"\nseed {seed}: {RANDOM} random networks and {len(REAL)} real ones, {len(keys) // 2} rows")
    start = time.monotonic()
    file = folder / f"all-{seed}.ndjson"
    first = bench(file, *keys, *networks)
    minutes = (time.monotonic() - start) / 60
    truth = network_micros(first)
    again = bench(folder / "again.ndjson", *networks)
    later = network_micros(again)
    floor = [later[name] / truth[name] - 1 for name in truth if name in later]
    measurements = pooled(first, again)
    whole = accuracy(folder, f"whole-{seed}", measurements)
    drawn_only = [m for m in measurements if not is_network(m) or m["subject"]["network"]["spec"]["name"] not in REAL]
    half = accuracy(folder, "half", halved(drawn_only, set(keys_of("--arch", arch)), seed))
    print("worst predicted from the rows alone:")
    for network in [n for n in whole["networks"] if n["prediction"]][:6]:
        print(
            f"  {network['name']:<28} {network['measured_micros'] / 1e3:8.2f} ms measured, "
            f"{network['prediction']['predicted_micros'] / 1e3:8.2f} predicted "
            f"({100 * network['prediction']['error']:+.1f}%)"
        )
    calibration = json.loads((folder / f"whole-{seed}.json").read_text())["calibration"]
    learned = ", ".join(
        f"{name} {calibration[name]:.3g}" for name in ("scale", "footprint_mib", "unquiet", "per_op_micros", "noise")
    )
    print(f"calibration on all: {learned}")
    line("the rows alone", whole["overall"])
    for family, summary in whole["families"].items():
        line(f"  family {family}", summary)
    for entry in whole["calibrated"]:
        line(f"calibrated on {entry['fitted_on']}, judged on the rest", entry["summary"])
    line("half of the needed rows missing", half["overall"])
    print(
        f"  {'the same networks measured again':<40} MAPE {100 * sum(map(abs, floor)) / len(floor):5.1f}%   "
        f"within 5% {share(floor, 0.05):5.1f}%   within 10% {share(floor, 0.1):5.1f}%"
    )
    return {
        "alone": whole["overall"],
        "calibrated_5": next(e["summary"] for e in whole["calibrated"] if e["fitted_on"] == 5),
        "half": half["overall"],
        "floor": floor,
        "drawn": drawn_only,
        "arch": arch,
        "truth": network_micros(measurements),
        "rows": rows_of(file),
        "table": folder / f"whole-{seed}.json",
        "minutes": minutes,
    }


def traffic(running):
    """Uses a core and the memory bus for ten seconds of every twenty."""
    block = bytearray(1 << 28)
    while True:
        running.wait()
        start = time.monotonic()
        while time.monotonic() - start < 10:
            block[:] = bytes(len(block))
        time.sleep(10)


@contextlib.contextmanager
def loaded():
    """A neighbour process that is busy half of the time."""
    running = multiprocessing.Event()
    running.set()
    neighbour = multiprocessing.Process(target=traffic, args=(running,), daemon=True)
    neighbour.start()
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.join()


def in_a_loaded_hour(folder, quiet, seed):
    """Rows and networks of a seed measured again next to a busy neighbour: for the networks with a known quiet latency,
    the share inside the interval, and the share that is degraded."""
    networks, _ = networks_of(folder, seed, RANDOM)
    keys = [word for key in keys_of(*networks) for word in ("--key", key)]
    print("\nthe first seed's rows and networks beside a neighbour that is busy for half of the time:")
    with loaded():
        # Results under a deliberate load must not be remembered for this machine.
        measurements = bench(folder / "loaded.ndjson", *keys, *networks, state=folder / "state")
    summary = accuracy(folder, "loaded", measurements)
    line("the rows alone, against loaded networks", summary["overall"])
    rows = {m["subject"]["op"]["key"]: m["status"] for m in measurements if not is_network(m)}
    table = folder / "loaded.json"
    calm = json.loads(table.read_text())
    calm["calibration"] = None
    alone = folder / "loaded-alone.json"
    alone.write_text(json.dumps(calm))
    names = [*networks]
    inside, said, outside = 0, 0, []
    for text in latlas("predict", "--table", alone, *names, "--json").splitlines():
        prediction = json.loads(text)
        truth = quiet[prediction["name"]]
        total = sum(op["latency_micros"] for op in prediction["ops"])
        bad = sum(op["latency_micros"] for op in prediction["ops"] if rows.get(op["key"]) == "degraded")
        if prediction["low_micros"] <= truth <= prediction["high_micros"]:
            inside += 1
        elif bad > total / 2:
            said += 1
        else:
            outside.append(prediction["name"])
    count = inside + said + len(outside)
    print(
        f"  against their quiet latencies: {inside} of {count} inside the interval of the rows alone, {said} more rest "
        f"on degraded rows, silently outside: {', '.join(outside) or 'none'}"
    )
    return 100 * (inside + said) / count, len(outside)


def kept(figures):
    """Adds this run to the table of all tested processors."""
    file = common.ROOT / "docs/figures/accuracy-processors.md"
    if not file.exists():
        file.write_text(
            "# Accuracy by processor\n\n`scripts/bench accuracy` adds a line for each run.\n\n"
            "| date | version | processor | on 5: MAPE, outside 10% | rows alone: MAPE, within 10% | measured again: MAPE |"
            " half width on 5, alone |\n|---|---|---|---|---|---|---|\n"
        )
    cpu = dict(
        part.split(":", 1) for part in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines() if ":" in part
    )
    cpu = {name.strip(): value.strip() for name, value in cpu.items()}
    processor = f"{cpu.get('model name', 'unknown')} family {cpu.get('cpu family', '-')} model {cpu.get('model', '-')}"
    print(f"processor: {processor}")
    version = subprocess.run(
        ["git", "describe", "--always", "--dirty"], stdout=subprocess.PIPE, text=True, cwd=common.ROOT
    ).stdout.strip()
    with file.open("a") as table:
        table.write(f"| {time.strftime('%F')} | {version} | {processor} | {' | '.join(figures)} |\n")


def pool(seeds, kind, figure):
    """The mean of a figure over all seeds."""
    return sum(seed[kind][figure] for seed in seeds) / len(seeds)


def main():
    pytorch.torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    first_seed = random.SystemRandom().randrange(1 << 32)
    numbers = [first_seed + i for i in range(SEEDS)]
    seeds = [one_seed(folder, number) for number in numbers]
    first = seeds[0]
    covered, silent = in_a_loaded_hour(folder, first["truth"], first_seed)
    naive = summed_means(first["table"], first["arch"], first["truth"])
    print(
        f"\n  {'mean of 100 calls, summed (first seed)':<40} MAPE {100 * sum(map(abs, naive)) / len(naive):5.1f}%   "
        f"within 5% {share(naive, 0.05):5.1f}%   within 10% {share(naive, 0.1):5.1f}%"
    )
    drawn_networks = [m for m in first["drawn"] if is_network(m)]
    (folder / "all.ndjson").write_text("".join(json.dumps(m) + "\n" for m in first["rows"]))
    enough = curve_of_order(folder, first["table"], drawn_networks, first["minutes"], first_seed)

    floor = [abs(error) for seed in seeds for error in seed["floor"]]
    again = 100 * sum(floor) / len(floor)
    print(f"\nall seeds: {len(floor)} networks; measured again: MAPE {again:.2f}%")
    figures = common.Figures()
    five, alone, half = (
        {figure: pool(seeds, kind, figure) for figure in first[kind] if isinstance(first[kind][figure], float)}
        for kind in ("calibrated_5", "alone", "half")
    )
    outside = 100 * (1 - five["within_10"])
    figures.at_most("calibrated_5_outside_10", outside, 3, "%")
    figures.at_most("calibrated_5_mape", 100 * five["mape"], round(max(3, 1.2 * again), 2), "%")
    figures.at_least("calibrated_5_tau", five["kendall_tau"], 0.97)
    figures.at_least("rows_alone_within_10", 100 * alone["within_10"], 95, "%")
    figures.at_most("rows_alone_mape", 100 * alone["mape"], round(max(4, 1.5 * again), 2), "%")
    figures.at_least("rows_alone_tau", alone["kendall_tau"], 0.95)
    missing = sum(networks_within_10(seed["half"]) for seed in seeds) / len(seeds)
    figures.at_least("half_missing_within_10", missing, 95, "%")
    for name, summary, widest in [("calibrated_5", five, 8), ("rows_alone", alone, 12)]:
        figures.at_least(f"{name}_covered", 100 * summary["covered"], 90, "%")
        figures.at_most(f"{name}_covered_at_most", 100 * summary["covered"], 98.5, "%")
        figures.at_most(f"{name}_half_width", 100 * summary["half_width"], widest, "%")
        print(f"  {name}: mean interval score {100 * summary['interval_score']:.1f}%")
    figures.at_least("loaded_covered_or_degraded", covered, 90, "%")
    figures.at_most("loaded_silently_wrong", silent, 0)
    # The number of rows at which nine networks in ten are predicted within 10%.
    last = len({m["subject"]["op"]["key"] for m in first["drawn"] if not is_network(m)})
    for name in ("informative", "in_advance"):
        rows = enough.get(name, last) / enough.get("random", last)
        figures.at_most(f"{name}_order_rows", rows, 0.8, "x")
    kept(
        [
            f"{100 * five['mape']:.1f}%, {outside:.1f}%",
            f"{100 * alone['mape']:.1f}%, {100 * alone['within_10']:.0f}%",
            f"{again:.1f}%",
            f"{100 * five['half_width']:.1f}%, {100 * alone['half_width']:.1f}%",
        ]
    )
    figures.finish()


if __name__ == "__main__":
    main()
