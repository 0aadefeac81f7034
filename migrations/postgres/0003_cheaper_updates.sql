-- A BEFORE trigger FOR EACH ROW, even one of another column, makes every UPDATE of the table lock and log each row once
-- more. These only refuse, which an AFTER trigger does as well.
DROP TRIGGER gatefeed_partition_renamed ON {schema}.gatefeed_partitions;
CREATE TRIGGER gatefeed_partition_renamed AFTER UPDATE OF id ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (OLD.id <> NEW.id) EXECUTE FUNCTION {schema}.gatefeed_name_changed('id');
DROP TRIGGER gatefeed_item_moved ON {schema}.gatefeed_items;
CREATE TRIGGER gatefeed_item_moved AFTER UPDATE OF partition_id ON {schema}.gatefeed_items
    FOR EACH ROW WHEN (OLD.partition_id <> NEW.partition_id)
    EXECUTE FUNCTION {schema}.gatefeed_name_changed('partition_id');

-- Every item gets at least one more version, whose index entry stands beside the first: room for it from the start costs
-- less than a split of every page.
ALTER INDEX {schema}.gatefeed_items_pkey SET (fillfactor = 50);

-- lz4 packs and unpacks large JSON several times as fast as the default. Not every server is built with it.
DO $gatefeed$ BEGIN
    ALTER TABLE {schema}.gatefeed_items ALTER COLUMN data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN NULL;
END $gatefeed$;

-- A producer pays for every statement of this function, and nearly always its partitions are there and awake: then it
-- ends after the lock and one look.
CREATE OR REPLACE FUNCTION {schema}.gatefeed_items_inserted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
DECLARE
    touched text[];
    due_at timestamptz;
    refused text;
    woken record;
BEGIN
    SELECT array_agg(DISTINCT n.partition_id), min(n.available_at) FILTER (WHERE n.status = 'available')
        INTO touched, due_at FROM inserted n;
    IF touched IS NULL THEN
        RETURN NULL;
    END IF;
    IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
        PERFORM 1 FROM {schema}.gatefeed_partitions p WHERE p.id = ANY (touched) ORDER BY p.id FOR KEY SHARE;
    ELSE
        -- With an old snapshot KEY SHARE would show a next_run_at of the past and the wake-up would be lost;
        -- this lock fails with 40001 instead when the row has changed since.
        PERFORM 1 FROM {schema}.gatefeed_partitions p WHERE p.id = ANY (touched) ORDER BY p.id FOR NO KEY UPDATE;
    END IF;
    -- Only now, in a statement that begins after the lock: the lock itself returns what the row said before.
    PERFORM 1 FROM {schema}.gatefeed_partitions p WHERE p.id = ANY (touched)
            AND (p.status IN ('paused', 'failed') OR (p.status <> 'cancelled' AND due_at IS NULL)
                OR (p.status = 'available' AND p.next_run_at <= greatest(due_at, now())))
        HAVING count(*) = cardinality(touched);
    IF FOUND THEN
        RETURN NULL;
    END IF;
    SELECT t.id INTO refused FROM unnest(touched) AS t (id)
        WHERE NOT EXISTS (SELECT 1 FROM {schema}.gatefeed_partitions p WHERE p.id = t.id) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'gatefeed: partition "%" does not exist', left(refused, 100) USING ERRCODE = 'foreign_key_violation',
            HINT = 'Insert the row of gatefeed_partitions first, or use gatefeed_push(), which makes it.';
    END IF;
    SELECT p.id INTO refused FROM {schema}.gatefeed_partitions p
        WHERE p.id = ANY (touched) AND p.status = 'cancelled' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'gatefeed: partition "%" is cancelled and takes no items', left(refused, 100)
            USING ERRCODE = 'check_violation', HINT = 'Insert into another partition.';
    END IF;
    FOR woken IN
        UPDATE {schema}.gatefeed_partitions p
        SET next_run_at = greatest(i.due_at, now()),
            version = CASE WHEN p.status = 'complete' THEN p.version + 1 ELSE p.version END,
            updated_at = CASE WHEN p.status = 'complete' THEN now() ELSE p.updated_at END,
            status = 'available'
        FROM (SELECT n.partition_id, min(n.available_at) AS due_at FROM inserted n
              WHERE n.status = 'available' GROUP BY n.partition_id) i
        WHERE p.id = i.partition_id AND p.status IN ('available', 'complete')
            AND (p.status = 'complete' OR p.next_run_at IS NULL OR p.next_run_at > greatest(i.due_at, now()))
        RETURNING p.feed, p.next_run_at <= now() AS due
    LOOP
        -- gatefeed's own processes notify once after their commit instead of once an insert.
        IF woken.due AND coalesce(current_setting('gatefeed.ours', true), '') <> 'on' THEN
            PERFORM pg_notify({channel}, woken.feed);
        END IF;
    END LOOP;
    RETURN NULL;
END $gatefeed$;
