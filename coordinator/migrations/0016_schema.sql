-- The schema of a coordinator's database.
--
-- Conventions: a time is an INTEGER of microseconds since 1970 UTC. An id that travels is a UUID in text; an id that
-- stays inside is an integer. JSON is text. A migration is never edited after a release.

-- Says to which program the file belongs ("LTLS"). The database of another program is never written to.
PRAGMA application_id = 1280592979;

-- One line: the id of this farm, whatever the coordinator's address is. Every copy of the database keeps it.
CREATE TABLE farm_identity (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    farm_id TEXT    NOT NULL
) STRICT;

-- A version 4 UUID.
INSERT INTO farm_identity (one, farm_id)
SELECT 1, lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-'
    || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)));

-- ---------------------------------------------------------------------------------------------------------------
-- Tables, agents, tokens
-- ---------------------------------------------------------------------------------------------------------------

-- A latency table: one class of device under one run config. The first agent that measures for it creates it.
CREATE TABLE tables (
    -- Ascending in order of appearance. The smallest id of a hardware id is its default run config, which therefore
    -- never changes.
    id              INTEGER PRIMARY KEY,
    hardware_id     TEXT    NOT NULL,
    config_id       TEXT    NOT NULL,
    run_config      TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    -- Counts the transactions that changed a row. The latest version is current if it was made at the same count.
    -- Before the first version, both version columns are null.
    changes         INTEGER NOT NULL DEFAULT 0,
    version         TEXT,
    version_changes INTEGER,
    UNIQUE (hardware_id, config_id)
) STRICT;

-- What agents report about their machine, by digest.
CREATE TABLE fingerprints (
    digest      TEXT    PRIMARY KEY,
    hardware_id TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX fingerprints_of_hardware ON fingerprints (hardware_id);

-- Enrolled agents. Many agents share a hardware id.
CREATE TABLE agents (
    id              INTEGER PRIMARY KEY,
    uuid            TEXT    NOT NULL UNIQUE,
    name            TEXT    NOT NULL,
    table_id        INTEGER NOT NULL REFERENCES tables (id),
    fingerprint     TEXT    NOT NULL REFERENCES fingerprints (digest),
    -- JSON array of the primitives that it can run.
    primitives      TEXT    NOT NULL,
    agent_version   TEXT    NOT NULL,
    -- Telemetry of the last heartbeat, as JSON.
    telemetry       TEXT,
    enrolled_at     INTEGER NOT NULL,
    seen_at         INTEGER NOT NULL,
    -- A hash that identifies the machine when the agent's state directory is lost. Null if the machine has no id.
    box_key         TEXT,

    -- Trust. Reason, time and author of the state are null for an agent that was always active.
    state           TEXT    NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'draining', 'quarantined')),
    state_reason    TEXT    CHECK (state = 'active' OR state_reason IS NOT NULL),
    state_since     INTEGER,
    state_by        TEXT,

    -- Canaries: when one was last handed out, when one last came in complete, and how often one was handed out since
    -- then without coming in.
    canary_asked_at INTEGER,
    canary_at       INTEGER,
    canary_tries    INTEGER NOT NULL DEFAULT 0,
    -- Latencies of the last canary that counts, in microseconds by key, as JSON. The canaries of other agents of the
    -- class are compared with them.
    canary_values   TEXT,

    -- Failures: when the agent last sent a number that counts, how many tasks it failed since then through a fault of
    -- its own, and when the first of these failed.
    number_at       INTEGER,
    failures_in_row INTEGER NOT NULL DEFAULT 0,
    failing_since   INTEGER CHECK ((failing_since IS NULL) = (failures_in_row = 0)),

    -- When and why the agent said that it stops. Void once the agent is heard of again.
    stopped_at      INTEGER,
    stopped_reason  TEXT,
    -- Labels that the host has set: a JSON object of texts.
    labels          TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(labels)),
    -- A removed agent is in no list and has no credential. Its measurements refer to it and stay.
    removed_at      INTEGER
) STRICT;

CREATE INDEX agents_of_a_table ON agents (table_id);
CREATE UNIQUE INDEX agents_by_box_key ON agents (table_id, box_key) WHERE box_key IS NOT NULL;
-- Trusted agents of a table, by the time of their last canary.
CREATE INDEX agents_by_canary ON agents (table_id, canary_at) WHERE state <> 'quarantined';
CREATE INDEX failing_agents ON agents (table_id) WHERE failing_since IS NOT NULL;

