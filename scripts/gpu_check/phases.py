"""The checks of gpu-check, in the order of their importance. Each phase adds figures and details to its findings."""

import json
import subprocess
import sys
import time

import arithmetic
import common
import machine
from machine import Problem
from programs import OutOfTime, interval, latency, point
from stranger import SOURCE

REAL = (
    "resnet18 resnet50 mobilenet_v2 mobilenet_v3_large efficientnet_b0 vit_b_32 "
    "squeezenet1_1 shufflenet_v2_x1_0 mnasnet1_0 regnet_y_400mf convnext_tiny"
).split()
# Number of random networks, and their seed.
RANDOM, SEED = 20, 2026
# Element types of the networks.
DTYPES = ["f32", "bf16"]
# Half of the networks are measured one by one, and half in batches.
BATCH = 32
# For ending a run whose time is over.
ENDING_SECONDS = 3
# How long the network of the phase `heat` runs, where there is time.
SUSTAINED_SECONDS = 60
# Networks that calibrate the table of a space.
CALIBRATION_NETWORKS = 3
# Reserved for evaluating the measurements.
JUDGING_SECONDS = 10
# A card's power is a mean over about a second, so this time before and after belongs to the work in between.
POWER_LAG = 1.5


class Check:
    """The shared input of all phases."""

    def __init__(self, programs, data, quick, dtypes=DTYPES):
        self.programs, self.quick = programs, quick
        self.dtypes = dtypes[:1] if quick else dtypes
        # The space of two tables, and the ops that are compared: as single calls and in batches.
        self.sixty = data("sixty.yaml")
        self.forty = data("forty.txt").read_text().split()
        self.device = programs.device
        self.on_gpu = self.device != "cpu"
        # Set by one phase and used by later ones.
        self.seconds_per_row = None

    def index(self):
        return int(self.device.split(":")[1])

    def time_in_torch(self, keys):
        """The times of the same ops in PyTorch, by key; as many as fit into the time."""
        if machine.torch_folder() is None:
            raise Problem("this Python has no torch, so there is nothing to compare with")
        me = [sys.executable, sys.argv[0], "--device", self.device, "--programs", str(self.programs.folder)]
        child = subprocess.Popen([*me, "--time-ops", *keys], stdout=subprocess.PIPE, stderr=self.programs.log, text=True)
        timed_out = False
        try:
            out, _ = child.communicate(timeout=max(self.programs.left(), 0))
        except subprocess.TimeoutExpired:
            timed_out = True
            child.kill()
            out, _ = child.communicate()
        times = {}
        for line in out.splitlines():
            if line.endswith("}"):
                entry = json.loads(line)
                times[entry.pop("key")] = entry
        if timed_out and not times:
            raise OutOfTime
        if not times:
            raise Problem(f"PyTorch timed no op, and ended with {child.returncode}; log.txt says more")
        return times

    def few(self, count):
        """This many of the ops that keep a GPU busy."""
        busy = [key for key in self.forty if not key.startswith(("MaxPool", "AvgPool")) and ":n1-" not in key]
        return arithmetic.spread(self.forty[:10] if self.quick else busy, count)


def within(row, value):
    """Whether a value lies in the row's interval."""
    low, high = interval(point(row))
    return low <= value <= high


def measured(measurements):
    """The measurements with a latency."""
    return {key: m for key, m in measurements.items() if m["latency"]}


def fingerprint(check, found):
    """The fingerprint, and one kernel per op of the space `quick`."""
    found.details["probe"] = check.programs.json("latlas-agent", "probe", "--device", check.device, "--json")
    print(f"hardware id {found.details['probe']['hardware_id']}, energy {found.details['probe']['energy']}")
    rows = check.programs.bench_keys(check.few(2)) if check.quick else check.programs.bench_space("quick")
    # The agent refuses non-finite outputs.
    failed = {key: m["reason"] for key, m in rows.items() if not m["latency"]}
    for key, reason in failed.items():
        print(f"{key} could not be run: {reason}")
    found.details["failed"] = failed
    found.figures.at_least("ops_that_run", 100 * len(measured(rows)) / len(rows), 100, "%")


