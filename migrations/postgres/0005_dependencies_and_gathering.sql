-- An item with dependencies is 'blocked' until all that it names are complete. A partition without any pays a look
-- at has_dependencies, which its owner has read anyway.

ALTER TABLE {schema}.gatefeed_partitions ADD COLUMN has_dependencies boolean NOT NULL DEFAULT false;

ALTER TABLE {schema}.gatefeed_items
    ADD COLUMN on_dependency_failure text NOT NULL DEFAULT 'fail'
        CONSTRAINT gatefeed_on_dependency_failure_is_fail_skip_or_run
        CHECK (on_dependency_failure IN ('fail', 'skip', 'run')),
    -- 'parent': once its one dependency is complete, its data becomes this item's.
    ADD COLUMN input text CONSTRAINT gatefeed_input_is_parent_or_null CHECK (input = 'parent'),
    -- What came before that its delivery brings along.
    ADD COLUMN gather jsonb CONSTRAINT "gatefeed_gather_is_like_{gate: 0, status: complete|failed|cancelled|any}"
        CHECK (gather IS NULL OR coalesce(jsonb_typeof(gather) = 'object' AND jsonb_typeof(gather -> 'gate') = 'number'
            AND gather ->> 'gate' ~ '^[0-9]{1,10}$' AND (gather ->> 'gate')::bigint <= 2147483647
            AND coalesce(gather ->> 'status', 'complete') IN ('complete', 'failed', 'cancelled', 'any')
            AND (gather -> 'status') IS DISTINCT FROM 'null'::jsonb
            AND gather - 'gate' - 'status' = '{}'::jsonb, false));

CREATE TABLE {schema}.gatefeed_dependencies (
    partition_id text COLLATE "C" NOT NULL,
    item_id text COLLATE "C" NOT NULL,
    depends_on text COLLATE "C" NOT NULL,
    PRIMARY KEY (partition_id, item_id, depends_on)
);
CREATE INDEX gatefeed_dependencies_of ON {schema}.gatefeed_dependencies (partition_id, depends_on, item_id);
-- With statistics the planner takes a partition that they have not seen for a single row, and any index for as good as
-- the right one; without, it expects many rows of each.
ALTER TABLE {schema}.gatefeed_dependencies ALTER COLUMN partition_id SET STATISTICS 0,
    ALTER COLUMN item_id SET STATISTICS 0, ALTER COLUMN depends_on SET STATISTICS 0;

