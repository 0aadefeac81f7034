-- Items that wait for their handler to call back.

-- Without a callback by then, the attempt has failed. Null, unless the item waits for one.
ALTER TABLE gatefeed_items ADD COLUMN waiting_until TEXT
    CONSTRAINT "gatefeed_waiting_until_is_UTC_text_like_2026-01-31 23:59:59.123"
    CHECK (waiting_until IS NULL OR waiting_until GLOB '[0-9]*'
        AND (strftime('%Y-%m-%d %H:%M:%S', waiting_until, '+0 days') IS waiting_until
            OR strftime('%Y-%m-%d %H:%M:%f', waiting_until, '+0 days') IS waiting_until));
-- The delivered version of the last attempt that failed for want of a callback, so that one that comes afterwards is
-- told from one that comes twice.
ALTER TABLE gatefeed_items ADD COLUMN expired_version INTEGER;

-- The first to be over its time; those that wait for nested partitions have none.
CREATE INDEX gatefeed_items_waiting ON gatefeed_items (partition_id, waiting_until) WHERE status = 'waiting';

-- Secrets of this database, each made when it is first wanted: 'callbacks' signs what handlers call back with.
CREATE TABLE gatefeed_keys (
    name TEXT NOT NULL PRIMARY KEY,
    secret BLOB NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
) STRICT;
