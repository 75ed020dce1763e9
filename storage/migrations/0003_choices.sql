-- effort: how hard the agent thinks, in its own words. since: `sent` of the message that made the session.
-- memory_*: the agent, its version and the sandbox that `resume_token` is good for.
-- choice: which agent, model and effort a message wants, as JSON; "" = as before.
ALTER TABLE sessions ADD COLUMN effort TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN since TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN memory_agent TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN memory_version TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN memory_box TEXT NOT NULL DEFAULT '';
ALTER TABLE inputs ADD COLUMN choice TEXT NOT NULL DEFAULT '';
