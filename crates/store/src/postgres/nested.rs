//! Nested partitions: making them with an outcome, and settling the items that wait for them. What closes leaves a note
//! (a trigger of the schema writes it), and wakes its parent in a transaction of its own, since it must not lock it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use gatefeed_core::{
    Result,
    item::Data,
    nested::{COUNTED_MAX, Closed, Counts, DEPTH_MAX, NewNested, Settlement, id_taken, settle, too_deep},
    outcome::Completion,
};
use sqlx::{Row, postgres::PgRow};

use super::{
    Postgres,
    error::translate,
    pool::{Lane, Tx},
    rows::{at, get},
};

/// How often a process looks for parents that somebody has closed a partition of and not woken: a watcher that died in
/// between, psql, or a row that was locked.
const WAKE_INTERVAL: Duration = Duration::from_millis(200);

const WAKE_LIMIT: Duration = Duration::from_secs(5);

/// How often waking is tried where the row is locked, and how long apart.
const WAKE_TRIES: usize = 4;
const WAKE_PAUSE: Duration = Duration::from_millis(10);

const WAKE: &str = "SELECT {schema}.gatefeed_wake_parents()";

const TOO_DEEP: &str =
    "SELECT p.id FROM {schema}.gatefeed_partitions p WHERE p.id = ANY ($1) AND p.depth >= $2 LIMIT 1";

const NESTED: &str = "INSERT INTO {schema}.gatefeed_partitions
        (id, feed, parent_partition_id, parent_item_id, parent_pass, parent_gate, parent_then, depth)
    SELECT n.id, coalesce(n.feed, p.feed), p.id, n.item, n.pass, n.gate, n.after, p.depth + 1
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::text[])
        AS n (id, feed, parent, item, pass, gate, after)
    JOIN {schema}.gatefeed_partitions p ON p.id = n.parent
    ORDER BY n.id ON CONFLICT DO NOTHING RETURNING id, feed";

/// Notes of what is no longer waited for.
const DROP: &str = "DELETE FROM {schema}.gatefeed_closed c WHERE c.parent_partition_id = $1 AND NOT c.applied
    AND NOT EXISTS (SELECT 1 FROM {schema}.gatefeed_items i WHERE i.partition_id = c.parent_partition_id
        AND i.id = c.parent_item_id AND i.status = 'waiting' AND i.pass = c.parent_pass)";

/// What an item waits for that has not closed.
macro_rules! is_open {
    () => {
        "EXISTS (SELECT 1 FROM {schema}.gatefeed_partitions p
            WHERE p.parent_partition_id = c.parent_partition_id AND p.parent_item_id = c.parent_item_id
                AND p.parent_pass = c.parent_pass
                AND NOT EXISTS (SELECT 1 FROM {schema}.gatefeed_closed o
                    WHERE o.parent_partition_id = p.parent_partition_id AND o.parent_item_id = p.parent_item_id
                        AND o.partition_id = p.id))"
    };
}

/// Items that wait for more are looked at again when the next note comes.
const APPLY: &str = concat!(
    "UPDATE {schema}.gatefeed_closed c SET applied = true
    WHERE c.parent_partition_id = $1 AND NOT c.applied AND ",
    is_open!()
);

/// The next item that waits for nothing any more.
const READY: &str = concat!(
    "SELECT i.id, i.pass, i.data, i.content_type, i.error_messages
    FROM {schema}.gatefeed_closed c
    JOIN {schema}.gatefeed_items i ON i.partition_id = c.parent_partition_id AND i.id = c.parent_item_id
        AND i.status = 'waiting' AND i.pass = c.parent_pass
    WHERE c.parent_partition_id = $1 AND NOT c.applied AND NOT ",
    is_open!(),
    " LIMIT 1"
);

const CLOSED: &str = "SELECT c.partition_id, c.parent_then, c.status, c.reason, n.*
    FROM {schema}.gatefeed_closed c
    CROSS JOIN LATERAL (
        SELECT count(*) AS items, count(*) FILTER (WHERE i.status = 'complete') AS complete,
            count(*) FILTER (WHERE i.status = 'failed') AS failed,
            count(*) FILTER (WHERE i.status = 'cancelled') AS cancelled
        FROM (SELECT a.status FROM {schema}.gatefeed_items a WHERE a.partition_id = c.partition_id LIMIT $4 + 1) i) n
    WHERE c.parent_partition_id = $1 AND c.parent_item_id = $2 AND c.parent_pass = $3 ORDER BY c.partition_id";

const SETTLE: &str = "UPDATE {schema}.gatefeed_items i
    SET status = $4, data = coalesce($5, i.data), content_type = coalesce($6, i.content_type),
        error_messages = coalesce($7, i.error_messages), version = i.version + 1, updated_at = now()
    WHERE i.partition_id = $1 AND i.id = $2 AND i.pass = $3 AND i.status = 'waiting'";

const FORGET: &str =
    "DELETE FROM {schema}.gatefeed_closed c WHERE c.parent_partition_id = $1 AND c.parent_item_id = $2";

