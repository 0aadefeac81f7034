//! Writing outcomes.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::HashSet;
use gatefeed_core::{
    Result, StoreError,
    item::NewItem,
    lease::Lease,
    outcome::{Completion, Settled},
};
use sqlx::Executor;

use super::{
    Postgres,
    batch::{AT_ONCE, AT_ONCE_PLAIN, Batch, CHANGE, DONE, LOOK, Row, bind_change},
    error::translate,
    pool::{Lane, Tx},
    rows::{at, get},
    wake::Hint,
};
use crate::unsettled::Left;

/// How long a lock is waited for: an item's row, or the partition of a child. One completer serves all
/// partitions, so that what is locked for longer is written later; and a suspect item is noted again later.
const LOCK_WAIT: Duration = Duration::from_millis(100);

/// Looked at in each batch, since somebody else may give a partition its first dependency or close what it nests.
const LINKED: &str = "SELECT l.* FROM (SELECT p.id, p.has_dependencies,
            (SELECT true FROM {schema}.gatefeed_closed c
             WHERE c.parent_partition_id = p.id AND NOT c.applied LIMIT 1) IS NOT NULL AS has_notes
        FROM {schema}.gatefeed_partitions p WHERE p.id = ANY ($1)) l
    WHERE l.has_dependencies OR l.has_notes";

/// Partitions whose notes are applied with one batch of outcomes, at the most: the rest waits for the next, or for the
/// checkpoint.
const CLOSED_MAX: usize = 100;

const QUEUE: &str = "SELECT 1 FROM {schema}.gatefeed_partitions p WHERE p.id = $1 FOR SHARE OF p";

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
        if batch.is_simple()
            && let Some(settled) = self.write_at_once(&batch, completions.len()).await?
        {
            self.stalled.note(&batch.leases.ids, &[], Instant::now());
            return Ok(settled);
        }
        self.write_in_steps(&batch, completions).await
    }

    /// In one statement, which is a transaction by itself; or not at all (`None`), if there is more to it: a lease that is
    /// not current, a row that somebody has locked, dependencies, notes of nested partitions.
    async fn write_at_once(&self, batch: &Batch<'_>, size: usize) -> Result<Option<Vec<Settled>>> {
        let mut tx = self.begin_single(Lane::Complete, self.write_limit(), LOCK_WAIT).await?;
        let rows: Vec<&Row> = batch.rows.iter().collect();
        let query = match batch.is_plain() {
            true => batch.bind(tx.query(self.sql.get(AT_ONCE_PLAIN)), &rows),
            false => bind_change(batch.bind(tx.query(self.sql.get(AT_ONCE)), &rows), &rows),
        };
        let row = query.fetch_one(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        let (is_whole, is_complete): (bool, bool) = (at(&row, 0)?, at(&row, 1)?);
        if !is_whole {
            return Ok(None);
        }
        let mut settled = vec![Settled::Stale; size];
        match is_complete {
            true => rows.iter().for_each(|row| settled[row.place] = Settled::Written),
            false => {
                for number in at::<Option<Vec<i64>>>(&row, 2)?.unwrap_or_default() {
                    settled[rows[number as usize - 1].place] = Settled::Written;
                }
            }
        }
        Ok(Some(settled))
    }

    async fn write_in_steps(&self, batch: &Batch<'_>, completions: &[Completion]) -> Result<Vec<Settled>> {
        let mut tx = self.begin_with_lock_wait(Lane::Complete, self.write_limit(), LOCK_WAIT).await?;
        if let Some(partition) = self.stalled.next(&batch.leases.ids, Instant::now()) {
            self.queue_for(&mut tx, partition).await?;
        }
        let written = self.update_items(&mut tx, batch).await?;
        let settled = match written == completions.len() as u64 {
            true => vec![Settled::Written; completions.len()],
            false => self.settle(&mut tx, batch, completions.len()).await?,
        };
        let busy = completions.iter().zip(&settled).filter(|(_, settled)| **settled == Settled::Busy);
        let busy: Vec<&str> = busy.map(|(completion, _)| &*completion.lease.partition).collect();
        self.stalled.note(&batch.leases.ids, &busy, Instant::now());
        let written = completions.iter().zip(&settled).filter(|(_, settled)| **settled == Settled::Written);
        let written: Vec<&Completion> = written.map(|(completion, _)| completion).collect();
        self.keep_history(&mut tx, written.iter().copied()).await?;
        let feeds = self.add_children(&mut tx, written.clone()).await?;
        let linked = self.linked(&mut tx, batch).await?;
        let has = |c: &&Completion, of: &HashSet<Arc<str>>| of.contains(&c.lease.partition);
        let noted: BTreeSet<&str> =
            written.iter().filter(|c| has(c, &linked.noted)).map(|c| &*c.lease.partition).collect();
        let dependent = written.iter().copied().filter(|c| has(c, &linked.dependent));
        let mut left = self.unblock_in_time(&mut tx, dependent.collect()).await?;
        for partition in noted {
            let rest = self.settle_nested(&mut tx, partition, CLOSED_MAX).await?;
            left.extend(rest.map(|rest| (partition.to_owned(), rest)));
        }
        tx.commit().await?;
        self.settle_soon(left);
        self.announce_soon(feeds.into_iter().map(Hint::Due).collect());
        Ok(settled)
    }

    /// As [`Self::unblock_dependents`]; what takes longer than a short lease allows is left.
    async fn unblock_in_time(&self, tx: &mut Tx, written: Vec<&Completion>) -> Result<Left> {
        if written.is_empty() {
            return Ok(Vec::new());
        }
        tx.conn()?.execute("SAVEPOINT unblock").await.map_err(translate)?;
        match self.unblock_dependents(tx, written.iter().copied()).await {
            Err(StoreError::Unavailable(why)) => {
                tx.conn()?.execute("ROLLBACK TO SAVEPOINT unblock").await.map_err(translate)?;
                tracing::debug!(why, "dependents come free after their outcomes");
                Ok(written
                    .iter()
                    .map(|c| (c.lease.partition.to_string(), vec![c.item.to_string()]))
                    .collect())
            }
            settled => settled,
        }
    }

    /// Waits for a partition's lock, in turn; in vain is no error.
    async fn queue_for(&self, tx: &mut Tx, partition: &str) -> Result<()> {
        tx.conn()?.execute("SAVEPOINT queue").await.map_err(translate)?;
        let queue = tx.query(self.sql.get(QUEUE)).bind(partition).execute(tx.conn()?).await;
        match queue.map_err(translate) {
            Err(StoreError::Locked(_)) => {
                tx.conn()?.execute("ROLLBACK TO SAVEPOINT queue").await.map_err(translate)?;
                Ok(())
            }
            queued => queued.map(|_| ()),
        }
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
            return Ok(feeds.into_iter().collect());
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
        let mut tx = self.begin_with_lock_wait(Lane::Work, self.write_limit(), LOCK_WAIT).await?;
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
