"""Seconds from the start of a coordinator until it is ready, with a million measurements."""

import os
import sqlite3
from pathlib import Path

import common

MEASUREMENTS = 1_000_000
SEEDS = 20_000
ROUNDS = 5


def multiply(path):
    """Turns the measurements that came by HTTP into a million, each a new one of the same agent and key."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA cache_size = -500000")
    database.execute("PRAGMA synchronous = OFF")
    (found,) = database.execute("SELECT max(id) FROM measurements").fetchone()
    columns = "table_id, agent_id, op_id, key, fingerprint, status, finished_at, received_at"
    for copy in range(1, MEASUREMENTS // found):
        database.execute(
            f"""INSERT INTO measurements (uuid, {columns}, measurement, samples, network_id)
            SELECT uuid, {columns}, json_set(measurement, '$.id', uuid), samples, network_id
            FROM (SELECT printf('%08x', ?1) || substr(uuid, 9) AS uuid, {columns}, measurement, samples,
                         network_id
                  FROM measurements WHERE id <= ?2)""",
            (copy, found),
        )
    (count,) = database.execute("SELECT count(*) FROM measurements").fetchone()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return count


def forget(path):
    """Drops a file from the system's page cache, as after a boot of the machine."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def main():
    with common.disk_folder() as folder:
        path = Path(folder) / "data/latlas.db"
        coordinator = common.Coordinator(path.parent)
        coordinator.simulate(
            *("ingest", "--agents", 20, "--classes", 10, "--keys", 2000),
            *("--batch", 100, "--batches", SEEDS // 100),
        )
        coordinator.stop()
        count = multiply(path)
        size = path.stat().st_size / 1e9
        print(f"{count} measurements, {size:.1f} GB", flush=True)
        coordinator = common.Coordinator(path.parent)
        slowest = 0
        for number in range(ROUNDS):
            # It was killed, and left a log to recover.
            coordinator.simulate("ingest", "--batches", 5, "--seed", number + 2)
            coordinator.kill()
            forget(path)
            seconds = coordinator.start()
            slowest = max(slowest, seconds)
            print(f"start {number + 1} after a kill, from the disk: {seconds:.2f} s", flush=True)
        coordinator.stop()
    figures = common.Figures()
    figures.at_most("restart_seconds", slowest, 2, " s")
    figures.finish()


if __name__ == "__main__":
    main()