-- Credentials. Only the SHA-256 of a token is stored, so a reader of the file cannot use it.
CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY,
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    role       TEXT    NOT NULL CHECK (role IN ('enroll', 'researcher', 'admin', 'agent')),
    -- What the token is for, for people.
    label      TEXT    NOT NULL DEFAULT '',
    agent_id   INTEGER REFERENCES agents (id),
    created_at INTEGER NOT NULL,
    -- Null: never.
    expires_at INTEGER,
    -- Agents that may still be enrolled with it. Null: no limit.
    uses_left  INTEGER CHECK (uses_left IS NULL OR uses_left >= 0),
    -- Approximate, so that most reading calls write nothing. Null for agents: see `agents.seen_at`.
    used_at    INTEGER,
    -- A revoked token counts as unknown.
    revoked_at INTEGER,
    CHECK ((role = 'agent') = (agent_id IS NOT NULL))
) STRICT;

-- Changes made by people. Written in the transaction of the change, so neither exists without the other.
CREATE TABLE audit (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    -- Null: the coordinator's own command line.
    token_id INTEGER REFERENCES tokens (id),
    -- The token's label at the time, or `command line`.
    who      TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    detail   TEXT    NOT NULL CHECK (json_valid(detail))
) STRICT;

CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is never changed'); END;
CREATE TRIGGER audit_stays BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is never shortened'); END;

-- Incidents that the host was told of, so that each is reported once, also after a restart.
CREATE TABLE incidents (
    id          INTEGER PRIMARY KEY,
    -- The key by which the rule recognizes it.
    subject     TEXT    NOT NULL,
    incident    TEXT    NOT NULL CHECK (json_valid(incident)),
    opened_at   INTEGER NOT NULL,
    resolved_at INTEGER
) STRICT;

CREATE UNIQUE INDEX open_incidents ON incidents (subject) WHERE resolved_at IS NULL;

-- ---------------------------------------------------------------------------------------------------------------
-- Work: ops and networks, tasks, leases, requests
-- ---------------------------------------------------------------------------------------------------------------

