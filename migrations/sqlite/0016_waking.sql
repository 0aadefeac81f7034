-- Whoever reopens a partition by hand, or lets its gate go, wakes it also where it sleeps until later: what has come meanwhile
-- is due before that. Who says when it is to be looked at next means it.
DROP TRIGGER gatefeed_partition_changed;

CREATE TRIGGER gatefeed_partition_changed
AFTER UPDATE OF status, gate, manual_checkpoint, auto_close, failure_policy ON gatefeed_partitions
WHEN NEW.status = 'available'
    AND (NEW.next_run_at IS NULL OR (NEW.next_run_at IS OLD.next_run_at
        AND NEW.next_run_at > strftime('%Y-%m-%d %H:%M:%f', 'now')))
    AND (OLD.status, OLD.gate, OLD.manual_checkpoint, OLD.auto_close, OLD.failure_policy)
        IS NOT (NEW.status, NEW.gate, NEW.manual_checkpoint, NEW.auto_close, NEW.failure_policy)
BEGIN
    UPDATE gatefeed_partitions SET next_run_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE id = NEW.id;
END;
