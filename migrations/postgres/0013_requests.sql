-- What a request with an Idempotency-Key that added many items asked for, and what it came to: the same request again
-- is answered as it was, and the key with another body is refused. (One that added a single item has its digest there.)
CREATE TABLE {schema}.gatefeed_requests (
    partition_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL
        CONSTRAINT gatefeed_request_key_is_1_to_512_bytes_no_control_chars
        CHECK (octet_length(key) BETWEEN 1 AND 512 AND key !~ '[\u0001-\u001f\u007f-\u009f]'),
    -- A SHA-256 of the request.
    digest bytea NOT NULL CONSTRAINT gatefeed_request_digest_has_32_bytes CHECK (octet_length(digest) = 32),
    created boolean NOT NULL DEFAULT false,
    added bigint NOT NULL DEFAULT 0,
    existing bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition_id, key)
);

-- The oldest go first.
CREATE INDEX gatefeed_requests_age ON {schema}.gatefeed_requests (created_at);

CREATE FUNCTION {schema}.gatefeed_requests_deleted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
BEGIN
    DELETE FROM {schema}.gatefeed_requests WHERE TG_OP = 'TRUNCATE' OR partition_id = OLD.id;
    RETURN NULL;
END $gatefeed$;

CREATE TRIGGER gatefeed_requests_deleted AFTER DELETE ON {schema}.gatefeed_partitions
    FOR EACH ROW EXECUTE FUNCTION {schema}.gatefeed_requests_deleted();
CREATE TRIGGER gatefeed_requests_truncated AFTER TRUNCATE ON {schema}.gatefeed_partitions
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.gatefeed_requests_deleted();
