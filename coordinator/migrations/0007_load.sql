-- What a farm of thousands of boxes asks of the database.

-- Of each agent's measurements of one thing, the one that counts is the first of its stretch of an index, so
-- that a row costs the same however long its history is.
DROP INDEX measurements_of_a_row;
CREATE INDEX measurements_of_a_row
ON measurements (table_id, op_id, key, agent_id, (status = 'failed'), finished_at DESC)
WHERE op_id IS NOT NULL;

DROP INDEX measurements_of_a_network;
CREATE INDEX measurements_of_a_network
ON measurements (table_id, network_id, agent_id, (status = 'failed'), finished_at DESC)
WHERE network_id IS NOT NULL;
