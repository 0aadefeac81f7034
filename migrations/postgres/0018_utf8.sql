-- What is not UTF-8 the server refuses, but for one that takes text as it comes (SQL_ASCII, which initdb makes in the locale C):
-- there it is refused where it names something or goes with a delivery, since nothing could show it, send it or look it up again.
-- By triggers and not by a CHECK, which would refuse every later change of a row from before; those end as failed.
CREATE FUNCTION {schema}.gatefeed_is_utf8(given text) RETURNS boolean LANGUAGE plpgsql AS $gatefeed$
BEGIN
    PERFORM convert_from(convert_to(given, 'SQL_ASCII'), 'UTF8');
    RETURN true;
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RETURN false;
END $gatefeed$;

CREATE FUNCTION {schema}.gatefeed_text_checked() RETURNS trigger LANGUAGE plpgsql AS $gatefeed$
BEGIN
    RAISE EXCEPTION 'gatefeed: % is not UTF-8: convert the text first, as with iconv -f LATIN1 -t UTF-8', TG_ARGV[0]
        USING ERRCODE = 'check_violation';
END $gatefeed$;

DO $migrate$
BEGIN
    IF current_setting('server_encoding') <> 'SQL_ASCII' THEN
        DROP FUNCTION {schema}.gatefeed_text_checked();
        DROP FUNCTION {schema}.gatefeed_is_utf8(text);
        RETURN;
    END IF;
    UPDATE {schema}.gatefeed_partitions p SET status = 'failed', owner = NULL, lease_id = NULL, until = NULL,
        next_run_at = NULL, reason = 'its id or feed is not UTF-8', version = p.version + 1
    WHERE p.status NOT IN ('complete', 'failed', 'cancelled') AND p.id || p.feed ~ '[^ -~]'
        AND NOT {schema}.gatefeed_is_utf8(p.id || ' ' || p.feed);
    UPDATE {schema}.gatefeed_items i SET status = 'failed', error_messages = 'its id or content type is not UTF-8',
        waiting_until = NULL, version = i.version + 1
    WHERE i.status IN ('available', 'waiting', 'blocked') AND i.id || i.content_type ~ '[^ -~]'
        AND NOT {schema}.gatefeed_is_utf8(i.id || ' ' || i.content_type);
    CREATE TRIGGER gatefeed_partition_text BEFORE INSERT OR UPDATE OF feed ON {schema}.gatefeed_partitions
        FOR EACH ROW WHEN (NEW.id || NEW.feed ~ '[^ -~]' AND NOT {schema}.gatefeed_is_utf8(NEW.id || ' ' || NEW.feed))
        EXECUTE FUNCTION {schema}.gatefeed_text_checked('id or feed of a partition');
    CREATE TRIGGER gatefeed_item_text BEFORE INSERT OR UPDATE OF content_type ON {schema}.gatefeed_items
        FOR EACH ROW WHEN (NEW.id || NEW.content_type ~ '[^ -~]'
            AND NOT {schema}.gatefeed_is_utf8(NEW.id || ' ' || NEW.content_type))
        EXECUTE FUNCTION {schema}.gatefeed_text_checked('id or content_type of an item');
END $migrate$;
