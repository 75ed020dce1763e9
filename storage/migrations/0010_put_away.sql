-- put_away: the session's worktree was put away, or has to stay as it is, since its last turn.
ALTER TABLE sessions ADD COLUMN put_away SMALLINT NOT NULL DEFAULT 0;
