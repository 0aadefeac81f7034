//! Writing outcomes.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use gatefeed_core::{
    Result,
    item::NewItem,
    lease::Lease,
    outcome::{Completion, Settled},
};
use sqlx::Row;

use super::{
    Postgres,
    claim::micros,
    error::translate,
    pool::{Lane, Tx},
    rows::{LeaseArrays, get},
    wake::Hint,
};

/// How long a lock is waited for: an item's row, or the partition of a child. One completer serves all
/// partitions, so that what is locked for longer is written later.
const LOCK_WAIT: Duration = Duration::from_millis(100);

/// The fence locks first (FOR SHARE: with KEY SHARE or no lock, a steal that has committed meanwhile goes
/// unseen), then the items are matched by version. SKIP LOCKED, since somebody's open transaction on one partition
/// must not hold up the outcomes of the others.
const COMPLETE: &str = "WITH fence AS MATERIALIZED (
        SELECT p.id, l.number, p.has_dependencies FROM {schema}.gatefeed_partitions p
        JOIN unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) WITH ORDINALITY
            AS l (id, owner, lease_id, epoch, number)
            ON p.id = l.id AND p.owner = l.owner AND p.lease_id = l.lease_id AND p.epoch = l.epoch
        ORDER BY p.id FOR SHARE OF p SKIP LOCKED
    ), written AS (
    UPDATE {schema}.gatefeed_items i
    SET status = o.status, gate = o.gate, pass = o.pass, retry_count = o.retry_count, suspect_count = 0,
        available_at = CASE WHEN o.delay IS NULL THEN i.available_at
            ELSE clock_timestamp() + o.delay * interval '1 microsecond' END,
        data = CASE WHEN o.content_type IS NULL THEN i.data ELSE o.data END,
        content_type = coalesce(o.content_type, i.content_type),
        error_messages = coalesce(o.error_messages, i.error_messages),
        version = i.version + 1, updated_at = now()
    FROM unnest($5::text[], $6::text[], $7::bigint[], $8::text[], $9::int[], $10::int[], $11::int[], $12::bigint[],
                $13::bytea[], $14::text[], $15::text[], $16::bigint[]) WITH ORDINALITY
        AS o (partition_id, id, version, status, gate, pass, retry_count, delay, data, content_type,
              error_messages, lease, number)
    JOIN fence f ON f.id = o.partition_id AND f.number = o.lease
    WHERE i.partition_id = o.partition_id AND i.id = o.id AND i.version = o.version
    RETURNING o.number)
    SELECT number, NULL AS lease, false AS linked FROM written
    UNION ALL SELECT NULL, number, has_dependencies FROM fence";

/// What the statement did.
#[derive(Default)]
struct Effect<'a> {
    /// The places in the batch of those that were written.
    written: HashSet<usize>,
    /// The leases that were current, their rows locked.
    fenced: HashSet<&'a Lease>,
    /// Those of them whose partitions have dependencies.
    linked: HashSet<&'a Lease>,
}

const SUSPECT: &str = "WITH fence AS MATERIALIZED (
        SELECT p.id FROM {schema}.gatefeed_partitions p
        WHERE p.id = $1 AND p.owner = $2 AND p.lease_id = $3 AND p.epoch = $4 FOR SHARE OF p
    )
    UPDATE {schema}.gatefeed_items i
    SET suspect_count = i.suspect_count + 1, version = i.version + 1, updated_at = now()
    FROM fence f WHERE i.partition_id = f.id AND i.id = $5 AND i.version = $6 AND i.status = 'available'
    RETURNING i.version";

impl Postgres {
    pub(super) async fn write_outcomes(&self, completions: &[Completion]) -> Result<Vec<Settled>> {
        let mut tx = self.begin_with_lock_wait(Lane::Complete, self.write_limit(), LOCK_WAIT).await?;
        let effect = self.update_items(&mut tx, completions).await?;
        let settled = self.settle(&mut tx, completions, &effect).await?;
        let feeds = self.add_children(&mut tx, completions, &effect.written).await?;
        self.unblock_dependents(&mut tx, completions, &effect.written, &effect.linked).await?;
        tx.commit().await?;
        self.announce(feeds.into_iter().map(Hint::Due).collect()).await;
        Ok(settled)
    }

