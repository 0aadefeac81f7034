-- Targets that the watcher leaves alone, for people: an array of objects with the target, its gate (null: the feed's), the
-- state, how long it has been so and until it is tried again, both in seconds from seen_at, and how many targets are left.
ALTER TABLE {schema}.gatefeed_watchers ADD COLUMN circuits jsonb NOT NULL DEFAULT '[]';
