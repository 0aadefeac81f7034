//! Claiming partitions.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use gatefeed_core::lease::{Claim, Grant, Lease};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{
    Sqlite,
    error::Result,
    rows::{now, seconds, state},
    values::integers,
};

/// Free partitions of one feed, in order. A loose scan goes from one priority to the next; within one, those that
/// are due stand first, so that ever so many delayed ones of a higher priority cost one probe. The CROSS JOIN
/// fixes the order of the loops, and with it that of the rows. The first priority is above all there are.
pub(super) const FREE: &str = concat!(
    "WITH RECURSIVE ranks (priority) AS (
        SELECT 2147483648
        UNION ALL
        SELECT (SELECT n.priority FROM gatefeed_partitions n
            WHERE n.feed = ?1 AND n.status = 'available' AND n.owner IS NULL AND n.next_run_at IS NOT NULL
                AND n.priority < r.priority
            ORDER BY n.priority DESC LIMIT 1)
        FROM ranks r WHERE r.priority IS NOT NULL
    )
    SELECT p.rowid AS row, p.priority, p.next_run_at, p.id
    FROM ranks r CROSS JOIN gatefeed_partitions p
    WHERE p.feed = ?1 AND p.priority = r.priority AND p.status = 'available' AND p.owner IS NULL
        AND p.next_run_at IS NOT NULL AND p.next_run_at <= ",
    now!(),
    " LIMIT ?2"
);

/// Partitions of one feed whose leases have expired, the first to expire first.
pub(super) const EXPIRED: &str = concat!(
    "SELECT p.rowid AS row, p.priority, p.next_run_at, p.id FROM gatefeed_partitions p
    WHERE p.feed = ?1 AND p.status = 'available' AND p.owner IS NOT NULL AND p.next_run_at IS NOT NULL
        AND p.until <= ",
    now!(),
    " AND p.next_run_at <= ",
    now!(),
    " ORDER BY p.until LIMIT ?2"
);

pub(super) const GRANT: &str = concat!(
    "UPDATE gatefeed_partitions AS p
    SET owner = ?1, lease_id = ?2, until = ",
    now!("?3"),
    ", epoch = p.epoch + 1, version = p.version + 1, updated_at = ",
    now!(),
    ", expiries = CASE WHEN p.owner IS NULL THEN p.expiries ELSE min(p.expiries + 1, 2147483647) END
    WHERE p.rowid IN (SELECT value FROM json_each(?4))
    RETURNING id, rowid AS row, epoch, expiries, feed, status, gate, manual_checkpoint, auto_close, max_in_flight,
        failure_policy, version"
);

impl Sqlite {
    pub(super) async fn grant(&self, claim: &Claim) -> Result<Vec<Grant>> {
        if claim.limit == 0 || claim.feeds.is_empty() {
            return Ok(Vec::new());
        }
        // Looked at first without the write lock, which an idle watcher must not take at every poll.
        if candidates(&mut *self.lanes.read().await?, claim).await?.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.lanes.write().await?;
        let rowids = candidates(tx.conn()?, claim).await?;
        let grants = grant(tx.conn()?, claim, &rowids).await?;
        tx.commit().await?;
        Ok(grants)
    }
}

/// The rowids of the partitions to be claimed, by priority and age.
async fn candidates(connection: &mut SqliteConnection, claim: &Claim) -> Result<Vec<i64>> {
    let limit = i64::try_from(claim.limit).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    for feed in &claim.feeds {
        for sql in [EXPIRED, FREE] {
            let rows = sqlx::query(sql).bind(feed).bind(limit).fetch_all(&mut *connection).await?;
            for row in &rows {
                found.push((order(row)?, row.try_get("row")?));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found.truncate(claim.limit);
    Ok(found.into_iter().map(|(_, rowid)| rowid).collect())
}

fn order(row: &SqliteRow) -> Result<(Reverse<i64>, String, String)> {
    Ok((Reverse(row.try_get("priority")?), row.try_get("next_run_at")?, row.try_get("id")?))
}

/// Grants in the order of the rowids, which are free: nobody else writes until the transaction ends.
async fn grant(connection: &mut SqliteConnection, claim: &Claim, rowids: &[i64]) -> Result<Vec<Grant>> {
    let lease_id = Uuid::now_v7();
    let query = sqlx::query(GRANT).bind(&*claim.owner).bind(lease_id.to_string()).bind(seconds(claim.duration));
    let rows = query.bind(integers(rowids.iter().copied())).fetch_all(connection).await?;
    let mut grants = HashMap::with_capacity(rows.len());
    for row in &rows {
        let lease = Lease {
            partition: row.try_get::<&str, _>("id")?.into(),
            owner: claim.owner.clone(),
            lease_id,
            epoch: row.try_get("epoch")?,
        };
        let grant = Grant { lease: Arc::new(lease), state: state(row)?, expiries: row.try_get("expiries")? };
        grants.insert(row.try_get::<i64, _>("row")?, grant);
    }
    Ok(rowids.iter().filter_map(|rowid| grants.remove(rowid)).collect())
}
