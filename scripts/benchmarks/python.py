"""The Python package: predictions a second on one core, loading a large table, and looking up a row."""

import json
import os
import random
import subprocess
import sys
import time
import venv
from pathlib import Path

import common

HOME = common.ROOT / "target/python-bench"
TEMPLATE = common.ROOT / "python/tests/table.json"
OPS = 20
NETWORKS = 200_000
ROUNDS = 7
# As many as the space `mobilenet` has, which a search keeps in its caches.
SEARCHED_ROWS = 1437
LARGE_ROWS = 50_000


def installed():
    """The Python of an environment with the optimized package, made if it is missing."""
    python = HOME / "bin/python"
    if not python.exists():
        venv.create(HOME, with_pip=True)
    install = [HOME / "bin/pip", "install", "--quiet"]
    subprocess.run([*install, "maturin>=1.9,<2", "numpy"], check=True)
    path = {"PATH": f"{HOME / 'bin'}:{os.environ['PATH']}"}
    package = ["--no-build-isolation", "--no-deps", "--force-reinstall", common.ROOT / "python"]
    subprocess.run([*install, *package], check=True, env={**os.environ, **path})
    return python


def table(rows, folder):
    """A table of so many rows of the real one, at other shapes and with other latencies, as a file."""
    dice = random.Random(rows)
    document = json.loads(TEMPLATE.read_text())
    measured = {row["op_type"]: row for row in document["rows"]}
    templates = [row for name, row in measured.items() if name.startswith(("Conv", "MBConv", "Depthwise"))]
    sizes = [(size, c_in) for c_in in range(8, 1024, 8) for size in range(4, 132, 4)]
    made = []
    for place in range(rows):
        row = json.loads(json.dumps(templates[place % len(templates)]))
        size, channels = sizes[place // len(templates)]
        factor = 1 + dice.random()
        row.update(input_h=size, input_w=size, channels_in=channels, channels_out=channels, stride=1)
        for values, names in ((row, ("latency_micros", "median_micros")), *((p, POINT) for p in row["curve"])):
            for name in names:
                values[name] *= factor
        made.append(row)
    shape = ("op_type", "batch", "input_h", "input_w", "channels_in", "channels_out", "stride")
    made.sort(key=lambda row: [row[name] for name in shape])
    path = folder / f"{rows}.json"
    path.write_text(json.dumps({**document, "accuracy": None, "rows": made}, separators=(",", ":")))
    return path


POINT = ("quiet_micros", "ci95_low_micros", "ci95_high_micros", "median_micros")


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(works):
    """The median time of each work; they take turns, so that all see the same state of the machine."""
    times = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(seconds(work))
    return {name: common.median(all_times) for name, all_times in times.items()}


def predictions(path, figures):
    import latlas
    import numpy

    table = latlas.Table.load(path)
    keys = table.keys()
    latencies = {key: row.latency_ms for key, row in table.items()}
    drawn = numpy.random.default_rng(1).integers(len(keys), size=(NETWORKS, OPS), dtype=numpy.int32)
    lists = [[keys[row] for row in network] for network in drawn]
    took = medians(
        {
            "packed": lambda: table.predict_many(drawn, threads=1),
            "lists": lambda: table.predict_many(lists, threads=1),
            "dictionary": lambda: [sum(latencies[key] for key in network) for network in lists],
        }
    )
    rate = {name: NETWORKS / time for name, time in took.items()}
    print(f"networks of {OPS} ops, on one core, with intervals:")
    print(f"  an array of row numbers: {rate['packed']:,.0f} a second")
    print(f"  lists of op keys: {rate['lists']:,.0f} a second")
    print(f"  reference, sums of a dictionary in pure Python, without intervals: {rate['dictionary']:,.0f} a second")
    figures.at_least("packed_predictions_per_second", rate["packed"], 2e6)
    figures.at_least("key_list_predictions_per_second", rate["lists"], 1e6)
    figures.at_least("packed_over_dictionary", rate["packed"] / rate["dictionary"], 2, "x")


def look_ups(path, figures):
    import latlas

    table = latlas.Table.load(path)
    keys = random.Random(1).choices(table.keys(), k=100_000)
    rows = dict(table.items())

    def ours():
        for key in keys:
            table[key]

    def theirs():
        for key in keys:
            rows[key]

    table[keys[0]]
    took = medians({"ours": ours, "theirs": theirs})
    nanoseconds = {name: time / len(keys) * 1e9 for name, time in took.items()}
    print(f"table[key] of {len(table)} rows: {nanoseconds['ours']:.0f} ns")
    print(f"reference, a dictionary of the rows: {nanoseconds['theirs']:.0f} ns")
    figures.at_most("look_up", nanoseconds["ours"], 300, "ns")


def loading(path, figures):
    import latlas

    text = path.read_text()
    table = latlas.Table.load(path)
    took = medians(
        {
            "load": lambda: latlas.Table.load(path),
            "json": lambda: json.loads(text),
            "to_dict": table.to_dict,
        }
    )
    megabytes = path.stat().st_size / 1e6
    print(f"{len(table)} rows, {megabytes:.0f} MB: load {took['load']:.3f} s, to_dict {took['to_dict']:.3f} s")
    print(f"reference, json.loads of its text: {took['json']:.3f} s")
    figures.at_most("load_50000_rows", took["load"], 0.5, "s")
    figures.at_most("to_dict_over_json_loads", took["to_dict"] / took["json"], 2, "x")


def main():
    if Path(sys.prefix) != HOME:
        sys.exit(subprocess.run([installed(), "-u", __file__]).returncode)
    figures = common.Figures()
    with common.disk_folder() as folder:
        searched, large = (table(rows, Path(folder)) for rows in (SEARCHED_ROWS, LARGE_ROWS))
        predictions(searched, figures)
        look_ups(large, figures)
        loading(large, figures)
    figures.finish()


if __name__ == "__main__":
    main()
