//! A batch of outcomes, as the statements take it.

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use gatefeed_core::{lease::Lease, outcome::Completion};
use sqlx::{Postgres as Pg, postgres::PgArguments, query::Query};

use super::{claim::micros, rows::LeaseArrays};

/// The leases of a batch, and whether they are current: the partitions' rows are locked first (FOR SHARE: with KEY SHARE
/// or no lock, a steal that has committed meanwhile goes unseen); then the items are matched by version. SKIP LOCKED,
/// since somebody's open transaction on one partition must not hold up the outcomes of the others.
macro_rules! fence {
    ($columns:literal) => {
        concat!(
            "WITH fence AS MATERIALIZED (
                SELECT p.id, l.number",
            $columns,
            " FROM {schema}.gatefeed_partitions p
                JOIN unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) WITH ORDINALITY
                    AS l (id, owner, lease_id, epoch, number)
                    ON p.id = l.id AND p.owner = l.owner AND p.lease_id = l.lease_id AND p.epoch = l.epoch
                ORDER BY p.id FOR SHARE OF p SKIP LOCKED
            )"
        )
    };
}

macro_rules! update {
    ($change:expr, $more:expr) => {
        concat!(
            " UPDATE {schema}.gatefeed_items i SET suspect_count = 0, version = i.version + 1, updated_at = now(), ",
            $change,
            " JOIN fence f ON f.number = o.lease
            WHERE i.partition_id = f.id AND i.id = o.id AND i.version = o.version",
            $more
        )
    };
}

/// Most outcomes are plain: the item is through, and that is all. This costs what a bare UPDATE costs; the arrays of
/// other changes cost more (docs/decisions/0007-counted-outcomes.md).
macro_rules! done {
    () => {
        "status = 'complete', pass = least(i.pass, 2147483646) + 1
        FROM unnest($5::bigint[], $6::text[], $7::bigint[]) WITH ORDINALITY AS o (lease, id, version, number)"
    };
}

/// An item that waits, and whose time a heartbeat has extended meanwhile, has not waited for too long.
macro_rules! is_not_extended {
    () => {
        "(i.status <> 'waiting' OR coalesce(i.waiting_until <= clock_timestamp(), true))"
    };
}

/// Any change. The one outcome that an owner writes to an item that waits is that it has waited for too long; its gate and
/// pass are as they are then, whoever may have changed them.
macro_rules! change {
    () => {
        "status = o.status, gate = CASE WHEN i.status = 'waiting' THEN i.gate ELSE o.gate END,
            pass = CASE WHEN i.status = 'waiting' THEN i.pass ELSE o.pass END, retry_count = o.retry_count,
            available_at = CASE WHEN o.delay IS NULL THEN i.available_at
                ELSE clock_timestamp() + o.delay * interval '1 microsecond' END,
            data = CASE WHEN o.content_type IS NULL THEN i.data ELSE o.data END,
            content_type = coalesce(o.content_type, i.content_type),
            error_messages = coalesce(o.error_messages, i.error_messages),
            waiting_until = clock_timestamp() + o.wait * interval '1 microsecond',
            expired_version = CASE WHEN i.status = 'waiting' THEN i.version - 1 ELSE i.expired_version END
        FROM unnest($5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::int[], $10::int[], $11::int[],
                    $12::bigint[], $13::bytea[], $14::text[], $15::text[], $16::bigint[]) WITH ORDINALITY
            AS o (lease, id, version, status, gate, pass, retry_count, delay, data, content_type, error_messages, wait,
                number)"
    };
}

/// Writes all of a batch that can be written, or nothing. A dependency that somebody gives a partition is seen under the
/// lock; a note of a nested partition that comes later is applied with the next batch or at the checkpoint.
macro_rules! at_once {
    ($change:expr, $more:expr) => {
        concat!(
            fence!(
                ", p.has_dependencies OR (SELECT true FROM {schema}.gatefeed_closed c
                    WHERE c.parent_partition_id = p.id AND NOT c.applied LIMIT 1) IS NOT NULL AS is_linked"
            ),
            ", whole AS MATERIALIZED (
                SELECT count(*) = cardinality($1) AND NOT coalesce(bool_or(is_linked), false) AS yes FROM fence
            ), written AS (",
            update!($change, concat!($more, " AND (SELECT w.yes FROM whole w) RETURNING o.number")),
            ") SELECT (SELECT w.yes FROM whole w), count(*) = cardinality($5),
                CASE WHEN count(*) < cardinality($5) THEN array_agg(d.number) END
            FROM written d"
        )
    };
}

/// Of plain outcomes: whether all leases are current and nothing hangs on the items, whether all were written, and if not,
/// which.
pub(super) const AT_ONCE_PLAIN: &str = at_once!(done!(), "");

/// The same of any.
pub(super) const AT_ONCE: &str = at_once!(change!(), concat!(" AND ", is_not_extended!()));

/// What of a batch can be written, among other steps of a transaction: plain outcomes …
pub(super) const DONE: &str = concat!(fence!(""), update!(done!(), ""));

