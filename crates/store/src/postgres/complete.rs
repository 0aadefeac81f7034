//! Writing outcomes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use gatefeed_core::{
    Result,
    item::NewItem,
    lease::Lease,
    outcome::{Completion, Settled},
};
use sqlx::{Postgres as Pg, postgres::PgArguments, query::Query};

use super::{
    Postgres,
    claim::micros,
    error::translate,
    pool::{Lane, Tx},
    rows::{LeaseArrays, at, get},
    wake::Hint,
};

/// How long a lock is waited for: an item's row, or the partition of a child. One completer serves all
/// partitions, so that what is locked for longer is written later.
const LOCK_WAIT: Duration = Duration::from_millis(100);

/// The leases of the batch that are current, their rows locked first (FOR SHARE: with KEY SHARE or no lock, a steal that
/// has committed meanwhile goes unseen); then the items are matched by version. SKIP LOCKED, since somebody's open
/// transaction on one partition must not hold up the outcomes of the others.
macro_rules! fenced {
    ($update:literal) => {
        concat!(
            "WITH fence AS MATERIALIZED (
                SELECT p.id, l.number FROM {schema}.gatefeed_partitions p
                JOIN unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) WITH ORDINALITY
                    AS l (id, owner, lease_id, epoch, number)
                    ON p.id = l.id AND p.owner = l.owner AND p.lease_id = l.lease_id AND p.epoch = l.epoch
                ORDER BY p.id FOR SHARE OF p SKIP LOCKED
            )
            UPDATE {schema}.gatefeed_items i SET suspect_count = 0, version = i.version + 1, updated_at = now(), ",
            $update,
            " JOIN fence f ON f.number = o.lease
            WHERE i.partition_id = f.id AND i.id = o.id AND i.version = o.version"
        )
    };
}

/// Most outcomes are plain: the item is through, and that is all. This costs what a bare UPDATE costs; the arrays of
/// [`CHANGE`] cost more (docs/decisions/0007-counted-outcomes.md).
pub(super) const DONE: &str = fenced!(
    "status = 'complete', pass = least(i.pass, 2147483646) + 1
    FROM unnest($5::bigint[], $6::text[], $7::bigint[]) AS o (lease, id, version)"
);

/// All others. The one outcome that an owner writes to an item that waits is that it has waited for too long.
pub(super) const CHANGE: &str = fenced!(
    "status = o.status, gate = o.gate, pass = o.pass, retry_count = o.retry_count,
        available_at = CASE WHEN o.delay IS NULL THEN i.available_at
            ELSE clock_timestamp() + o.delay * interval '1 microsecond' END,
        data = CASE WHEN o.content_type IS NULL THEN i.data ELSE o.data END,
        content_type = coalesce(o.content_type, i.content_type),
        error_messages = coalesce(o.error_messages, i.error_messages),
        waiting_until = clock_timestamp() + o.wait * interval '1 microsecond',
        expired_version = CASE WHEN i.status = 'waiting' THEN i.version - 1 ELSE i.expired_version END
    FROM unnest($5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::int[], $10::int[], $11::int[], $12::bigint[],
                $13::bytea[], $14::text[], $15::text[], $16::bigint[])
        AS o (lease, id, version, status, gate, pass, retry_count, delay, data, content_type, error_messages, wait)"
);

/// What became of each, for a batch of which something was not written: whether its lease is current, whether this
/// transaction wrote it from the version that was delivered, and whether it is as it was.
pub(super) const LOOK: &str =
    "SELECT o.number, p.id IS NOT NULL,
        i.version IS NOT DISTINCT FROM o.version + 1 AND i.xmin IS NOT DISTINCT FROM pg_current_xact_id()::xid,
        i.version IS NOT DISTINCT FROM o.version
    FROM unnest($5::bigint[], $6::text[], $7::bigint[]) WITH ORDINALITY AS o (lease, id, version, number)
    JOIN unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) WITH ORDINALITY
        AS l (id, owner, lease_id, epoch, number) ON l.number = o.lease
    LEFT JOIN {schema}.gatefeed_partitions p
        ON p.id = l.id AND p.owner = l.owner AND p.lease_id = l.lease_id AND p.epoch = l.epoch
    LEFT JOIN {schema}.gatefeed_items i ON i.partition_id = l.id AND i.id = o.id";

