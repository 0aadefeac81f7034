-- {schema} is replaced by the quoted schema name; nothing here relies on search_path.

CREATE TABLE {schema}.gatefeed_partitions (
    -- COLLATE "C" is the order of bytes: the same as SQLite's, and cheaper than a language's.
    id text COLLATE "C" PRIMARY KEY
        CONSTRAINT gatefeed_partition_id_is_1_to_512_bytes_no_control_chars
        CHECK (octet_length(id) BETWEEN 1 AND 512 AND id !~ '[\u0001-\u001f\u007f-\u009f]'),
    feed text COLLATE "C" NOT NULL DEFAULT 'default'
        CONSTRAINT gatefeed_feed_is_1_to_512_bytes_no_control_chars
        CHECK (octet_length(feed) BETWEEN 1 AND 512 AND feed !~ '[\u0001-\u001f\u007f-\u009f]'),
    status text NOT NULL DEFAULT 'available'
        CONSTRAINT gatefeed_partition_status_is_known
        CHECK (status IN ('available', 'paused', 'complete', 'failed', 'cancelled')),
    gate integer NOT NULL DEFAULT 0
        CONSTRAINT gatefeed_partition_gate_is_not_negative CHECK (gate >= 0),
    priority integer NOT NULL DEFAULT 0,
    manual_checkpoint boolean NOT NULL DEFAULT false,
    auto_close boolean NOT NULL DEFAULT true,
    max_in_flight integer
        CONSTRAINT gatefeed_max_in_flight_is_positive CHECK (max_in_flight > 0),
    failure_policy text NOT NULL DEFAULT 'stop'
        CONSTRAINT gatefeed_failure_policy_is_stop_or_continue CHECK (failure_policy IN ('stop', 'continue')),
    owner text,
    lease_id uuid,
    until timestamptz,
    epoch bigint NOT NULL DEFAULT 0,
    -- Leases in a row that expired without an item getting through.
    expiries integer NOT NULL DEFAULT 0,
    next_run_at timestamptz,
    version bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT gatefeed_lease_is_whole
        CHECK ((owner IS NULL) = (lease_id IS NULL) AND (owner IS NULL) = (until IS NULL)),
    -- Not every client can hold infinity or the year 294276.
    CONSTRAINT gatefeed_partition_times_are_in_the_years_1_to_9999
        CHECK (least(until, next_run_at, created_at, updated_at) >= '0001-01-01 00:00:00+00'
            AND greatest(until, next_run_at, created_at, updated_at) < '10000-01-01 00:00:00+00')
);

-- Free partitions with work, in the order in which they are claimed.
CREATE INDEX gatefeed_partitions_free ON {schema}.gatefeed_partitions (feed, priority DESC, next_run_at, id)
    WHERE status = 'available' AND owner IS NULL AND next_run_at IS NOT NULL;
-- Leased partitions, the first to expire first.
CREATE INDEX gatefeed_partitions_leased ON {schema}.gatefeed_partitions (feed, until)
    WHERE status = 'available' AND owner IS NOT NULL AND next_run_at IS NOT NULL;
-- For --until-idle.
CREATE INDEX gatefeed_partitions_failed ON {schema}.gatefeed_partitions (feed) WHERE status = 'failed';

CREATE TABLE {schema}.gatefeed_items (
    partition_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL DEFAULT gen_random_uuid()::text
        CONSTRAINT gatefeed_item_id_is_1_to_512_bytes_no_control_chars
        CHECK (octet_length(id) BETWEEN 1 AND 512 AND id !~ '[\u0001-\u001f\u007f-\u009f]'),
    gate integer NOT NULL DEFAULT 0
        CONSTRAINT gatefeed_item_gate_is_not_negative CHECK (gate >= 0),
    status text NOT NULL DEFAULT 'available'
        CONSTRAINT gatefeed_item_status_is_known
        CHECK (status IN ('available', 'waiting', 'blocked', 'complete', 'failed', 'cancelled')),
    priority integer NOT NULL DEFAULT 0,
    pass integer NOT NULL DEFAULT 0,
    retry_count integer NOT NULL DEFAULT 0,
    -- Deliveries begun in suspect mode whose end was never written.
    suspect_count integer NOT NULL DEFAULT 0,
    available_at timestamptz NOT NULL DEFAULT now(),
    data bytea NOT NULL DEFAULT '',
    content_type text NOT NULL DEFAULT 'application/json'
        CONSTRAINT gatefeed_content_type_is_1_to_255_bytes_no_control_chars
        CHECK (octet_length(content_type) BETWEEN 1 AND 255 AND content_type !~ '[\u0001-\u001f\u007f-\u009f]'),
    error_messages text,
    version bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition_id, id),
    CONSTRAINT gatefeed_item_times_are_in_the_years_1_to_9999
        CHECK (least(available_at, created_at, updated_at) >= '0001-01-01 00:00:00+00'
            AND greatest(available_at, created_at, updated_at) < '10000-01-01 00:00:00+00')
);

