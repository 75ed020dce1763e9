-- chosen_from: what the turn's session worked with until the words that opened it chose otherwise, as JSON; '':
-- they did not.
ALTER TABLE turns ADD COLUMN chosen_from TEXT NOT NULL DEFAULT '';
-- hooked_in: the provider's id of the sandbox in which what its repositories want run has been, since it was
-- opened there.
ALTER TABLE sessions ADD COLUMN hooked_in TEXT NOT NULL DEFAULT '';
CREATE INDEX turns_person ON turns (person, id);
