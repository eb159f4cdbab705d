"""The pruner: in memory against the listing of the NAS guide, and end to end from genotypes and from networks"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import BIN, ROOT, Figures

SPACE = "layer_chain"
COUNT = 1_000_000
LIMITS = """max_latency_ms: 1.2
max_flops: 1e9
max_params: 5e6
max_layers: 50
max_per_op: {Conv5x5: 5}
"""


def listing(folder, genotypes):
    """The guide's listing on the same candidates: millions a second."""
    program = folder / "seed_pruner"
    source = ROOT / "scripts/benchmarks/references/seed_pruner.rs"
    subprocess.run(["rustc", "--edition", "2024", "-O", "-o", program, source], check=True)
    # Decoding a million networks as JSON takes long, so a part of them is repeated.
    part = genotypes[:20_000]
    decoded = subprocess.run(
        [BIN / "latlas", "space", "decode", SPACE, "-"],
        input="\n".join(part), stdout=subprocess.PIPE, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    lines = []
    for text in decoded:
        network = json.loads(text)
        layers = " ".join(f"{layer['op']}:{layer['c_out']}" for layer in network["layers"])
        lines.append(f"{network['input']['h']} {layers}")
    lines *= COUNT // len(lines)
    done = subprocess.run([program], input="\n".join(lines), stdout=subprocess.PIPE, text=True, check=True)
    speed, valid = done.stdout.split()
    print(f"the listing: {float(speed):.2f} million candidates a second, {valid} of {len(lines)} valid")
    return float(speed), decoded


def prune(folder, *arguments, source=os.devnull, rounds=3):
    """Millions of candidates a second from a file to a file, and the peak memory in MiB."""
    command = [BIN / "latlas", "prune", "--table", folder / "table.json", "--config", folder / "limits.yaml", *arguments]
    fastest = None
    for _ in range(rounds):
        with open(source) as lines, open(folder / "verdicts", "w") as verdicts:
            start = time.monotonic()
            done = subprocess.Popen(command, stdin=lines, stdout=verdicts, stderr=subprocess.PIPE, text=True)
            said = done.stderr.read()
            _, status, usage = os.wait4(done.pid, 0)
            seconds = time.monotonic() - start
        if status:
            sys.exit(f"latlas prune ended with {status}: {said}")
        fastest = min(fastest or seconds, seconds)
    count = int(said.split()[0])
    return count / 1e6 / fastest, usage.ru_maxrss / 1024


def in_python(genotypes):
    """A plain Python version of the decision: a dictionary of what each letter adds, no shapes."""
    adds = {letter: (0.02 + 0.01 * place, 1000 * place) for place, letter in enumerate("0123456789abcdefghijklmnop.")}
    start = time.monotonic()
    accepted = 0
    for letters in genotypes[:200_000]:
        latency = params = 0
        for letter in letters:
            ms, more = adds.get(letter, (0, 0))
            latency += ms
            params += more
        accepted += latency <= 1.2 and params <= 5e6
    return 0.2 / (time.monotonic() - start)


def parse_only(lines):
    """Seconds of Python's own reader on the same lines, which bounds nothing but shows the size of the task."""
    start = time.monotonic()
    for text in lines:
        json.loads(text)
    return len(lines) / 1e6 / (time.monotonic() - start)


def main():
    figures = Figures()
    folder = Path(tempfile.mkdtemp())
    (folder / "limits.yaml").write_text(LIMITS)
    done = subprocess.run([BIN / "examples/gate", SPACE, str(COUNT), folder], stdout=subprocess.PIPE, text=True, check=True)
    judged, decided, accepted = map(float, done.stdout.split())
    genotypes = (folder / "genotypes.txt").read_text().split()
    print(f"{COUNT} genotypes of {SPACE}, {accepted / COUNT:.1%} accepted, one thread, in memory:")
    print(f"  with intervals and all reasons {judged:.2f} million a second, accepted or not {decided:.2f} million")
    reference, networks = listing(folder, genotypes)
    figures.at_least("judged_over_listing", judged / reference, 2, "x")
    figures.at_least("decided_over_listing", decided / reference, 3, "x")
    print(f"  a plain Python version: {in_python(genotypes):.2f} million a second")

    space = ("--space", SPACE)
    speed, memory = prune(folder, *space, "--format", "compact", source=folder / "genotypes.txt")
    print(f"genotypes from a file to compact verdicts: {speed:.2f} million a second, {memory:.0f} MiB")
    figures.at_least("genotypes_to_compact", speed, 4, "M/s")
    speed, memory = prune(folder, *space, source=folder / "genotypes.txt")
    print(f"genotypes from a file to NDJSON: {speed:.2f} million a second, {memory:.0f} MiB")
    figures.at_least("genotypes_to_ndjson", speed, 1, "M/s")
    (folder / "networks.ndjson").write_text("\n".join(networks) + "\n")
    size = (folder / "networks.ndjson").stat().st_size / len(networks)
    speed, memory = prune(folder, "--format", "compact", source=folder / "networks.ndjson")
    print(f"networks of {size:.0f} bytes from a file to compact verdicts: {speed:.3f} million a second, {memory:.0f} MiB")
    print(f"  (Python's json reads {parse_only(networks):.3f} million of these lines a second)")
    figures.at_least("networks_to_compact", speed, 0.5, "M/s")
    few, small = prune(folder, *space, "--draw", "1000000", "--format", "compact", "--only", "accepted")
    start = time.monotonic()
    _, large = prune(folder, *space, "--draw", "100000000", "--format", "compact", "--only", "accepted", rounds=1)
    print(
        f"100 million generated candidates in {time.monotonic() - start:.0f} s, {large:.0f} MiB "
        f"(one million: {few:.2f} million a second, {small:.0f} MiB)"
    )
    figures.at_most("memory_of_100_million", large / small, 1.2, "x")
    figures.finish()


if __name__ == "__main__":
    main()
