"""Where predictions from a table are worse: transformers, two threads, small images; and that they say so."""

import json
import random
import tempfile
from pathlib import Path

import common
from accuracy import accuracy, bench, keys_of, latlas, line

CASES = [
    # Name, family of the networks, their number, arguments of the agent, height and width of the images.
    ("transformers", "transformer", 20, [], None),
    ("two threads", "mobilenet", 20, ["--threads", "2"], None),
    ("images of 64 pixels", "mobilenet", 20, [], 64),
]


def drawn(folder, family, count, seed, size):
    """A file of random networks."""
    specs = [
        json.loads(text)
        for text in latlas("networks", "draw", "--family", family, "--count", count, "--seed", seed).splitlines()
    ]
    for spec in specs:
        if size:
            spec["input"].update(h=size, w=size)
    file = folder / "networks.ndjson"
    file.write_text("".join(json.dumps(spec) + "\n" for spec in specs))
    return str(file)


def main():
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    figures = common.Figures()
    for name, family, count, arguments, size in CASES:
        folder = Path(tempfile.mkdtemp())
        arch = drawn(folder, family, count, seed, size)
        keys = [word for key in keys_of("--arch", arch) for word in ("--key", key)]
        print(f"\n{name}: {count} random networks of family {family}, {len(keys) // 2} rows")
        whole = accuracy(folder, "whole", bench(folder / "all.ndjson", *keys, "--arch", arch, *arguments))
        line("the rows alone", whole["overall"])
        for entry in whole["calibrated"]:
            line(f"calibrated on {entry['fitted_on']}, judged on the rest", entry["summary"])
        short = name.replace(" ", "_")
        figures.at_least(f"{short}_inside_their_interval", 100 * whole["overall"]["covered"], 90, "%")
    figures.finish()


if __name__ == "__main__":
    main()
