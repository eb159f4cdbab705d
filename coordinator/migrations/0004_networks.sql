-- Whole networks: tasks and measurements like those of ops, and the truth that predictions are held
-- against.

-- Networks that were asked for or measured, by digest. Never changed.
CREATE TABLE networks (
    id         INTEGER PRIMARY KEY,
    digest     TEXT    NOT NULL UNIQUE,
    -- As it was called first; null where it never had a name.
    name       TEXT,
    -- What an agent runs, with the ops that are not built in, as JSON.
    definition TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- The primitives of each network's ops, so that an agent is only given what it can run.
CREATE TABLE network_primitives (
    network_id INTEGER NOT NULL REFERENCES networks (id),
    primitive  TEXT    NOT NULL,
    PRIMARY KEY (network_id, primitive)
) STRICT, WITHOUT ROWID;

-- A task is a key or a network from now on. SQLite takes no constraint back, so the table is made anew,
-- and before it goes, what refers to it: with foreign keys in force, rows that others refer to stay.
CREATE TABLE new_tasks (
    id         INTEGER PRIMARY KEY,
    table_id   INTEGER NOT NULL REFERENCES tables (id),
    -- The op and key of a row; both null for a network.
    op_id      INTEGER REFERENCES ops (id),
    key        TEXT,
    network_id INTEGER REFERENCES networks (id),
    state      TEXT    NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'leased', 'done', 'failed')),
    -- Leases on it that ended without a result, since it was last queued by a request.
    attempts   INTEGER NOT NULL DEFAULT 0,
    -- Why the last attempt came to nothing.
    reason     TEXT,
    lease_id   TEXT    REFERENCES leases (id),
    -- Nulls are all different, so each of the two is about its own kind of task.
    UNIQUE (table_id, op_id, key),
    UNIQUE (table_id, network_id),
    CHECK ((op_id IS NULL) = (key IS NULL)),
    CHECK ((op_id IS NULL) <> (network_id IS NULL)),
    CHECK ((state = 'leased') = (lease_id IS NOT NULL)),
    CHECK (state <> 'failed' OR reason IS NOT NULL)
) STRICT;

CREATE TABLE new_request_tasks (
    request_id INTEGER NOT NULL REFERENCES requests (id),
    task_id    INTEGER NOT NULL REFERENCES new_tasks (id),
    outcome    TEXT    CHECK (outcome IN ('done', 'failed')),
    reason     TEXT,
    PRIMARY KEY (request_id, task_id)
) STRICT, WITHOUT ROWID;

INSERT INTO new_tasks (id, table_id, op_id, key, state, attempts, reason, lease_id)
SELECT id, table_id, op_id, key, state, attempts, reason, lease_id FROM tasks;

INSERT INTO new_request_tasks (request_id, task_id, outcome, reason)
SELECT request_id, task_id, outcome, reason FROM request_tasks;

DROP TABLE request_tasks;
DROP TABLE tasks;
ALTER TABLE new_tasks RENAME TO tasks;
ALTER TABLE new_request_tasks RENAME TO request_tasks;

-- The queue, in the order in which it is served.
CREATE INDEX queued_tasks ON tasks (table_id, attempts, id) WHERE state = 'queued';
CREATE INDEX leased_tasks ON tasks (lease_id) WHERE lease_id IS NOT NULL;
CREATE INDEX request_tasks_by_task ON request_tasks (task_id, outcome);
CREATE INDEX request_tasks_by_outcome ON request_tasks (request_id, outcome);

-- How many networks a request asked for. Its `space` is empty when it asked for nothing else.
ALTER TABLE requests ADD COLUMN networks INTEGER NOT NULL DEFAULT 0;

-- The network of a measurement. Measurements of networks from before this migration have none: they said a
-- name and not what was run, so nothing can be held against them.
ALTER TABLE measurements ADD COLUMN network_id INTEGER REFERENCES networks (id);

CREATE INDEX measurements_of_a_network ON measurements (table_id, network_id, agent_id)
WHERE network_id IS NOT NULL;

-- Derived: the merged measurements of whole networks.
CREATE TABLE table_networks (
    table_id    INTEGER NOT NULL REFERENCES tables (id),
    network_id  INTEGER NOT NULL REFERENCES networks (id),
    measured_at INTEGER NOT NULL,
    -- The whole of it, as JSON.
    network     TEXT    NOT NULL,
    PRIMARY KEY (table_id, network_id)
) STRICT;
