-- left_out: why the repository cannot be worked on now, as found at a turn's start; '': it can.
ALTER TABLE further_repositories ADD COLUMN left_out TEXT NOT NULL DEFAULT '';
