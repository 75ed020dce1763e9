-- pinned: never stopped for idleness, never deleted for age. state, state_at: as last seen, and since when; ''
-- = not seen yet. A row without provider_id: the sandbox was deleted, and `lost` says why, for the next turn.
-- resets: what a person was told would be lost with their sandbox (ids of sessions, as JSON), before they say
-- yes by number. It counts for that very sandbox, until the deadline.
ALTER TABLE sandboxes ADD COLUMN pinned SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN state TEXT NOT NULL DEFAULT '';
ALTER TABLE sandboxes ADD COLUMN state_at DOUBLE PRECISION NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN lost TEXT NOT NULL DEFAULT '';

CREATE TABLE resets (
    id {id},
    message_key TEXT NOT NULL UNIQUE,
    sandbox BIGINT NOT NULL REFERENCES sandboxes (id),
    provider_id TEXT NOT NULL,
    thread TEXT NOT NULL,
    told TEXT NOT NULL,
    deadline DOUBLE PRECISION NOT NULL
);
