-- Partitions that an answer makes: the item that was answered waits until they have closed. A partition without any
-- pays a look at an index that has none of its rows.

ALTER TABLE {schema}.gatefeed_partitions
    ADD COLUMN parent_partition_id text COLLATE "C",
    ADD COLUMN parent_item_id text COLLATE "C",
    -- The item's pass while it waits: in another one it waits for others, or for none.
    ADD COLUMN parent_pass integer,
    -- The gate at which it was delivered. A rewind to it, or below, cancels.
    ADD COLUMN parent_gate integer,
    ADD COLUMN parent_then text
        CONSTRAINT gatefeed_parent_then_is_deliver_or_complete CHECK (parent_then IN ('deliver', 'complete')),
    ADD COLUMN depth integer NOT NULL DEFAULT 0
        CONSTRAINT gatefeed_partitions_nest_8_deep_at_the_most CHECK (depth BETWEEN 0 AND 8),
    ADD CONSTRAINT gatefeed_parent_is_whole CHECK (num_nulls(parent_partition_id, parent_item_id, parent_pass,
        parent_gate, parent_then) IN (0, 5) AND (parent_partition_id IS NULL) = (depth = 0));

CREATE INDEX gatefeed_partitions_nested ON {schema}.gatefeed_partitions (parent_partition_id, parent_item_id)
    WHERE parent_partition_id IS NOT NULL;

-- Notes that nested partitions have closed, failed or been cancelled. The parent's row is not locked by that: its owner
-- applies them.
CREATE TABLE {schema}.gatefeed_closed (
    parent_partition_id text COLLATE "C" NOT NULL,
    parent_item_id text COLLATE "C" NOT NULL,
    partition_id text COLLATE "C" NOT NULL,
    parent_pass integer NOT NULL,
    parent_then text NOT NULL,
    status text NOT NULL,
    reason text,
    -- Whether the parent was woken, which only means that it is looked at.
    woken boolean NOT NULL DEFAULT false,
    -- Whether its owner has looked at the item. The row stays until the item goes on.
    applied boolean NOT NULL DEFAULT false,
    noted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (parent_partition_id, parent_item_id, partition_id)
);
CREATE INDEX gatefeed_closed_unapplied ON {schema}.gatefeed_closed (parent_partition_id, parent_item_id)
    WHERE NOT applied;
CREATE INDEX gatefeed_closed_unwoken ON {schema}.gatefeed_closed (parent_partition_id) WHERE NOT woken;

CREATE FUNCTION {schema}.gatefeed_partition_closed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
BEGIN
    -- The first time counts: one that is opened again afterwards does not matter any more.
    INSERT INTO {schema}.gatefeed_closed
        (parent_partition_id, parent_item_id, partition_id, parent_pass, parent_then, status, reason)
    SELECT OLD.parent_partition_id, OLD.parent_item_id, OLD.id, OLD.parent_pass, OLD.parent_then,
        CASE WHEN TG_OP = 'DELETE' THEN 'cancelled' ELSE NEW.status END,
        CASE WHEN TG_OP = 'DELETE' THEN 'deleted' ELSE NEW.reason END
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $gatefeed$;

CREATE TRIGGER gatefeed_partition_closed AFTER UPDATE OF status ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (NEW.parent_partition_id IS NOT NULL AND NEW.status IN ('complete', 'failed', 'cancelled')
        AND OLD.status NOT IN ('complete', 'failed', 'cancelled'))
    EXECUTE FUNCTION {schema}.gatefeed_partition_closed();
CREATE TRIGGER gatefeed_nested_deleted AFTER DELETE ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (OLD.parent_partition_id IS NOT NULL AND OLD.status NOT IN ('complete', 'failed', 'cancelled'))
    EXECUTE FUNCTION {schema}.gatefeed_partition_closed();

CREATE FUNCTION {schema}.gatefeed_notes_dropped() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
BEGIN
    DELETE FROM {schema}.gatefeed_closed c WHERE TG_OP = 'TRUNCATE' OR c.parent_partition_id = OLD.id;
    RETURN NULL;
END $gatefeed$;

