-- A watcher that has room and finds nothing but partitions that others hold says so here; the others hand some over.
ALTER TABLE gatefeed_watchers ADD COLUMN asks_until TEXT;