    async fn update_items<'a>(&self, tx: &mut Tx, completions: &'a [Completion]) -> Result<Effect<'a>> {
        // One partition can be here under two leases, of which one is over.
        let (distinct, numbers) = number_leases(completions);
        let leases = LeaseArrays::new(distinct.iter().copied());
        let all = || completions.iter();
        let query = tx.query(self.sql.get(COMPLETE));
        let query = query.bind(leases.ids).bind(leases.owners).bind(leases.lease_ids).bind(leases.epochs);
        let query = query.bind(all().map(|c| c.lease.partition.as_ref()).collect::<Vec<&str>>());
        let query = query.bind(all().map(|c| c.item.as_str()).collect::<Vec<_>>());
        let query = query.bind(all().map(|c| c.version).collect::<Vec<_>>());
        let query = query.bind(all().map(|c| c.change.status.as_str()).collect::<Vec<_>>());
        let query = query.bind(all().map(|c| c.change.gate).collect::<Vec<_>>());
        let query = query.bind(all().map(|c| c.change.pass).collect::<Vec<_>>());
        let query = query.bind(all().map(|c| c.change.retry_count).collect::<Vec<_>>());
        let query = query.bind(all().map(|c| c.change.delay.map(micros)).collect::<Vec<_>>());
        let data = |c: &'_ Completion| c.change.data.as_ref().map(|d| d.bytes.to_vec());
        let query = query.bind(all().map(data).collect::<Vec<_>>());
        let content_type = |c: &'_ Completion| c.change.data.as_ref().map(|d| d.content_type.clone());
        let query = query.bind(all().map(content_type).collect::<Vec<_>>());
        let query = query.bind(all().map(|c| c.change.error_messages.as_deref()).collect::<Vec<_>>());
        let rows = query.bind(numbers).fetch_all(tx.conn()?).await.map_err(translate)?;
        let mut effect = Effect::default();
        for row in &rows {
            match row.get::<Option<i64>, _>("number") {
                Some(number) => _ = effect.written.insert(number as usize - 1),
                None => {
                    let lease = distinct[row.get::<i64, _>("lease") as usize - 1];
                    effect.fenced.insert(lease);
                    if row.get("linked") {
                        effect.linked.insert(lease);
                    }
                }
            }
        }
        Ok(effect)
    }

    /// Tells stale, fenced and busy apart; costs a look only where a lease was not fenced in.
    async fn settle(
        &self,
        tx: &mut Tx,
        completions: &[Completion],
        effect: &Effect<'_>,
    ) -> Result<Vec<Settled>> {
        let is_fenced = |c: &Completion| effect.fenced.contains(c.lease.as_ref());
        let outside = completions.iter().filter(|c| !is_fenced(c)).map(|c| c.lease.as_ref());
        let current = self.current(tx, outside).await?;
        let settled = completions.iter().enumerate().map(|(number, completion)| {
            if effect.written.contains(&number) {
                Settled::Written
            } else if is_fenced(completion) {
                Settled::Stale
            } else if current.contains(completion.lease.as_ref()) {
                Settled::Busy
            } else {
                Settled::Fenced
            }
        });
        Ok(settled.collect())
    }

    /// Children join their parents' transaction, and only those of parents that were written. Returns the
    /// feeds that may have something new.
    async fn add_children(
        &self,
        tx: &mut Tx,
        completions: &[Completion],
        written: &HashSet<usize>,
    ) -> Result<Vec<String>> {
        let parents = || completions.iter().enumerate().filter(|(n, _)| written.contains(n)).map(|(_, c)| c);
        let children: Vec<&NewItem> = parents().flat_map(|c| &c.children).collect();
        if children.is_empty() {
            return Ok(Vec::new());
        }
        let partitions =
            parents().flat_map(|c| c.children.iter().map(|i| (i.partition.as_str(), c.feed.as_ref())));
        self.inserter(tx)?.partitions(partitions.collect()).await?;
        self.inserter(tx)?.items(&children).await?;
        Ok(parents().filter(|c| !c.children.is_empty()).map(|c| c.feed.to_string()).collect())
    }

    pub(super) async fn note_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<Option<i64>> {
        let mut tx = self.begin(Lane::Work, self.write_limit()).await?;
        let query = tx.query(self.sql.get(SUSPECT)).bind(lease.partition.as_ref()).bind(lease.owner.as_ref());
        let query = query.bind(lease.lease_id).bind(lease.epoch).bind(item).bind(version);
        let row = query.fetch_optional(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        row.map(|row| get(&row, "version")).transpose()
    }
}

/// The leases of a batch, each once, and for each completion the number of its own, from 1.
fn number_leases(completions: &[Completion]) -> (Vec<&Lease>, Vec<i64>) {
    let mut known: HashMap<&Lease, i64> = HashMap::new();
    let mut distinct = Vec::new();
    let mut numbers = Vec::with_capacity(completions.len());
    for completion in completions {
        let next = known.len() as i64 + 1;
        let number = *known.entry(completion.lease.as_ref()).or_insert(next);
        if number == next {
            distinct.push(completion.lease.as_ref());
        }
        numbers.push(number);
    }
    (distinct, numbers)
}
