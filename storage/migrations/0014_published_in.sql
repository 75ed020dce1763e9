-- published_in: the turn that published last; 0: none has.
ALTER TABLE sessions ADD COLUMN published_in BIGINT NOT NULL DEFAULT 0;
ALTER TABLE further_repositories ADD COLUMN published_in BIGINT NOT NULL DEFAULT 0;