/// Looked at in each batch, since somebody else may give a partition its first dependency or close what it nests.
const LINKED: &str = "SELECT l.* FROM (SELECT p.id, p.has_dependencies,
            (SELECT true FROM {schema}.gatefeed_closed c
             WHERE c.parent_partition_id = p.id AND NOT c.applied LIMIT 1) IS NOT NULL AS has_notes
        FROM {schema}.gatefeed_partitions p WHERE p.id = ANY ($1)) l
    WHERE l.has_dependencies OR l.has_notes";

/// Partitions whose notes are applied with one batch of outcomes, at the most: the rest waits for the next, or for the
/// checkpoint.
const CLOSED_MAX: usize = 100;

const SUSPECT: &str = "WITH fence AS MATERIALIZED (
        SELECT p.id FROM {schema}.gatefeed_partitions p
        WHERE p.id = $1 AND p.owner = $2 AND p.lease_id = $3 AND p.epoch = $4 FOR SHARE OF p
    )
    UPDATE {schema}.gatefeed_items i
    SET suspect_count = i.suspect_count + 1, version = i.version + 1, updated_at = now()
    FROM fence f WHERE i.partition_id = f.id AND i.id = $5 AND i.version = $6 AND i.status = 'available'
    RETURNING i.version";

const WITHDRAW: &str = "WITH fence AS MATERIALIZED (
        SELECT p.id FROM {schema}.gatefeed_partitions p
        WHERE p.id = $1 AND p.owner = $2 AND p.lease_id = $3 AND p.epoch = $4 FOR SHARE OF p
    )
    UPDATE {schema}.gatefeed_items i
    SET suspect_count = greatest(i.suspect_count - 1, 0), version = i.version + 1, updated_at = now()
    FROM fence f WHERE i.partition_id = f.id AND i.id = $5 AND i.version = $6 AND i.status = 'available'
    RETURNING i.version";

impl Postgres {
    pub(super) async fn write_outcomes(&self, completions: &[Completion]) -> Result<Vec<Settled>> {
        let batch = Batch::of(completions);
        let mut tx = self.begin_with_lock_wait(Lane::Complete, self.write_limit(), LOCK_WAIT).await?;
        let written = self.update_items(&mut tx, &batch).await?;
        let settled = match written == completions.len() as u64 {
            true => vec![Settled::Written; completions.len()],
            false => self.settle(&mut tx, &batch, completions.len()).await?,
        };
        let written = completions.iter().zip(&settled).filter(|(_, settled)| **settled == Settled::Written);
        let written: Vec<&Completion> = written.map(|(completion, _)| completion).collect();
        self.keep_history(&mut tx, written.iter().copied()).await?;
        let feeds = self.add_children(&mut tx, written.clone()).await?;
        let linked = self.linked(&mut tx, &batch).await?;
        let has = |c: &&Completion, of: &HashSet<Arc<str>>| of.contains(&c.lease.partition);
        let noted: BTreeSet<&str> =
            written.iter().filter(|c| has(c, &linked.noted)).map(|c| &*c.lease.partition).collect();
        let dependent = written.iter().copied().filter(|c| has(c, &linked.dependent));
        let unsettled = self.unblock_dependents(&mut tx, dependent).await?;
        for partition in noted {
            self.settle_nested(&mut tx, partition, CLOSED_MAX).await?;
        }
        tx.commit().await?;
        unsettled.into_iter().for_each(|(partition, left)| self.unsettled.note(&partition, left));
        self.announce(feeds.into_iter().map(Hint::Due).collect()).await;
        Ok(settled)
    }

    /// Returns how many were written.
    async fn update_items(&self, tx: &mut Tx, batch: &Batch<'_>) -> Result<u64> {
        let mut written = 0;
        let (plain, others): (Vec<&Row>, Vec<&Row>) =
            batch.rows.iter().partition(|row| row.completion.change.is_plain());
        if !plain.is_empty() {
            let query = batch.bind(tx.query(self.sql.get(DONE)), &plain);
            written += query.execute(tx.conn()?).await.map_err(translate)?.rows_affected();
        }
        if !others.is_empty() {
            let query = bind_change(batch.bind(tx.query(self.sql.get(CHANGE)), &others), &others);
            written += query.execute(tx.conn()?).await.map_err(translate)?.rows_affected();
        }
        Ok(written)
    }

