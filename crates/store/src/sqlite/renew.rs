//! Keeping, watching and giving back leases.

use std::{sync::Arc, time::Duration};

use gatefeed_core::lease::{Lease, Observed, Renewal};
use sqlx::sqlite::SqliteRow;

use super::{
    Sqlite,
    error::Result,
    fence::{current, held},
    rows::{now, seconds, state, state_columns},
    values::integers,
};

pub(super) const RENEW: &str = concat!(
    "UPDATE gatefeed_partitions SET until = ",
    now!("?1"),
    " WHERE rowid IN (SELECT value FROM json_each(?2))"
);

pub(super) const RELEASE: &str = concat!(
    "UPDATE gatefeed_partitions
    SET owner = NULL, lease_id = NULL, until = NULL, version = version + 1, updated_at = ",
    now!(),
    " WHERE rowid IN (SELECT value FROM json_each(?1))"
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
        let rowids = current(tx.conn()?, &borrowed(leases)).await?;
        let renew = sqlx::query(RENEW).bind(seconds(duration)).bind(integers(rowids.iter().flatten().copied()));
        renew.execute(tx.conn()?).await?;
        tx.commit().await?;
        let renewal = |rowid: Option<i64>| if rowid.is_some() { Renewal::Renewed } else { Renewal::Lost };
        Ok(rowids.into_iter().map(renewal).collect())
    }

    pub(super) async fn look(&self, leases: &[Arc<Lease>]) -> Result<Vec<Observed>> {
        let mut connection = self.lanes.read().await?;
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
        let rowids = current(tx.conn()?, &borrowed(leases)).await?;
        sqlx::query(RELEASE).bind(integers(rowids.into_iter().flatten())).execute(tx.conn()?).await?;
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
