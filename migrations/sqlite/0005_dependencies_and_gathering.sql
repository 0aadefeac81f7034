-- An item with dependencies is 'blocked' until all that it names are complete. A partition without any pays a look
-- at has_dependencies, which its owner has read anyway.

ALTER TABLE gatefeed_partitions ADD COLUMN has_dependencies INTEGER NOT NULL DEFAULT 0
    CONSTRAINT gatefeed_has_dependencies_is_0_or_1 CHECK (has_dependencies IN (0, 1));

ALTER TABLE gatefeed_items ADD COLUMN on_dependency_failure TEXT NOT NULL DEFAULT 'fail'
    CONSTRAINT gatefeed_on_dependency_failure_is_fail_skip_or_run
    CHECK (on_dependency_failure IN ('fail', 'skip', 'run'));

-- 'parent': once its one dependency is complete, its data becomes this item's.
ALTER TABLE gatefeed_items ADD COLUMN input TEXT
    CONSTRAINT gatefeed_input_is_parent_or_null CHECK (input IS NULL OR input = 'parent');

-- What came before that its delivery brings along.
ALTER TABLE gatefeed_items ADD COLUMN gather TEXT
    CONSTRAINT "gatefeed_gather_is_like_{gate: 0, status: complete|failed|cancelled|any}"
    CHECK (gather IS NULL OR CASE WHEN json_valid(gather) AND json_type(gather) = 'object' THEN
        coalesce(json_type(gather, '$.gate') = 'integer' AND json_extract(gather, '$.gate') BETWEEN 0 AND 2147483647
            AND CASE coalesce(json_type(gather, '$.status'), 'none') WHEN 'none' THEN 1
                WHEN 'text' THEN json_extract(gather, '$.status') IN ('complete', 'failed', 'cancelled', 'any')
                ELSE 0 END
            AND json_remove(gather, '$.gate', '$.status') = '{}', 0)
        ELSE 0 END);
-- The column stands behind the data, and would only be found by walking through all of it: pages read it here.
CREATE INDEX gatefeed_items_gather ON gatefeed_items (partition_id, id, gather) WHERE gather IS NOT NULL;

CREATE TABLE gatefeed_dependencies (
    partition_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    depends_on TEXT NOT NULL,
    PRIMARY KEY (partition_id, item_id, depends_on)
) STRICT, WITHOUT ROWID;
CREATE INDEX gatefeed_dependencies_of ON gatefeed_dependencies (partition_id, depends_on, item_id);

