//! Which leases are current: the check that every write of an owner passes first, in the same transaction.

use gatefeed_core::lease::Lease;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    error::Result,
    rows::by_key,
    values::{chunks, values},
};

/// Which of the leases are current. `until` does not matter: an unstolen lease's late answer is good work.
pub(super) async fn current(connection: &mut SqliteConnection, leases: &[&Lease]) -> Result<Vec<bool>> {
    Ok(held(connection, leases, "p.id").await?.iter().map(Option::is_some).collect())
}

/// These columns of the leases' partitions `p`; `None` for a lease that is not current.
pub(super) async fn held(
    connection: &mut SqliteConnection,
    leases: &[&Lease],
    columns: &str,
) -> Result<Vec<Option<SqliteRow>>> {
    let mut held = Vec::with_capacity(leases.len());
    for chunk in chunks(leases) {
        let first = held.len();
        held.resize_with(first + chunk.len(), || None);
        for row in look(connection, chunk, columns).await? {
            let number: i64 = row.try_get("number")?;
            if let Some(place) = held.get_mut(first + number as usize) {
                *place = Some(row);
            }
        }
    }
    Ok(held)
}

async fn look(connection: &mut SqliteConnection, leases: &[&Lease], columns: &str) -> Result<Vec<SqliteRow>> {
    let sql = look_sql(leases.len(), columns);
    let mut query = sqlx::query(&sql);
    for (number, lease) in leases.iter().enumerate() {
        query = query.bind(number as i64).bind(&*lease.partition).bind(&*lease.owner);
        query = query.bind(lease.lease_id.to_string()).bind(lease.epoch);
    }
    Ok(query.fetch_all(connection).await?)
}

pub(super) fn look_sql(rows: usize, columns: &str) -> String {
    let leases = values(rows, 5);
    let by_key = by_key!(partitions);
    format!(
        "WITH l (number, id, owner, lease_id, epoch) AS ({leases})
        SELECT l.number, {columns} FROM l CROSS JOIN gatefeed_partitions p {by_key} ON p.id = l.id
        WHERE p.owner = l.owner AND p.lease_id = l.lease_id AND p.epoch = l.epoch"
    )
}