    /// Tells written, stale, fenced and busy apart, in a transaction that did not write all of a batch of this size. What
    /// could have been written and was not had its lease's row locked by somebody.
    async fn settle(&self, tx: &mut Tx, batch: &Batch<'_>, size: usize) -> Result<Vec<Settled>> {
        let rows: Vec<&Row> = batch.rows.iter().collect();
        let query = batch.bind(tx.query(self.sql.get(LOOK)), &rows);
        let mut settled = vec![Settled::Stale; size];
        for seen in query.fetch_all(tx.conn()?).await.map_err(translate)? {
            let (is_current, is_written, is_as_it_was) = (at(&seen, 1)?, at(&seen, 2)?, at(&seen, 3)?);
            settled[rows[at::<i64>(&seen, 0)? as usize - 1].place] =
                match (is_current, is_written, is_as_it_was) {
                    (false, _, _) => Settled::Fenced,
                    (_, true, _) => Settled::Written,
                    (_, _, true) => Settled::Busy,
                    (_, _, false) => Settled::Stale,
                };
        }
        Ok(settled)
    }

    /// What the partitions of a batch need beyond: seen under the locks that the outcomes took.
    async fn linked(&self, tx: &mut Tx, batch: &Batch<'_>) -> Result<Linked> {
        let query = tx.query(self.sql.get(LINKED)).bind(&batch.leases.ids);
        let mut linked = Linked::default();
        for row in query.fetch_all(tx.conn()?).await.map_err(translate)? {
            let id: Arc<str> = at::<&str>(&row, 0)?.into();
            if at(&row, 1)? {
                linked.dependent.insert(id.clone());
            }
            if at(&row, 2)? {
                linked.noted.insert(id);
            }
        }
        Ok(linked)
    }

    /// Children join their parents' transaction, and only those of parents that were written. Returns the
    /// feeds that may have something new.
    pub(super) async fn add_children(
        &self,
        tx: &mut Tx,
        mut parents: Vec<&Completion>,
    ) -> Result<Vec<String>> {
        let mut feeds = self.add_nested(tx, &parents).await?;
        parents.retain(|parent| !parent.children.is_empty());
        let children: Vec<&NewItem> = parents.iter().flat_map(|parent| &parent.children).collect();
        if children.is_empty() {
            return Ok(Vec::new());
        }
        let partitions =
            parents.iter().flat_map(|c| c.children.iter().map(|i| (i.partition.as_str(), c.feed.as_ref())));
        self.inserter(tx)?.partitions(partitions.collect()).await?;
        self.inserter(tx)?.items(&children).await?;
        feeds.extend(parents.iter().map(|parent| parent.feed.to_string()));
        Ok(feeds.into_iter().collect())
    }

    pub(super) async fn note_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<Option<i64>> {
        self.change_suspect(SUSPECT, lease, item, version).await
    }

    pub(super) async fn unnote_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<()> {
        self.change_suspect(WITHDRAW, lease, item, version).await.map(|_| ())
    }

    async fn change_suspect(
        &self,
        sql: &'static str,
        lease: &Lease,
        item: &str,
        version: i64,
    ) -> Result<Option<i64>> {
        let mut tx = self.begin(Lane::Work, self.write_limit()).await?;
        let query = tx.query(self.sql.get(sql)).bind(lease.partition.as_ref()).bind(lease.owner.as_ref());
        let query = query.bind(lease.lease_id).bind(lease.epoch).bind(item).bind(version);
        let row = query.fetch_optional(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        row.map(|row| get(&row, "version")).transpose()
    }
}

/// Partitions with dependencies, and those that something nested in has closed.
#[derive(Default)]
struct Linked {
    dependent: HashSet<Arc<str>>,
    noted: HashSet<Arc<str>>,
}

/// A batch as the statements take it.
struct Batch<'a> {
    /// Each once.
    leases: LeaseArrays,
    /// An item that is there twice, only the first time: the other is stale.
    rows: Vec<Row<'a>>,
}

struct Row<'a> {
    completion: &'a Completion,
    /// Where it stands in the batch.
    place: usize,
    /// Its lease's, from 1: one partition can be in a batch under two leases, of which one is over.
    lease: i64,
}

impl<'a> Batch<'a> {
    fn of(completions: &'a [Completion]) -> Self {
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

    /// What all statements take.
    fn bind<'q>(
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

/// What [`CHANGE`] takes beyond that.
fn bind_change<'q>(query: Query<'q, Pg, PgArguments>, rows: &[&Row<'q>]) -> Query<'q, Pg, PgArguments> {
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
