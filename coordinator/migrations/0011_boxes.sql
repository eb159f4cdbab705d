-- Whose fault, whose identity, whose clock.

-- One line: which farm this is, whatever the coordinator's address. Made here, and kept by every copy of the
-- database.
CREATE TABLE farm_identity (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    farm_id TEXT    NOT NULL
) STRICT;

-- A version 4 UUID.
INSERT INTO farm_identity (one, farm_id)
SELECT 1, lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-'
    || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)));

-- What tells a box from others when its state directory is lost: a hash that the agent makes. Null where
-- nothing tells it.
ALTER TABLE agents ADD COLUMN box_key TEXT;
CREATE UNIQUE INDEX agents_by_box_key ON agents (table_id, box_key) WHERE box_key IS NOT NULL;

-- When an agent last sent a number that counts, how many tasks it has failed since through a fault of its
-- own, and when the first of these failed.
ALTER TABLE agents ADD COLUMN number_at INTEGER;
ALTER TABLE agents ADD COLUMN failures_in_row INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN failing_since INTEGER CHECK ((failing_since IS NULL) = (failures_in_row = 0));
CREATE INDEX failing_agents ON agents (table_id) WHERE failing_since IS NOT NULL;

-- How often a task was asked for anew. What was handed out in an earlier generation does not answer it.
ALTER TABLE tasks ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

-- Tasks that a box had no number for through a fault of its own. The task goes to other boxes first. Of another
-- generation than the task's it says nothing.
CREATE TABLE box_failures (
    task_id    INTEGER NOT NULL REFERENCES tasks (id),
    agent_id   INTEGER NOT NULL REFERENCES agents (id),
    generation INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    -- A failure kind as it travels, or `refused`.
    kind       TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    PRIMARY KEY (task_id, agent_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX box_failures_of_an_agent ON box_failures (agent_id, at);

-- The generation of the task that a measurement answers; 0 where it answers none.
ALTER TABLE measurements ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
-- When it was made, by the coordinator's clock. `finished_at` is what the box's clock showed, and all that is
-- known of measurements from before this migration.
ALTER TABLE measurements ADD COLUMN measured_at INTEGER;

-- Of each agent's measurements of one thing, the one that counts is the first of its stretch of an index: of
-- the latest generation, the one that came in last. The box's clock has no say.
DROP INDEX measurements_of_a_row;
CREATE INDEX measurements_of_a_row
ON measurements (table_id, op_id, key, agent_id, (status = 'failed'), generation DESC, id DESC)
WHERE op_id IS NOT NULL;

DROP INDEX measurements_of_a_network;
CREATE INDEX measurements_of_a_network
ON measurements (table_id, network_id, agent_id, (status = 'failed'), generation DESC, id DESC)
WHERE network_id IS NOT NULL;
