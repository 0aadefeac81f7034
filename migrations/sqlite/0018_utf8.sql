-- SQLite stores text as it comes, be it UTF-8 or not. What is not is refused where it names something or goes with a delivery:
-- nothing could show it, send it or look it up again.
--
-- Text of printable ASCII, which mostly is all there is, pays one look (control characters are refused by CHECKs). The rest is
-- gone through by characters: SQLite takes a leading byte and all the continuation bytes behind it, or any other byte, for
-- one, and only of UTF-8 does writing its number give the same bytes again; but of U+FFFE and U+FFFF, which it reads as
-- U+FFFD.

DROP TRIGGER gatefeed_items_inserted;

-- As it was, but for the text, and that the clock is asked only where the item is due before the partition is looked at: that
-- pays for it. Not a trigger of its own, whose call for each row would cost more than the look.
CREATE TRIGGER gatefeed_items_inserted AFTER INSERT ON gatefeed_items
BEGIN
    SELECT CASE coalesce((SELECT p.status FROM gatefeed_partitions p WHERE p.id = NEW.partition_id), 'missing')
        WHEN 'missing' THEN
            RAISE(ABORT, 'gatefeed: partition does not exist: insert the row of gatefeed_partitions first')
        WHEN 'cancelled' THEN
            RAISE(ABORT, 'gatefeed: partition is cancelled and takes no items: insert into another partition')
        END;
    SELECT CASE WHEN NEW.id GLOB '*[^ -~]*'
            OR (NEW.content_type <> 'application/json' AND NEW.content_type GLOB '*[^ -~]*') THEN (
            WITH RECURSIVE rest (text) AS (
                SELECT NEW.id || CASE NEW.content_type WHEN 'application/json' THEN '' ELSE ' ' || NEW.content_type END
                UNION ALL
                SELECT substr(text, 2) FROM rest WHERE text <> ''
            )
            SELECT RAISE(ABORT, 'gatefeed: id or content_type of an item is not UTF-8: convert the text first, as with iconv -f LATIN1 -t UTF-8')
            FROM rest WHERE substr(text, 1, 1) <> char(unicode(text)) AND text <> ''
                AND substr(text, 1, 1) <> char(65534) AND substr(text, 1, 1) <> char(65535)
        ) END;
    UPDATE gatefeed_partitions
    SET next_run_at = max(NEW.available_at, strftime('%Y-%m-%d %H:%M:%f', 'now')),
        version = version + (status = 'complete'),
        updated_at = CASE WHEN status = 'complete' THEN strftime('%Y-%m-%d %H:%M:%f', 'now') ELSE updated_at END,
        status = 'available'
    WHERE id = NEW.partition_id AND NEW.status = 'available' AND status IN ('available', 'complete')
        AND (status = 'complete' OR next_run_at IS NULL
            OR (next_run_at > NEW.available_at AND next_run_at > strftime('%Y-%m-%d %H:%M:%f', 'now')));
END;

-- Ids do not change.
CREATE TRIGGER gatefeed_item_text_changed BEFORE UPDATE OF content_type ON gatefeed_items
WHEN NEW.content_type IS NOT OLD.content_type AND NEW.content_type GLOB '*[^ -~]*'
BEGIN
    SELECT RAISE(ABORT, 'gatefeed: content_type of an item is not UTF-8: convert the text first, as with iconv -f LATIN1 -t UTF-8')
    WHERE EXISTS (
        WITH RECURSIVE rest (text) AS (
            SELECT NEW.content_type
            UNION ALL
            SELECT substr(text, 2) FROM rest WHERE text <> ''
        )
        SELECT 1 FROM rest WHERE substr(text, 1, 1) <> char(unicode(text)) AND text <> ''
            AND substr(text, 1, 1) <> char(65534) AND substr(text, 1, 1) <> char(65535));
END;

CREATE TRIGGER gatefeed_partition_text_inserted AFTER INSERT ON gatefeed_partitions
WHEN NEW.id GLOB '*[^ -~]*' OR NEW.feed GLOB '*[^ -~]*'
BEGIN
    SELECT RAISE(ABORT, 'gatefeed: id or feed of a partition is not UTF-8: convert the text first, as with iconv -f LATIN1 -t UTF-8')
    WHERE EXISTS (
        WITH RECURSIVE rest (text) AS (
            SELECT NEW.id || ' ' || NEW.feed
            UNION ALL
            SELECT substr(text, 2) FROM rest WHERE text <> ''
        )
        SELECT 1 FROM rest WHERE substr(text, 1, 1) <> char(unicode(text)) AND text <> ''
            AND substr(text, 1, 1) <> char(65534) AND substr(text, 1, 1) <> char(65535));
END;

CREATE TRIGGER gatefeed_partition_text_changed BEFORE UPDATE OF feed ON gatefeed_partitions
WHEN NEW.feed IS NOT OLD.feed AND NEW.feed GLOB '*[^ -~]*'
BEGIN
    SELECT RAISE(ABORT, 'gatefeed: feed of a partition is not UTF-8: convert the text first, as with iconv -f LATIN1 -t UTF-8')
    WHERE EXISTS (
        WITH RECURSIVE rest (text) AS (
            SELECT NEW.feed
            UNION ALL
            SELECT substr(text, 2) FROM rest WHERE text <> ''
        )
        SELECT 1 FROM rest WHERE substr(text, 1, 1) <> char(unicode(text)) AND text <> ''
            AND substr(text, 1, 1) <> char(65534) AND substr(text, 1, 1) <> char(65535));
END;
