"""5,000 simulated agents on this machine: heartbeats, leases, results; then more, until it breaks."""

import os
from pathlib import Path

import common

AGENTS = 5000
SECONDS = 60
STEPS = [7500, 10_000, 15_000, 20_000]
STEP_SECONDS = 30
CLASSES = 10
P99_MS = 100
MEMORY_MB = 300


def load(agents, seconds):
    """What the agents saw, and the most memory that the coordinator held."""
    with common.disk_folder() as folder:
        coordinator = common.Coordinator(Path(folder) / "data")
        seen = coordinator.simulate(
            # Leases of four tasks: half of the agents are at work, and the others wait in long polls.
            *("load", "--agents", agents, "--classes", CLASSES, "--keys", 2 * agents // CLASSES),
            *("--seconds", seconds, "--token", coordinator.token("researcher")),
        )
        memory = coordinator.most_memory()
        coordinator.stop()
    beats = seen["heartbeat_ms"]
    second = seen["seconds"]
    print(
        f"{agents} agents for {second:.0f} s: heartbeats {seen['heartbeats'] / second:.0f}/s, "
        f"p50 {beats['p50']:.1f} ms, p99 {beats['p99']:.1f} ms, slowest {beats['max']:.0f} ms; "
        f"renewals {seen['renewals'] / second:.0f}/s, leases {seen['leases'] / second:.0f}/s, "
        f"measurements {seen['results'] / second:.0f}/s; {memory:.0f} MB",
        flush=True,
    )
    for error, count in sorted(seen["errors"].items(), key=lambda item: -item[1])[:5]:
        print(f"  {count} times {error}")
    return beats["p99"], sum(seen["errors"].values()), memory, seen["heartbeats"] / second


def broken(p99, errors, memory, beats, agents):
    """What does not hold."""
    wrong = []
    if errors:
        wrong.append(f"{errors} calls failed")
    if p99 >= P99_MS:
        wrong.append(f"p99 of heartbeats is {p99:.0f} ms")
    if beats < 0.9 * agents / 10:
        wrong.append(f"only {beats:.0f} heartbeats a second come through")
    if memory >= MEMORY_MB:
        wrong.append(f"the coordinator holds {memory:.0f} MB")
    return ", ".join(wrong)


def main():
    print(f"{os.cpu_count()} processors, shared by the coordinator and all agents")
    p99, errors, memory, _ = load(AGENTS, SECONDS)
    for agents in STEPS:
        seen = load(agents, STEP_SECONDS)
        wrong = broken(*seen, agents)
        if wrong:
            print(f"it breaks at {agents} agents: {wrong}")
            break
    else:
        print(f"it holds at {STEPS[-1]} agents")
    figures = common.Figures()
    figures.at_most("heartbeat_p99", p99, P99_MS, " ms")
    figures.at_most("errors", errors, 0)
    figures.at_most("coordinator_memory", memory, MEMORY_MB, " MB")
    figures.finish()


if __name__ == "__main__":
    main()
