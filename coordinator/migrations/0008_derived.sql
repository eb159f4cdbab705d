-- What is derived from measurements follows them, a moment later and many at once.

-- One line: everything that counts up to this measurement is in table_rows, table_networks and
-- table_fingerprints. Measurements have ascending numbers and are never deleted, so what is behind is known
-- after a crash, too. Until this migration they were derived as they came.
CREATE TABLE derived (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    up_to INTEGER NOT NULL
) STRICT;

INSERT INTO derived (one, up_to) SELECT 1, coalesce(max(id), 0) FROM measurements;