-- The order of delivery. The negated priority lets one row comparison carry the keyset.
CREATE INDEX gatefeed_items_due ON {schema}.gatefeed_items
    (partition_id, gate, (-(priority::bigint)), available_at, id) WHERE status = 'available';
-- With the one above, "what is the lowest gate with an open item" is two probes, however many items are finished.
-- One index over all open items would be taken for the order of delivery too, on a table without statistics, and
-- a whole partition sorted for each page.
CREATE INDEX gatefeed_items_parked ON {schema}.gatefeed_items (partition_id, gate)
    WHERE status IN ('waiting', 'blocked');
CREATE INDEX gatefeed_items_failed ON {schema}.gatefeed_items (partition_id, gate) WHERE status = 'failed';

-- After an INSERT of items: refuses a missing or cancelled partition, wakes an idle one, reopens a complete one.
-- KEY SHARE keeps a partition from going idle or closing under the insert, and lets renewals and outcomes pass.
-- The row is updated only when it has to change, so that an open transaction of a busy producer blocks nobody.
CREATE FUNCTION {schema}.gatefeed_items_inserted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
DECLARE
    touched text[];
    refused text;
    woken record;
BEGIN
    SELECT array_agg(DISTINCT partition_id) INTO touched FROM inserted;
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

CREATE TRIGGER gatefeed_items_inserted AFTER INSERT ON {schema}.gatefeed_items
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION {schema}.gatefeed_items_inserted();

-- Whoever makes an item available, due sooner or reachable with a plain UPDATE (or an upsert) wakes its partition
-- too. An ordinary outcome does none of that, so that the hot path pays a comparison.
CREATE FUNCTION {schema}.gatefeed_item_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
DECLARE
    woken record;
BEGIN
    -- The locks of gatefeed_items_inserted, for the same reasons.
    IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
        PERFORM 1 FROM {schema}.gatefeed_partitions p WHERE p.id = NEW.partition_id FOR KEY SHARE;
    ELSE
        PERFORM 1 FROM {schema}.gatefeed_partitions p WHERE p.id = NEW.partition_id FOR NO KEY UPDATE;
    END IF;
    UPDATE {schema}.gatefeed_partitions p
    SET next_run_at = greatest(NEW.available_at, now()),
        version = CASE WHEN p.status = 'complete' THEN p.version + 1 ELSE p.version END,
        updated_at = CASE WHEN p.status = 'complete' THEN now() ELSE p.updated_at END,
        status = 'available'
    WHERE p.id = NEW.partition_id AND p.status IN ('available', 'complete')
        AND (p.status = 'complete' OR p.next_run_at IS NULL OR p.next_run_at > greatest(NEW.available_at, now()))
    RETURNING p.feed, p.next_run_at <= now() AS due INTO woken;
    IF FOUND AND woken.due AND coalesce(current_setting('gatefeed.ours', true), '') <> 'on' THEN
        PERFORM pg_notify({channel}, woken.feed);
    END IF;
    RETURN NULL;
END $gatefeed$;

CREATE TRIGGER gatefeed_item_changed AFTER UPDATE OF status, gate, available_at ON {schema}.gatefeed_items
    FOR EACH ROW WHEN (NEW.status = 'available' AND
        (OLD.status <> 'available' OR NEW.available_at < OLD.available_at OR NEW.gate < OLD.gate))
    EXECUTE FUNCTION {schema}.gatefeed_item_changed();

-- Whoever reopens a partition by hand, or lets its gate go, wakes it.
CREATE FUNCTION {schema}.gatefeed_partition_changed() RETURNS trigger LANGUAGE plpgsql AS $gatefeed$
BEGIN
    NEW.next_run_at := now();
    RETURN NEW;
END $gatefeed$;

CREATE TRIGGER gatefeed_partition_changed
    BEFORE UPDATE OF status, gate, manual_checkpoint, auto_close, failure_policy ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (NEW.status = 'available' AND NEW.next_run_at IS NULL AND
        (OLD.status, OLD.gate, OLD.manual_checkpoint, OLD.auto_close, OLD.failure_policy) IS DISTINCT FROM
        (NEW.status, NEW.gate, NEW.manual_checkpoint, NEW.auto_close, NEW.failure_policy))
    EXECUTE FUNCTION {schema}.gatefeed_partition_changed();

-- An item without its partition would never be delivered.
CREATE FUNCTION {schema}.gatefeed_partition_deleted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
BEGIN
    DELETE FROM {schema}.gatefeed_items WHERE partition_id = OLD.id;
    RETURN NULL;
END $gatefeed$;

CREATE TRIGGER gatefeed_partition_deleted AFTER DELETE ON {schema}.gatefeed_partitions
    FOR EACH ROW EXECUTE FUNCTION {schema}.gatefeed_partition_deleted();

CREATE FUNCTION {schema}.gatefeed_partitions_truncated() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
BEGIN
    DELETE FROM {schema}.gatefeed_items;
    RETURN NULL;
