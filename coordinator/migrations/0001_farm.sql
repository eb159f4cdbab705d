-- The farm: which tables there are, which boxes measure for them, and who may do what.
--
-- Conventions of this schema: times are INTEGER microseconds since 1970 UTC; ids that travel are UUIDs
-- in text, ids inside are integers; JSON is text. A migration is never edited after it has landed.

-- Says to whom the file belongs ("LTLS"), so that another program's database is not written to.
PRAGMA application_id = 1280592979;

-- A latency table: one class of device under one run config. It comes to be with the first agent that
-- measures for it.
CREATE TABLE tables (
    -- Ascending in order of appearance: the smallest id of a hardware id is its default run config,
    -- which therefore never changes.
    id              INTEGER PRIMARY KEY,
    hardware_id     TEXT    NOT NULL,
    config_id       TEXT    NOT NULL,
    run_config      TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    -- Counts the transactions that changed a row. The latest version is current when it was made at
    -- the same count; before the first version both version columns are null.
    changes         INTEGER NOT NULL DEFAULT 0,
    version         TEXT,
    version_changes INTEGER,
    UNIQUE (hardware_id, config_id)
) STRICT;

-- What boxes say of themselves, by digest.
CREATE TABLE fingerprints (
    digest      TEXT    PRIMARY KEY,
    hardware_id TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

-- Enrolled boxes. Not the identity of a device class: many agents share a hardware id.
CREATE TABLE agents (
    id            INTEGER PRIMARY KEY,
    uuid          TEXT    NOT NULL UNIQUE,
    name          TEXT    NOT NULL,
    table_id      INTEGER NOT NULL REFERENCES tables (id),
    fingerprint   TEXT    NOT NULL REFERENCES fingerprints (digest),
    -- JSON array of the primitives that it can run.
    primitives    TEXT    NOT NULL,
    agent_version TEXT    NOT NULL,
    -- The last heartbeat's telemetry, as JSON.
    telemetry     TEXT,
    enrolled_at   INTEGER NOT NULL,
    seen_at       INTEGER NOT NULL
) STRICT;

CREATE INDEX agents_of_a_table ON agents (table_id);

-- Credentials. Only the SHA-256 of a token is kept: whoever reads the file can't act with it.
CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY,
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    role       TEXT    NOT NULL CHECK (role IN ('enroll', 'researcher', 'admin', 'agent')),
    agent_id   INTEGER REFERENCES agents (id),
    created_at INTEGER NOT NULL,
    -- A revoked token counts as unknown.
    revoked_at INTEGER,
    CHECK ((role = 'agent') = (agent_id IS NOT NULL))
) STRICT;