impl Postgres {
    /// Makes what the answers nest; their items come after. Returns the feeds. `Data` where an id is taken or the
    /// parent is as deep as they get.
    pub(super) async fn add_nested(&self, tx: &mut Tx, parents: &[&Completion]) -> Result<BTreeSet<String>> {
        let all: Vec<(&Completion, &NewNested)> =
            parents.iter().flat_map(|parent| parent.nested.iter().map(move |n| (*parent, n))).collect();
        if all.is_empty() {
            return Ok(BTreeSet::new());
        }
        let parents: Vec<&str> = all.iter().map(|(parent, _)| &*parent.lease.partition).collect();
        let query = tx.query(self.sql.get(TOO_DEEP)).bind(&parents).bind(DEPTH_MAX);
        if let Some(row) = query.fetch_optional(tx.conn()?).await.map_err(translate)? {
            return Err(too_deep(get(&row, "id")?));
        }
        let query = tx.query(self.sql.get(NESTED)).bind(all.iter().map(|(_, n)| &*n.id).collect::<Vec<_>>());
        let query = query.bind(all.iter().map(|(_, n)| n.feed.as_deref()).collect::<Vec<_>>()).bind(&parents);
        let query = query.bind(all.iter().map(|(parent, _)| &*parent.item).collect::<Vec<_>>());
        let query = query.bind(all.iter().map(|(_, n)| n.pass).collect::<Vec<_>>());
        let query = query.bind(all.iter().map(|(_, n)| n.gate).collect::<Vec<_>>());
        let query = query.bind(all.iter().map(|(_, n)| n.then.as_str()).collect::<Vec<_>>());
        let made = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        let mut ids: BTreeSet<&str> = made.iter().map(|row| row.get("id")).collect();
        match all.iter().find(|(_, nested)| !ids.remove(nested.id.as_str())) {
            Some((_, taken)) => Err(id_taken(&taken.id)),
            None => Ok(made.iter().map(|row| row.get("feed")).collect()),
        }
    }

    /// Settles items of a partition that wait for nothing any more, under the partition's lock: of so many closed
    /// partitions, about. `None`: that was all; else those whose dependents are left, if any.
    pub(super) async fn settle_nested(
        &self,
        tx: &mut Tx,
        partition: &str,
        max: usize,
    ) -> Result<Option<Vec<String>>> {
        for statement in [DROP, APPLY] {
            let query = tx.query(self.sql.get(statement)).bind(partition);
            query.execute(tx.conn()?).await.map_err(translate)?;
        }
        let mut settled = 0;
        while settled < max {
            let query = tx.query(self.sql.get(READY)).bind(partition);
            let Some(row) = query.fetch_optional(tx.conn()?).await.map_err(translate)? else {
                return Ok(None);
            };
            settled += self.settle_item(tx, partition, &row).await?;
            let item = get::<&str>(&row, "id")?.to_owned();
            let limit = self.write_limit();
            let mut rest = self.unblock(tx, vec![partition.to_owned()], vec![item], limit).await?;
            if let Some((_, left)) = rest.pop().filter(|(_, left)| !left.is_empty()) {
                return Ok(Some(left));
            }
        }
        Ok(Some(Vec::new()))
    }

    /// Returns for how many it had waited.
    async fn settle_item(&self, tx: &mut Tx, partition: &str, item: &PgRow) -> Result<usize> {
        let (id, pass): (&str, i32) = (get(item, "id")?, get(item, "pass")?);
        let query = tx.query(self.sql.get(CLOSED)).bind(partition).bind(id).bind(pass).bind(COUNTED_MAX);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        let closed: Vec<Closed> = rows.iter().map(closed).collect::<Result<_>>()?;
        let data =
            Data { bytes: get::<Vec<u8>>(item, "data")?.into(), content_type: get(item, "content_type")? };
        let (status, data, errors) = match settle(&data, get(item, "error_messages")?, &closed) {
            Settlement::Deliver(data) => ("available", Some(data), None),
            Settlement::Complete => ("complete", None, None),
            Settlement::Fail(errors) => ("failed", None, Some(errors)),
        };
        let query = tx.query(self.sql.get(SETTLE)).bind(partition).bind(id).bind(pass).bind(status);
        let query = query.bind(data.as_ref().map(|data| &data.bytes[..]));
        let query = query.bind(data.as_ref().map(|data| data.content_type.as_str())).bind(errors);
        query.execute(tx.conn()?).await.map_err(translate)?;
        let query = tx.query(self.sql.get(FORGET)).bind(partition).bind(id);
        query.execute(tx.conn()?).await.map_err(translate)?;
        Ok(closed.len())
    }

    /// Wakes the parents of what has closed, soon if somebody has them locked. What goes wrong is found by a later claim.
    pub(super) async fn wake_parents(&self) {
        for _ in 0..WAKE_TRIES {
            match self.try_wake_parents().await {
                Ok(false) => return,
                Ok(true) => tokio::time::sleep(WAKE_PAUSE).await,
                Err(error) => {
                    tracing::debug!(%error, "could not wake the parents of closed partitions; a claim will");
                    return;
                }
            }
        }
    }

    async fn try_wake_parents(&self) -> Result<bool> {
        let mut tx = self.begin(Lane::Work, WAKE_LIMIT).await?;
        let is_left = self.wake_parents_in(&mut tx).await?;
        tx.commit().await?;
        Ok(is_left)
    }

    /// In a transaction that has nothing else locked; returns whether somebody has more of them locked.
    pub(super) async fn wake_parents_in(&self, tx: &mut Tx) -> Result<bool> {
        let row = tx.query(self.sql.get(WAKE)).fetch_one(tx.conn()?).await.map_err(translate)?;
        at(&row, 0)
    }

    /// Whether it is time to look for parents that nobody has woken.
    pub(super) fn is_wake_due(&self) -> bool {
        let mut last = self.woken_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= WAKE_INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

fn closed(row: &PgRow) -> Result<Closed> {
    let counts = Counts {
        complete: get(row, "complete")?,
        failed: get(row, "failed")?,
        cancelled: get(row, "cancelled")?,
    };
    Ok(Closed {
        id: get(row, "partition_id")?,
        then: get::<&str>(row, "parent_then")?.parse()?,
        status: get::<&str>(row, "status")?.parse()?,
        reason: get(row, "reason")?,
        counts: (get::<i64>(row, "items")? <= COUNTED_MAX).then_some(counts),
    })
}