END $gatefeed$;

CREATE TRIGGER gatefeed_partitions_truncated AFTER TRUNCATE ON {schema}.gatefeed_partitions
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.gatefeed_partitions_truncated();

CREATE FUNCTION {schema}.gatefeed_name_changed() RETURNS trigger LANGUAGE plpgsql AS $gatefeed$
BEGIN
    RAISE EXCEPTION 'gatefeed: % of % cannot change', TG_ARGV[0], TG_TABLE_NAME USING ERRCODE = 'check_violation',
        HINT = 'Insert a new row and delete the old one.';
END $gatefeed$;

CREATE TRIGGER gatefeed_partition_renamed BEFORE UPDATE OF id ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (OLD.id <> NEW.id) EXECUTE FUNCTION {schema}.gatefeed_name_changed('id');
CREATE TRIGGER gatefeed_item_moved BEFORE UPDATE OF partition_id ON {schema}.gatefeed_items
    FOR EACH ROW WHEN (OLD.partition_id <> NEW.partition_id)
    EXECUTE FUNCTION {schema}.gatefeed_name_changed('partition_id');

-- Adds an item, and its partition if it is missing; an id that exists is left as it is. Returns the item's id.
CREATE FUNCTION {schema}.gatefeed_push(
    partition text, data json, gate integer DEFAULT 0, item_id text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql AS $gatefeed$
DECLARE
    new_id text := coalesce(item_id, gen_random_uuid()::text);
BEGIN
    INSERT INTO {schema}.gatefeed_partitions (id) VALUES (gatefeed_push.partition) ON CONFLICT DO NOTHING;
    INSERT INTO {schema}.gatefeed_items (partition_id, id, gate, data)
        VALUES (gatefeed_push.partition, new_id, coalesce(gatefeed_push.gate, 0),
                convert_to(gatefeed_push.data::text, 'UTF8'))
        ON CONFLICT DO NOTHING;
    RETURN new_id;
END $gatefeed$;

-- Lets a held partition go: manual_checkpoint off, auto_close on.
CREATE FUNCTION {schema}.gatefeed_seal(partition text) RETURNS void LANGUAGE plpgsql AS $gatefeed$
DECLARE
    sealed record;
BEGIN
    PERFORM 1 FROM {schema}.gatefeed_partitions p WHERE p.id = gatefeed_seal.partition FOR NO KEY UPDATE;
    UPDATE {schema}.gatefeed_partitions p
    SET manual_checkpoint = false, auto_close = true, updated_at = now(),
        version = CASE WHEN p.manual_checkpoint OR NOT p.auto_close THEN p.version + 1 ELSE p.version END,
        next_run_at = CASE WHEN p.status IN ('available', 'paused') THEN now() ELSE p.next_run_at END
    WHERE p.id = gatefeed_seal.partition RETURNING p.feed INTO sealed;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'gatefeed: partition "%" does not exist', left(gatefeed_seal.partition, 100)
            USING ERRCODE = 'no_data_found';
    END IF;
    PERFORM pg_notify({channel}, sealed.feed);
END $gatefeed$;

-- Makes the failed items of a partition available again, and reopens it. Returns how many.
CREATE FUNCTION {schema}.gatefeed_retry(
    partition text, item_id text DEFAULT NULL, gate integer DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $gatefeed$
DECLARE
    retried bigint;
    held record;
BEGIN
    SELECT p.status, p.feed INTO held FROM {schema}.gatefeed_partitions p
        WHERE p.id = gatefeed_retry.partition FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'gatefeed: partition "%" does not exist', left(gatefeed_retry.partition, 100)
            USING ERRCODE = 'no_data_found';
    END IF;
    IF held.status = 'cancelled' THEN
        RAISE EXCEPTION 'gatefeed: partition "%" is cancelled: its items cannot be retried',
            left(gatefeed_retry.partition, 100) USING ERRCODE = 'check_violation';
    END IF;
    UPDATE {schema}.gatefeed_items i
    SET status = 'available', pass = i.pass + 1, retry_count = 0, suspect_count = 0, available_at = now(),
        version = i.version + 1, updated_at = now()
    WHERE i.partition_id = gatefeed_retry.partition AND i.status = 'failed'
        AND (gatefeed_retry.item_id IS NULL OR i.id = gatefeed_retry.item_id)
        AND (gatefeed_retry.gate IS NULL OR i.gate = gatefeed_retry.gate);
    GET DIAGNOSTICS retried = ROW_COUNT;
    IF retried > 0 THEN
        UPDATE {schema}.gatefeed_partitions p
        SET status = CASE WHEN p.status IN ('failed', 'complete') THEN 'available' ELSE p.status END,
            version = p.version + 1, updated_at = now(), next_run_at = now()
        WHERE p.id = gatefeed_retry.partition;
        PERFORM pg_notify({channel}, held.feed);
    END IF;
    RETURN retried;
END $gatefeed$;
