-- Who is not there any more, since when and why: an account, or all of a tenant (account '').
CREATE TABLE departures (
    tenant TEXT NOT NULL,
    account TEXT NOT NULL,
    why TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (tenant, account)
);
