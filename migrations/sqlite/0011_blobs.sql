-- Data that lies in an object store. The row has a reference as its data, of a content type of its own; whatever handles
-- data handles references, so that there is no column of theirs.

-- This database's part of an object store, and what signs links to it.
CREATE TABLE gatefeed_blob_space (
    id TEXT NOT NULL,
    secret TEXT NOT NULL,
    one INTEGER PRIMARY KEY CONSTRAINT gatefeed_blob_space_is_one CHECK (one = 1)
) STRICT;
INSERT INTO gatefeed_blob_space (id, secret, one)
VALUES (lower(hex(randomblob(16))), lower(hex(randomblob(32))), 1);

-- Is a blob referred to? A probe by its path, with which the data begins.
CREATE INDEX gatefeed_items_blob ON gatefeed_items (CAST(substr(data, 1, 71) AS BLOB))
    WHERE substr(content_type, 1, 30) = 'application/vnd.gatefeed.blob;';
CREATE INDEX gatefeed_history_blob ON gatefeed_history (CAST(substr(data, 1, 71) AS BLOB))
    WHERE substr(content_type, 1, 30) = 'application/vnd.gatefeed.blob;';
