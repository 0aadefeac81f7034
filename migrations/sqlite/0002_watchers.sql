-- What watchers report of themselves, for people: one row a watcher and feed, written every few seconds. Nothing is
-- decided by it; leases are.
CREATE TABLE gatefeed_watchers (
    id TEXT NOT NULL,
    feed TEXT NOT NULL,
    version TEXT NOT NULL,
    concurrency INTEGER NOT NULL,
    partitions INTEGER NOT NULL,
    in_flight INTEGER NOT NULL,
    -- Since it started, failed attempts included.
    outcomes INTEGER NOT NULL,
    outcomes_per_second REAL NOT NULL,
    started_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    seen_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    PRIMARY KEY (id, feed)
) STRICT;
