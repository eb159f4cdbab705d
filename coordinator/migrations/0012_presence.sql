-- Who is there: boxes that stop in order, names and labels, boxes that were taken out, requests that were
-- taken back, and incidents.

-- When the agent said that it stops, and why. It counts as long as the agent was not heard of since.
ALTER TABLE agents ADD COLUMN stopped_at INTEGER;
ALTER TABLE agents ADD COLUMN stopped_reason TEXT;
-- What the host has written on the box: an object of text.
ALTER TABLE agents ADD COLUMN labels TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(labels));
-- A box that was removed is in no list and has no credential. What it measured refers to it and stays.
ALTER TABLE agents ADD COLUMN removed_at INTEGER;

-- Who asked; null in requests from before this migration.
ALTER TABLE requests ADD COLUMN token_id INTEGER REFERENCES tokens (id);
-- A request that was cancelled keeps the tasks that were over, and the number of the others.
ALTER TABLE requests ADD COLUMN cancelled_at INTEGER;
ALTER TABLE requests ADD COLUMN cancelled_by TEXT;
ALTER TABLE requests ADD COLUMN cancelled_tasks INTEGER NOT NULL DEFAULT 0;

-- What the host was or would have been told of, so that each incident is told once, also after a restart.
CREATE TABLE incidents (
    id          INTEGER PRIMARY KEY,
    -- What the rule knows it by.
    subject     TEXT    NOT NULL,
    incident    TEXT    NOT NULL CHECK (json_valid(incident)),
    opened_at   INTEGER NOT NULL,
    resolved_at INTEGER
) STRICT;

CREATE UNIQUE INDEX open_incidents ON incidents (subject) WHERE resolved_at IS NULL;
