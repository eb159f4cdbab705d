-- Trust in a box: its state, its canaries, and what was measured while it was not trusted.

-- Why, since when and by whom a state was set: all null for a box that was active all along.
ALTER TABLE agents ADD COLUMN state TEXT NOT NULL DEFAULT 'active'
    CHECK (state IN ('active', 'draining', 'quarantined'));
ALTER TABLE agents ADD COLUMN state_reason TEXT CHECK (state = 'active' OR state_reason IS NOT NULL);
ALTER TABLE agents ADD COLUMN state_since INTEGER;
ALTER TABLE agents ADD COLUMN state_by TEXT;

-- When the canary was last handed out, when one last came in whole, and how often it was handed out since
-- and did not come in.
ALTER TABLE agents ADD COLUMN canary_asked_at INTEGER;
ALTER TABLE agents ADD COLUMN canary_at INTEGER;
ALTER TABLE agents ADD COLUMN canary_tries INTEGER NOT NULL DEFAULT 0;

-- A canary's tasks are no rows of `tasks`: they are for one agent, and come back whatever was asked for.
ALTER TABLE leases ADD COLUMN canary INTEGER NOT NULL DEFAULT 0 CHECK (canary IN (0, 1));
-- How many tasks were handed out.
ALTER TABLE leases ADD COLUMN tasks INTEGER NOT NULL DEFAULT 0;

CREATE INDEX leases_of_an_agent ON leases (agent_id);

-- Both are decided when a measurement comes in and never change, so that a rebuild makes the same tables.
-- A canary says something of the box; it makes no row.
ALTER TABLE measurements ADD COLUMN canary INTEGER NOT NULL DEFAULT 0 CHECK (canary IN (0, 1));
-- Why it counts for nothing; null when it counts.
ALTER TABLE measurements ADD COLUMN set_aside TEXT;

CREATE INDEX canaries ON measurements (table_id, agent_id, received_at) WHERE canary = 1;
