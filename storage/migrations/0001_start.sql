-- {id} is a number that the database makes; {bytes} is binary. All else is the same in every database.
-- Times are Unix seconds. A thread is written as "surface:scope:id". JSON is in TEXT.

CREATE TABLE deliveries (
    seq {id},
    surface TEXT NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    body {bytes} NOT NULL,
    received_at DOUBLE PRECISION NOT NULL,
    lane TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'received' CHECK (state IN ('received', 'parked', 'settled')),
    thread TEXT NOT NULL DEFAULT '',
    outcome TEXT NOT NULL DEFAULT '',
    settled_at DOUBLE PRECISION,
    UNIQUE (surface, id)
);
CREATE INDEX deliveries_received ON deliveries (seq) WHERE state = 'received';
CREATE INDEX deliveries_parked ON deliveries (thread) WHERE state = 'parked';
CREATE INDEX deliveries_settled ON deliveries (settled_at) WHERE state = 'settled';

-- The second key of "once": a message has its effect one time, however many deliveries carry it.
CREATE TABLE messages (
    key TEXT PRIMARY KEY,
    effect TEXT NOT NULL,
    session TEXT NOT NULL,
    turn BIGINT,
    at DOUBLE PRECISION NOT NULL
);

CREATE TABLE people (
    id {id},
    tenant TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL
);

CREATE TABLE identities (
    id {id},
    surface TEXT NOT NULL,
    tenant TEXT NOT NULL,
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    person BIGINT NOT NULL REFERENCES people (id),
    UNIQUE (surface, tenant, account)
);
CREATE INDEX identities_person ON identities (person);

CREATE TABLE repositories (
    id BIGINT PRIMARY KEY,
    full_name TEXT NOT NULL,
    default_branch TEXT NOT NULL,
    private SMALLINT NOT NULL,
    installation BIGINT NOT NULL
);

CREATE TABLE repository_defaults (
    scope TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    set_by TEXT NOT NULL,
    set_at DOUBLE PRECISION NOT NULL
);

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    owner BIGINT NOT NULL REFERENCES people (id),
    thread TEXT NOT NULL,
    repository BIGINT REFERENCES repositories (id),
    agent TEXT NOT NULL,
    model TEXT NOT NULL,
    title TEXT NOT NULL,
    branch TEXT NOT NULL DEFAULT '',
    base TEXT NOT NULL DEFAULT '',
    base_sha TEXT NOT NULL DEFAULT '',
    resume_token TEXT NOT NULL DEFAULT '',
    ready TEXT NOT NULL DEFAULT '',
    published TEXT NOT NULL DEFAULT '',
    pull_request BIGINT NOT NULL DEFAULT 0,
    pull_request_url TEXT NOT NULL DEFAULT '',
    created_at DOUBLE PRECISION NOT NULL
);

CREATE TABLE aliases (
    id {id},
    alias TEXT NOT NULL UNIQUE,
    session TEXT NOT NULL REFERENCES sessions (id)
);
CREATE INDEX aliases_session ON aliases (session, id);

-- tenant and person are the session's, repeated for the caps. capped: a claim was refused by caps,
-- which are kept so that whoever makes room knows whom to wake. opened_by: the surface account that
-- the final calls by name.
CREATE TABLE turns (
    id {id},
    session TEXT NOT NULL REFERENCES sessions (id),
    tenant TEXT NOT NULL,
    person BIGINT NOT NULL,
    thread TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'preparing', 'running', 'finishing', 'done', 'failed', 'stopped')),
    opened_by TEXT NOT NULL DEFAULT '',
    attempt BIGINT NOT NULL DEFAULT 1,
    fence BIGINT NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    lease_until DOUBLE PRECISION NOT NULL DEFAULT 0,
    out_offset BIGINT NOT NULL DEFAULT 0,
    err_offset BIGINT NOT NULL DEFAULT 0,
    in_offset BIGINT NOT NULL DEFAULT 0,
    codec_state TEXT NOT NULL DEFAULT '{}',
    stop_by TEXT NOT NULL DEFAULT '',
    pushing SMALLINT NOT NULL DEFAULT 0,
    asked_to_commit SMALLINT NOT NULL DEFAULT 0,
    timeline TEXT,
    final TEXT,
    capped SMALLINT NOT NULL DEFAULT 0,
    cap_total BIGINT NOT NULL DEFAULT 0,
    cap_tenant BIGINT NOT NULL DEFAULT 0,
    cap_person BIGINT NOT NULL DEFAULT 0,
    queued_at DOUBLE PRECISION NOT NULL,
    started_at DOUBLE PRECISION NOT NULL DEFAULT 0,
    ended_at DOUBLE PRECISION NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX one_open_turn ON turns (session)
    WHERE state IN ('queued', 'preparing', 'running', 'finishing');
