-- Whoever reopens a partition by hand, or lets its gate go, wakes it also where it sleeps until later: what has come meanwhile
-- is due before that. Who says when it is to be looked at next means it.
DROP TRIGGER gatefeed_partition_changed ON {schema}.gatefeed_partitions;

CREATE TRIGGER gatefeed_partition_changed
    BEFORE UPDATE OF status, gate, manual_checkpoint, auto_close, failure_policy ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (NEW.status = 'available'
        AND (NEW.next_run_at IS NULL OR (NEW.next_run_at > now() AND NEW.next_run_at IS NOT DISTINCT FROM OLD.next_run_at))
        AND (OLD.status, OLD.gate, OLD.manual_checkpoint, OLD.auto_close, OLD.failure_policy) IS DISTINCT FROM
            (NEW.status, NEW.gate, NEW.manual_checkpoint, NEW.auto_close, NEW.failure_policy))
    EXECUTE FUNCTION {schema}.gatefeed_partition_changed();
