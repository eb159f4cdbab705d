-- Tokens that end, and who did what.

-- What a token is for, for people; empty where nobody said.
ALTER TABLE tokens ADD COLUMN label TEXT NOT NULL DEFAULT '';
-- Null: never. Tokens from before this migration go on for good.
ALTER TABLE tokens ADD COLUMN expires_at INTEGER;
-- Boxes that may still be enrolled with it. Null: no limit.
ALTER TABLE tokens ADD COLUMN uses_left INTEGER CHECK (uses_left IS NULL OR uses_left >= 0);
-- Only roughly, so that a call that reads writes nothing most of the time. Null for agents: `agents.seen_at`
-- has it.
ALTER TABLE tokens ADD COLUMN used_at INTEGER;

-- What people changed. Written in the transaction of the change, so neither is there without the other.
CREATE TABLE audit (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    -- Null: somebody at the coordinator's own command line.
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
