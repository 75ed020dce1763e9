-- cap_sandboxes: beside the other caps that a claim was refused by.
ALTER TABLE turns ADD COLUMN cap_sandboxes BIGINT NOT NULL DEFAULT 0;
