-- What the HTTP API keeps.

-- What a request with an Idempotency-Key asked for, as a SHA-256 of it: the same key with another body is refused, for
-- as long as the item exists. It stands with the item, so that such a request costs no other row.
ALTER TABLE gatefeed_items ADD COLUMN request_digest BLOB
    CONSTRAINT gatefeed_request_digest_has_32_bytes CHECK (length(request_digest) = 32);

-- Who may use the API. Only a SHA-256 of each token is kept.
CREATE TABLE gatefeed_tokens (
    id TEXT NOT NULL PRIMARY KEY
        CONSTRAINT gatefeed_token_id_is_1_to_512_bytes_no_control_chars
        CHECK (length(CAST(id AS BLOB)) BETWEEN 1 AND 512 AND instr(CAST(id AS BLOB), x'00') = 0
            AND id NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*'),
    name TEXT
        CONSTRAINT gatefeed_token_name_is_1_to_512_bytes_no_control_chars
        CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 512 AND instr(CAST(name AS BLOB), x'00') = 0
            AND name NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*'),
    role TEXT NOT NULL CONSTRAINT gatefeed_token_role_is_known CHECK (role IN ('push', 'operate', 'read')),
    -- Null: every feed.
    feed TEXT
        CONSTRAINT gatefeed_token_feed_is_1_to_512_bytes_no_control_chars
        CHECK (length(CAST(feed AS BLOB)) BETWEEN 1 AND 512 AND instr(CAST(feed AS BLOB), x'00') = 0
            AND feed NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*'),
    hash BLOB NOT NULL UNIQUE CONSTRAINT gatefeed_token_hash_has_32_bytes CHECK (length(hash) = 32),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
        CONSTRAINT "gatefeed_created_at_is_UTC_text_like_2026-01-31 23:59:59.123"
        CHECK (created_at GLOB '[0-9]*' AND (strftime('%Y-%m-%d %H:%M:%S', created_at, '+0 days') IS created_at
            OR strftime('%Y-%m-%d %H:%M:%f', created_at, '+0 days') IS created_at)),
    -- Null: never.
    expires_at TEXT
        CONSTRAINT "gatefeed_expires_at_is_UTC_text_like_2026-01-31 23:59:59.123"
        CHECK (expires_at IS NULL OR expires_at GLOB '[0-9]*' AND (strftime('%Y-%m-%d %H:%M:%S', expires_at, '+0 days') IS expires_at
            OR strftime('%Y-%m-%d %H:%M:%f', expires_at, '+0 days') IS expires_at)),
    -- A revoked one stays, so that an API that once had tokens never opens by itself. Null: not revoked.
    revoked_at TEXT
        CONSTRAINT "gatefeed_revoked_at_is_UTC_text_like_2026-01-31 23:59:59.123"
        CHECK (revoked_at IS NULL OR revoked_at GLOB '[0-9]*' AND (strftime('%Y-%m-%d %H:%M:%S', revoked_at, '+0 days') IS revoked_at
            OR strftime('%Y-%m-%d %H:%M:%f', revoked_at, '+0 days') IS revoked_at))
) STRICT;
