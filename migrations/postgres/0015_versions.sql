-- A plain UPDATE (or an upsert) of what people see counts as a version, whether it says so or not: an item that is in flight
-- then keeps what was written, and ETags tell of it. Outcomes and functions raise the version themselves, and pay one
-- comparison. After the update, since a BEFORE trigger costs each outcome a lock of its row.
-- Not so an item's priority, since what is under way need not be done again for it, nor what happens to an item that goes on
-- waiting, whose callback is for the version with which it was parked.
CREATE FUNCTION {schema}.gatefeed_item_versioned() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
BEGIN
    UPDATE {schema}.gatefeed_items i SET version = i.version + 1,
        updated_at = CASE WHEN NEW.updated_at = OLD.updated_at THEN now() ELSE i.updated_at END
    WHERE i.partition_id = NEW.partition_id AND i.id = NEW.id AND i.version = NEW.version;
    RETURN NULL;
END $gatefeed$;

CREATE TRIGGER gatefeed_item_versioned
    AFTER UPDATE OF gate, status, pass, retry_count, available_at, data, content_type, error_messages
    ON {schema}.gatefeed_items
    FOR EACH ROW WHEN (NEW.version = OLD.version AND NOT (OLD.status = 'waiting' AND NEW.status = 'waiting') AND
        (OLD.gate, OLD.status, OLD.pass, OLD.retry_count, OLD.available_at, OLD.data, OLD.content_type,
            OLD.error_messages) IS DISTINCT FROM
        (NEW.gate, NEW.status, NEW.pass, NEW.retry_count, NEW.available_at, NEW.data, NEW.content_type,
            NEW.error_messages))
    EXECUTE FUNCTION {schema}.gatefeed_item_versioned();

CREATE FUNCTION {schema}.gatefeed_partition_versioned() RETURNS trigger LANGUAGE plpgsql AS $gatefeed$
BEGIN
    NEW.version := OLD.version + 1;
    IF NEW.updated_at = OLD.updated_at THEN
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END $gatefeed$;

CREATE TRIGGER gatefeed_partition_versioned
    BEFORE UPDATE OF feed, status, gate, priority, manual_checkpoint, auto_close, max_in_flight, failure_policy,
        gate_deadline_seconds, keep_history
    ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (NEW.version = OLD.version AND
        (OLD.feed, OLD.status, OLD.gate, OLD.priority, OLD.manual_checkpoint, OLD.auto_close, OLD.max_in_flight,
            OLD.failure_policy, OLD.gate_deadline_seconds, OLD.keep_history) IS DISTINCT FROM
        (NEW.feed, NEW.status, NEW.gate, NEW.priority, NEW.manual_checkpoint, NEW.auto_close, NEW.max_in_flight,
            NEW.failure_policy, NEW.gate_deadline_seconds, NEW.keep_history))
    EXECUTE FUNCTION {schema}.gatefeed_partition_versioned();

CREATE TRIGGER gatefeed_item_renamed AFTER UPDATE OF id ON {schema}.gatefeed_items
    FOR EACH ROW WHEN (OLD.id <> NEW.id) EXECUTE FUNCTION {schema}.gatefeed_name_changed('id');

-- The deadline of a gate may be the next thing to happen of a partition that somebody wakes for later. Of one that is
-- leased its owner sees to that. Runs after gatefeed_partition_goes_on, which may set gate_since.
CREATE FUNCTION {schema}.gatefeed_partition_in_time() RETURNS trigger LANGUAGE plpgsql AS $gatefeed$
BEGIN
    NEW.next_run_at := least(NEW.next_run_at,
        coalesce(NEW.gate_since, NEW.created_at) + NEW.gate_deadline_seconds * interval '1 second');
    RETURN NEW;
END $gatefeed$;

CREATE TRIGGER gatefeed_partition_in_time
    BEFORE UPDATE OF status, gate, next_run_at, gate_deadline_seconds ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (NEW.status = 'available' AND NEW.gate_deadline_seconds IS NOT NULL AND NEW.next_run_at IS NOT NULL
        AND OLD.owner IS NULL AND NEW.owner IS NULL)
    EXECUTE FUNCTION {schema}.gatefeed_partition_in_time();
