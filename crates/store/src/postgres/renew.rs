//! Keeping, watching and giving back leases.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use gatefeed_core::{
    Result,
    lease::{Lease, Observed, Renewal},
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    Postgres,
    claim::micros,
    error::translate,
    pool::{Lane, Tx},
    rows::{LeaseArrays, get, state, state_columns},
    wake::Hint,
};

/// A third of the shortest lease.
const LIMIT: Duration = Duration::from_millis(333);

/// Leases that are current, their rows locked. What somebody else has locked is skipped: unknown, not lost.
const RENEW: &str = "WITH held AS MATERIALIZED (
        SELECT p.id FROM {schema}.gatefeed_partitions p
        JOIN unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) AS l (id, owner, lease_id, epoch)
            ON p.id = l.id AND p.owner = l.owner AND p.lease_id = l.lease_id AND p.epoch = l.epoch
        ORDER BY p.id FOR NO KEY UPDATE OF p SKIP LOCKED
    )
    UPDATE {schema}.gatefeed_partitions p SET until = clock_timestamp() + $5 * interval '1 microsecond'
    FROM held h WHERE p.id = h.id RETURNING p.id";

const OBSERVE: &str = concat!(
    "SELECT p.id, p.owner, p.lease_id, p.epoch, ",
    state_columns!(),
    " FROM {schema}.gatefeed_partitions p WHERE p.id = ANY ($1)"
);

const RELEASE: &str = "WITH held AS MATERIALIZED (
        SELECT p.id FROM {schema}.gatefeed_partitions p
        JOIN unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) AS l (id, owner, lease_id, epoch)
            ON p.id = l.id AND p.owner = l.owner AND p.lease_id = l.lease_id AND p.epoch = l.epoch
        ORDER BY p.id FOR NO KEY UPDATE OF p SKIP LOCKED
    )
    UPDATE {schema}.gatefeed_partitions p
    SET owner = NULL, lease_id = NULL, until = NULL, updated_at = now(),
        next_run_at = CASE WHEN p.next_run_at <= now() THEN now() ELSE p.next_run_at END
    FROM held h WHERE p.id = h.id RETURNING p.id, p.feed";

/// How often giving back is tried where the row is locked, and how long apart.
const RELEASE_TRIES: usize = 10;
const RELEASE_PAUSE: Duration = Duration::from_millis(100);

const PROGRESSED: &str = "UPDATE {schema}.gatefeed_partitions p SET expiries = 0
    WHERE p.id = $1 AND p.owner = $2 AND p.lease_id = $3 AND p.epoch = $4";

impl Postgres {
    pub(super) async fn extend(&self, leases: &[Arc<Lease>], duration: Duration) -> Result<Vec<Renewal>> {
        let arrays = LeaseArrays::of(leases);
        let mut tx = self.begin(Lane::Renew, duration / 3).await?;
        let query = tx.query(self.sql.get(RENEW)).bind(&arrays.ids).bind(&arrays.owners);
        let query = query.bind(&arrays.lease_ids).bind(&arrays.epochs).bind(micros(duration));
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        let renewed: HashSet<String> = rows.iter().map(|row| row.get("id")).collect();
        let seen = if renewed.len() < leases.len() {
            self.rows_of(&mut tx, &arrays.ids).await?
        } else {
            HashMap::new()
        };
        tx.commit().await?;
        let renewal = |lease: &Arc<Lease>| {
            if renewed.contains(lease.partition.as_ref()) {
                return Ok(Renewal::Renewed);
            }
            Ok(if is_current(lease, seen.get(lease.partition.as_ref()))? {
                Renewal::Skipped
            } else {
                Renewal::Lost
            })
        };
        leases.iter().map(renewal).collect()
    }

    pub(super) async fn look(&self, leases: &[Arc<Lease>]) -> Result<Vec<Observed>> {
        let arrays = LeaseArrays::of(leases);
        let mut tx = self.begin(Lane::Work, Duration::from_secs(5)).await?;
        let seen = self.rows_of(&mut tx, &arrays.ids).await?;
        tx.commit().await?;
        let observed = |lease: &Arc<Lease>| match seen.get(lease.partition.as_ref()) {
            Some(row) if is_current(lease, Some(row))? => Ok(Observed::Held(state(row)?)),
            _ => Ok(Observed::Lost),
        };
        leases.iter().map(observed).collect()
    }

    pub(super) async fn give_back(&self, leases: &[Arc<Lease>]) -> Result<()> {
        let mut rest: Vec<&Lease> = leases.iter().map(AsRef::as_ref).collect();
        for _ in 0..RELEASE_TRIES {
            let released = self.release_unlocked(&rest).await?;
            rest.retain(|lease| !released.contains(lease.partition.as_ref()));
            if rest.is_empty() {
                return Ok(());
            }
            let mut tx = self.begin(Lane::Work, Duration::from_secs(5)).await?;
            let current = self.current(&mut tx, rest.iter().copied()).await?;
            rest.retain(|lease| current.contains(lease));
            tx.commit().await?;
            if rest.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(RELEASE_PAUSE).await;
        }
        tracing::warn!(leases = rest.len(), "somebody has the rows locked; these leases have to expire");
        Ok(())
    }

    /// The partitions that were given back.
    async fn release_unlocked(&self, leases: &[&Lease]) -> Result<HashSet<String>> {
        let arrays = LeaseArrays::new(leases.iter().copied());
        let mut tx = self.begin(Lane::Work, Duration::from_secs(5)).await?;
        let query = tx.query(self.sql.get(RELEASE)).bind(&arrays.ids).bind(&arrays.owners);
        let query = query.bind(&arrays.lease_ids).bind(&arrays.epochs);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        let feeds: BTreeSet<String> = rows.iter().map(|row| row.get("feed")).collect();
        self.notify(&mut tx, &feeds.into_iter().map(Hint::Due).collect::<Vec<_>>()).await?;
        tx.commit().await?;
        Ok(rows.iter().map(|row| row.get("id")).collect())
    }

    pub(super) async fn clear_expiries(&self, lease: &Lease) -> Result<()> {
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        let query =
            tx.query(self.sql.get(PROGRESSED)).bind(lease.partition.as_ref()).bind(lease.owner.as_ref());
        query.bind(lease.lease_id).bind(lease.epoch).execute(tx.conn()?).await.map_err(translate)?;
        tx.commit().await
    }

    pub(super) async fn rows_of(&self, tx: &mut Tx, ids: &[String]) -> Result<HashMap<String, PgRow>> {
        let query = tx.query(self.sql.get(OBSERVE)).bind(ids);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        Ok(rows.into_iter().map(|row| (row.get("id"), row)).collect())
    }
}

pub(super) fn is_current(lease: &Lease, row: Option<&PgRow>) -> Result<bool> {
    let Some(row) = row else { return Ok(false) };
    Ok(get::<Option<&str>>(row, "owner")? == Some(lease.owner.as_ref())
        && get::<Option<Uuid>>(row, "lease_id")? == Some(lease.lease_id)
        && get::<i64>(row, "epoch")? == lease.epoch)
}
