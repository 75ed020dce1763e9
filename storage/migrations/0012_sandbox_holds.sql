-- Who is alone with a sandbox right now: with its key, so also with one that is only being made.
CREATE TABLE sandbox_holds (
    installation TEXT NOT NULL,
    tenant TEXT NOT NULL,
    person BIGINT NOT NULL,
    provider TEXT NOT NULL,
    holder TEXT NOT NULL,
    held_until DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (installation, tenant, person, provider)
);
