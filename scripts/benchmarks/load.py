"""5,000 simulated agents on this machine, among a history of canaries; then more, until it breaks."""

import os
import sqlite3
from pathlib import Path

import common

AGENTS = 5000
SECONDS = 60
STEPS = [7500, 10_000, 15_000, 20_000]
STEP_SECONDS = 30
CLASSES = 10
P99_MS = 100
RESULTS_P99_MS = 100
MEMORY_MB = 300
STREAMS = 50
CANARIES = 600_000
SINGERS = 100


class Judging(common.Coordinator):
    """A coordinator with canaries: each box measures one before its first work."""

    FLAGS = ["--rate", "100000"]


def remember(coordinator):
    """Fills a database with one month of canaries: copies of those of a few boxes, a minute apart."""
    coordinator.simulate(
        *("load", "--agents", SINGERS, "--classes", CLASSES, "--keys", 40, "--work", 0.5, "--heartbeat", 2),
        *("--seconds", 10, "--token", coordinator.token("researcher")),
    )
    coordinator.stop()
    database = sqlite3.connect(coordinator.data / "latlas.db", isolation_level=None)
    database.execute("PRAGMA cache_size = -500000")
    database.execute("PRAGMA synchronous = OFF")
    (sung,) = database.execute("SELECT count(*) FROM measurements WHERE canary = 1").fetchone()
    columns = "table_id, agent_id, op_id, key, fingerprint, status, finished_at, measurement, canary"
    database.execute(
        f"""WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
        INSERT INTO measurements (uuid, received_at, {columns})
        SELECT hex(randomblob(16)), received_at - n * 60000000, {columns}
        FROM n, (SELECT * FROM measurements WHERE canary = 1)""",
        (-(-CANARIES // sung),),
    )
    (count,) = database.execute("SELECT count(*) FROM measurements WHERE canary = 1").fetchone()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    print(f"{count} canaries from before, and {STREAMS} streams of events", flush=True)
    coordinator.start()


def load(agents, seconds, full=False):
    """The agents' observations, and the coordinator's peak memory. The full load includes canaries, their history, and
    watchers of requests."""
    with common.disk_folder() as folder:
        coordinator = (Judging if full else common.Coordinator)(Path(folder) / "data")
        if full:
            remember(coordinator)
        seen = coordinator.simulate(
            # Leases of four tasks: half of the agents work, and the others wait in long polls.
            *("load", "--agents", agents, "--classes", CLASSES, "--keys", 2 * agents // CLASSES),
            *("--seconds", seconds, "--token", coordinator.token("researcher")),
            *("--streams", STREAMS if full else 0),
        )
        memory = coordinator.most_memory()
        coordinator.stop()
    beats, results = seen["heartbeat_ms"], seen["results_ms"]
    second = seen["seconds"]
    print(
        f"{agents} agents for {second:.0f} s: heartbeats {seen['heartbeats'] / second:.0f}/s, "
        f"p50 {beats['p50']:.1f} ms, p99 {beats['p99']:.1f} ms, slowest {beats['max']:.0f} ms; "
        f"renewals {seen['renewals'] / second:.0f}/s, leases {seen['leases'] / second:.0f}/s, "
        f"measurements {seen['results'] / second:.0f}/s; {memory:.0f} MB; "
        f"results acknowledged p50 {shown(results['p50'])}, p99 {shown(results['p99'])}; {seen['events']} events",
        flush=True,
    )
    for error, count in sorted(seen["errors"].items(), key=lambda item: -item[1])[:5]:
        print(f"  {count} times {error}")
    return beats["p99"], sum(seen["errors"].values()), memory, seen["heartbeats"] / second, results["p99"]


def shown(ms):
    return "none" if ms is None else f"{ms:.1f} ms"


def broken(p99, errors, memory, beats, results_p99, agents):
    """The violated limits."""
    wrong = []
    if errors:
        wrong.append(f"{errors} calls failed")
    if p99 >= P99_MS:
        wrong.append(f"p99 of heartbeats is {p99:.0f} ms")
    if results_p99 is not None and results_p99 >= RESULTS_P99_MS:
        wrong.append(f"p99 of acknowledged results is {results_p99:.0f} ms")
    if beats < 0.9 * agents / 10:
        wrong.append(f"only {beats:.0f} heartbeats a second come through")
    if memory >= MEMORY_MB:
        wrong.append(f"the coordinator holds {memory:.0f} MB")
    return ", ".join(wrong)


def main():
    print(f"{os.cpu_count()} processors, shared by the coordinator and all agents")
    p99, errors, memory, _, results_p99 = load(AGENTS, SECONDS, full=True)
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
    # None if no results arrived, which fails any bar.
    figures.at_most("results_p99", float("inf") if results_p99 is None else results_p99, RESULTS_P99_MS, " ms")
    figures.at_most("errors", errors, 0)
    figures.at_most("coordinator_memory", memory, MEMORY_MB, " MB")
    figures.finish()


if __name__ == "__main__":
    main()
