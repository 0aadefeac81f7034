//! Claiming partitions.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    Result,
    duration::DURATION_MAX,
    lease::{Claim, Grant, Lease},
};
use uuid::Uuid;

use super::{
    Postgres,
    error::translate,
    pool::Lane,
    rows::{get, state, state_columns},
};

/// Free partitions are found by a loose scan over priorities: within one, those that are due stand first, so
/// that ever so many delayed ones of a higher priority cost one probe. NO KEY UPDATE, since FOR UPDATE would
/// skip partitions into which an open transaction has inserted. SKIP LOCKED makes concurrent claims disjoint. What is due
/// is asked of now(), the transaction's start: with clock_timestamp(), which is volatile, no index could answer, and
/// every idle partition would be read at every poll. The array at the end is for a planner without statistics, which
/// would join with all partitions.
pub(super) const CLAIM: &str = concat!(
    "WITH RECURSIVE ranks (feed, priority) AS (
        SELECT f.feed, (SELECT p.priority FROM {schema}.gatefeed_partitions p
            WHERE p.feed = f.feed AND p.status = 'available' AND p.owner IS NULL AND p.next_run_at IS NOT NULL
            ORDER BY p.priority DESC LIMIT 1)
        FROM unnest($1::text[]) AS f (feed)
        UNION ALL
        SELECT r.feed, (SELECT p.priority FROM {schema}.gatefeed_partitions p
            WHERE p.feed = r.feed AND p.status = 'available' AND p.owner IS NULL AND p.next_run_at IS NOT NULL
                AND p.priority < r.priority
            ORDER BY p.priority DESC LIMIT 1)
        FROM ranks r WHERE r.priority IS NOT NULL
    ), expired AS MATERIALIZED (
        SELECT p.* FROM unnest($1::text[]) AS f (feed) CROSS JOIN LATERAL (
            SELECT e.id, e.version, e.priority, e.next_run_at FROM {schema}.gatefeed_partitions e
            WHERE e.feed = f.feed AND e.status = 'available' AND e.owner IS NOT NULL AND e.next_run_at IS NOT NULL
                AND e.until < now()
            ORDER BY e.until LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED) p
        LIMIT $2
    ), free AS MATERIALIZED (
        SELECT p.* FROM (SELECT * FROM ranks ORDER BY priority DESC NULLS LAST) r CROSS JOIN LATERAL (
            SELECT c.id, c.version, c.priority, c.next_run_at FROM {schema}.gatefeed_partitions c
            WHERE c.feed = r.feed AND c.priority = r.priority AND c.status = 'available' AND c.owner IS NULL
                AND c.next_run_at <= now() - $6 * interval '1 microsecond'
            ORDER BY c.next_run_at, c.id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED) p
        LIMIT $2
    ), chosen AS (
        SELECT * FROM expired UNION ALL SELECT * FROM free ORDER BY priority DESC, next_run_at, id LIMIT $2
    )
    UPDATE {schema}.gatefeed_partitions p
    SET owner = $3, lease_id = $4, until = clock_timestamp() + $5 * interval '1 microsecond',
        epoch = p.epoch + 1, version = p.version + 1, updated_at = now(),
        expiries = CASE WHEN p.owner IS NULL THEN p.expiries ELSE p.expiries + 1 END
    FROM chosen c WHERE p.id = ANY (ARRAY(SELECT id FROM chosen)) AND p.id = c.id AND p.version = c.version
    RETURNING p.id, p.epoch, p.expiries, ",
    state_columns!()
);

impl Postgres {
    pub(super) async fn grant(&self, claim: &Claim) -> Result<Vec<Grant>> {
        if claim.limit == 0 {
            return Ok(Vec::new());
        }
        self.note_lease(claim.duration);
        let lease_id = Uuid::now_v7();
        let mut tx = self.begin(Lane::Work, claim.duration / 3).await?;
        if self.is_wake_due() {
            self.wake_parents_in(&mut tx).await?;
        }
        let query = tx.query(self.sql.get(CLAIM)).bind(&claim.feeds).bind(claim.limit as i64);
        let query = query.bind(claim.owner.as_ref()).bind(lease_id).bind(micros(claim.duration));
        let query = query.bind(micros(claim.overdue));
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        let grant = |row| {
            let lease = Lease {
                partition: get::<&str>(row, "id")?.into(),
                owner: claim.owner.clone(),
                lease_id,
                epoch: get(row, "epoch")?,
            };
            Ok(Grant { lease: Arc::new(lease), state: state(row)?, expiries: get(row, "expiries")? })
        };
        rows.iter().map(grant).collect()
    }
}

/// A duration as Postgres multiplies intervals. More than [`DURATION_MAX`] is taken as that much.
pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.min(DURATION_MAX).as_micros()).unwrap_or(i64::MAX)
}
