-- What watchers report of themselves, for people: one row a watcher and feed, written every few seconds. Nothing is
-- decided by it; leases are.
CREATE TABLE {schema}.gatefeed_watchers (
    id text COLLATE "C" NOT NULL,
    feed text COLLATE "C" NOT NULL,
    version text NOT NULL,
    concurrency integer NOT NULL,
    partitions integer NOT NULL,
    in_flight integer NOT NULL,
    -- Since it started, failed attempts included.
    outcomes bigint NOT NULL,
    outcomes_per_second double precision NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, feed)
);