def agreement(check, found):
    """40 ops against PyTorch's timing of the same ops by CUDA events."""
    keys = check.few(2) if check.quick else check.forty
    before = check.programs.left()
    rows = check.programs.bench_keys(keys, "--reuse-distance", 0)
    check.seconds_per_row = (before - check.programs.left()) / len(rows)
    print(f"{len(rows)} rows in {before - check.programs.left():.0f} s")
    times = check.time_in_torch(keys)
    ratios = {False: [], True: []}
    print(f"{'key':<48} {'latlas':>10} {'torch':>10} {'in graph':>10}  ratio")
    for key in [key for key in measured(rows) if key in times]:
        ours, theirs = point(rows[key], 0), times[key]
        bound = arithmetic.host_bound(ours.get("host_micros"), ours["quiet_micros"])
        found.details.setdefault("ops", {})[key] = dict(theirs, latlas=ours, host_bound=bound)
        ratio = ours["median_micros"] / theirs["micros"]
        ratios[bound].append(ratio)
        print(
            f"{key:<48} {ours['median_micros']:>10.2f} {theirs['micros']:>10.2f} "
            f"{theirs['in_graph_micros'] or 0:>10.2f}  {ratio:.3f}{'  host-bound' if bound else ''}"
        )
    found.figures.at_least("agreement_ops", sum(map(len, ratios.values())), 2 if check.quick else 38)
    for bound, name in ((False, "agreement_median_off"), (True, "agreement_host_bound_median_off")):
        if ratios[bound]:
            found.figures.at_most(name, arithmetic.off(common.median(ratios[bound]), 1), 3, "%")


def repeatability(check, found):
    """Two builds of a table of 60 keys."""
    builds = []
    for later in (1, 0):
        before = check.programs.left()
        # Half of the time for each.
        limit = "--minutes", f"{max((before / (1 + later) - ENDING_SECONDS) / 60, 0.01):.2f}"
        keys = check.few(2)
        rows = check.programs.bench_keys(keys, *limit) if check.quick else check.programs.bench_space(check.sixty, *limit)
        if not rows:
            raise OutOfTime
        builds.append(measured(rows))
        check.seconds_per_row = (before - check.programs.left()) / len(rows)
        converged = sum(row["status"] == "ok" for row in rows.values())
        print(f"{len(builds[-1])} rows in {before - check.programs.left():.0f} s, {converged} of them converged")
    found.details.update(builds=builds, seconds_per_row=check.seconds_per_row)
    inside = [within(builds[0][key], latency(point(builds[1][key]))) for key in builds[0] if key in builds[1]]
    found.figures.at_least("repeatability_inside", 100 * sum(inside) / max(len(inside), 1), 90, "%")
    # The device time, and the cost of a call: on a GPU the host time if it is larger.
    for name, value in (("repeatability_device", "quiet_micros"), ("repeatability", None)):
        first, second = (
            {key: point(row)[value] if value else latency(point(row)) for key, row in build.items()} for build in builds
        )
        apart = {key: arithmetic.off(second[key], first[key]) for key in first if key in second}
        print(f"{name}, the rows that differ most:")
        for key in sorted(apart, key=apart.get)[-5:]:
            print(f"{key:<48} {first[key]:>10.2f} {second[key]:>10.2f}")
        found.figures.at_least(f"{name}_rows", len(apart), 2 if check.quick else 60)
        found.figures.at_most(f"{name}_median", common.median(apart.values()), 2, "%")
        found.figures.at_most(f"{name}_p95", common.quantile(apart.values(), 0.95), 6, "%")


def networks_to_judge(check, count):
    """This many of 20 random networks and the catalog's real ones, half of them in batches."""
    if check.quick:
        layers = [{"op": "Conv3x3", "c_out": 16, "stride": stride} for stride in (2, 1)]
        return [{"name": "two-layers", "input": {"n": 1, "c": 16, "h": 28, "w": 28}, "layers": layers}]
    latlas = check.programs.latlas
    drawn = latlas("networks", "draw", "--family", "mobilenet", "--count", RANDOM, "--seed", SEED)
    specs = [json.loads(line) for line in drawn.splitlines()]
    specs += [json.loads(latlas("networks", "show", name)) for name in REAL]
    specs = arithmetic.spread(specs, count)
    return [arithmetic.network_with_batch(spec, BATCH if i % 2 else 1) for i, spec in enumerate(specs)]


def prediction(check, found):
    """Whole networks, predicted by the two clocks and measured, in f32 and bf16."""
    print(f"{check.seconds_per_row or 0:.2f} s per row so far")
    for place, dtype in enumerate(check.dtypes):
        # A network needs a dozen rows of its own, and they are larger than the rows so far. On an H200 one took as long
        # as 20 or more of these.
        share = check.programs.left() / (len(check.dtypes) - place) - JUDGING_SECONDS
        seconds = 26 * (check.seconds_per_row or 0.8)
        count = arithmetic.fitting(RANDOM + len(REAL), 4, seconds, share)
        judge_networks(check, found, dtype, networks_to_judge(check, count))