-- After an INSERT of a dependency: refuses what could never come free, blocks its item, and wakes. There are no
-- transaction ids here, so that an available item may take dependencies while nobody has its partition leased and it
-- was never changed; under a lease it has to be 'blocked' from its INSERT on. RAISE takes no names (before SQLite 3.47):
-- gatefeed's own pushes find the path and name it. Whatever has no open dependency is left to the next outcome or
-- checkpoint to settle, since the next row of the same statement may be another dependency.
CREATE TRIGGER gatefeed_dependency_inserted AFTER INSERT ON gatefeed_dependencies
BEGIN
    SELECT RAISE(ABORT, 'gatefeed: an item depends on itself') WHERE NEW.item_id = NEW.depends_on;
    SELECT RAISE(ABORT, 'gatefeed: the item of a dependency does not exist: insert it first, in the same transaction')
    WHERE NOT EXISTS (SELECT 1 FROM gatefeed_items i WHERE i.partition_id = NEW.partition_id AND i.id = NEW.item_id);
    SELECT RAISE(ABORT, 'gatefeed: an item depends on one that does not exist in its partition')
    WHERE NOT EXISTS (SELECT 1 FROM gatefeed_items d WHERE d.partition_id = NEW.partition_id AND d.id = NEW.depends_on);
    SELECT RAISE(ABORT, 'gatefeed: an item that may be under way or through takes no more dependencies: insert it as ''blocked'', and them in its transaction')
    WHERE NOT EXISTS (
        SELECT 1 FROM gatefeed_items i JOIN gatefeed_partitions p ON p.id = i.partition_id
        WHERE i.partition_id = NEW.partition_id AND i.id = NEW.item_id
            AND (i.status = 'blocked' OR (i.status = 'available' AND i.version = 0 AND p.owner IS NULL)));
    SELECT RAISE(ABORT, 'gatefeed: an item depends on one of a higher gate, which is not reached before it is through')
    WHERE EXISTS (
        SELECT 1 FROM gatefeed_items d JOIN gatefeed_items i ON i.partition_id = d.partition_id AND i.id = NEW.item_id
        WHERE d.partition_id = NEW.partition_id AND d.id = NEW.depends_on
            AND d.status IN ('available', 'waiting', 'blocked') AND d.gate > i.gate);
    SELECT RAISE(ABORT, 'gatefeed: an item with the input ''parent'' has more than one dependency')
    WHERE (SELECT i.input FROM gatefeed_items i WHERE i.partition_id = NEW.partition_id AND i.id = NEW.item_id) = 'parent'
        AND (SELECT count(*) FROM gatefeed_dependencies d
             WHERE d.partition_id = NEW.partition_id AND d.item_id = NEW.item_id) > 1;
    -- Up from the item, on which mostly nothing depends yet.
    SELECT RAISE(ABORT, 'gatefeed: dependencies form a cycle')
    WHERE EXISTS (
        WITH RECURSIVE above (id) AS (
            SELECT NEW.item_id
            UNION
            SELECT d.item_id FROM above a CROSS JOIN gatefeed_dependencies d INDEXED BY gatefeed_dependencies_of
                ON d.partition_id = NEW.partition_id AND d.depends_on = a.id
        )
        SELECT 1 FROM above WHERE id = NEW.depends_on);
    UPDATE gatefeed_items SET status = 'blocked'
    WHERE partition_id = NEW.partition_id AND id = NEW.item_id AND status = 'available'
        AND (input IS NOT NULL OR (SELECT d.status FROM gatefeed_items d
            WHERE d.partition_id = NEW.partition_id AND d.id = NEW.depends_on) <> 'complete');
    UPDATE gatefeed_partitions SET has_dependencies = 1 WHERE id = NEW.partition_id AND has_dependencies = 0;
    UPDATE gatefeed_partitions
    SET next_run_at = strftime('%Y-%m-%d %H:%M:%f', 'now'), version = version + (status = 'complete'),
        updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now'), status = 'available'
    WHERE id = NEW.partition_id AND (status = 'complete' OR (status = 'available'
        AND (next_run_at IS NULL OR next_run_at > strftime('%Y-%m-%d %H:%M:%f', 'now'))));
END;

-- What is delivered again (a retry, a rewind) waits for its dependencies again: those may be delivered again too. A
-- retry changes failed items only, so that dependencies that are complete stay so. The owner settles it.
CREATE TRIGGER gatefeed_item_reopened AFTER UPDATE OF status ON gatefeed_items
WHEN NEW.status = 'available' AND OLD.status IN ('complete', 'failed', 'cancelled')
    AND EXISTS (SELECT 1 FROM gatefeed_dependencies d
        JOIN gatefeed_items n ON n.partition_id = d.partition_id AND n.id = d.depends_on
        WHERE d.partition_id = NEW.partition_id AND d.item_id = NEW.id
            AND (OLD.status <> 'failed' OR n.status <> 'complete'))
BEGIN
    UPDATE gatefeed_items SET status = 'blocked' WHERE partition_id = NEW.partition_id AND id = NEW.id;
END;

CREATE TRIGGER gatefeed_dependencies_dropped AFTER DELETE ON gatefeed_partitions WHEN OLD.has_dependencies
BEGIN
    DELETE FROM gatefeed_dependencies WHERE partition_id = OLD.id;
END;

-- An item of the same name that comes later is another one.
CREATE TRIGGER gatefeed_item_deleted AFTER DELETE ON gatefeed_items
WHEN EXISTS (SELECT 1 FROM gatefeed_dependencies d WHERE d.partition_id = OLD.partition_id AND d.item_id = OLD.id)
BEGIN
    DELETE FROM gatefeed_dependencies WHERE partition_id = OLD.partition_id AND item_id = OLD.id;
END;

CREATE TRIGGER gatefeed_dependency_kept BEFORE DELETE ON gatefeed_dependencies
WHEN EXISTS (SELECT 1 FROM gatefeed_partitions p WHERE p.id = OLD.partition_id)
    AND EXISTS (SELECT 1 FROM gatefeed_items i WHERE i.partition_id = OLD.partition_id AND i.id = OLD.item_id)
BEGIN
    SELECT RAISE(ABORT, 'gatefeed: dependencies cannot change: they go with their item');
END;

CREATE TRIGGER gatefeed_dependency_changed BEFORE UPDATE ON gatefeed_dependencies
BEGIN
    SELECT RAISE(ABORT, 'gatefeed: dependencies cannot change: they go with their item');
END;