-- Settles the blocked items that depend on those that have changed, or, without any, all of the partition: available
-- once nothing that they name is open, failed or skipped once one of those has ended otherwise. What fails in turn has
-- its own dependents. The caller has the partition's row locked, FOR SHARE at least. Returns how many were settled.
CREATE FUNCTION {schema}.gatefeed_unblock(of_partition text, changed text[] DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql AS $gatefeed$
DECLARE
    pending text[] := changed;
    ended text[];
    found record;
    total bigint := 0;
BEGIN
    LOOP
        ended := '{}';
        -- OFFSET 0 keeps the lookups by key apart: of a partition that statistics do not know the planner expects one
        -- row, and would compare all of its rows with each other.
        FOR found IN
            SELECT c.id, coalesce(s.ended, s.passed) AS reason,
                CASE WHEN s.ended IS NOT NULL AND c.policy = 'skip' THEN 'cancelled'
                    WHEN coalesce(s.ended, s.passed) IS NOT NULL THEN 'failed'
                    WHEN NOT s.is_open THEN 'available' END AS status
            FROM (
                SELECT i.id, i.gate, i.on_dependency_failure AS policy FROM {schema}.gatefeed_items i
                WHERE pending IS NULL AND i.partition_id = of_partition AND i.status = 'blocked'
                UNION
                SELECT i.id, i.gate, i.policy FROM unnest(pending) AS c (id)
                CROSS JOIN LATERAL (SELECT d.item_id FROM {schema}.gatefeed_dependencies d
                    WHERE d.partition_id = of_partition AND d.depends_on = c.id OFFSET 0) d
                CROSS JOIN LATERAL (SELECT i.id, i.gate, i.on_dependency_failure AS policy, i.status
                    FROM {schema}.gatefeed_items i WHERE i.partition_id = of_partition AND i.id = d.item_id OFFSET 0) i
                WHERE i.status = 'blocked'
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
            ORDER BY c.id
        LOOP
            UPDATE {schema}.gatefeed_items i
            SET status = found.status, version = i.version + 1, updated_at = now(),
                error_messages = CASE WHEN found.reason IS NULL THEN i.error_messages
                    WHEN octet_length(i.error_messages) + octet_length(found.reason) < 8192
                    THEN i.error_messages || E'\n' || found.reason ELSE found.reason END
            WHERE i.partition_id = of_partition AND i.id = found.id;
            IF found.status = 'available' THEN
                UPDATE {schema}.gatefeed_items i SET data = parent.data, content_type = parent.content_type
                FROM (SELECT n.data, n.content_type FROM {schema}.gatefeed_dependencies d
                    JOIN {schema}.gatefeed_items n ON n.partition_id = of_partition AND n.id = d.depends_on
                    WHERE d.partition_id = of_partition AND d.item_id = found.id LIMIT 1) parent
                WHERE i.partition_id = of_partition AND i.id = found.id AND i.input = 'parent';
            ELSE
                ended := ended || found.id::text;
            END IF;
            total := total + 1;
        END LOOP;
        EXIT WHEN ended = '{}';
        pending := ended;
    END LOOP;
    RETURN total;
END $gatefeed$;

-- The cycle that these dependencies would close, as "a → b → a", or NULL. What depends on nothing of the rest is left
-- out until nothing can be, so that the cost is that of the graph's edges times its depth.
CREATE FUNCTION {schema}.gatefeed_cycle(of_partition text, from_items text[]) RETURNS text
    LANGUAGE plpgsql AS $gatefeed$
DECLARE
    heads text[];
    tails text[];
    rest integer;
    at text;
    path text[] := '{}';
BEGIN
    WITH RECURSIVE reached (item_id, depends_on) AS (
        SELECT d.item_id, d.depends_on FROM {schema}.gatefeed_dependencies d
        WHERE d.partition_id = of_partition AND d.item_id = ANY (from_items)
        UNION
        SELECT d.item_id, d.depends_on FROM reached r
        CROSS JOIN LATERAL (SELECT d.item_id, d.depends_on FROM {schema}.gatefeed_dependencies d
            WHERE d.partition_id = of_partition AND d.item_id = r.depends_on OFFSET 0) d
    )
    SELECT array_agg(r.item_id), array_agg(r.depends_on) INTO heads, tails FROM reached r;
    LOOP
        rest := cardinality(heads);
        SELECT array_agg(e.head), array_agg(e.tail) INTO heads, tails FROM unnest(heads, tails) AS e (head, tail)
            WHERE e.tail IN (SELECT h FROM unnest(heads) AS h) AND e.head IN (SELECT t FROM unnest(tails) AS t);
        IF heads IS NULL THEN
            RETURN NULL;
        END IF;
        EXIT WHEN cardinality(heads) = rest;
    END LOOP;
    at := heads[1];
    WHILE at <> ALL (path) LOOP
        path := path || at;
        at := tails[array_position(heads, at)];
    END LOOP;
    path := path[array_position(path, at):] || at;
    IF cardinality(path) > 20 THEN
        path := path[1:10] || '…'::text || path[cardinality(path) - 8:];
    END IF;
    RETURN (SELECT string_agg(left(p, 100), ' → ') FROM unnest(path) AS p);
END $gatefeed$;

-- After an INSERT of dependencies: refuses what could never come free, blocks their items, and wakes. The partition's
-- row is locked, so that two inserts cannot close a cycle together and no owner overlooks a dependent.
CREATE FUNCTION {schema}.gatefeed_dependencies_inserted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
DECLARE
    touched text[];
    bad record;
    woken record;
    closed text;
    own_xid bigint := pg_current_xact_id()::text::bigint;
    one text;
BEGIN
    SELECT array_agg(DISTINCT partition_id) INTO touched FROM inserted;
    IF touched IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM 1 FROM {schema}.gatefeed_partitions p WHERE p.id = ANY (touched) ORDER BY p.id FOR NO KEY UPDATE;
    -- Outside of READ COMMITTED a lock alone would let two old snapshots close a cycle: a change lets the second
    -- one fail with 40001.
    UPDATE {schema}.gatefeed_partitions p SET has_dependencies = true WHERE p.id = ANY (touched)
        AND (NOT p.has_dependencies
            OR current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted'));
    SELECT n.partition_id, n.item_id, n.depends_on, i.id IS NULL AS no_item, d.id IS NULL AS unknown,
            i.status, i.gate, d.gate AS dependency_gate,
            d.status IN ('available', 'waiting', 'blocked') AND d.gate > i.gate AS is_ahead
        INTO bad
        FROM inserted n
        LEFT JOIN LATERAL (SELECT i.id, i.status, i.gate, i.xmin FROM {schema}.gatefeed_items i
            WHERE i.partition_id = n.partition_id AND i.id = n.item_id OFFSET 0) i ON true
        LEFT JOIN LATERAL (SELECT d.id, d.status, d.gate FROM {schema}.gatefeed_items d
            WHERE d.partition_id = n.partition_id AND d.id = n.depends_on OFFSET 0) d ON true
        WHERE i.id IS NULL OR d.id IS NULL OR n.item_id = n.depends_on
            OR (d.status IN ('available', 'waiting', 'blocked') AND d.gate > i.gate)
            -- A blocked item is nobody's; an available one may be under way, unless this transaction has made it.
            -- (xmin has 32 bits: the nearest transaction to this one.)
            OR NOT (i.status = 'blocked' OR (i.status = 'available' AND coalesce(pg_xact_status((own_xid
                + ((i.xmin::text::bigint - own_xid + 6442450944) & 4294967295) - 2147483648)::text::xid8), '')
                = 'in progress'))
        ORDER BY n.partition_id, n.item_id, n.depends_on LIMIT 1;
    IF FOUND THEN
        one := format('%s → %s', left(bad.item_id, 100), left(bad.depends_on, 100));
        IF bad.no_item THEN
            RAISE EXCEPTION 'gatefeed: the item of a dependency does not exist: %', one
                USING ERRCODE = 'foreign_key_violation',
                HINT = 'Insert the item first, then its dependencies, in one transaction.';
        ELSIF bad.item_id = bad.depends_on THEN
            RAISE EXCEPTION 'gatefeed: an item depends on itself: %', one USING ERRCODE = 'check_violation';
        ELSIF bad.unknown THEN
            RAISE EXCEPTION 'gatefeed: an item depends on one that does not exist in its partition: %', one
                USING ERRCODE = 'foreign_key_violation', HINT = 'Insert that one first, or in the same transaction.';
        ELSIF bad.is_ahead THEN
            RAISE EXCEPTION 'gatefeed: an item depends on one of a higher gate, which is not reached before it is through: % (gate %) → % (gate %)',
                left(bad.item_id, 100), bad.gate, left(bad.depends_on, 100), bad.dependency_gate
                USING ERRCODE = 'check_violation';
        ELSE
            RAISE EXCEPTION 'gatefeed: an item that may be under way or through takes no more dependencies: %', one
                USING ERRCODE = 'check_violation', HINT = 'Insert dependencies in the transaction of their item.';
        END IF;
    END IF;
    SELECT n.item_id AS id INTO bad FROM inserted n
        CROSS JOIN LATERAL (SELECT i.input FROM {schema}.gatefeed_items i
            WHERE i.partition_id = n.partition_id AND i.id = n.item_id OFFSET 0) i
        WHERE i.input = 'parent' AND (SELECT count(*) FROM {schema}.gatefeed_dependencies d
            WHERE d.partition_id = n.partition_id AND d.item_id = n.item_id) > 1
        LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'gatefeed: an item with the input ''parent'' has more than one dependency: %', left(bad.id, 100)
            USING ERRCODE = 'check_violation';
    END IF;
    FOREACH one IN ARRAY touched LOOP
        -- A cycle leads through something that depends on one of these items.
        PERFORM 1 FROM inserted n CROSS JOIN LATERAL (SELECT 1 FROM {schema}.gatefeed_dependencies d
            WHERE d.partition_id = n.partition_id AND d.depends_on = n.item_id LIMIT 1) d
        WHERE n.partition_id = one LIMIT 1;
        IF FOUND THEN
            closed := {schema}.gatefeed_cycle(one,
                (SELECT array_agg(DISTINCT n.item_id) FROM inserted n WHERE n.partition_id = one));
            IF closed IS NOT NULL THEN
                RAISE EXCEPTION 'gatefeed: dependencies form a cycle: %', closed USING ERRCODE = 'check_violation';
            END IF;
        END IF;
    END LOOP;
    UPDATE {schema}.gatefeed_items u SET status = 'blocked' WHERE u.ctid = ANY (ARRAY(
        SELECT i.ctid FROM (SELECT DISTINCT n.partition_id, n.item_id FROM inserted n) n
        CROSS JOIN LATERAL (SELECT i.ctid, i.status FROM {schema}.gatefeed_items i
            WHERE i.partition_id = n.partition_id AND i.id = n.item_id OFFSET 0) i
        WHERE i.status = 'available'));
    FOREACH one IN ARRAY touched LOOP
        PERFORM {schema}.gatefeed_unblock(one,
            (SELECT array_agg(DISTINCT n.depends_on) FROM inserted n WHERE n.partition_id = one));
    END LOOP;
    FOR woken IN
        UPDATE {schema}.gatefeed_partitions p
        SET next_run_at = now(), status = 'available',
            version = CASE WHEN p.status = 'complete' THEN p.version + 1 ELSE p.version END, updated_at = now()
        WHERE p.id = ANY (touched)
            AND (p.status = 'complete' OR (p.status = 'available' AND (p.next_run_at IS NULL OR p.next_run_at > now())))
        RETURNING p.feed
    LOOP
        IF coalesce(current_setting('gatefeed.ours', true), '') <> 'on' THEN
            PERFORM pg_notify({channel}, woken.feed);
        END IF;
    END LOOP;
    RETURN NULL;
END $gatefeed$;

CREATE TRIGGER gatefeed_dependencies_inserted AFTER INSERT ON {schema}.gatefeed_dependencies
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT
    EXECUTE FUNCTION {schema}.gatefeed_dependencies_inserted();

-- What is delivered again (a retry, a rewind) waits for its dependencies again: those may be delivered again too. A
-- retry changes failed items only, so that dependencies that are complete stay so.
CREATE FUNCTION {schema}.gatefeed_item_reopened() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
BEGIN
    PERFORM 1 FROM {schema}.gatefeed_dependencies d
        CROSS JOIN LATERAL (SELECT n.status FROM {schema}.gatefeed_items n
            WHERE n.partition_id = d.partition_id AND n.id = d.depends_on OFFSET 0) n
        WHERE d.partition_id = NEW.partition_id AND d.item_id = NEW.id
            AND (OLD.status <> 'failed' OR n.status <> 'complete')
        LIMIT 1;
    IF FOUND THEN
        UPDATE {schema}.gatefeed_items i SET status = 'blocked'
        WHERE i.partition_id = NEW.partition_id AND i.id = NEW.id AND i.status = 'available';
        -- The owner settles it; an UPDATE by hand wakes as one of an available item does.
        UPDATE {schema}.gatefeed_partitions p
        SET next_run_at = now(), status = 'available',
            version = CASE WHEN p.status = 'complete' THEN p.version + 1 ELSE p.version END
        WHERE p.id = NEW.partition_id
            AND (p.status = 'complete' OR (p.status = 'available' AND (p.next_run_at IS NULL OR p.next_run_at > now())));
    END IF;
    RETURN NULL;
END $gatefeed$;

-- AFTER, since a BEFORE trigger makes every UPDATE of the table lock each row once more.
CREATE TRIGGER gatefeed_item_reopened AFTER UPDATE OF status ON {schema}.gatefeed_items
    FOR EACH ROW WHEN (NEW.status = 'available' AND OLD.status IN ('complete', 'failed', 'cancelled'))
    EXECUTE FUNCTION {schema}.gatefeed_item_reopened();

CREATE FUNCTION {schema}.gatefeed_dependencies_dropped() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
BEGIN
    DELETE FROM {schema}.gatefeed_dependencies WHERE partition_id = OLD.id;
    RETURN NULL;
END $gatefeed$;

CREATE TRIGGER gatefeed_dependencies_dropped AFTER DELETE ON {schema}.gatefeed_partitions
    FOR EACH ROW WHEN (OLD.has_dependencies) EXECUTE FUNCTION {schema}.gatefeed_dependencies_dropped();

-- An item of the same name that comes later is another one.
CREATE FUNCTION {schema}.gatefeed_items_deleted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
BEGIN
    -- Those of a partition that is deleted itself are gone already.
    PERFORM 1 FROM (SELECT DISTINCT o.partition_id FROM deleted o) o
        JOIN {schema}.gatefeed_partitions p ON p.id = o.partition_id WHERE p.has_dependencies LIMIT 1;
    IF FOUND THEN
        DELETE FROM {schema}.gatefeed_dependencies d USING deleted o
            WHERE d.partition_id = o.partition_id AND d.item_id = o.id;
    END IF;
    RETURN NULL;
END $gatefeed$;

CREATE TRIGGER gatefeed_items_deleted AFTER DELETE ON {schema}.gatefeed_items
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION {schema}.gatefeed_items_deleted();

CREATE FUNCTION {schema}.gatefeed_dependencies_truncated() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
BEGIN
    DELETE FROM {schema}.gatefeed_dependencies;
    RETURN NULL;
END $gatefeed$;

CREATE TRIGGER gatefeed_dependencies_truncated AFTER TRUNCATE ON {schema}.gatefeed_partitions
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.gatefeed_dependencies_truncated();

CREATE FUNCTION {schema}.gatefeed_dependency_kept() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $gatefeed$
BEGIN
    IF TG_OP = 'DELETE' AND NOT EXISTS (
        SELECT 1 FROM {schema}.gatefeed_partitions p JOIN {schema}.gatefeed_items i ON i.partition_id = p.id
        WHERE p.id = OLD.partition_id AND i.id = OLD.item_id
    ) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'gatefeed: dependencies cannot change' USING ERRCODE = 'check_violation',
        HINT = 'They go with their item.';
END $gatefeed$;

CREATE TRIGGER gatefeed_dependency_kept BEFORE UPDATE OR DELETE ON {schema}.gatefeed_dependencies
    FOR EACH ROW EXECUTE FUNCTION {schema}.gatefeed_dependency_kept();
