//! Claiming partitions.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use gatefeed_core::lease::{Claim, Grant, Lease};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{
    Sqlite,
    error::Result,
    pool::Lane,
    rows::{by_key, deadline_at, now, seconds, state},
    text::fail_partition,
    values::{chunks, values},
};

/// Free partitions of one feed, in order. A loose scan goes from one priority to the next; within one, those that
/// are due stand first, so that ever so many delayed ones of a higher priority cost one probe. The CROSS JOIN
/// fixes the order of the loops, and with it that of the rows. The first priority is above all there are.
pub(super) const FREE: &str = concat!(
    "WITH RECURSIVE ranks (priority) AS (
        SELECT 2147483648
        UNION ALL
        SELECT (SELECT n.priority FROM gatefeed_partitions n INDEXED BY gatefeed_partitions_free
            WHERE n.feed = ?1 AND n.status = 'available' AND n.owner IS NULL AND n.next_run_at IS NOT NULL
                AND n.priority < r.priority
            ORDER BY n.priority DESC LIMIT 1)
        FROM ranks r WHERE r.priority IS NOT NULL
    )
    SELECT p.priority, p.next_run_at, p.id
    FROM ranks r CROSS JOIN gatefeed_partitions p INDEXED BY gatefeed_partitions_free
    WHERE p.feed = ?1 AND p.priority = r.priority AND p.status = 'available' AND p.owner IS NULL
        AND p.next_run_at IS NOT NULL AND p.next_run_at <= ",
    now!("?3"),
    " LIMIT ?2"
);

/// Partitions of one feed whose leases have expired, the first to expire first.
pub(super) const EXPIRED: &str = concat!(
    "SELECT p.priority, p.next_run_at, p.id FROM gatefeed_partitions p INDEXED BY gatefeed_partitions_leased
    WHERE p.feed = ?1 AND p.status = 'available' AND p.owner IS NOT NULL AND p.next_run_at IS NOT NULL
        AND p.until <= ",
    now!(),
    " AND p.next_run_at <= ",
    now!(),
    " ORDER BY p.until LIMIT ?2"
);

pub(super) const GRANT: &str = concat!(
    "UPDATE gatefeed_partitions ",
    by_key!(partitions),
    " SET owner = ?, lease_id = ?, until = ",
    now!("?"),
    ", epoch = epoch + 1, version = version + 1, updated_at = ",
    now!(),
    ", expiries = CASE WHEN owner IS NULL THEN expiries ELSE min(expiries + 1, 2147483647) END
    WHERE id IN ({ids})
    RETURNING id, epoch, expiries, feed, status, gate, manual_checkpoint, auto_close, max_in_flight,
        failure_policy, version, gate_deadline_seconds, keep_history, has_dependencies, coalesce(",
    deadline_at!(""),
    " <= ",
    now!(),
    ", 0) AS is_past_deadline"
);

impl Sqlite {
    pub(super) async fn grant(&self, claim: &Claim) -> Result<Vec<Grant>> {
        if claim.limit == 0 || claim.feeds.is_empty() {
            return Ok(Vec::new());
        }
        // Looked at first without the write lock, which an idle watcher must not take at every poll.
        if candidates(&mut *self.lanes.read(Lane::Work).await?, claim).await?.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.lanes.write().await?;
        let (ids, failed) = named(tx.conn()?, claim).await?;
        let grants = grant(tx.conn()?, claim, &ids).await?;
        tx.commit().await?;
        if failed > 0 {
            tracing::warn!(partitions = failed, "partitions have failed whose ids are not UTF-8");
        }
        Ok(grants)
    }
}

/// How many partitions that nobody can name fail with one claim, about: the rest waits for the next.
const NAMELESS_MAX: usize = 1_000;

/// The partitions to be claimed, by priority and age. Those among them that nobody can name fail, which makes room for
/// others; returns how many.
async fn named(connection: &mut SqliteConnection, claim: &Claim) -> Result<(Vec<String>, usize)> {
    let mut failed = 0;
    loop {
        let found = candidates(connection, claim).await?;
        let (mut ids, count) = (Vec::with_capacity(found.len()), found.len());
        for id in found {
            match String::from_utf8(id) {
                Ok(id) => ids.push(id),
                Err(error) => fail_partition(connection, error.as_bytes()).await?,
            }
        }
        failed += count - ids.len();
        if count == ids.len() || failed >= NAMELESS_MAX {
            return Ok((ids, failed));
        }
    }
}

/// The ids of the partitions to be claimed, by priority and age, as they lie there.
async fn candidates(connection: &mut SqliteConnection, claim: &Claim) -> Result<Vec<Vec<u8>>> {
    let limit = i64::try_from(claim.limit).unwrap_or(i64::MAX);
    let mut found: Vec<(Reverse<i64>, String, Vec<u8>)> = Vec::new();
    for feed in &claim.feeds {
        for sql in [EXPIRED, FREE] {
            let due_for = format!("-{}", &seconds(claim.due_for)[1..]);
            for row in
                sqlx::query(sql).bind(feed).bind(limit).bind(due_for).fetch_all(&mut *connection).await?
            {
                found.push((
                    Reverse(row.try_get("priority")?),
                    row.try_get("next_run_at")?,
                    row.try_get("id")?,
                ));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found.truncate(claim.limit);
    Ok(found.into_iter().map(|(_, _, id)| id).collect())
}

/// Grants in the order of the ids, which are free: nobody else writes until the transaction ends.
async fn grant(connection: &mut SqliteConnection, claim: &Claim, ids: &[String]) -> Result<Vec<Grant>> {
    let lease_id = Uuid::now_v7();
    let mut grants = HashMap::with_capacity(ids.len());
    for chunk in chunks(ids) {
        let sql = GRANT.replace("{ids}", &values(chunk.len(), 1));
        let query =
            sqlx::query(&sql).bind(&*claim.owner).bind(lease_id.to_string()).bind(seconds(claim.duration));
        for row in chunk.iter().fold(query, |query, id| query.bind(id)).fetch_all(&mut *connection).await? {
            let grant = granted(&row, claim, lease_id)?;
            grants.insert(grant.lease.partition.clone(), grant);
        }
    }
    Ok(ids.iter().filter_map(|id| grants.remove(id.as_str())).collect())
}

fn granted(row: &SqliteRow, claim: &Claim, lease_id: Uuid) -> Result<Grant> {
    let partition = row.try_get::<&str, _>("id")?.into();
    let lease = Lease { partition, owner: claim.owner.clone(), lease_id, epoch: row.try_get("epoch")? };
    Ok(Grant { lease: Arc::new(lease), state: state(row)?, expiries: row.try_get("expiries")? })
}
