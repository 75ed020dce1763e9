-- permissions: what a session's agent may do without asking; "" = as the installation has it.
-- offers: what agents list, newest first to count. version: the one that the agent is pinned to. person,
-- repository: in whose sandbox and in which repository it was told, since both may have settings of their own.
ALTER TABLE sessions ADD COLUMN permissions TEXT NOT NULL DEFAULT '';

CREATE TABLE offers (
    agent TEXT NOT NULL,
    person BIGINT NOT NULL REFERENCES people (id),
    repository BIGINT NOT NULL REFERENCES repositories (id),
    version TEXT NOT NULL,
    offered TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (agent, person, repository)
);
