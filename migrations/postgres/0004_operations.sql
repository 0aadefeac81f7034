-- Counts and shares of failed items, deadlines, reasons, history, and what operators do.

ALTER TABLE {schema}.gatefeed_partitions
    DROP CONSTRAINT gatefeed_failure_policy_is_stop_or_continue,
    ADD CONSTRAINT gatefeed_failure_policy_is_stop_or_continue_or_10_or_5_percent
        CHECK (failure_policy ~ '^(stop|continue|[0-9]{1,9}|(100(\.00?)?|[0-9]{1,2}(\.[0-9]{1,2})?)%)$'),
    -- How long the partition may be at a gate that has open items.
    ADD COLUMN gate_deadline_seconds integer
        CONSTRAINT gatefeed_gate_deadline_is_positive CHECK (gate_deadline_seconds > 0),
    -- Since when it has been at its gate, or has had work there again; null: since it was made.
    ADD COLUMN gate_since timestamptz
        CONSTRAINT gatefeed_gate_since_is_in_the_years_1_to_9999
        CHECK (gate_since >= '0001-01-01 00:00:00+00' AND gate_since < '10000-01-01 00:00:00+00'),
    ADD COLUMN keep_history boolean NOT NULL DEFAULT false,
    -- Why it is failed or cancelled.
    ADD COLUMN reason text;

-- The answer that made an item: whose, and at which gate that was; null: none in this partition.
ALTER TABLE {schema}.gatefeed_items ADD COLUMN creator_id text COLLATE "C", ADD COLUMN creator_gate integer;

-- What items came to their gates with, where their partition asks for it. A row is written with the outcome that moves
-- the item on or replaces its data; until then the item itself has it.
CREATE TABLE {schema}.gatefeed_history (
    partition_id text COLLATE "C" NOT NULL,
    item_id text COLLATE "C" NOT NULL,
    gate integer NOT NULL,
    data bytea NOT NULL,
    content_type text NOT NULL,
    kept_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition_id, item_id, gate)
);

CREATE FUNCTION {schema}.gatefeed_history_deleted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
BEGIN
    DELETE FROM {schema}.gatefeed_history WHERE TG_OP = 'TRUNCATE' OR partition_id = OLD.id;
    RETURN NULL;
END $gatefeed$;

CREATE TRIGGER gatefeed_history_deleted AFTER DELETE ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (OLD.keep_history) EXECUTE FUNCTION {schema}.gatefeed_history_deleted();
CREATE TRIGGER gatefeed_history_truncated AFTER TRUNCATE ON {schema}.gatefeed_partitions
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.gatefeed_history_deleted();

-- A history that begins in the middle would put items back to where they never were.
CREATE FUNCTION {schema}.gatefeed_history_switched() RETURNS trigger LANGUAGE plpgsql AS $gatefeed$
BEGIN
    IF EXISTS (SELECT 1 FROM {schema}.gatefeed_items i WHERE i.partition_id = NEW.id) THEN
        RAISE EXCEPTION 'gatefeed: partition "%" has items already: keep_history has to be set before the first one',
            left(NEW.id, 100) USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $gatefeed$;

CREATE TRIGGER gatefeed_history_switched BEFORE UPDATE OF keep_history ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (NEW.keep_history AND NOT OLD.keep_history)
    EXECUTE FUNCTION {schema}.gatefeed_history_switched();

-- The clock of a gate's deadline starts when the partition comes to the gate, is opened again, or gets work after it
-- had none; and what is open has no reason to be closed. Another deadline may be the next thing to happen. Runs after
-- gatefeed_partition_changed, which may set next_run_at.
CREATE FUNCTION {schema}.gatefeed_partition_goes_on() RETURNS trigger LANGUAGE plpgsql AS $gatefeed$
BEGIN
    NEW.gate_since := now();
    NEW.reason := NULL;
    IF OLD.gate_deadline_seconds IS DISTINCT FROM NEW.gate_deadline_seconds THEN
        NEW.next_run_at := now();
    END IF;
    RETURN NEW;
END $gatefeed$;

CREATE TRIGGER gatefeed_partition_goes_on
    BEFORE UPDATE OF status, gate, next_run_at, gate_deadline_seconds ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (NEW.status = 'available' AND (OLD.status <> 'available' OR OLD.gate <> NEW.gate
        OR (OLD.next_run_at IS NULL AND NEW.next_run_at IS NOT NULL)
        OR OLD.gate_deadline_seconds IS DISTINCT FROM NEW.gate_deadline_seconds))
    EXECUTE FUNCTION {schema}.gatefeed_partition_goes_on();

