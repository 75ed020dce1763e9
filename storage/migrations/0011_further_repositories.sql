-- Repositories that a session works on besides its first, in the order in which they were named. The columns
-- mean what those of sessions do; tree: the directory of the worktree, beside the first's.
CREATE TABLE further_repositories (
    id {id},
    session TEXT NOT NULL REFERENCES sessions (id),
    repository BIGINT NOT NULL REFERENCES repositories (id),
    tree TEXT NOT NULL,
    base TEXT NOT NULL DEFAULT '',
    base_sha TEXT NOT NULL DEFAULT '',
    ready TEXT NOT NULL DEFAULT '',
    published TEXT NOT NULL DEFAULT '',
    pull_request BIGINT NOT NULL DEFAULT 0,
    pull_request_url TEXT NOT NULL DEFAULT '',
    UNIQUE (session, repository),
    UNIQUE (session, tree)
);
