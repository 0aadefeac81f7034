//! Keeping, watching and giving back leases.

use std::{sync::Arc, time::Duration};

use gatefeed_core::lease::{Lease, Observed, Renewal};
use sqlx::sqlite::SqliteRow;

use super::{
    Sqlite,
    error::Result,
    fence::{current, held},
    pool::Lane,
    rows::{by_key, now, seconds, state, state_columns},
    values::{chunks, values},
};

pub(super) const RENEW: &str = concat!(
    "UPDATE gatefeed_partitions ",
    by_key!(partitions),
    " SET until = ",
    now!("?"),
    " WHERE id IN ({ids})"
);

pub(super) const RELEASE: &str = concat!(
    "UPDATE gatefeed_partitions ",
    by_key!(partitions),
    " SET owner = NULL, lease_id = NULL, until = NULL, updated_at = ",
    now!(),
    ", next_run_at = CASE WHEN next_run_at <= ",
    now!(),
    " THEN ",
    now!(),
    " ELSE next_run_at END WHERE id IN ({ids})"
);

const PROGRESSED: &str = "UPDATE gatefeed_partitions SET expiries = 0
    WHERE id = ?1 AND owner = ?2 AND lease_id = ?3 AND epoch = ?4";

impl Sqlite {
    /// Nothing is skipped row by row here: either the write lock comes soon, or all of them are.
    pub(super) async fn extend(&self, leases: &[Arc<Lease>], duration: Duration) -> Result<Vec<Renewal>> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        match self.extend_now(leases, duration).await {
            Err(error) if error.is_busy() => Ok(vec![Renewal::Skipped; leases.len()]),
            renewed => renewed,
        }
    }

    async fn extend_now(&self, leases: &[Arc<Lease>], duration: Duration) -> Result<Vec<Renewal>> {
        let mut tx = self.lanes.renew().await?;
        let current = current(tx.conn()?, &borrowed(leases)).await?;
        for chunk in chunks(&partitions(leases, &current)) {
            let sql = RENEW.replace("{ids}", &values(chunk.len(), 1));
            let query = sqlx::query(&sql).bind(seconds(duration));
            chunk.iter().fold(query, |query, id| query.bind(*id)).execute(tx.conn()?).await?;
        }
        tx.commit().await?;
        let renewal = |current| if current { Renewal::Renewed } else { Renewal::Lost };
        Ok(current.into_iter().map(renewal).collect())
    }

    pub(super) async fn look(&self, leases: &[Arc<Lease>]) -> Result<Vec<Observed>> {
        let mut connection = self.lanes.read(Lane::Work).await?;
        let rows = held(&mut connection, &borrowed(leases), state_columns!()).await?;
        let observed = |row: &Option<SqliteRow>| match row {
            Some(row) => Ok(Observed::Held(state(row)?)),
            None => Ok(Observed::Lost),
        };
        rows.iter().map(observed).collect()
    }

    pub(super) async fn give_back(&self, leases: &[Arc<Lease>]) -> Result<()> {
        if leases.is_empty() {
            return Ok(());
        }
        let mut tx = self.lanes.write().await?;
        let current = current(tx.conn()?, &borrowed(leases)).await?;
        for chunk in chunks(&partitions(leases, &current)) {
            let sql = RELEASE.replace("{ids}", &values(chunk.len(), 1));
            chunk.iter().fold(sqlx::query(&sql), |query, id| query.bind(*id)).execute(tx.conn()?).await?;
        }
        tx.commit().await
    }

    pub(super) async fn clear_expiries(&self, lease: &Lease) -> Result<()> {
        let mut tx = self.lanes.write().await?;
        let query = sqlx::query(PROGRESSED).bind(&*lease.partition).bind(&*lease.owner);
        query.bind(lease.lease_id.to_string()).bind(lease.epoch).execute(tx.conn()?).await?;
        tx.commit().await
    }
}

pub(super) fn borrowed(leases: &[Arc<Lease>]) -> Vec<&Lease> {
    leases.iter().map(AsRef::as_ref).collect()
}

/// The partitions of the leases that are current.
fn partitions<'a>(leases: &'a [Arc<Lease>], current: &[bool]) -> Vec<&'a str> {
    let held = leases.iter().zip(current).filter(|(_, current)| **current);
    held.map(|(lease, _)| &*lease.partition).collect()
}
