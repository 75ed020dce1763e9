-- What agents ask people. name: the agent's own; an attempt that died asks no more. told: its agent has been
-- given the answer. surface, tenant, account and caller: whose word counts, beside the session's owner's.
CREATE TABLE asks (
    id {id},
    turn BIGINT NOT NULL REFERENCES turns (id),
    attempt BIGINT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    title TEXT NOT NULL,
    detail TEXT NOT NULL,
    options TEXT NOT NULL,
    surface TEXT NOT NULL,
    tenant TEXT NOT NULL,
    account TEXT NOT NULL,
    caller TEXT NOT NULL,
    deadline DOUBLE PRECISION NOT NULL,
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'settled', 'expired', 'withdrawn')),
    allowed SMALLINT NOT NULL DEFAULT 0,
    answer TEXT NOT NULL DEFAULT '',
    settled_by TEXT NOT NULL DEFAULT '',
    told SMALLINT NOT NULL DEFAULT 0,
    at DOUBLE PRECISION NOT NULL,
    UNIQUE (turn, attempt, name)
);
CREATE INDEX asks_open ON asks (turn) WHERE state = 'open' OR told = 0;