-- A partition, its row locked for somebody who does not own its lease. Items are locked after it.
CREATE FUNCTION {schema}.gatefeed_locked(partition text) RETURNS {schema}.gatefeed_partitions
    LANGUAGE plpgsql AS $gatefeed$
DECLARE
    held {schema}.gatefeed_partitions;
BEGIN
    SELECT p.* INTO held FROM {schema}.gatefeed_partitions p WHERE p.id = gatefeed_locked.partition FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'gatefeed: partition "%" does not exist', left(gatefeed_locked.partition, 100)
            USING ERRCODE = 'no_data_found';
    END IF;
    RETURN held;
END $gatefeed$;

-- Sets a partition aside: nothing more is sent, what is in flight ends. A paused one stays paused.
CREATE FUNCTION {schema}.gatefeed_pause(partition text) RETURNS void LANGUAGE plpgsql AS $gatefeed$
DECLARE
    held {schema}.gatefeed_partitions := {schema}.gatefeed_locked(gatefeed_pause.partition);
BEGIN
    IF held.status = 'paused' THEN
        RETURN;
    ELSIF held.status <> 'available' THEN
        RAISE EXCEPTION 'gatefeed: partition "%" cannot be paused: it is %', left(held.id, 100), held.status
            USING ERRCODE = 'check_violation';
    END IF;
    UPDATE {schema}.gatefeed_partitions p
    SET status = 'paused', version = p.version + 1, updated_at = now() WHERE p.id = held.id;
END $gatefeed$;

-- Lets a partition go on that is paused, or that has failed with open items at or below its gate.
CREATE FUNCTION {schema}.gatefeed_resume(partition text) RETURNS void LANGUAGE plpgsql AS $gatefeed$
DECLARE
    held {schema}.gatefeed_partitions := {schema}.gatefeed_locked(gatefeed_resume.partition);
BEGIN
    IF held.status = 'failed' THEN
        IF coalesce({schema}.gatefeed_open_gate(held.id) > held.gate, true) THEN
            RAISE EXCEPTION 'gatefeed: partition "%" cannot be resumed: it is failed, and nothing at its gate is open; `gatefeed retry` makes its failed items available',
                left(held.id, 100) USING ERRCODE = 'check_violation';
        END IF;
    ELSIF held.status <> 'paused' THEN
        RAISE EXCEPTION 'gatefeed: partition "%" is not paused: it is %', left(held.id, 100), held.status
            USING ERRCODE = 'check_violation';
    END IF;
    UPDATE {schema}.gatefeed_partitions p
    SET status = 'available', next_run_at = now(), version = p.version + 1, updated_at = now() WHERE p.id = held.id;
    PERFORM pg_notify({channel}, held.feed);
END $gatefeed$;

-- Ends a partition: its open items are cancelled, its owner loses the lease, what is in flight is aborted and later
-- answers are refused. Returns how many items were cancelled. A transaction that has inserted items and is still open
-- is not waited for: once it has committed, cancelling again cancels those too.
CREATE FUNCTION {schema}.gatefeed_cancel(partition text, reason text DEFAULT 'cancelled by an operator')
RETURNS bigint LANGUAGE plpgsql AS $gatefeed$
DECLARE
    held {schema}.gatefeed_partitions := {schema}.gatefeed_locked(gatefeed_cancel.partition);
    available bigint;
    parked bigint;
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
    PERFORM pg_notify({channel} || '.ended', held.id);
    RETURN available + parked;
END $gatefeed$;

-- The lowest gate that has an open item.
CREATE FUNCTION {schema}.gatefeed_open_gate(partition text) RETURNS integer LANGUAGE sql STABLE AS $gatefeed$
    SELECT least(
        (SELECT i.gate FROM {schema}.gatefeed_items i
         WHERE i.partition_id = gatefeed_open_gate.partition AND i.status = 'available' ORDER BY i.gate LIMIT 1),
        (SELECT i.gate FROM {schema}.gatefeed_items i
         WHERE i.partition_id = gatefeed_open_gate.partition AND i.status IN ('waiting', 'blocked')
         ORDER BY i.gate LIMIT 1))
$gatefeed$;

