-- code_came: whether the session's code was about to come, or came, into its owner's sandbox in this turn. Of
-- turns from before this was kept, all count.
ALTER TABLE turns ADD COLUMN code_came SMALLINT NOT NULL DEFAULT 0;
UPDATE turns SET code_came = 1;