-- Op definitions, by digest. Rows outlive the name of a definition: when a release changes a built-in op, the old
-- definition stays here, because old rows were measured with it.
CREATE TABLE ops (
    id         INTEGER PRIMARY KEY,
    digest     TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    definition TEXT    NOT NULL,
    builtin    INTEGER NOT NULL CHECK (builtin IN (0, 1)),
    -- Whether the name stands for this definition today.
    current    INTEGER NOT NULL CHECK (current IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX one_meaning_per_name ON ops (name) WHERE current = 1;

-- The primitives of each op. An agent is only given ops that it can run.
CREATE TABLE op_primitives (
    op_id     INTEGER NOT NULL REFERENCES ops (id),
    primitive TEXT    NOT NULL,
    PRIMARY KEY (op_id, primitive)
) STRICT, WITHOUT ROWID;

-- Whole networks that were requested or measured, by digest. Never changed.
CREATE TABLE networks (
    id         INTEGER PRIMARY KEY,
    digest     TEXT    NOT NULL UNIQUE,
    -- Its first name. Null if it never had one.
    name       TEXT,
    -- What an agent runs, with the ops that are not built in, as JSON.
    definition TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE network_primitives (
    network_id INTEGER NOT NULL REFERENCES networks (id),
    primitive  TEXT    NOT NULL,
    PRIMARY KEY (network_id, primitive)
) STRICT, WITHOUT ROWID;

-- The right of one agent to work on some tasks until a deadline. The id is the fencing token. A lease that ended is
-- deleted.
CREATE TABLE leases (
    id         TEXT    PRIMARY KEY,
    agent_id   INTEGER NOT NULL REFERENCES agents (id),
    created_at INTEGER NOT NULL,
    deadline   INTEGER NOT NULL,
    -- The tasks of a canary are no rows of `tasks`: they belong to one agent, and recur.
    canary     INTEGER NOT NULL DEFAULT 0 CHECK (canary IN (0, 1)),
    -- Number of tasks that were handed out.
    tasks      INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX leases_by_deadline ON leases (deadline);
CREATE INDEX leases_of_an_agent ON leases (agent_id);

-- Measure one key with one definition, or one network, for one table. One task serves all requests.
CREATE TABLE tasks (
    id         INTEGER PRIMARY KEY,
    table_id   INTEGER NOT NULL REFERENCES tables (id),
    -- Op and key of a row. Both are null for a network.
    op_id      INTEGER REFERENCES ops (id),
    key        TEXT,
    network_id INTEGER REFERENCES networks (id),
    state      TEXT    NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'leased', 'done', 'failed')),
    -- Leases that ended without a result since the task was last queued by a request.
    attempts   INTEGER NOT NULL DEFAULT 0,
    -- Why the last attempt failed.
    reason     TEXT,
    lease_id   TEXT    REFERENCES leases (id),
    -- Number of times that the task was requested anew. Results of an earlier generation do not settle it.
    generation INTEGER NOT NULL DEFAULT 0,
    -- Nulls are distinct, so each constraint covers one kind of task.
    UNIQUE (table_id, op_id, key),
    UNIQUE (table_id, network_id),
    CHECK ((op_id IS NULL) = (key IS NULL)),
    CHECK ((op_id IS NULL) <> (network_id IS NULL)),
    CHECK ((state = 'leased') = (lease_id IS NOT NULL)),
    CHECK (state <> 'failed' OR reason IS NOT NULL)
) STRICT;

-- The queue, in the order in which it is served.
CREATE INDEX queued_tasks ON tasks (table_id, attempts, id) WHERE state = 'queued';
CREATE INDEX leased_tasks ON tasks (lease_id) WHERE lease_id IS NOT NULL;
CREATE INDEX tasks_by_state ON tasks (table_id, state);

-- Tasks that an agent failed through a fault of its own. Other agents get the task first. An entry of another
-- generation than the task's is void.
CREATE TABLE box_failures (
    task_id    INTEGER NOT NULL REFERENCES tasks (id),
    agent_id   INTEGER NOT NULL REFERENCES agents (id),
    generation INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    -- A failure kind as in the API, or `refused`.
    kind       TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    PRIMARY KEY (task_id, agent_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX box_failures_of_an_agent ON box_failures (agent_id, at);

CREATE TABLE requests (
    id              INTEGER PRIMARY KEY,
    uuid            TEXT    NOT NULL UNIQUE,
    table_id        INTEGER NOT NULL REFERENCES tables (id),
    -- Name of the space. Empty if the request asked for networks only.
    space           TEXT    NOT NULL,
    -- The client's Idempotency-Key, and a hash of the body that came with it.
    idempotency_key TEXT    UNIQUE,
    body_hash       TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    -- Number of networks that the request asked for.
    networks        INTEGER NOT NULL DEFAULT 0,
    -- Who asked.
    token_id        INTEGER REFERENCES tokens (id),
    -- A cancelled request keeps its settled tasks, and the number of the others.
    cancelled_at    INTEGER,
    cancelled_by    TEXT,
    cancelled_tasks INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX requests_of_a_table ON requests (table_id, created_at);
CREATE INDEX requests_by_age ON requests (created_at);

-- The tasks of a request. The outcome is stored here, so a finished request stays finished when another one has its
-- tasks measured again.
CREATE TABLE request_tasks (
    request_id INTEGER NOT NULL REFERENCES requests (id),
    task_id    INTEGER NOT NULL REFERENCES tasks (id),
    outcome    TEXT    CHECK (outcome IN ('done', 'failed')),
    reason     TEXT,
    PRIMARY KEY (request_id, task_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX request_tasks_by_task ON request_tasks (task_id, outcome);
CREATE INDEX request_tasks_by_outcome ON request_tasks (request_id, outcome);

-- ---------------------------------------------------------------------------------------------------------------
-- Measurements: facts, only ever added
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE measurements (
    id          INTEGER PRIMARY KEY,
    -- Made by the agent. Unique, so sending a measurement again changes nothing.
    uuid        TEXT    NOT NULL UNIQUE,
    table_id    INTEGER NOT NULL REFERENCES tables (id),
    agent_id    INTEGER NOT NULL REFERENCES agents (id),
    -- Op and key of a row. Both are null for a whole network.
    op_id       INTEGER REFERENCES ops (id),
    key         TEXT,
    network_id  INTEGER REFERENCES networks (id),
    fingerprint TEXT    NOT NULL REFERENCES fingerprints (digest),
    status      TEXT    NOT NULL,
    -- By the agent's clock.
    finished_at INTEGER NOT NULL,
    -- By the coordinator's clock: when the measurement was received, and when it was made.
    received_at INTEGER NOT NULL,
    measured_at INTEGER,
    -- The generation of the task that it answers. 0 if it answers none.
    generation  INTEGER NOT NULL DEFAULT 0,
    -- Both are decided on receipt and never change, so a rebuild produces the same tables. A canary tells something
    -- about its agent, and makes no row.
    canary      INTEGER NOT NULL DEFAULT 0 CHECK (canary IN (0, 1)),
    -- Why it does not count. Null if it counts.
    set_aside   TEXT,
    -- All of it except the samples, as JSON.
    measurement TEXT    NOT NULL,
    -- The samples: gzip of JSON. Last, because nothing that is derived reads them.
    samples     BLOB,
    CHECK ((op_id IS NULL) = (key IS NULL))
) STRICT;

-- Of each agent's measurements of one key or network, the first entry of a stretch of an index is the one that counts:
-- of the latest generation, the one received last. The agent's clock plays no part.
CREATE INDEX measurements_of_a_row
ON measurements (table_id, op_id, key, agent_id, (status = 'failed'), generation DESC, id DESC)
WHERE op_id IS NOT NULL;
CREATE INDEX measurements_of_a_network
ON measurements (table_id, network_id, agent_id, (status = 'failed'), generation DESC, id DESC)
WHERE network_id IS NOT NULL;
-- Of each agent's canaries of one key, the latest is at one end of a stretch of an index: of all, and of those that
-- count.
CREATE INDEX canaries ON measurements (table_id, agent_id, key, received_at)
WHERE canary = 1;
CREATE INDEX canaries_that_count ON measurements (table_id, agent_id, key, received_at)
WHERE canary = 1 AND set_aside IS NULL;

CREATE TRIGGER measurements_are_facts BEFORE UPDATE ON measurements
BEGIN SELECT RAISE(ABORT, 'measurements are never changed'); END;
CREATE TRIGGER measurements_stay BEFORE DELETE ON measurements
BEGIN SELECT RAISE(ABORT, 'measurements are never deleted'); END;

-- ---------------------------------------------------------------------------------------------------------------
-- Derived: can be rebuilt from the measurements
-- ---------------------------------------------------------------------------------------------------------------

-- The backlog: rows and networks that are older than their measurements. One entry each, however many measurements
-- came in. The transaction that updates the row deletes the entry, so the backlog survives a crash.
CREATE TABLE dirty (
    table_id   INTEGER NOT NULL REFERENCES tables (id),
    -- Op and key of a row; 0 and '' for a network, because key columns are not null.
    op_id      INTEGER NOT NULL,
    key        TEXT    NOT NULL,
    -- The network; 0 for a row.
    network_id INTEGER NOT NULL,
    PRIMARY KEY (table_id, op_id, key, network_id),
    CHECK ((op_id = 0) <> (network_id = 0))
) STRICT, WITHOUT ROWID;

-- A trigger, so that no statement that adds a measurement can forget it.
CREATE TRIGGER measurements_make_dirty AFTER INSERT ON measurements
WHEN NEW.canary = 0 AND NEW.set_aside IS NULL AND (NEW.op_id IS NOT NULL OR NEW.network_id IS NOT NULL)
BEGIN
    INSERT INTO dirty (table_id, op_id, key, network_id)
    VALUES (NEW.table_id, coalesce(NEW.op_id, 0), coalesce(NEW.key, ''), coalesce(NEW.network_id, 0))
    ON CONFLICT DO NOTHING;
END;

-- Measurements that would count and that the running version cannot read. They are left out of their rows. Every start
-- of the server and every rebuild tries them again.
CREATE TABLE unreadable (
    table_id       INTEGER NOT NULL REFERENCES tables (id),
    -- As in `dirty`.
    op_id          INTEGER NOT NULL,
    key            TEXT    NOT NULL,
    network_id     INTEGER NOT NULL,
    measurement_id INTEGER NOT NULL REFERENCES measurements (id),
    cause          TEXT    NOT NULL,
    PRIMARY KEY (table_id, op_id, key, network_id, measurement_id)
) STRICT, WITHOUT ROWID;

-- The merged rows of today.
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

-- Rows are wide. Their number and the latest of them are read from this index.
CREATE INDEX rows_by_age ON table_rows (table_id, measured_at);

-- The merged measurements of whole networks.
CREATE TABLE table_networks (
    table_id    INTEGER NOT NULL REFERENCES tables (id),
    network_id  INTEGER NOT NULL REFERENCES networks (id),
    measured_at INTEGER NOT NULL,
    -- The whole entry, as JSON.
    network     TEXT    NOT NULL,
    PRIMARY KEY (table_id, network_id)
) STRICT;

-- The fingerprints behind each table.
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
    body       BLOB    NOT NULL,
    -- When it last became the latest version of its table. Retention goes by it.
    latest_at  INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX versions_of_a_table ON table_versions (table_id, latest_at);

-- Names of versions. A version with a name is never dropped.
CREATE TABLE version_tags (
    table_id   INTEGER NOT NULL REFERENCES tables (id),
    name       TEXT    NOT NULL,
    version    TEXT    NOT NULL REFERENCES table_versions (version),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (table_id, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX tags_of_a_version ON version_tags (version);

-- For tools that read SQL: one row per op and shape, without run config, batch and definition. It has the default run
-- config of the hardware, the smallest batch, and of several definitions the one that was measured last. Keys without
-- a latency are left out.
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