def judge_networks(check, found, dtype, specs):
    programs, scratch = check.programs, check.programs.scratch
    arch = scratch / "networks.ndjson"
    arch.write_text("".join(json.dumps(spec) + "\n" for spec in specs))
    keys = programs.json("latlas", "networks", "keys", "--arch", arch, "--json")["keys"]
    print(f"{dtype}: {len(specs)} networks, {len(keys)} rows")
    words = [word for key in keys for word in ("--key", key)]
    # What is measured by then is evaluated, converged or not.
    minutes = (programs.left() - JUDGING_SECONDS - ENDING_SECONDS) / 60
    if minutes <= 0:
        raise OutOfTime
    rows = programs.bench(*words, "--arch", arch, "--dtype", dtype, "--minutes", f"{minutes:.2f}")
    converged = sum(row["status"] == "ok" for row in rows)
    print(f"{len(rows)} of {len(keys) + len(specs)} were measured, {converged} of them converged")
    if not rows:
        raise OutOfTime
    (scratch / "rows.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    programs.latlas("table", "build", scratch / "rows.ndjson", "-o", scratch / "table.json")
    accuracy = programs.json("latlas", "accuracy", "--table", scratch / "table.json", "--json")
    # The code is 1 unless each network has a prediction; networks without one are counted in the accuracy.
    _, predicted, _ = programs.start(
        "latlas", ["predict", "--table", scratch / "table.json", "--arch", arch, "--json"], None
    )
    clocks = {}
    for line in map(json.loads, predicted.splitlines()):
        if "ops" in line:
            clocks[line["name"]] = arithmetic.clocks_of(line["ops"])
    judged = [n for n in accuracy["networks"] if n["prediction"] and n["name"] in clocks]
    times = [(n["measured_micros"], *clocks[n["name"]]) for n in judged]
    for network in judged:
        host, device = clocks[network["name"]]
        print(
            f"{network['name']:<28} {network['measured_micros'] / 1e3:>8.2f} ms measured "
            f"{network['prediction']['predicted_micros'] / 1e3:>8.2f} predicted "
            f"({100 * network['prediction']['error']:+.1f}%), host {host / 1e3:.2f}, device {device / 1e3:.2f}"
        )
    for entry in accuracy["calibrated"]:
        within, mape = entry["summary"]["within_10"], entry["summary"]["mape"]
        if within is not None:
            print(f"calibrated on {entry['fitted_on']}: within 10% {100 * within:.0f}%, MAPE {100 * mape:.1f}%")
    found.details[dtype] = {"accuracy": accuracy, "clocks": clocks}
    overall, figures = accuracy["overall"], found.figures
    learned = json.loads((scratch / "table.json").read_text())["calibration"]
    found.details[dtype]["calibration"] = learned
    print(f"learned of this hardware: {learned}")
    figures.at_least(f"{dtype}_networks", len(judged), 1 if check.quick else 31)
    # A network without a prediction counts as wrong.
    within = (overall["within_10"] or 0) * overall["predicted"] / max(overall["networks"], 1)
    figures.at_least(f"{dtype}_within_10", 100 * within, 95, "%")
    if overall["mape"] is not None:
        figures.at_most(f"{dtype}_mape", 100 * overall["mape"], 4, "%")
    if overall["covered"] is not None:
        figures.at_least(f"{dtype}_covered", 100 * overall["covered"], 90, "%")
    if check.on_gpu:
        figures.at_least(f"{dtype}_device_bound", arithmetic.device_share(times), 30, "%")


def calibration(check, found):
    """The table of a space that calibrates itself, and what it learns of this GPU."""
    programs, scratch = check.programs, check.programs.scratch
    minutes = max(programs.left() - ENDING_SECONDS, 1) / 60
    rows = programs.bench("--space", "quick", "--calibrate", CALIBRATION_NETWORKS, "--minutes", f"{minutes:.2f}")
    if not rows:
        raise OutOfTime
    (scratch / "rows.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    programs.latlas("table", "build", scratch / "rows.ndjson", "-o", scratch / "table.json")
    learned = json.loads((scratch / "table.json").read_text())["calibration"]
    found.details["calibration"] = learned
    if learned:
        print(
            f"learned from {learned['networks']} networks: scale {learned['scale']:.3f}, footprint "
            f"{learned['footprint_mib']:.1f} MiB, {learned['per_op_micros']:.2f} us per op, noise {learned['noise']:.2f}"
        )
    found.figures.at_least("calibration_networks", learned["networks"] if learned else 0, CALIBRATION_NETWORKS)


def faults(check, found):
    """Energy against the integral of the power, the device's memory, and faults that cost one row each."""
    keys = check.few(2 if check.quick else 3)
    for fault in ("memory", "kernel"):
        rows = check.programs.bench_keys(keys, faults=f"{keys[0]}={fault}")
        reason = rows.get(keys[0], {}).get("reason")
        # libtorch's stack follows in further lines.
        print(f"a fault of {fault}: {(reason or 'no reason').splitlines()[0]}")
        found.details[f"{fault}_fault"] = reason
        lost = len(keys) - len(measured(rows))
        meant = keys[0] not in measured(rows)
        found.figures.add(f"rows_lost_to_{fault}_fault", lost, "=1", lost == 1 and meant, "")
    if check.on_gpu:
        energy(check, found, keys[:2])
        memory(check, found, keys[:2])
    else:
        print("energy and memory are a GPU's, and not looked at on a processor")


def memory(check, found, keys):
    """What a row says of the device's memory is at least what the op needs in PyTorch."""
    enough = 0
    times = check.time_in_torch(keys)
    for key in keys:
        # A separate worker for each op, which contains only what this op needs.
        row, needed = check.programs.bench_keys([key])[key], times[key]["peak_bytes"]
        ours = row["peak_memory_bytes"] or 0
        print(f"{key:<48} {ours / 2**20:>9.0f} MiB held, {needed / 2**20:.0f} needed by torch")
        found.details.setdefault("memory", {})[key] = {"held": ours, "torch": needed}
        enough += ours >= needed
    found.figures.at_least("memory_covers_need", 100 * enough / len(keys), 100, "%")


def energy(check, found, keys):
    with machine.PowerLog(machine.Card(check.index())) as log:
        time.sleep(POWER_LAG)
        rows = check.programs.bench_keys(keys, "--energy")
        time.sleep(POWER_LAG)
    counted, integrated = log.joules()
    for key, row in measured(rows).items():
        if row["energy"]:
            watts = row["energy"]["gross_mj"] * 1e3 / latency(point(row))
            print(f"{key:<48} {row['energy']['gross_mj']:.3f} mJ, about {watts:.0f} W")
    print(f"{counted:.0f} J counted, {integrated:.0f} J by the power")
    with_energy = sum(row["energy"] is not None for row in rows.values())
    found.details.update(counted_joules=counted, integrated_joules=integrated)
    found.figures.at_most("energy_counter_off", arithmetic.off(counted, integrated), 10, "%")
    found.figures.at_least("energy_rows", 100 * with_energy / len(keys), 100, "%")


def heat(check, found):
    """One network without a pause: how much slower the device is at the end."""
    seconds = 2 if check.quick else min(int(check.programs.left() - JUDGING_SECONDS), SUSTAINED_SECONDS)
    if seconds < 2:
        raise OutOfTime
    print(f"{seconds} s without a pause; on a device without a fan, ten minutes say more")
    rows = check.programs.bench("--network", "squeezenet1_1" if check.quick else "resnet50", "--sustained", seconds)
    sustained = rows[0]["sustained"] if rows else None
    found.details["sustained"] = sustained
    if sustained:
        print(f"{sustained['burst_micros']:.0f} us at first, {sustained['sustained_micros']:.0f} us at the end")
    found.figures.at_least("sustained_runs", 1 if sustained else 0, 1)


def company(check, found):
    """Another process that computes on the GPU is noticed, and none is seen where there is none."""
    if not check.on_gpu:
        print("a processor's company is told by the kernel, and not looked at here")
        return
    keys = check.few(1)

    def disturbed(rows):
        return 100 * sum(row["status"] == "degraded" for row in rows.values()) / len(keys)

    alone = check.programs.bench_keys(keys)
    stranger = subprocess.Popen(
        [sys.executable, "-c", SOURCE, check.device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        if not stranger.stdout.readline():
            raise Problem("the process that was to disturb did not start")
        beside = check.programs.bench_keys(keys)
    finally:
        stranger.stdin.close()
        stranger.wait()
        stranger.stdout.close()
    found.details.update(alone=[r["reason"] for r in alone.values()], beside=[r["reason"] for r in beside.values()])
    found.figures.at_most("disturbed_alone", disturbed(alone), 0, "%")
    found.figures.at_least("disturbed_beside_another", disturbed(beside), 100, "%")


# In the order of their importance, each with its share of the time.
PHASES = [
    (fingerprint, 10),
    (agreement, 12),
    (repeatability, 20),
    (prediction, 30),
    (calibration, 4),
    (faults, 16),
    (company, 8),
    (heat, 12),
]
