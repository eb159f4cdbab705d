-- What is derived from measurements: what is behind, what can't be read, and which versions are kept.

-- Places whose entry in table_rows or table_networks is behind their measurements. A place stands here once,
-- however many measurements came in for it. It is taken out in the transaction that writes its entry, so what
-- is behind is known after a crash, too.
CREATE TABLE dirty (
    table_id   INTEGER NOT NULL REFERENCES tables (id),
    -- The op and key of a row; 0 and '' for a network, since columns of a key are not null.
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

-- Until this migration one number said how far derived entries had got.
INSERT INTO dirty (table_id, op_id, key, network_id)
SELECT DISTINCT table_id, coalesce(op_id, 0), coalesce(key, ''), coalesce(network_id, 0)
FROM measurements
WHERE id > (SELECT up_to FROM derived) AND canary = 0 AND set_aside IS NULL
  AND (op_id IS NOT NULL OR network_id IS NOT NULL);

DROP TABLE derived;

-- Measurements that would count at their place and that the running version can't read. They are left out there,
-- and tried again at each start of the server and by a rebuild.
CREATE TABLE unreadable (
    table_id       INTEGER NOT NULL REFERENCES tables (id),
    -- The place, as in `dirty`.
    op_id          INTEGER NOT NULL,
    key            TEXT    NOT NULL,
    network_id     INTEGER NOT NULL,
    measurement_id INTEGER NOT NULL REFERENCES measurements (id),
    cause          TEXT    NOT NULL,
    PRIMARY KEY (table_id, op_id, key, network_id, measurement_id)
) STRICT, WITHOUT ROWID;

-- When a version was last made the latest one of its table: what it was served since. Retention goes by it.
ALTER TABLE table_versions ADD COLUMN latest_at INTEGER NOT NULL DEFAULT 0;
UPDATE table_versions SET latest_at = created_at;

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
