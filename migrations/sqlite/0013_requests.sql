-- What a request with an Idempotency-Key that added many items asked for, and what it came to: the same request again
-- is answered as it was, and the key with another body is refused. (One that added a single item has its digest there.)
CREATE TABLE gatefeed_requests (
    partition_id TEXT NOT NULL,
    key TEXT NOT NULL
        CONSTRAINT gatefeed_request_key_is_1_to_512_bytes_no_control_chars
        CHECK (length(CAST(key AS BLOB)) BETWEEN 1 AND 512 AND instr(CAST(key AS BLOB), x'00') = 0
            AND key NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*'),
    -- A SHA-256 of the request.
    digest BLOB NOT NULL CONSTRAINT gatefeed_request_digest_has_32_bytes CHECK (length(digest) = 32),
    created INTEGER NOT NULL DEFAULT 0,
    added INTEGER NOT NULL DEFAULT 0,
    existing INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    PRIMARY KEY (partition_id, key)
) STRICT;

-- The oldest go first.
CREATE INDEX gatefeed_requests_age ON gatefeed_requests (created_at);

CREATE TRIGGER gatefeed_requests_deleted AFTER DELETE ON gatefeed_partitions
BEGIN
    DELETE FROM gatefeed_requests WHERE partition_id = OLD.id;
END;
