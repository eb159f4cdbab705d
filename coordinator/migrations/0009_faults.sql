-- What a large farm asks of the database, second part: each of these queries costs by what it finds and not by
-- all that was ever stored.

-- Of each agent's canaries of one key, the latest is at one end of a stretch of an index: all of them, and those
-- that count.
DROP INDEX canaries;
CREATE INDEX canaries ON measurements (table_id, agent_id, key, received_at)
WHERE canary = 1;
CREATE INDEX canaries_that_count ON measurements (table_id, agent_id, key, received_at)
WHERE canary = 1 AND set_aside IS NULL;
-- The trusted boxes of a table, by when a canary of theirs last came in.
CREATE INDEX agents_by_canary ON agents (table_id, canary_at) WHERE state <> 'quarantined';

-- The boxes of a class: at each batch of results.
CREATE INDEX fingerprints_of_hardware ON fingerprints (hardware_id);

-- The farm at one glance, and its metrics.
CREATE INDEX requests_of_a_table ON requests (table_id, created_at);
CREATE INDEX requests_by_age ON requests (created_at);
CREATE INDEX tasks_by_state ON tasks (table_id, state);
-- Rows are wide, and for their number and the latest of them nobody should read them.
CREATE INDEX rows_by_age ON table_rows (table_id, measured_at);
