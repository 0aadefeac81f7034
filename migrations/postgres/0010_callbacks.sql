-- Items that wait for their handler to call back.

ALTER TABLE {schema}.gatefeed_items
    -- Without a callback by then, the attempt has failed. Null, unless the item waits for one.
    ADD COLUMN waiting_until timestamptz
        CONSTRAINT gatefeed_waiting_until_is_in_the_years_1_to_9999
        CHECK (waiting_until >= '0001-01-01 00:00:00+00' AND waiting_until < '10000-01-01 00:00:00+00'),
    -- The delivered version of the last attempt that failed for want of a callback, so that one that comes afterwards is
    -- told from one that comes twice.
    ADD COLUMN expired_version bigint;

-- The first to be over its time; those that wait for nested partitions have none.
CREATE INDEX gatefeed_items_waiting ON {schema}.gatefeed_items (partition_id, waiting_until) WHERE status = 'waiting';

-- Secrets of this database, each made when it is first wanted: 'callbacks' signs what handlers call back with.
CREATE TABLE {schema}.gatefeed_keys (
    name text PRIMARY KEY,
    secret bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- As they were; an item that they take from its waiting waits no more.
CREATE OR REPLACE FUNCTION {schema}.gatefeed_cancel(partition text, reason text DEFAULT 'cancelled by an operator')
RETURNS bigint LANGUAGE plpgsql AS $gatefeed$
DECLARE
    held {schema}.gatefeed_partitions := {schema}.gatefeed_locked(gatefeed_cancel.partition);
    available bigint;
    parked bigint;
    nested bigint;
BEGIN
    IF held.status = 'complete' THEN
        RAISE EXCEPTION 'gatefeed: partition "%" is complete: nothing of it is left to cancel', left(held.id, 100)
            USING ERRCODE = 'check_violation';
    ELSIF held.status <> 'cancelled' THEN
        UPDATE {schema}.gatefeed_partitions p
        SET status = 'cancelled', reason = gatefeed_cancel.reason, epoch = p.epoch + 1, owner = NULL, lease_id = NULL,
            until = NULL, next_run_at = NULL, version = p.version + 1, updated_at = now()
        WHERE p.id = held.id;
    END IF;
    -- One statement for each of the indexes of open items.
    UPDATE {schema}.gatefeed_items i SET status = 'cancelled', version = i.version + 1, updated_at = now()
    WHERE i.partition_id = held.id AND i.status = 'available';
    GET DIAGNOSTICS available = ROW_COUNT;
    UPDATE {schema}.gatefeed_items i
    SET status = 'cancelled', waiting_until = NULL, version = i.version + 1, updated_at = now()
    WHERE i.partition_id = held.id AND i.status IN ('waiting', 'blocked');
    GET DIAGNOSTICS parked = ROW_COUNT;
    nested := {schema}.gatefeed_cancel_nested(held.id, 0);
    PERFORM pg_notify({channel} || '.ended', held.id);
    RETURN available + parked + nested;
END $gatefeed$;

CREATE OR REPLACE FUNCTION {schema}.gatefeed_rewind(partition text, gate integer, OUT items bigint, OUT removed bigint)
LANGUAGE plpgsql AS $gatefeed$
DECLARE
    held {schema}.gatefeed_partitions := {schema}.gatefeed_locked(gatefeed_rewind.partition);
    why text;
BEGIN
    IF held.status = 'cancelled' THEN
        why := 'it is cancelled';
    ELSIF NOT held.keep_history THEN
        why := 'it keeps no history, so that its items'' earlier data is gone; keep_history has to be set before its first item comes';
    ELSIF gatefeed_rewind.gate IS NULL OR gatefeed_rewind.gate < 0 OR gatefeed_rewind.gate > held.gate THEN
        why := format('it is at gate %s, and gate %s is not one that it has reached', held.gate, gatefeed_rewind.gate);
    END IF;
    IF why IS NOT NULL THEN
        RAISE EXCEPTION 'gatefeed: partition "%" cannot be rewound: %', left(held.id, 100), why
            USING ERRCODE = 'check_violation';
    END IF;
    -- First, so that the triggers of the items find a partition that is awake.
    UPDATE {schema}.gatefeed_partitions p
    SET status = CASE WHEN p.status IN ('failed', 'complete') THEN 'available' ELSE p.status END,
        gate = gatefeed_rewind.gate, epoch = p.epoch + 1, owner = NULL, lease_id = NULL, until = NULL, expiries = 0,
        next_run_at = now(), gate_since = now(), version = p.version + 1, updated_at = now()
    WHERE p.id = held.id;
    PERFORM {schema}.gatefeed_cancel_nested(held.id, gatefeed_rewind.gate);
    WITH gone AS (
        DELETE FROM {schema}.gatefeed_items i
        WHERE i.partition_id = held.id AND i.creator_gate >= gatefeed_rewind.gate RETURNING i.id
    ), forgotten AS (
        DELETE FROM {schema}.gatefeed_history h USING gone g WHERE h.partition_id = held.id AND h.item_id = g.id
    )
    SELECT count(*) INTO removed FROM gone;
    UPDATE {schema}.gatefeed_items i
    SET gate = h.gate, data = h.data, content_type = h.content_type, available_at = now()
    FROM (SELECT DISTINCT ON (k.item_id) k.* FROM {schema}.gatefeed_history k
          WHERE k.partition_id = held.id AND k.gate >= gatefeed_rewind.gate ORDER BY k.item_id, k.gate) h
    WHERE i.partition_id = held.id AND i.id = h.item_id AND i.gate >= h.gate AND i.status <> 'cancelled';
    UPDATE {schema}.gatefeed_items i
    SET status = 'available', pass = i.pass + 1, retry_count = 0, suspect_count = 0, waiting_until = NULL,
        available_at = CASE WHEN i.status = 'available' THEN i.available_at ELSE now() END,
        version = i.version + 1, updated_at = now()
    WHERE i.partition_id = held.id AND i.gate >= gatefeed_rewind.gate AND i.status <> 'cancelled';
    GET DIAGNOSTICS items = ROW_COUNT;
    DELETE FROM {schema}.gatefeed_history h WHERE h.partition_id = held.id AND h.gate >= gatefeed_rewind.gate;
    PERFORM pg_notify({channel}, held.feed);
END $gatefeed$;
