-- SQLite enforces a column's type only in STRICT tables, has no timestamps and knows no statement triggers: the
-- CHECKs and row triggers below make up for it. Foreign keys are off in its own shell, so none are used. Nothing
-- here needs an SQLite newer than 3.37, so that the shells of today's distributions can insert.

CREATE TABLE gatefeed_partitions (
    id TEXT NOT NULL PRIMARY KEY
        CONSTRAINT gatefeed_partition_id_is_1_to_512_bytes_no_control_chars
        CHECK (length(CAST(id AS BLOB)) BETWEEN 1 AND 512 AND instr(CAST(id AS BLOB), x'00') = 0
            AND id NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*'),
    feed TEXT NOT NULL DEFAULT 'default'
        CONSTRAINT gatefeed_feed_is_1_to_512_bytes_no_control_chars
        CHECK (length(CAST(feed AS BLOB)) BETWEEN 1 AND 512 AND instr(CAST(feed AS BLOB), x'00') = 0
            AND feed NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*'),
    status TEXT NOT NULL DEFAULT 'available'
        CONSTRAINT gatefeed_partition_status_is_known
        CHECK (status IN ('available', 'paused', 'complete', 'failed', 'cancelled')),
    gate INTEGER NOT NULL DEFAULT 0
        CONSTRAINT gatefeed_partition_gate_is_not_negative CHECK (gate BETWEEN 0 AND 2147483647),
    priority INTEGER NOT NULL DEFAULT 0
        CONSTRAINT gatefeed_partition_priority_has_32_bits CHECK (priority BETWEEN -2147483648 AND 2147483647),
    manual_checkpoint INTEGER NOT NULL DEFAULT 0
        CONSTRAINT gatefeed_manual_checkpoint_is_0_or_1 CHECK (manual_checkpoint IN (0, 1)),
    auto_close INTEGER NOT NULL DEFAULT 1
        CONSTRAINT gatefeed_auto_close_is_0_or_1 CHECK (auto_close IN (0, 1)),
    max_in_flight INTEGER
        CONSTRAINT gatefeed_max_in_flight_is_positive CHECK (max_in_flight BETWEEN 1 AND 2147483647),
    failure_policy TEXT NOT NULL DEFAULT 'stop'
        CONSTRAINT gatefeed_failure_policy_is_stop_or_continue CHECK (failure_policy IN ('stop', 'continue')),
    owner TEXT,
    lease_id TEXT,
    until TEXT
        CONSTRAINT "gatefeed_until_is_UTC_text_like_2026-01-31 23:59:59.123"
        CHECK (until IS NULL OR until GLOB '[0-9]*' AND (strftime('%Y-%m-%d %H:%M:%S', until, '+0 days') IS until
            OR strftime('%Y-%m-%d %H:%M:%f', until, '+0 days') IS until)),
    epoch INTEGER NOT NULL DEFAULT 0,
    -- Leases in a row that expired without an item getting through.
    expiries INTEGER NOT NULL DEFAULT 0
        CONSTRAINT gatefeed_expiries_has_31_bits CHECK (expiries BETWEEN 0 AND 2147483647),
    next_run_at TEXT
        CONSTRAINT "gatefeed_next_run_at_is_UTC_text_like_2026-01-31 23:59:59.123"
        CHECK (next_run_at IS NULL OR next_run_at GLOB '[0-9]*' AND (strftime('%Y-%m-%d %H:%M:%S', next_run_at, '+0 days') IS next_run_at
            OR strftime('%Y-%m-%d %H:%M:%f', next_run_at, '+0 days') IS next_run_at)),
    version INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
        CONSTRAINT "gatefeed_created_at_is_UTC_text_like_2026-01-31 23:59:59.123"
        CHECK (created_at GLOB '[0-9]*' AND (strftime('%Y-%m-%d %H:%M:%S', created_at, '+0 days') IS created_at
            OR strftime('%Y-%m-%d %H:%M:%f', created_at, '+0 days') IS created_at)),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
        CONSTRAINT "gatefeed_updated_at_is_UTC_text_like_2026-01-31 23:59:59.123"
        CHECK (updated_at GLOB '[0-9]*' AND (strftime('%Y-%m-%d %H:%M:%S', updated_at, '+0 days') IS updated_at
            OR strftime('%Y-%m-%d %H:%M:%f', updated_at, '+0 days') IS updated_at)),
    CONSTRAINT gatefeed_lease_is_whole
        CHECK ((owner IS NULL) = (lease_id IS NULL) AND (owner IS NULL) = (until IS NULL))
) STRICT;

-- Free partitions with work, in the order in which they are claimed.
CREATE INDEX gatefeed_partitions_free ON gatefeed_partitions (feed, priority DESC, next_run_at, id)
    WHERE status = 'available' AND owner IS NULL AND next_run_at IS NOT NULL;
-- Leased partitions, the first to expire first.
CREATE INDEX gatefeed_partitions_leased ON gatefeed_partitions (feed, until)
    WHERE status = 'available' AND owner IS NOT NULL AND next_run_at IS NOT NULL;
-- For --until-idle.
CREATE INDEX gatefeed_partitions_failed ON gatefeed_partitions (feed) WHERE status = 'failed';

CREATE TABLE gatefeed_items (
    partition_id TEXT NOT NULL,
    id TEXT NOT NULL
        -- A random uuid, version 4.
        DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-'
            || substr('89AB', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))))
        CONSTRAINT gatefeed_item_id_is_1_to_512_bytes_no_control_chars
        CHECK (length(CAST(id AS BLOB)) BETWEEN 1 AND 512 AND instr(CAST(id AS BLOB), x'00') = 0
            AND id NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*'),
    gate INTEGER NOT NULL DEFAULT 0
        CONSTRAINT gatefeed_item_gate_is_not_negative CHECK (gate BETWEEN 0 AND 2147483647),
    status TEXT NOT NULL DEFAULT 'available'
        CONSTRAINT gatefeed_item_status_is_known
        CHECK (status IN ('available', 'waiting', 'blocked', 'complete', 'failed', 'cancelled')),
    priority INTEGER NOT NULL DEFAULT 0
        CONSTRAINT gatefeed_item_priority_has_32_bits CHECK (priority BETWEEN -2147483648 AND 2147483647),
    pass INTEGER NOT NULL DEFAULT 0
        CONSTRAINT gatefeed_pass_has_32_bits CHECK (pass BETWEEN -2147483648 AND 2147483647),
    retry_count INTEGER NOT NULL DEFAULT 0
        CONSTRAINT gatefeed_retry_count_has_32_bits CHECK (retry_count BETWEEN -2147483648 AND 2147483647),
    -- Deliveries begun in suspect mode whose end was never written.
    suspect_count INTEGER NOT NULL DEFAULT 0
        CONSTRAINT gatefeed_suspect_count_has_32_bits CHECK (suspect_count BETWEEN -2147483648 AND 2147483647),
    available_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
        CONSTRAINT "gatefeed_available_at_is_UTC_text_like_2026-01-31 23:59:59.123"
        CHECK (available_at GLOB '[0-9]*' AND (strftime('%Y-%m-%d %H:%M:%S', available_at, '+0 days') IS available_at
            OR strftime('%Y-%m-%d %H:%M:%f', available_at, '+0 days') IS available_at)),
    content_type TEXT NOT NULL DEFAULT 'application/json'
        CONSTRAINT gatefeed_content_type_is_1_to_255_bytes_no_control_chars
        CHECK (length(CAST(content_type AS BLOB)) BETWEEN 1 AND 255 AND instr(CAST(content_type AS BLOB), x'00') = 0
            AND content_type NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*'),
    error_messages TEXT,
    version INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
        CONSTRAINT "gatefeed_created_at_is_UTC_text_like_2026-01-31 23:59:59.123"
        CHECK (created_at GLOB '[0-9]*' AND (strftime('%Y-%m-%d %H:%M:%S', created_at, '+0 days') IS created_at
            OR strftime('%Y-%m-%d %H:%M:%f', created_at, '+0 days') IS created_at)),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
        CONSTRAINT "gatefeed_updated_at_is_UTC_text_like_2026-01-31 23:59:59.123"
        CHECK (updated_at GLOB '[0-9]*' AND (strftime('%Y-%m-%d %H:%M:%S', updated_at, '+0 days') IS updated_at
            OR strftime('%Y-%m-%d %H:%M:%f', updated_at, '+0 days') IS updated_at)),
    -- Last, so that the other columns of a large item are found without walking through its data.
    data ANY NOT NULL DEFAULT x''
        CONSTRAINT gatefeed_data_is_blob_or_text CHECK (typeof(data) IN ('blob', 'text')),
    PRIMARY KEY (partition_id, id)
) STRICT;

-- The order of delivery, and the lowest gate with an available item.
CREATE INDEX gatefeed_items_due ON gatefeed_items (partition_id, gate, priority DESC, available_at, id)
    WHERE status = 'available';
-- The lowest gate with another open item. Separate from the one above, so that an ordinary item's outcome changes
-- one index less.
CREATE INDEX gatefeed_items_parked ON gatefeed_items (partition_id, gate) WHERE status IN ('waiting', 'blocked');
CREATE INDEX gatefeed_items_failed ON gatefeed_items (partition_id, gate) WHERE status = 'failed';

-- After an INSERT of an item: refuses a missing or cancelled partition, wakes an idle one, reopens a complete one.
CREATE TRIGGER gatefeed_items_inserted AFTER INSERT ON gatefeed_items
BEGIN
    SELECT CASE coalesce((SELECT p.status FROM gatefeed_partitions p WHERE p.id = NEW.partition_id), 'missing')
        WHEN 'missing' THEN
            RAISE(ABORT, 'gatefeed: partition does not exist: insert the row of gatefeed_partitions first')
        WHEN 'cancelled' THEN
            RAISE(ABORT, 'gatefeed: partition is cancelled and takes no items: insert into another partition')
        END;
    UPDATE gatefeed_partitions
    SET next_run_at = max(NEW.available_at, strftime('%Y-%m-%d %H:%M:%f', 'now')),
        version = version + (status = 'complete'),
        updated_at = CASE WHEN status = 'complete' THEN strftime('%Y-%m-%d %H:%M:%f', 'now') ELSE updated_at END,
        status = 'available'
    WHERE id = NEW.partition_id AND NEW.status = 'available' AND status IN ('available', 'complete')
        AND (status = 'complete' OR next_run_at IS NULL OR next_run_at > max(NEW.available_at, strftime('%Y-%m-%d %H:%M:%f', 'now')));
END;

-- INSERT OR REPLACE of a partition keeps its items, since no DELETE trigger runs then: they are work.
CREATE TRIGGER gatefeed_partition_replaced AFTER INSERT ON gatefeed_partitions
WHEN NEW.next_run_at IS NULL
    AND EXISTS (SELECT 1 FROM gatefeed_items i WHERE i.partition_id = NEW.id AND i.status = 'available')
BEGIN
    UPDATE gatefeed_partitions SET next_run_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE id = NEW.id;
END;

-- Whoever makes an item available, due sooner or reachable with a plain UPDATE (or an upsert) wakes its partition
-- too. An ordinary outcome does none of that.
CREATE TRIGGER gatefeed_item_changed AFTER UPDATE OF status, gate, available_at ON gatefeed_items
WHEN NEW.status = 'available'
    AND (OLD.status <> 'available' OR NEW.available_at < OLD.available_at OR NEW.gate < OLD.gate)
BEGIN
    UPDATE gatefeed_partitions
    SET next_run_at = max(NEW.available_at, strftime('%Y-%m-%d %H:%M:%f', 'now')),
        version = version + (status = 'complete'),
        updated_at = CASE WHEN status = 'complete' THEN strftime('%Y-%m-%d %H:%M:%f', 'now') ELSE updated_at END,
        status = 'available'
    WHERE id = NEW.partition_id AND status IN ('available', 'complete')
        AND (status = 'complete' OR next_run_at IS NULL OR next_run_at > max(NEW.available_at, strftime('%Y-%m-%d %H:%M:%f', 'now')));
END;

-- Whoever reopens a partition by hand, or lets its gate go, wakes it.
CREATE TRIGGER gatefeed_partition_changed
AFTER UPDATE OF status, gate, manual_checkpoint, auto_close, failure_policy ON gatefeed_partitions
WHEN NEW.status = 'available' AND NEW.next_run_at IS NULL
    AND (OLD.status, OLD.gate, OLD.manual_checkpoint, OLD.auto_close, OLD.failure_policy)
        IS NOT (NEW.status, NEW.gate, NEW.manual_checkpoint, NEW.auto_close, NEW.failure_policy)
BEGIN
    UPDATE gatefeed_partitions SET next_run_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE id = NEW.id;
END;

-- An item without its partition would never be delivered.
CREATE TRIGGER gatefeed_partition_deleted AFTER DELETE ON gatefeed_partitions
BEGIN
    DELETE FROM gatefeed_items WHERE partition_id = OLD.id;
END;

CREATE TRIGGER gatefeed_partition_renamed BEFORE UPDATE OF id ON gatefeed_partitions WHEN OLD.id <> NEW.id
BEGIN
    SELECT RAISE(ABORT, 'gatefeed: id of gatefeed_partitions cannot change: insert a new row and delete the old one');
END;

CREATE TRIGGER gatefeed_item_moved BEFORE UPDATE OF partition_id ON gatefeed_items
WHEN OLD.partition_id <> NEW.partition_id
BEGIN
    SELECT RAISE(ABORT, 'gatefeed: partition_id of gatefeed_items cannot change: insert a new row and delete the old one');
END;
