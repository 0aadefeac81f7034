-- A BEFORE trigger FOR EACH ROW, even one of another column, makes every UPDATE of the table lock and log each row once
-- more. These only refuse, which an AFTER trigger does as well.
DROP TRIGGER gatefeed_partition_renamed ON {schema}.gatefeed_partitions;
CREATE TRIGGER gatefeed_partition_renamed AFTER UPDATE OF id ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (OLD.id <> NEW.id) EXECUTE FUNCTION {schema}.gatefeed_name_changed('id');
DROP TRIGGER gatefeed_item_moved ON {schema}.gatefeed_items;
CREATE TRIGGER gatefeed_item_moved AFTER UPDATE OF partition_id ON {schema}.gatefeed_items
    FOR EACH ROW WHEN (OLD.partition_id <> NEW.partition_id)
    EXECUTE FUNCTION {schema}.gatefeed_name_changed('partition_id');

-- Every item gets at least one more version, whose index entry stands beside the first: room for it from the start costs
-- less than a split of every page.
ALTER INDEX {schema}.gatefeed_items_pkey SET (fillfactor = 50);

-- lz4 packs and unpacks large JSON several times as fast as the default. Not every server is built with it.
DO $gatefeed$ BEGIN
    ALTER TABLE {schema}.gatefeed_items ALTER COLUMN data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN NULL;
END $gatefeed$;
