-- opened_in: the provider's id of the sandbox that the session's worktrees were last opened in; '': in none, or
-- before this was kept.
ALTER TABLE sessions ADD COLUMN opened_in TEXT NOT NULL DEFAULT '';
