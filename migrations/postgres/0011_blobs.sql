-- Data that lies in an object store. The row has a reference as its data, of a content type of its own; whatever handles
-- data handles references, so that there is no column of theirs.

-- This database's part of an object store, and what signs links to it.
CREATE TABLE {schema}.gatefeed_blob_space (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    secret text NOT NULL DEFAULT replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''),
    one boolean PRIMARY KEY DEFAULT true CONSTRAINT gatefeed_blob_space_is_one CHECK (one)
);
INSERT INTO {schema}.gatefeed_blob_space DEFAULT VALUES;

-- Is a blob referred to? A probe by its path, with which the data begins.
CREATE INDEX gatefeed_items_blob ON {schema}.gatefeed_items (substring(data FROM 1 FOR 71))
    WHERE substr(content_type, 1, 30) = 'application/vnd.gatefeed.blob;';
CREATE INDEX gatefeed_history_blob ON {schema}.gatefeed_history (substring(data FROM 1 FOR 71))
    WHERE substr(content_type, 1, 30) = 'application/vnd.gatefeed.blob;';
