-- closed_at: since when the pull request is merged or closed; 0: it is open, or there is none.
-- put_away_tried: when not all of the session's worktrees could be put away.
ALTER TABLE sessions ADD COLUMN closed_at DOUBLE PRECISION NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN put_away_tried DOUBLE PRECISION NOT NULL DEFAULT 0;
ALTER TABLE further_repositories ADD COLUMN closed_at DOUBLE PRECISION NOT NULL DEFAULT 0;
CREATE INDEX sessions_of_pull_request ON sessions (repository, pull_request);
CREATE INDEX further_of_pull_request ON further_repositories (repository, pull_request);
