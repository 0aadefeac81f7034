-- What the HTTP API keeps.

-- What a request with an Idempotency-Key asked for, as a SHA-256 of it: the same key with another body is refused, for
-- as long as the item exists. It stands with the item, so that such a request costs no other row.
ALTER TABLE {schema}.gatefeed_items ADD COLUMN request_digest bytea
    CONSTRAINT gatefeed_request_digest_has_32_bytes CHECK (octet_length(request_digest) = 32);

-- Who may use the API. Only a SHA-256 of each token is kept.
CREATE TABLE {schema}.gatefeed_tokens (
    id text COLLATE "C" PRIMARY KEY
        CONSTRAINT gatefeed_token_id_is_1_to_512_bytes_no_control_chars
        CHECK (octet_length(id) BETWEEN 1 AND 512 AND id !~ '[\u0001-\u001f\u007f-\u009f]'),
    name text COLLATE "C"
        CONSTRAINT gatefeed_token_name_is_1_to_512_bytes_no_control_chars
        CHECK (octet_length(name) BETWEEN 1 AND 512 AND name !~ '[\u0001-\u001f\u007f-\u009f]'),
    role text NOT NULL CONSTRAINT gatefeed_token_role_is_known CHECK (role IN ('push', 'operate', 'read')),
    -- Null: every feed.
    feed text COLLATE "C"
        CONSTRAINT gatefeed_token_feed_is_1_to_512_bytes_no_control_chars
        CHECK (octet_length(feed) BETWEEN 1 AND 512 AND feed !~ '[\u0001-\u001f\u007f-\u009f]'),
    hash bytea NOT NULL UNIQUE CONSTRAINT gatefeed_token_hash_has_32_bytes CHECK (octet_length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Null: never.
    expires_at timestamptz,
    -- A revoked one stays, so that an API that once had tokens never opens by itself. Null: not revoked.
    revoked_at timestamptz,
    CONSTRAINT gatefeed_token_times_are_in_the_years_1_to_9999
        CHECK (least(created_at, expires_at, revoked_at) >= '0001-01-01 00:00:00+00'
            AND greatest(created_at, expires_at, revoked_at) < '10000-01-01 00:00:00+00')
);
