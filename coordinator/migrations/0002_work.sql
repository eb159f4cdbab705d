-- Work: what can be measured, what was asked for, and who is at it.

-- Op definitions, by digest. Rows outlive a definition's name: when a release changes a built-in op,
-- its old definition stays here, since old rows were measured with it.
CREATE TABLE ops (
    id         INTEGER PRIMARY KEY,
    digest     TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    definition TEXT    NOT NULL,
    builtin    INTEGER NOT NULL CHECK (builtin IN (0, 1)),
    -- Whether the name means this definition today.
    current    INTEGER NOT NULL CHECK (current IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX one_meaning_per_name ON ops (name) WHERE current = 1;

-- The primitives of each op, so that an agent is only given what it can run.
CREATE TABLE op_primitives (
    op_id     INTEGER NOT NULL REFERENCES ops (id),
    primitive TEXT    NOT NULL,
    PRIMARY KEY (op_id, primitive)
) STRICT, WITHOUT ROWID;

-- The right of one agent to work on some tasks until a deadline. The id is the fencing token. A lease
-- that ended is deleted, so a lease that is not here is over.
CREATE TABLE leases (
    id         TEXT    PRIMARY KEY,
    agent_id   INTEGER NOT NULL REFERENCES agents (id),
    created_at INTEGER NOT NULL,
    deadline   INTEGER NOT NULL
) STRICT;

CREATE INDEX leases_by_deadline ON leases (deadline);

-- Measure one key with one definition for one table: at most one task, whoever asks for it.
CREATE TABLE tasks (
    id       INTEGER PRIMARY KEY,
    table_id INTEGER NOT NULL REFERENCES tables (id),
    op_id    INTEGER NOT NULL REFERENCES ops (id),
    key      TEXT    NOT NULL,
    state    TEXT    NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'leased', 'done', 'failed')),
    -- Leases on it that ended without a result, since it was last queued by a request.
    attempts INTEGER NOT NULL DEFAULT 0,
    -- Why the last attempt came to nothing.
    reason   TEXT,
    lease_id TEXT    REFERENCES leases (id),
    UNIQUE (table_id, op_id, key),
    CHECK ((state = 'leased') = (lease_id IS NOT NULL)),
    CHECK (state <> 'failed' OR reason IS NOT NULL)
) STRICT;

-- The queue, in the order in which it is served.
CREATE INDEX queued_tasks ON tasks (table_id, attempts, id) WHERE state = 'queued';
CREATE INDEX leased_tasks ON tasks (lease_id) WHERE lease_id IS NOT NULL;

CREATE TABLE requests (
    id              INTEGER PRIMARY KEY,
    uuid            TEXT    NOT NULL UNIQUE,
    table_id        INTEGER NOT NULL REFERENCES tables (id),
    -- Name of the space.
    space           TEXT    NOT NULL,
    -- The client's Idempotency-Key, and a hash of the body that came with it.
    idempotency_key TEXT    UNIQUE,
    body_hash       TEXT    NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;

-- What a request waits for. The outcome is kept here and not read from the task, so that a request
-- that is finished stays finished when another one has its tasks measured again.
CREATE TABLE request_tasks (
    request_id INTEGER NOT NULL REFERENCES requests (id),
    task_id    INTEGER NOT NULL REFERENCES tasks (id),
    outcome    TEXT    CHECK (outcome IN ('done', 'failed')),
    reason     TEXT,
    PRIMARY KEY (request_id, task_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX request_tasks_by_task ON request_tasks (task_id, outcome);
CREATE INDEX request_tasks_by_outcome ON request_tasks (request_id, outcome);