CREATE TRIGGER gatefeed_notes_dropped AFTER DELETE ON {schema}.gatefeed_partitions
    FOR EACH ROW EXECUTE FUNCTION {schema}.gatefeed_notes_dropped();
CREATE TRIGGER gatefeed_notes_truncated AFTER TRUNCATE ON {schema}.gatefeed_partitions
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.gatefeed_notes_dropped();

-- Wakes the parents of what has closed, in a transaction of its own: it holds no other lock, and waits for none. What
-- somebody has locked is tried again by the next call. Returns whether any are left.
CREATE FUNCTION {schema}.gatefeed_wake_parents() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
DECLARE
    parents text[];
    held text[];
    woken record;
BEGIN
    SELECT array_agg(n.id) INTO parents FROM (SELECT DISTINCT c.parent_partition_id AS id
        FROM {schema}.gatefeed_closed c WHERE NOT c.woken ORDER BY 1 LIMIT 1000) n;
    IF parents IS NULL THEN
        RETURN false;
    END IF;
    SELECT array_agg(l.id) INTO held FROM (SELECT p.id FROM {schema}.gatefeed_partitions p
        WHERE p.id = ANY (parents) ORDER BY p.id FOR NO KEY UPDATE SKIP LOCKED) l;
    FOR woken IN
        UPDATE {schema}.gatefeed_partitions p SET next_run_at = now()
        WHERE p.id = ANY (held) AND p.status = 'available' AND (p.next_run_at IS NULL OR p.next_run_at > now())
        RETURNING p.feed
    LOOP
        PERFORM pg_notify({channel}, woken.feed);
    END LOOP;
    -- A parent that is gone will not be back.
    DELETE FROM {schema}.gatefeed_closed c WHERE NOT c.woken AND c.parent_partition_id = ANY (parents)
        AND NOT EXISTS (SELECT 1 FROM {schema}.gatefeed_partitions p WHERE p.id = c.parent_partition_id);
    UPDATE {schema}.gatefeed_closed c SET woken = true WHERE NOT c.woken AND c.parent_partition_id = ANY (held);
    PERFORM 1 FROM {schema}.gatefeed_closed c WHERE NOT c.woken LIMIT 1;
    RETURN FOUND;
END $gatefeed$;

-- Cancels what a partition's items wait for, or have waited for, from a gate on, and what that waits for.
CREATE FUNCTION {schema}.gatefeed_cancel_nested(partition text, from_gate integer) RETURNS bigint
    LANGUAGE plpgsql AS $gatefeed$
DECLARE
    total bigint := 0;
    child text;
BEGIN
    FOR child IN SELECT p.id FROM {schema}.gatefeed_partitions p
        WHERE p.parent_partition_id = gatefeed_cancel_nested.partition AND p.parent_gate >= from_gate
            AND p.status NOT IN ('complete', 'cancelled') ORDER BY p.id
    LOOP
        -- It may have closed while its row was waited for.
        PERFORM 1 FROM {schema}.gatefeed_partitions p WHERE p.id = child AND p.status <> 'complete' FOR NO KEY UPDATE;
        IF FOUND THEN
            total := total + {schema}.gatefeed_cancel(child,
                format('cancelled with partition "%s"', left(gatefeed_cancel_nested.partition, 100)));
        END IF;
    END LOOP;
    RETURN total;
END $gatefeed$;

-- As they were, and with what is nested.
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
    UPDATE {schema}.gatefeed_items i SET status = 'cancelled', version = i.version + 1, updated_at = now()
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
    SET status = 'available', pass = i.pass + 1, retry_count = 0, suspect_count = 0,
        available_at = CASE WHEN i.status = 'available' THEN i.available_at ELSE now() END,
        version = i.version + 1, updated_at = now()
    WHERE i.partition_id = held.id AND i.gate >= gatefeed_rewind.gate AND i.status <> 'cancelled';
    GET DIAGNOSTICS items = ROW_COUNT;
    DELETE FROM {schema}.gatefeed_history h WHERE h.partition_id = held.id AND h.gate >= gatefeed_rewind.gate;
    PERFORM pg_notify({channel}, held.feed);
END $gatefeed$;
