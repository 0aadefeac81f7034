-- Partitions that an answer makes: the item that was answered waits until they have closed. A partition without any
-- pays a look at an index that has none of its rows.

ALTER TABLE gatefeed_partitions ADD COLUMN parent_partition_id TEXT;
ALTER TABLE gatefeed_partitions ADD COLUMN parent_item_id TEXT;
-- The item's pass while it waits: in another one it waits for others, or for none.
ALTER TABLE gatefeed_partitions ADD COLUMN parent_pass INTEGER;
-- The gate at which it was delivered. A rewind to it, or below, cancels.
ALTER TABLE gatefeed_partitions ADD COLUMN parent_gate INTEGER;
ALTER TABLE gatefeed_partitions ADD COLUMN parent_then TEXT
    CONSTRAINT gatefeed_parent_then_is_deliver_or_complete CHECK (parent_then IN ('deliver', 'complete'))
    CONSTRAINT gatefeed_parent_is_whole
    CHECK ((parent_partition_id IS NULL) = (parent_item_id IS NULL) AND (parent_partition_id IS NULL) = (parent_pass IS NULL)
        AND (parent_partition_id IS NULL) = (parent_gate IS NULL) AND (parent_partition_id IS NULL) = (parent_then IS NULL));
ALTER TABLE gatefeed_partitions ADD COLUMN depth INTEGER NOT NULL DEFAULT 0
    CONSTRAINT gatefeed_partitions_nest_8_deep_at_the_most
    CHECK (depth BETWEEN 0 AND 8 AND (parent_partition_id IS NULL) = (depth = 0));

CREATE INDEX gatefeed_partitions_nested ON gatefeed_partitions (parent_partition_id, parent_item_id)
    WHERE parent_partition_id IS NOT NULL;

-- Notes that nested partitions have closed, failed or been cancelled. The parent's owner applies them.
CREATE TABLE gatefeed_closed (
    parent_partition_id TEXT NOT NULL,
    parent_item_id TEXT NOT NULL,
    partition_id TEXT NOT NULL,
    parent_pass INTEGER NOT NULL,
    parent_then TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    -- Whether the parent's owner has looked at the item. The row stays until the item goes on.
    applied INTEGER NOT NULL DEFAULT 0 CONSTRAINT gatefeed_applied_is_0_or_1 CHECK (applied IN (0, 1)),
    noted_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    PRIMARY KEY (parent_partition_id, parent_item_id, partition_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX gatefeed_closed_unapplied ON gatefeed_closed (parent_partition_id, parent_item_id) WHERE NOT applied;

-- The first time counts: one that is opened again afterwards does not matter any more. The parent is woken at once,
-- since there are no locks on rows here.
CREATE TRIGGER gatefeed_partition_closed AFTER UPDATE OF status ON gatefeed_partitions
WHEN NEW.parent_partition_id IS NOT NULL AND NEW.status IN ('complete', 'failed', 'cancelled')
    AND OLD.status NOT IN ('complete', 'failed', 'cancelled')
BEGIN
    INSERT INTO gatefeed_closed (parent_partition_id, parent_item_id, partition_id, parent_pass, parent_then, status, reason)
    SELECT NEW.parent_partition_id, NEW.parent_item_id, NEW.id, NEW.parent_pass, NEW.parent_then, NEW.status, NEW.reason
    WHERE EXISTS (SELECT 1 FROM gatefeed_partitions p WHERE p.id = NEW.parent_partition_id)
        AND NOT EXISTS (SELECT 1 FROM gatefeed_closed c WHERE c.parent_partition_id = NEW.parent_partition_id
            AND c.parent_item_id = NEW.parent_item_id AND c.partition_id = NEW.id);
    UPDATE gatefeed_partitions SET next_run_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
    WHERE id = NEW.parent_partition_id AND status = 'available'
        AND (next_run_at IS NULL OR next_run_at > strftime('%Y-%m-%d %H:%M:%f', 'now'));
END;

CREATE TRIGGER gatefeed_nested_deleted AFTER DELETE ON gatefeed_partitions
WHEN OLD.parent_partition_id IS NOT NULL AND OLD.status NOT IN ('complete', 'failed', 'cancelled')
BEGIN
    INSERT INTO gatefeed_closed (parent_partition_id, parent_item_id, partition_id, parent_pass, parent_then, status, reason)
    SELECT OLD.parent_partition_id, OLD.parent_item_id, OLD.id, OLD.parent_pass, OLD.parent_then, 'cancelled', 'deleted'
    WHERE EXISTS (SELECT 1 FROM gatefeed_partitions p WHERE p.id = OLD.parent_partition_id)
        AND NOT EXISTS (SELECT 1 FROM gatefeed_closed c WHERE c.parent_partition_id = OLD.parent_partition_id
            AND c.parent_item_id = OLD.parent_item_id AND c.partition_id = OLD.id);
    UPDATE gatefeed_partitions SET next_run_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
    WHERE id = OLD.parent_partition_id AND status = 'available'
        AND (next_run_at IS NULL OR next_run_at > strftime('%Y-%m-%d %H:%M:%f', 'now'));
END;

CREATE TRIGGER gatefeed_notes_dropped AFTER DELETE ON gatefeed_partitions
BEGIN
    DELETE FROM gatefeed_closed WHERE parent_partition_id = OLD.id;
END;
