-- What is not UTF-8 the server refuses, but for one that takes text as it comes (SQL_ASCII, which initdb makes in the locale C):
-- there it is refused where it names something or goes with a delivery, since nothing could show it, send it or look it up again.
DO $gatefeed$
BEGIN
    IF current_setting('server_encoding') = 'SQL_ASCII' THEN
        ALTER TABLE {schema}.gatefeed_partitions ADD CONSTRAINT gatefeed_partition_text_is_utf8
            CHECK (convert_from(convert_to(id || ' ' || feed, 'SQL_ASCII'), 'UTF8') IS NOT NULL) NOT VALID;
        ALTER TABLE {schema}.gatefeed_items ADD CONSTRAINT gatefeed_item_text_is_utf8
            CHECK (convert_from(convert_to(id || ' ' || content_type, 'SQL_ASCII'), 'UTF8') IS NOT NULL) NOT VALID;
    END IF;
END $gatefeed$;
