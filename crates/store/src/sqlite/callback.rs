//! Callbacks: outcomes that come from elsewhere, written under the write lock instead of a lease.

use std::sync::Arc;

use gatefeed_core::{
    callback::{Callback, CalledBack, Heartbeat, KEY_BYTES, Key, Refusal, Standing, Ticket, judge},
    item::DueItem,
    lease::Lease,
    outcome::Completion,
    partition::PartitionStatus,
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Sqlite,
    complete::add_children,
    dependencies::unblock_dependents,
    error::Result,
    fence::held,
    history::keep,
    pool::Lane,
    renew::borrowed,
    rows::{at, born, by_key, due_item, now, seconds, word},
    text::{fail_items, named, owned},
};
use crate::unsettled::Left;

const PARTITION: &str = concat!(
    "SELECT status, feed, keep_history, has_dependencies FROM gatefeed_partitions ",
    by_key!(partitions),
    " WHERE id = ?"
);

/// The data only where a history is kept.
const SEE: &str = concat!(
    "SELECT id, status, version, created_at, expired_version, waiting_until, waiting_until <= ",
    now!(),
    " AS is_overdue, gate, pass, retry_count, suspect_count, content_type, octet_length(data) AS size,
        CASE WHEN ?3 THEN CAST(data AS BLOB) END AS data, error_messages, NULL AS gather
    FROM gatefeed_items ",
    by_key!(items),
    " WHERE partition_id = ?1 AND id = ?2"
);

const WRITE: &str = concat!(
    "UPDATE gatefeed_items ",
    by_key!(items),
    " SET status = ?4, gate = ?5, pass = ?6, retry_count = ?7, suspect_count = 0,
        available_at = CASE WHEN ?8 IS NULL THEN available_at ELSE ",
    now!("?8"),
    " END, data = coalesce(?9, data), content_type = coalesce(?10, content_type),
        error_messages = coalesce(?11, error_messages), waiting_until = NULL, version = version + 1, updated_at = ",
    now!(),
    " WHERE partition_id = ?1 AND id = ?2 AND version = ?3"
);

const WAKE: &str = concat!(
    "UPDATE gatefeed_partitions ",
    by_key!(partitions),
    " SET next_run_at = ",
    now!(),
    " WHERE id = ? AND status IN ('available', 'paused')"
);

const EXTEND: &str = concat!(
    "UPDATE gatefeed_items ",
    by_key!(items),
    " SET waiting_until = max(waiting_until, ",
    now!("?4"),
    ") WHERE partition_id = ?1 AND id = ?2 AND version = ?3 AND status = 'waiting' RETURNING waiting_until"
);

/// The first of a partition to be over their time.
pub(super) const OVERDUE: &str = concat!(
    "SELECT id, version, created_at, gate, pass, retry_count, suspect_count, content_type, octet_length(data) AS size,
        NULL AS data, error_messages, NULL AS gather
    FROM gatefeed_items INDEXED BY gatefeed_items_waiting
    WHERE partition_id = ?1 AND status = 'waiting' AND waiting_until <= ",
    now!(),
    " ORDER BY waiting_until LIMIT ?2"
);

const KEY: &str = "SELECT secret FROM gatefeed_keys WHERE name = 'callbacks'";
const MAKE_KEY: &str =
    "INSERT INTO gatefeed_keys (name, secret) VALUES ('callbacks', ?) ON CONFLICT (name) DO NOTHING";

impl Sqlite {
    /// Read without the write lock, but for the first time.
    pub(super) async fn key(&self) -> Result<Key> {
        let found = sqlx::query_scalar(KEY).fetch_optional(&mut *self.lanes.read(Lane::Ask).await?).await?;
        let secret: Vec<u8> = match found {
            Some(secret) => secret,
            None => {
                let fresh: [u8; KEY_BYTES] = rand::random();
                let mut tx = self.lanes.write().await?;
                sqlx::query(MAKE_KEY).bind(&fresh[..]).execute(tx.conn()?).await?;
                // Somebody else may have been first.
                let secret = sqlx::query_scalar(KEY).fetch_one(tx.conn()?).await?;
                tx.commit().await?;
                secret
            }
        };
        Ok(Key::new(&secret)?)
    }

    pub(super) async fn take_callback(&self, callback: &Callback) -> Result<CalledBack> {
        let ticket = &callback.ticket;
        let mut tx = self.lanes.write().await?;
        let Some(partition) = partition(tx.conn()?, ticket).await? else {
            return Ok(CalledBack::Refused(Refusal::Used));
        };
        let (keep_history, has_dependencies): (bool, bool) =
            (partition.try_get("keep_history")?, partition.try_get("has_dependencies")?);
        let Some(row) = see(tx.conn()?, ticket, keep_history).await? else {
            return Ok(CalledBack::Refused(Refusal::Used));
        };
        if let Err(refusal) = judge(ticket, Some(&standing(&row, &partition)?)) {
            return Ok(CalledBack::Refused(refusal));
        }
        let item = due_item(&row)?;
        let feed = owned(&partition, "feed")?;
        let completion = callback.completion(feed.into(), &item, keep_history);
        let left = write(tx.conn()?, &completion, has_dependencies).await?;
        tx.commit().await?;
        self.settle_soon(left);
        Ok(CalledBack::Written { status: completion.change.status, gate: completion.change.gate })
    }

