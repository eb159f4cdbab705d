-- Results: measurements are facts and are only ever added; everything below them is derived and can
-- be rebuilt.

CREATE TABLE measurements (
    id          INTEGER PRIMARY KEY,
    -- Made on the agent. Unique, so that sending a measurement again changes nothing.
    uuid        TEXT    NOT NULL UNIQUE,
    table_id    INTEGER NOT NULL REFERENCES tables (id),
    agent_id    INTEGER NOT NULL REFERENCES agents (id),
    -- The op and key of a row; both null for a whole network, which is never a row.
    op_id       INTEGER REFERENCES ops (id),
    key         TEXT,
    fingerprint TEXT    NOT NULL REFERENCES fingerprints (digest),
    status      TEXT    NOT NULL,
    finished_at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    -- All of it but the samples, as JSON.
    measurement TEXT    NOT NULL,
    -- The samples, as they came. By themselves and at the end, since nothing that is derived reads them.
    samples     TEXT,
    CHECK ((op_id IS NULL) = (key IS NULL))
) STRICT;

-- The measurements behind one row.
CREATE INDEX measurements_of_a_row ON measurements (table_id, op_id, key, agent_id);

CREATE TRIGGER measurements_are_facts BEFORE UPDATE ON measurements
BEGIN SELECT RAISE(ABORT, 'measurements are never changed'); END;
CREATE TRIGGER measurements_stay BEFORE DELETE ON measurements
BEGIN SELECT RAISE(ABORT, 'measurements are never deleted'); END;

-- Derived: the merged rows of today.
CREATE TABLE table_rows (
    table_id       INTEGER NOT NULL REFERENCES tables (id),
    op_id          INTEGER NOT NULL REFERENCES ops (id),
    key            TEXT    NOT NULL,
    op_type        TEXT    NOT NULL,
    batch          INTEGER NOT NULL,
    input_h        INTEGER NOT NULL,
    input_w        INTEGER NOT NULL,
    channels_in    INTEGER NOT NULL,
    channels_out   INTEGER NOT NULL,
    stride         INTEGER NOT NULL,
    latency_micros REAL,
    energy_mj      REAL,
    measured_at    INTEGER NOT NULL,
    -- The whole row, as JSON.
    row            TEXT    NOT NULL,
    PRIMARY KEY (table_id, op_id, key)
) STRICT;

-- Derived: the boxes behind each table.
CREATE TABLE table_fingerprints (
    table_id INTEGER NOT NULL REFERENCES tables (id),
    digest   TEXT    NOT NULL REFERENCES fingerprints (digest),
    PRIMARY KEY (table_id, digest)
) STRICT, WITHOUT ROWID;

-- Versions that were served. They never change, so a search can pin one.
CREATE TABLE table_versions (
    version    TEXT    PRIMARY KEY,
    table_id   INTEGER NOT NULL REFERENCES tables (id),
    created_at INTEGER NOT NULL,
    rows       INTEGER NOT NULL,
    -- The table's JSON, compressed with zstd.
    body       BLOB    NOT NULL
) STRICT;

-- The seed's table, for tools that read SQL: one row per seed key, which knows neither run config nor
-- batch nor definition. It takes the hardware's default run config, the smallest batch, and of several
-- definitions the one that was measured last. Keys without a latency are left out.
CREATE VIEW latency_lookup AS
SELECT hardware_id, op_type, input_h, input_w, channels_in, channels_out, stride, latency_micros, energy_mj
FROM (
    SELECT tables.hardware_id, table_rows.*, row_number() OVER (
        PARTITION BY tables.id, op_type, input_h, input_w, channels_in, channels_out, stride
        ORDER BY batch, measured_at DESC, op_id DESC
    ) AS place
    FROM table_rows JOIN tables ON tables.id = table_rows.table_id
    WHERE latency_micros IS NOT NULL
      AND tables.id = (SELECT min(id) FROM tables AS same WHERE same.hardware_id = tables.hardware_id)
)
WHERE place = 1;
