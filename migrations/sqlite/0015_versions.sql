-- A plain UPDATE (or an upsert) of what people see counts as a version, whether it says so or not: an item that is in flight
-- then keeps what was written, and ETags tell of it. Outcomes and functions raise the version themselves, and pay one
-- comparison. Three triggers: SQLite reads the old value of every column that is named by a trigger of a column that a statement
-- sets, and most outcomes set status and pass only. The version that the first one has raised the others leave.
-- Not so an item's priority, since what is under way need not be done again for it, nor what happens to an item that goes on
-- waiting, whose callback is for the version with which it was parked.
CREATE TRIGGER gatefeed_item_status_versioned AFTER UPDATE OF status, pass ON gatefeed_items
WHEN NEW.version = OLD.version AND (OLD.status <> NEW.status OR (OLD.pass <> NEW.pass AND NEW.status <> 'waiting'))
BEGIN
    UPDATE gatefeed_items SET version = version + 1, updated_at = CASE WHEN NEW.updated_at = OLD.updated_at
        THEN strftime('%Y-%m-%d %H:%M:%f', 'now') ELSE updated_at END
    WHERE partition_id = NEW.partition_id AND id = NEW.id AND version = NEW.version;
END;

CREATE TRIGGER gatefeed_item_versioned
AFTER UPDATE OF gate, retry_count, available_at, content_type, error_messages ON gatefeed_items
WHEN NEW.version = OLD.version AND NOT (OLD.status = 'waiting' AND NEW.status = 'waiting') AND
    (OLD.gate, OLD.retry_count, OLD.available_at, OLD.content_type, OLD.error_messages) IS NOT
    (NEW.gate, NEW.retry_count, NEW.available_at, NEW.content_type, NEW.error_messages)
BEGIN
    UPDATE gatefeed_items SET version = version + 1, updated_at = CASE WHEN NEW.updated_at = OLD.updated_at
        THEN strftime('%Y-%m-%d %H:%M:%f', 'now') ELSE updated_at END
    WHERE partition_id = NEW.partition_id AND id = NEW.id AND version = NEW.version;
END;

CREATE TRIGGER gatefeed_item_data_versioned AFTER UPDATE OF data ON gatefeed_items
WHEN NEW.version = OLD.version AND NOT (OLD.status = 'waiting' AND NEW.status = 'waiting') AND NEW.data IS NOT OLD.data
BEGIN
    UPDATE gatefeed_items SET version = version + 1, updated_at = CASE WHEN NEW.updated_at = OLD.updated_at
        THEN strftime('%Y-%m-%d %H:%M:%f', 'now') ELSE updated_at END
    WHERE partition_id = NEW.partition_id AND id = NEW.id AND version = NEW.version;
END;

CREATE TRIGGER gatefeed_partition_versioned
AFTER UPDATE OF feed, status, gate, priority, manual_checkpoint, auto_close, max_in_flight, failure_policy,
    gate_deadline_seconds, keep_history ON gatefeed_partitions
WHEN NEW.version = OLD.version AND
    (OLD.feed, OLD.status, OLD.gate, OLD.priority, OLD.manual_checkpoint, OLD.auto_close, OLD.max_in_flight,
        OLD.failure_policy, OLD.gate_deadline_seconds, OLD.keep_history)
    IS NOT
    (NEW.feed, NEW.status, NEW.gate, NEW.priority, NEW.manual_checkpoint, NEW.auto_close, NEW.max_in_flight,
        NEW.failure_policy, NEW.gate_deadline_seconds, NEW.keep_history)
BEGIN
    UPDATE gatefeed_partitions SET version = version + 1, updated_at = CASE WHEN NEW.updated_at = OLD.updated_at
        THEN strftime('%Y-%m-%d %H:%M:%f', 'now') ELSE updated_at END
    WHERE id = NEW.id AND version = NEW.version;
END;

CREATE TRIGGER gatefeed_item_renamed BEFORE UPDATE OF id ON gatefeed_items WHEN OLD.id <> NEW.id
BEGIN
    SELECT RAISE(ABORT, 'gatefeed: id of gatefeed_items cannot change: insert a new row and delete the old one');
END;

-- The deadline of a gate may be the next thing to happen of a partition that somebody wakes for later. Of one that is
-- leased its owner sees to that. Where gatefeed_partition_goes_on sets gate_since, that counts.
CREATE TRIGGER gatefeed_partition_in_time
AFTER UPDATE OF gate_since, next_run_at ON gatefeed_partitions
WHEN NEW.status = 'available' AND OLD.owner IS NULL AND NEW.owner IS NULL
    AND OLD.status = 'available' AND OLD.gate = NEW.gate AND OLD.next_run_at IS NOT NULL
    AND OLD.gate_deadline_seconds IS NEW.gate_deadline_seconds
    AND NEW.next_run_at > strftime('%Y-%m-%d %H:%M:%f', coalesce(NEW.gate_since, NEW.created_at),
        NEW.gate_deadline_seconds || ' seconds')
BEGIN
    UPDATE gatefeed_partitions SET next_run_at = min(next_run_at, strftime('%Y-%m-%d %H:%M:%f',
        coalesce(gate_since, created_at), gate_deadline_seconds || ' seconds'))
    WHERE id = NEW.id;
END;
