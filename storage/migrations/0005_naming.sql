-- named: what the agent calls the work. description: how the agent would have what is not published yet described.
ALTER TABLE sessions ADD COLUMN named TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN description TEXT NOT NULL DEFAULT '';
