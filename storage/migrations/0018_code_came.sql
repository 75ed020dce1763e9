-- code_came: whether the session's code was about to come, or came, into its owner's sandbox in this turn. Of
-- turns from before this was kept, and of those that an earlier release takes up beside this one, all count:
-- a claim of ours says of a turn that begins that nothing came yet.
ALTER TABLE turns ADD COLUMN code_came SMALLINT NOT NULL DEFAULT 1;