-- The gates below `bound` that have failed items, and how many. Under a share, in hundredths of a percent, also how many
-- items came to the gate: those at it and beyond it, but for what answers at it or later have made beyond it. That is
-- counted up to what makes the failed ones tolerable.
CREATE FUNCTION {schema}.gatefeed_failures(partition text, bound bigint, share integer)
RETURNS TABLE (gate integer, failed bigint, total bigint) LANGUAGE sql STABLE AS $gatefeed$
    SELECT f.gate, f.failed, t.total
    FROM (SELECT i.gate, count(*) AS failed FROM {schema}.gatefeed_items i
          WHERE i.partition_id = gatefeed_failures.partition AND i.status = 'failed' AND i.gate < gatefeed_failures.bound
          GROUP BY i.gate) f
    CROSS JOIN LATERAL (
        SELECT count(*) AS total FROM (
            SELECT 1 FROM {schema}.gatefeed_items i
            WHERE gatefeed_failures.share IS NOT NULL AND i.partition_id = gatefeed_failures.partition
                AND (i.gate = f.gate OR i.gate > f.gate AND (i.creator_gate IS NULL OR i.creator_gate < f.gate))
            LIMIT CASE WHEN gatefeed_failures.share > 0 THEN f.failed * 10000 / gatefeed_failures.share + 1 END) c) t
    ORDER BY f.gate
$gatefeed$;

-- Raises the gate by hand to the lowest one that has an open item, and returns that.
CREATE FUNCTION {schema}.gatefeed_advance(partition text) RETURNS integer LANGUAGE plpgsql AS $gatefeed$
DECLARE
    held {schema}.gatefeed_partitions := {schema}.gatefeed_locked(gatefeed_advance.partition);
    open_gate integer;
    share integer := CASE WHEN held.failure_policy LIKE '%\%' THEN rtrim(held.failure_policy, '%')::numeric * 100 END;
    tolerated bigint := CASE WHEN held.failure_policy ~ '^[0-9]+$' THEN held.failure_policy::bigint ELSE 0 END;
    over record;
    why text;
BEGIN
    IF held.status NOT IN ('available', 'paused') THEN
        RAISE EXCEPTION 'gatefeed: partition "%" cannot advance: it is %', left(held.id, 100), held.status
            USING ERRCODE = 'check_violation';
    END IF;
    open_gate := {schema}.gatefeed_open_gate(held.id);
    IF open_gate IS NULL THEN
        why := format('nothing is open above gate %s', held.gate);
    ELSIF open_gate <= held.gate THEN
        why := format('an item at gate %s is still open, and gate %s is through only when none is; `gatefeed items "%s" --gate %s` shows them',
            open_gate, held.gate, left(held.id, 100), open_gate);
    ELSIF held.failure_policy <> 'continue' THEN
        SELECT f.* INTO over FROM {schema}.gatefeed_failures(held.id, open_gate, share) f
            WHERE CASE WHEN share IS NULL THEN f.failed > tolerated ELSE f.failed * 10000 > f.total * share END LIMIT 1;
        IF FOUND THEN
            why := CASE
                WHEN held.failure_policy = 'stop' THEN
                    format('an item at gate %s is failed, and the failure policy is ''stop''', over.gate)
                WHEN share IS NULL THEN
                    format('%s items at gate %s are failed, and the failure policy puts up with %s',
                        over.failed, over.gate, held.failure_policy)
                ELSE
                    format('%s of the %s items that came to gate %s are failed, and the failure policy puts up with %s',
                        over.failed, over.total, over.gate, held.failure_policy)
                END || format('; `gatefeed retry "%s"` first', left(held.id, 100));
        END IF;
    END IF;
    IF why IS NOT NULL THEN
        RAISE EXCEPTION 'gatefeed: partition "%" cannot advance: %', left(held.id, 100), why
            USING ERRCODE = 'check_violation';
    END IF;
    UPDATE {schema}.gatefeed_partitions p
    SET gate = open_gate, version = p.version + 1, updated_at = now(), next_run_at = now() WHERE p.id = held.id;
    PERFORM pg_notify({channel}, held.feed);
    RETURN open_gate;
END $gatefeed$;

-- Goes back to a gate that was reached, in a partition that keeps its history. Items at it or beyond it are available
-- again, in a new pass, at the lowest gate from there on that they have come to, with what they came to it with; but for
-- cancelled ones, and for those that answers at it or beyond it have made: they are removed, since those answers will
-- make them again. Its owner loses the lease.
CREATE FUNCTION {schema}.gatefeed_rewind(partition text, gate integer, OUT items bigint, OUT removed bigint)
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
