"""Canonical hashes a second on one core, the spaces that they count, and symmetric graphs, beside the published hash."""

import hashlib
import itertools
import json
import random
import subprocess
import sys
import time

import common

# The classes of NAS-Bench-101, cells of at most 7 vertices and 9 edges: the number that its authors publish.
PUBLISHED = 423_624
# The computations among the 15,625 cells of NAS-Bench-201.
COMPUTATIONS = 5425
# How long the published hash is measured.
SECONDS = 5
# Two cycles of four vertices between the layers of a graph, and one of eight, as edges from the first layer to the
# second: test_counterexample_bipartite of NAS-Bench-101's graph_util_test.py.
COUNTEREXAMPLE = [
    [(1, 5), (1, 6), (2, 5), (2, 6), (3, 7), (3, 8), (4, 7), (4, 8)],
    [(1, 5), (1, 6), (2, 6), (2, 7), (3, 7), (3, 8), (4, 8), (4, 5)],
]


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


def published_hash(edges, labels):
    """The hash of NAS-Bench-101 (arXiv 1902.09635): rounds of MD5 over the hashes of what each vertex reads and is read
    by. It takes different graphs for one if refinement cannot tell them apart."""
    count = len(labels)
    before = [[] for _ in range(count)]
    after = [[] for _ in range(count)]
    for start, end in edges:
        before[end].append(start)
        after[start].append(end)
    hashes = [md5(str((len(after[v]), len(before[v]), labels[v]))) for v in range(count)]
    for _ in range(count):
        hashes = [
            md5(
                "".join(sorted(hashes[w] for w in before[v]))
                + "|"
                + "".join(sorted(hashes[w] for w in after[v]))
                + "|"
                + hashes[v]
            )
            for v in range(count)
        ]
    return md5(str(sorted(hashes)))


def drawn(count):
    """Graphs of NAS-Bench-101's largest size."""
    source = random.Random(1)
    pairs = list(itertools.combinations(range(7), 2))
    graphs = []
    while len(graphs) < count:
        edges = source.sample(pairs, 9)
        starts, ends = {edge[0] for edge in edges}, {edge[1] for edge in edges}
        if starts == set(range(6)) and ends == set(range(1, 7)):
            graphs.append((edges, [-1, *(source.randrange(3) for _ in range(5)), -2]))
    return graphs


def published_a_second():
    graphs = drawn(2000)
    start, done = time.monotonic(), 0
    while time.monotonic() - start < SECONDS:
        for edges, labels in graphs:
            published_hash(edges, labels)
        done += len(graphs)
    return done / (time.monotonic() - start)


def counterexample():
    """Whether the published hash, and Latlas' hashes, tell the pair apart."""
    networks, published = [], []
    for middle in COUNTEREXAMPLE:
        edges = [(0, v) for v in range(1, 5)] + middle + [(v, 9) for v in range(5, 9)]
        published.append(published_hash(edges, [0] + [1] * 8 + [2]))
        nodes = [
            {"op": "Conv1x1", "c_out": 8, "stride": 1, "inputs": [start - 1 for start, end in edges if end == v]}
            for v in range(1, 10)
        ]
        networks.append(json.dumps({"input": {"n": 1, "c": 8, "h": 8, "w": 8}, "nodes": nodes, "output": 8}))
    done = subprocess.run(
        [common.BIN / "latlas", "arch", "hash", "--arch", "-"],
        input="\n".join(networks),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    one, other = map(json.loads, done.stdout.splitlines())
    kinds = ["topology", "shaped", "computation"]
    return published[0] != published[1], all(one[kind] != other[kind] for kind in kinds)


def main():
    done = subprocess.run([common.BIN / "examples/hash_speed"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("the example hash_speed did not end as it should")
    results, symmetric = {}, []
    for line in done.stdout.splitlines():
        name, *words = line.split()
        if name == "symmetric":
            symmetric.append((words[0], *map(float, words[1:])))
        else:
            results[name] = [float(word) for word in words]
    (cells,), (classes,) = results["cells"], results["cell_classes"]
    (graphs,), (networks,) = results["graphs"], results["networks"]
    print(f"cells of NAS-Bench-201: {cells:,.0f} a second, {classes:,.0f} computations")
    print(f"random graphs of 20 nodes: {graphs:,.0f} a second")
    print(f"networks of the family mobilenet, three hashes each and their shapes: {networks:,.0f} a second")
    print("symmetric graphs:")
    for name, vertices, seconds, exact, agrees in symmetric:
        outcome = "exact" if exact else "at the bound"
        numbering = "the same" if agrees else "another"
        print(f"  {name}: {vertices:,.0f} vertices, {1e3 * seconds:.1f} ms, {outcome}, {numbering} when renumbered")
    space_graphs, space_classes, inexact, seconds = results["space"]
    print(
        f"space of NAS-Bench-101: {space_graphs:,.0f} labelled graphs, {space_classes:,.0f} classes, {inexact:,.0f} at "
        f"the bound, {space_graphs / seconds:,.0f} a second"
    )
    published = published_a_second()
    print(f"the published hash in Python, graphs of 7 vertices: {published:,.0f} a second")
    theirs, ours = counterexample()
    print(f"the published counterexample differs: published hash {theirs}, latlas {ours}")

    figures = common.Figures()
    figures.at_least("hash_cells_per_second", cells, 200_000)
    figures.at_most("hash_cells_off", abs(classes - COMPUTATIONS), 0)
    figures.at_least("hash_over_published", space_graphs / seconds / published, 10, "x")
    figures.at_most("hash_worst_symmetric_seconds", max(seconds for _, _, seconds, _, _ in symmetric), 1, " s")
    figures.at_most("hash_space_off", abs(space_classes - PUBLISHED), 0)
    figures.at_least("hash_counterexample_differs", ours, 1)
    figures.finish()


if __name__ == "__main__":
    main()