    pub(super) async fn extend_wait(&self, ticket: &Ticket) -> Result<Heartbeat> {
        let mut tx = self.lanes.write().await?;
        let Some(partition) = partition(tx.conn()?, ticket).await? else {
            return Ok(Heartbeat::Refused(Refusal::Used));
        };
        let row = see(tx.conn()?, ticket, false).await?;
        let standing = row.as_ref().map(|row| standing(row, &partition)).transpose()?;
        match judge(ticket, standing.as_ref()) {
            Err(refusal) => Ok(Heartbeat::Refused(refusal)),
            Ok(false) => Ok(Heartbeat::InFlight),
            Ok(true) => {
                let query = sqlx::query(EXTEND).bind(&*ticket.partition).bind(&*ticket.item);
                let query = query.bind(ticket.version.saturating_add(1)).bind(seconds(ticket.timeout));
                let row = query.fetch_one(tx.conn()?).await?;
                let until = at(&row, "waiting_until")?;
                tx.commit().await?;
                Ok(Heartbeat::Extended(until))
            }
        }
    }

    pub(super) async fn read_overdue(
        &self,
        leases: &[Arc<Lease>],
        limit: usize,
    ) -> Result<Vec<Vec<DueItem>>> {
        let mut connection = self.lanes.read(Lane::Work).await?;
        let held = held(&mut connection, &borrowed(leases), "p.status").await?;
        let (mut found, mut left) = (Vec::with_capacity(leases.len()), limit);
        let mut failing = Vec::new();
        for (lease, row) in leases.iter().zip(held) {
            let status = row.as_ref().map(|row| row.try_get::<&str, _>("status")).transpose()?;
            if left == 0 || status != Some(PartitionStatus::Available.as_str()) {
                found.push(Vec::new());
                continue;
            }
            let query = sqlx::query(OVERDUE).bind(&*lease.partition).bind(left as i64);
            let rows = query.fetch_all(&mut *connection).await?;
            left -= rows.len();
            let (items, no_name) = named(&rows)?;
            found.push(items);
            if !no_name.is_empty() {
                failing.push((lease.as_ref(), no_name));
            }
        }
        drop(connection);
        fail_items(&self.lanes, &failing).await?;
        Ok(found)
    }
}

async fn partition(connection: &mut SqliteConnection, ticket: &Ticket) -> Result<Option<SqliteRow>> {
    Ok(sqlx::query(PARTITION).bind(&*ticket.partition).fetch_optional(connection).await?)
}

async fn see(
    connection: &mut SqliteConnection,
    ticket: &Ticket,
    with_data: bool,
) -> Result<Option<SqliteRow>> {
    let query = sqlx::query(SEE).bind(&*ticket.partition).bind(&*ticket.item).bind(with_data);
    Ok(query.fetch_optional(connection).await?)
}

/// Returns whose dependents are left.
async fn write(
    connection: &mut SqliteConnection,
    completion: &Completion,
    has_dependencies: bool,
) -> Result<Left> {
    let Completion { lease, item, version, change, .. } = completion;
    let query = sqlx::query(WRITE).bind(&*lease.partition).bind(&**item).bind(version);
    let query = query.bind(change.status.as_str()).bind(change.gate).bind(change.pass);
    let query = query.bind(change.retry_count).bind(change.delay.map(seconds));
    let query = query.bind(change.data.as_ref().map(|data| data.bytes.as_ref()));
    let query = query.bind(change.data.as_ref().map(|data| &data.content_type)).bind(&change.error_messages);
    query.execute(&mut *connection).await?;
    keep(connection, &[completion]).await?;
    add_children(connection, vec![completion]).await?;
    let dependent = has_dependencies.then_some(completion);
    let left = unblock_dependents(connection, dependent.into_iter()).await?;
    sqlx::query(WAKE).bind(&*lease.partition).execute(connection).await?;
    Ok(left)
}

fn standing(row: &SqliteRow, partition: &SqliteRow) -> Result<Standing> {
    Ok(Standing {
        partition: word(partition, "status")?,
        status: word(row, "status")?,
        version: row.try_get("version")?,
        born: born(row)?,
        is_overdue: row.try_get("is_overdue")?,
        expired_version: row.try_get("expired_version")?,
    })
}
