-- Dependents that take over what they depend on are settled in pieces by their bytes too: a thousand copies of a large item
-- are more than one statement may write.

DROP FUNCTION {schema}.gatefeed_unblock(text, text[], bigint);

-- As it was, but that of one item it looks at no more dependents than it settles (several may share some, which are looked at
-- first), and that it stops also once it has copied bytes_most, about: by one item more at the most.
CREATE FUNCTION {schema}.gatefeed_unblock(of_partition text, changed text[] DEFAULT NULL, at_most bigint DEFAULT NULL,
    bytes_most bigint DEFAULT NULL) RETURNS text[] LANGUAGE plpgsql AS $gatefeed$
DECLARE
    pending text[] := changed;
    ended text[];
    settled bigint;
    copied bigint;
    room bigint := at_most;
    bytes_room bigint := bytes_most;
BEGIN
    LOOP
        -- OFFSET 0 keeps the lookups by key apart: of a partition that statistics do not know the planner expects one
        -- row, and would compare all of its rows with each other.
        WITH decided AS MATERIALIZED (
            SELECT c.row_id, c.id, c.input, coalesce(s.ended, s.passed) AS reason,
                CASE WHEN s.ended IS NOT NULL AND c.policy = 'skip' THEN 'cancelled'
                    WHEN coalesce(s.ended, s.passed) IS NOT NULL THEN 'failed' ELSE 'available' END AS status
            FROM (
                SELECT i.ctid AS row_id, i.id, i.gate, i.input, i.on_dependency_failure AS policy
                FROM {schema}.gatefeed_items i
                WHERE pending IS NULL AND i.partition_id = of_partition AND i.status = 'blocked'
                UNION ALL
                SELECT i.row_id, i.id, i.gate, i.input, i.policy FROM unnest(pending) AS c (id)
                CROSS JOIN LATERAL (SELECT d.item_id FROM {schema}.gatefeed_dependencies d
                    WHERE d.partition_id = of_partition AND d.depends_on = c.id OFFSET 0) d
                CROSS JOIN LATERAL (SELECT i.ctid AS row_id, i.id, i.gate, i.input, i.on_dependency_failure AS policy,
                        i.status
                    FROM {schema}.gatefeed_items i WHERE i.partition_id = of_partition AND i.id = d.item_id OFFSET 0) i
                WHERE cardinality(pending) = 1 AND i.status = 'blocked'
                UNION ALL
                SELECT DISTINCT i.row_id, i.id, i.gate, i.input, i.policy FROM unnest(pending) AS c (id)
                CROSS JOIN LATERAL (SELECT d.item_id FROM {schema}.gatefeed_dependencies d
                    WHERE d.partition_id = of_partition AND d.depends_on = c.id OFFSET 0) d
                CROSS JOIN LATERAL (SELECT i.ctid AS row_id, i.id, i.gate, i.input, i.on_dependency_failure AS policy,
                        i.status
                    FROM {schema}.gatefeed_items i WHERE i.partition_id = of_partition AND i.id = d.item_id OFFSET 0) i
                WHERE cardinality(pending) > 1 AND i.status = 'blocked'
            ) c
            CROSS JOIN LATERAL (
                SELECT count(*) AS number,
                    coalesce(bool_or(n.status IN ('available', 'waiting', 'blocked')), false) AS is_open,
                    min(format('dependency "%s" %s', left(d.depends_on, 100),
                            CASE n.status WHEN 'failed' THEN 'failed' ELSE 'was cancelled' END))
                        FILTER (WHERE c.policy <> 'run' AND n.status IN ('failed', 'cancelled')) AS ended,
                    min(format('dependency "%s" has moved on to gate %s, past gate %s of this item: neither can go on',
                            left(d.depends_on, 100), n.gate, c.gate))
                        FILTER (WHERE n.status IN ('available', 'waiting', 'blocked') AND n.gate > c.gate) AS passed
                FROM {schema}.gatefeed_dependencies d
                LEFT JOIN LATERAL (SELECT n.status, n.gate FROM {schema}.gatefeed_items n
                    WHERE n.partition_id = of_partition AND n.id = d.depends_on OFFSET 0) n ON true
                WHERE d.partition_id = of_partition AND d.item_id = c.id
            ) s
            WHERE s.number > 0 AND (NOT s.is_open OR s.ended IS NOT NULL OR s.passed IS NOT NULL)
            LIMIT room
        ), sized AS (
            SELECT d.*, CASE WHEN bytes_room IS NULL OR d.input IS DISTINCT FROM 'parent' OR d.status <> 'available' THEN 0
                ELSE coalesce((SELECT octet_length(n.data) FROM {schema}.gatefeed_dependencies e
                    CROSS JOIN LATERAL (SELECT n.data FROM {schema}.gatefeed_items n
                        WHERE n.partition_id = of_partition AND n.id = e.depends_on OFFSET 0) n
                    WHERE e.partition_id = of_partition AND e.item_id = d.id LIMIT 1), 0) END AS bytes
            FROM decided d
        ), summed AS (
            SELECT s.*, sum(s.bytes) OVER (ROWS UNBOUNDED PRECEDING) - s.bytes AS bytes_before FROM sized s
        ), ready AS MATERIALIZED (
            SELECT s.* FROM summed s WHERE bytes_room IS NULL OR s.bytes_before < bytes_room
        ), done AS (
            UPDATE {schema}.gatefeed_items i
            SET status = r.status, version = i.version + 1, updated_at = now(),
                error_messages = CASE WHEN r.reason IS NULL THEN i.error_messages
                    WHEN octet_length(i.error_messages) + octet_length(r.reason) < 8192
                    THEN i.error_messages || E'\n' || r.reason ELSE r.reason END,
                data = CASE WHEN i.input = 'parent' AND r.status = 'available'
                    THEN coalesce((SELECT n.data FROM {schema}.gatefeed_dependencies d
                        CROSS JOIN LATERAL (SELECT n.data FROM {schema}.gatefeed_items n
                            WHERE n.partition_id = of_partition AND n.id = d.depends_on OFFSET 0) n
                        WHERE d.partition_id = of_partition AND d.item_id = r.id LIMIT 1), i.data)
                    ELSE i.data END,
                content_type = CASE WHEN i.input = 'parent' AND r.status = 'available'
                    THEN coalesce((SELECT n.content_type FROM {schema}.gatefeed_dependencies d
                        CROSS JOIN LATERAL (SELECT n.content_type FROM {schema}.gatefeed_items n
                            WHERE n.partition_id = of_partition AND n.id = d.depends_on OFFSET 0) n
                        WHERE d.partition_id = of_partition AND d.item_id = r.id LIMIT 1), i.content_type)
                    ELSE i.content_type END
            FROM ready r WHERE i.ctid = r.row_id AND i.status = 'blocked'
            RETURNING i.id, i.status, r.bytes
        )
        SELECT count(*), sum(d.bytes), coalesce(array_agg(d.id) FILTER (WHERE d.status <> 'available'), '{}')
            INTO settled, copied, ended FROM done d;
        room := room - settled;
        bytes_room := bytes_room - coalesce(copied, 0);
        IF room <= 0 OR bytes_room <= 0 THEN
            RETURN coalesce(pending, '{}') || ended;
        END IF;
        EXIT WHEN ended = '{}';
        pending := ended;
    END LOOP;
    RETURN NULL;
END $gatefeed$;
