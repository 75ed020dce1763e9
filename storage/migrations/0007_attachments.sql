-- attached: the files that came with the message, as JSON; '' = none.
ALTER TABLE inputs ADD COLUMN attached TEXT NOT NULL DEFAULT '';