/// … and all others.
pub(super) const CHANGE: &str = concat!(fence!(""), update!(change!(), concat!(" AND ", is_not_extended!())));

/// What became of each, for a batch of which something was not written: whether its lease is current, whether this
/// transaction wrote it from the version that was delivered, and whether it is as it was.
pub(super) const LOOK: &str = concat!(
    "SELECT o.number, p.id IS NOT NULL,
        i.version IS NOT DISTINCT FROM o.version + 1 AND i.xmin IS NOT DISTINCT FROM pg_current_xact_id()::xid,
        i.version IS NOT DISTINCT FROM o.version AND ",
    is_not_extended!(),
    " FROM unnest($5::bigint[], $6::text[], $7::bigint[]) WITH ORDINALITY AS o (lease, id, version, number)
    JOIN unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) WITH ORDINALITY
        AS l (id, owner, lease_id, epoch, number) ON l.number = o.lease
    LEFT JOIN {schema}.gatefeed_partitions p
        ON p.id = l.id AND p.owner = l.owner AND p.lease_id = l.lease_id AND p.epoch = l.epoch
    LEFT JOIN {schema}.gatefeed_items i ON i.partition_id = l.id AND i.id = o.id"
);

/// A batch.
pub(super) struct Batch<'a> {
    /// Each once.
    pub(super) leases: LeaseArrays,
    /// An item that is there twice, only the first time: the other is stale.
    pub(super) rows: Vec<Row<'a>>,
}

/// An outcome.
pub(super) struct Row<'a> {
    pub(super) completion: &'a Completion,
    /// Where it stands in the batch.
    pub(super) place: usize,
    /// Its lease's, from 1: one partition can be in a batch under two leases, of which one is over.
    lease: i64,
}

impl<'a> Batch<'a> {
    pub(super) fn of(completions: &'a [Completion]) -> Self {
        let mut numbers: HashMap<&Lease, i64> = HashMap::new();
        let mut leases = Vec::new();
        let mut seen = HashSet::with_capacity(completions.len());
        let mut rows = Vec::with_capacity(completions.len());
        for (place, completion) in completions.iter().enumerate() {
            let lease = *numbers.entry(&completion.lease).or_insert_with(|| {
                leases.push(completion.lease.as_ref());
                leases.len() as i64
            });
            if seen.insert((lease, &*completion.item, completion.version)) {
                rows.push(Row { completion, place, lease });
            }
        }
        Self { leases: LeaseArrays::new(leases.into_iter()), rows }
    }

    /// Whether there is nothing to add to the items' rows.
    pub(super) fn is_simple(&self) -> bool {
        let is_alone = |c: &Completion| c.children.is_empty() && c.nested.is_empty() && c.kept.is_none();
        self.rows.iter().all(|row| is_alone(row.completion))
    }

    /// Whether all changes are plain.
    pub(super) fn is_plain(&self) -> bool {
        self.rows.iter().all(|row| row.completion.change.is_plain())
    }

    /// What all statements take.
    pub(super) fn bind<'q>(
        &'q self,
        query: Query<'q, Pg, PgArguments>,
        rows: &[&Row<'q>],
    ) -> Query<'q, Pg, PgArguments> {
        let LeaseArrays { ids, owners, lease_ids, epochs } = &self.leases;
        let query = query.bind(ids).bind(owners).bind(lease_ids).bind(epochs);
        let query = query.bind(rows.iter().map(|row| row.lease).collect::<Vec<_>>());
        let query = query.bind(rows.iter().map(|row| &*row.completion.item).collect::<Vec<_>>());
        query.bind(rows.iter().map(|row| row.completion.version).collect::<Vec<_>>())
    }
}

/// What those take beyond that which can write any change.
pub(super) fn bind_change<'q>(
    query: Query<'q, Pg, PgArguments>,
    rows: &[&Row<'q>],
) -> Query<'q, Pg, PgArguments> {
    let all = || rows.iter().map(|row| &row.completion.change);
    let query = query.bind(all().map(|change| change.status.as_str()).collect::<Vec<_>>());
    let query = query.bind(all().map(|change| change.gate).collect::<Vec<_>>());
    let query = query.bind(all().map(|change| change.pass).collect::<Vec<_>>());
    let query = query.bind(all().map(|change| change.retry_count).collect::<Vec<_>>());
    let query = query.bind(all().map(|change| change.delay.map(micros)).collect::<Vec<_>>());
    let data = || all().map(|change| change.data.as_ref());
    let query = query.bind(data().map(|data| data.map(|data| &data.bytes[..])).collect::<Vec<_>>());
    let query =
        query.bind(data().map(|data| data.map(|data| data.content_type.as_str())).collect::<Vec<_>>());
    let query = query.bind(all().map(|change| change.error_messages.as_deref()).collect::<Vec<_>>());
    query.bind(all().map(|change| change.wait.map(micros)).collect::<Vec<_>>())
}
