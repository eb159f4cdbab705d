"""Acknowledged measurements a second over HTTP, against a plain loop that inserts the same rows."""

import sqlite3
import time
from pathlib import Path

import common

ROUNDS = 5
BATCH = 100
BATCHES = 1000
AT_ONCE = 8
# Two boxes of each class, which measure the same keys.
AGENTS, CLASSES = 8, 4


def over_http(folder):
    """Seconds until everything was acknowledged, seconds from then until every table including it has been read, and
    the stored rows."""
    coordinator = common.Coordinator(folder / "data")
    report = coordinator.simulate(
        *("ingest", "--agents", AGENTS, "--classes", CLASSES, "--keys", 1000),
        *("--batch", BATCH, "--batches", BATCHES, "--at-once", AT_ONCE),
    )
    started = time.monotonic()
    for table in coordinator.get("/v1/tables")["items"]:
        coordinator.get(f"/v1/tables/{table['hardware_id']}")
    reading = time.monotonic() - started
    coordinator.stop()
    database = sqlite3.connect(folder / "data/latlas.db")
    schema = database.execute(
        "SELECT sql FROM sqlite_schema WHERE tbl_name = 'measurements' AND sql IS NOT NULL"
        " AND type IN ('table', 'index') ORDER BY type DESC"
    ).fetchall()
    rows = database.execute("SELECT * FROM measurements ORDER BY id").fetchall()
    database.close()
    assert len(rows) == report["measurements"] == BATCH * BATCHES
    return report["seconds"], reading, schema, rows


def plain(folder, schema, rows):
    """Seconds of a loop that inserts the rows, one commit per batch, with the coordinator's durability.

    The table is the coordinator's, with its indexes; nothing is checked, and nothing is derived from the rows.
    """
    database = sqlite3.connect(folder / "plain.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    for (statement,) in schema:
        database.execute(statement)
    insert = "INSERT INTO measurements VALUES ({})".format(", ".join("?" * len(rows[0])))
    started = time.monotonic()
    for first in range(0, len(rows), BATCH):
        database.execute("BEGIN IMMEDIATE")
        database.executemany(insert, rows[first : first + BATCH])
        database.execute("COMMIT")
    seconds = time.monotonic() - started
    database.close()
    return seconds


def main():
    ratios = []
    for number in range(ROUNDS):
        with common.disk_folder() as folder:
            folder = Path(folder)
            seconds, reading, schema, rows = over_http(folder)
            plain_seconds = plain(folder, schema, rows)
        ratios.append(plain_seconds / seconds)
        size = sum(len(value) for row in rows for value in row if isinstance(value, str)) / len(rows)
        print(
            f"round {number + 1}: {len(rows) / seconds:,.0f} a second acknowledged, "
            f"{len(rows) / plain_seconds:,.0f} a second by the plain loop, {size:,.0f} bytes each; "
            f"{reading:.2f} s later all tables are read with them",
            flush=True,
        )
    figures = common.Figures()
    figures.at_least("ingest_over_plain", common.median(ratios), 0.5, "x")
    figures.finish()


if __name__ == "__main__":
    main()
