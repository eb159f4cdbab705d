-- What the ops of a box's last canary took that counts, in microseconds by key, as JSON: what the canaries of
-- other boxes of its class are held against.
ALTER TABLE agents ADD COLUMN canary_values TEXT;