CREATE INDEX turns_queued ON turns (id) WHERE state = 'queued';
CREATE INDEX turns_busy ON turns (tenant, person) WHERE state IN ('preparing', 'running', 'finishing');

-- opening: it was in the turn before the agent ran (not steered into it).
CREATE TABLE inputs (
    id {id},
    session TEXT NOT NULL REFERENCES sessions (id),
    message_key TEXT NOT NULL UNIQUE,
    surface TEXT NOT NULL,
    tenant TEXT NOT NULL,
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    sent TEXT NOT NULL,
    text TEXT NOT NULL,
    ref TEXT,
    background TEXT NOT NULL,
    mode TEXT NOT NULL,
    fate TEXT NOT NULL
        CHECK (fate IN ('pending', 'written', 'consumed', 'deferred', 'dropped', 'held')),
    turn BIGINT REFERENCES turns (id),
    opening SMALLINT NOT NULL DEFAULT 0,
    thread TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL
);
CREATE INDEX inputs_unsettled ON inputs (session, sent, id)
    WHERE fate IN ('pending', 'written', 'deferred', 'held');
CREATE INDEX inputs_turn ON inputs (turn, sent, id);

-- What the agent did, a row per event. An ordinary table with a unique index: rows are appended.
CREATE TABLE events (
    id {id},
    turn BIGINT NOT NULL REFERENCES turns (id),
    seq BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (turn, seq)
);

-- What was written to the agent's stdin, so that it can be written again after a crash.
CREATE TABLE journal (
    turn BIGINT NOT NULL REFERENCES turns (id),
    attempt BIGINT NOT NULL,
    starts BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    body {bytes} NOT NULL,
    PRIMARY KEY (turn, attempt, starts)
);

CREATE TABLE outbox (
    id {id},
    key TEXT NOT NULL UNIQUE,
    lane TEXT NOT NULL,
    kind TEXT NOT NULL,
    turn BIGINT,
    body TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sending', 'sent', 'refused')),
    attempts BIGINT NOT NULL DEFAULT 0,
    due_at DOUBLE PRECISION NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    ref TEXT,
    created_at DOUBLE PRECISION NOT NULL,
    settled_at DOUBLE PRECISION
);
CREATE INDEX outbox_lanes ON outbox (lane, id) WHERE state IN ('pending', 'sending');

CREATE TABLE sandboxes (
    id {id},
    installation TEXT NOT NULL,
    tenant TEXT NOT NULL,
    person BIGINT NOT NULL REFERENCES people (id),
    provider TEXT NOT NULL,
    provider_id TEXT NOT NULL,
    host TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    last_used DOUBLE PRECISION NOT NULL,
    UNIQUE (installation, tenant, person, provider)
);
CREATE INDEX sandboxes_last_used ON sandboxes (last_used);

-- An agent may say the same figures again: the newest of a key counts.
CREATE TABLE usage (
    turn BIGINT NOT NULL REFERENCES turns (id),
    key TEXT NOT NULL,
    tenant TEXT NOT NULL,
    person BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    tokens_in BIGINT NOT NULL,
    tokens_out BIGINT NOT NULL,
    tokens_cached BIGINT NOT NULL,
    micro_usd BIGINT,
    PRIMARY KEY (turn, key)
);
CREATE INDEX usage_tenant ON usage (tenant, at);
CREATE INDEX usage_person ON usage (person, at);

-- Rows are only ever added.
CREATE TABLE audit (
    id {id},
    at DOUBLE PRECISION NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_target ON audit (target, at);

-- A row to hold while places are counted, so that caps are exact beside other writers.
CREATE TABLE locks (name TEXT PRIMARY KEY);
INSERT INTO locks (name) VALUES ('caps');
