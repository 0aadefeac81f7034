-- Counts and shares of failed items, deadlines, reasons and history. What operators do is in the program: SQLite has no
-- functions of its own.

-- A CHECK cannot be replaced, so that the column is.
DROP TRIGGER gatefeed_partition_changed;
ALTER TABLE gatefeed_partitions RENAME COLUMN failure_policy TO stop_or_continue;
ALTER TABLE gatefeed_partitions ADD COLUMN failure_policy TEXT NOT NULL DEFAULT 'stop'
    CONSTRAINT gatefeed_failure_policy_is_stop_or_continue_or_10_or_5_percent
    CHECK (failure_policy IN ('stop', 'continue')
        OR length(failure_policy) BETWEEN 1 AND 9 AND failure_policy NOT GLOB '*[^0-9]*'
        -- Up to three digits, perhaps a dot and up to two more, a percent sign; 100 at the most.
        OR length(failure_policy) BETWEEN 2 AND 7 AND failure_policy GLOB '[0-9]*[0-9]%'
            AND rtrim(failure_policy, '%') || '%' = failure_policy
            AND replace(rtrim(failure_policy, '%'), '.', '') NOT GLOB '*[^0-9]*'
            AND failure_policy NOT GLOB '*.*.*' AND failure_policy NOT GLOB '*.???*%'
            AND CAST(rtrim(failure_policy, '%') AS REAL) <= 100
        OR failure_policy GLOB '[0-9]%');
UPDATE gatefeed_partitions SET failure_policy = stop_or_continue;
ALTER TABLE gatefeed_partitions DROP COLUMN stop_or_continue;

-- How long the partition may be at a gate that has open items.
ALTER TABLE gatefeed_partitions ADD COLUMN gate_deadline_seconds INTEGER
    CONSTRAINT gatefeed_gate_deadline_is_positive CHECK (gate_deadline_seconds BETWEEN 1 AND 2147483647);
-- Since when it has been at its gate, or has had work there again; null: since it was made.
ALTER TABLE gatefeed_partitions ADD COLUMN gate_since TEXT
    CONSTRAINT "gatefeed_gate_since_is_UTC_text_like_2026-01-31 23:59:59.123"
    CHECK (gate_since IS NULL OR gate_since GLOB '[0-9]*' AND (strftime('%Y-%m-%d %H:%M:%S', gate_since, '+0 days') IS gate_since
        OR strftime('%Y-%m-%d %H:%M:%f', gate_since, '+0 days') IS gate_since));
ALTER TABLE gatefeed_partitions ADD COLUMN keep_history INTEGER NOT NULL DEFAULT 0
    CONSTRAINT gatefeed_keep_history_is_0_or_1 CHECK (keep_history IN (0, 1));
-- Why it is failed or cancelled.
ALTER TABLE gatefeed_partitions ADD COLUMN reason TEXT;

-- The answer that made an item: whose, and at which gate that was; null: none in this partition.
ALTER TABLE gatefeed_items ADD COLUMN creator_id TEXT;
ALTER TABLE gatefeed_items ADD COLUMN creator_gate INTEGER;

-- What items came to their gates with, where their partition asks for it. A row is written with the outcome that moves
-- the item on or replaces its data; until then the item itself has it.
CREATE TABLE gatefeed_history (
    partition_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    gate INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    kept_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    data ANY NOT NULL,
    PRIMARY KEY (partition_id, item_id, gate)
) STRICT;

CREATE TRIGGER gatefeed_history_deleted AFTER DELETE ON gatefeed_partitions WHEN OLD.keep_history
BEGIN
    DELETE FROM gatefeed_history WHERE partition_id = OLD.id;
END;

-- A history that begins in the middle would put items back to where they never were.
CREATE TRIGGER gatefeed_history_switched BEFORE UPDATE OF keep_history ON gatefeed_partitions
WHEN NEW.keep_history AND NOT OLD.keep_history
    AND EXISTS (SELECT 1 FROM gatefeed_items i WHERE i.partition_id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'gatefeed: partition has items already: keep_history has to be set before the first one');
END;

-- As it was.
CREATE TRIGGER gatefeed_partition_changed
AFTER UPDATE OF status, gate, manual_checkpoint, auto_close, failure_policy ON gatefeed_partitions
WHEN NEW.status = 'available' AND NEW.next_run_at IS NULL
    AND (OLD.status, OLD.gate, OLD.manual_checkpoint, OLD.auto_close, OLD.failure_policy)
        IS NOT (NEW.status, NEW.gate, NEW.manual_checkpoint, NEW.auto_close, NEW.failure_policy)
BEGIN
    UPDATE gatefeed_partitions SET next_run_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE id = NEW.id;
END;

-- The clock of a gate's deadline starts when the partition comes to the gate, is opened again, or gets work after it
-- had none; and what is open has no reason to be closed. Another deadline may be the next thing to happen.
CREATE TRIGGER gatefeed_partition_goes_on
AFTER UPDATE OF status, gate, next_run_at, gate_deadline_seconds ON gatefeed_partitions
WHEN NEW.status = 'available' AND (OLD.status <> 'available' OR OLD.gate <> NEW.gate
    OR (OLD.next_run_at IS NULL AND NEW.next_run_at IS NOT NULL)
    OR OLD.gate_deadline_seconds IS NOT NEW.gate_deadline_seconds)
BEGIN
    UPDATE gatefeed_partitions SET gate_since = strftime('%Y-%m-%d %H:%M:%f', 'now'), reason = NULL,
        next_run_at = CASE WHEN OLD.gate_deadline_seconds IS NEW.gate_deadline_seconds THEN next_run_at
            ELSE strftime('%Y-%m-%d %H:%M:%f', 'now') END
    WHERE id = NEW.id;
END;
