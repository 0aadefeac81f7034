//! Callbacks: outcomes that come from elsewhere, written under the partition's lock instead of a lease.

use std::{collections::HashMap, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use gatefeed_core::{
    Result,
    callback::{Callback, CalledBack, Heartbeat, KEY_BYTES, Key, Refusal, Standing, Ticket, judge},
    item::{DueItem, ItemStatus, content_type},
    lease::Lease,
    outcome::Completion,
    partition::PartitionStatus,
};
use sqlx::postgres::PgRow;

use super::{
    Postgres,
    claim::micros,
    error::translate,
    pool::{Lane, Tx},
    rows::{LeaseArrays, at, get},
    wake::Hint,
};
use crate::unsettled::Left;

const LIMIT: Duration = Duration::from_secs(10);

/// How long a callback waits for a row that somebody has locked, before its handler is asked to come again.
const LOCK_WAIT: Duration = Duration::from_secs(2);

const LOCK: &str =
    "SELECT p.status, p.feed, p.keep_history, p.has_dependencies FROM {schema}.gatefeed_partitions p
    WHERE p.id = $1 FOR NO KEY UPDATE OF p";

const STATUS: &str = "SELECT p.status FROM {schema}.gatefeed_partitions p WHERE p.id = $1";

/// In a statement that begins after the lock was taken. The data only where a history is kept.
const SEE: &str = "SELECT i.status, i.version, i.created_at, i.expired_version, i.waiting_until,
        i.waiting_until <= clock_timestamp() AS is_overdue, i.gate, i.pass, i.retry_count, i.suspect_count,
        i.content_type, octet_length(i.data) AS size, CASE WHEN $3 THEN i.data END AS data, i.error_messages
    FROM {schema}.gatefeed_items i WHERE i.partition_id = $1 AND i.id = $2 FOR NO KEY UPDATE OF i";

const WRITE: &str = "UPDATE {schema}.gatefeed_items i
    SET status = $4, gate = $5, pass = $6, retry_count = $7, suspect_count = 0,
        available_at = CASE WHEN $8::bigint IS NULL THEN i.available_at
            ELSE clock_timestamp() + $8 * interval '1 microsecond' END,
        data = coalesce($9, i.data), content_type = coalesce($10, i.content_type),
        error_messages = coalesce($11, i.error_messages), waiting_until = NULL, version = i.version + 1,
        updated_at = now()
    WHERE i.partition_id = $1 AND i.id = $2 AND i.version = $3";

const WAKE: &str = "UPDATE {schema}.gatefeed_partitions p SET next_run_at = now()
    WHERE p.id = $1 AND p.status IN ('available', 'paused')";

/// Without the partition's lock, since nothing of it changes: a checkpoint that has seen the earlier time wakes in vain.
const EXTEND: &str = "UPDATE {schema}.gatefeed_items i
    SET waiting_until = greatest(i.waiting_until, clock_timestamp() + $4 * interval '1 microsecond')
    WHERE i.partition_id = $1 AND i.id = $2 AND i.version = $3 AND i.status = 'waiting'
        AND i.waiting_until > clock_timestamp()
    RETURNING i.waiting_until";

/// Of one partition after another the first to be over their time.
pub(super) const OVERDUE: &str = "SELECT p.id AS partition, i.* FROM
    unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) AS l (id, owner, lease_id, epoch)
    JOIN {schema}.gatefeed_partitions p ON p.id = l.id AND p.owner = l.owner AND p.lease_id = l.lease_id
        AND p.epoch = l.epoch AND p.status = 'available'
    CROSS JOIN LATERAL (
        SELECT i.id, i.version, i.created_at, i.gate, i.pass, i.retry_count, i.suspect_count, i.content_type,
            octet_length(i.data) AS size, NULL::bytea AS data, i.error_messages
        FROM {schema}.gatefeed_items i
        WHERE i.partition_id = p.id AND i.status = 'waiting' AND i.waiting_until <= clock_timestamp()
        ORDER BY i.waiting_until LIMIT $5) i
    LIMIT $5";

const KEY: &str = "SELECT secret FROM {schema}.gatefeed_keys WHERE name = 'callbacks'";
const MAKE_KEY: &str =
    "INSERT INTO {schema}.gatefeed_keys (name, secret) VALUES ('callbacks', $1) ON CONFLICT DO NOTHING";

/// The partition of a callback, its row locked.
struct Locked {
    status: PartitionStatus,
    feed: Arc<str>,
    keep_history: bool,
    has_dependencies: bool,
}

impl Postgres {
    /// Read with a statement that writes nothing, but for the first time.
    pub(super) async fn key(&self) -> Result<Key> {
        let mut tx = self.begin(Lane::Ask, LIMIT).await?;
        let mut found = tx.query(self.sql.get(KEY)).fetch_optional(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        if found.is_none() {
            // There are no callbacks before there is a key.
            let mut tx = self.begin(Lane::Call, LIMIT).await?;
            let fresh: [u8; KEY_BYTES] = rand::random();
            let make = tx.query(self.sql.get(MAKE_KEY)).bind(&fresh[..]);
            make.execute(tx.conn()?).await.map_err(translate)?;
            // Somebody else may have been first.
            found = tx.query(self.sql.get(KEY)).fetch_optional(tx.conn()?).await.map_err(translate)?;
            tx.commit().await?;
        }
        Key::new(found.as_ref().map(|row| at::<&[u8]>(row, 0)).transpose()?.unwrap_or_default())
    }

    /// On a connection of the callbacks: one that waits for somebody's lock keeps nothing else waiting.
    pub(super) async fn take_callback(&self, callback: &Callback) -> Result<CalledBack> {
        let ticket = &callback.ticket;
        let mut tx = self.begin_for(&ticket.partition, Lane::Call, LIMIT, LOCK_WAIT).await?;
        let found = self.find_callback(&mut tx, ticket).await?;
        let (partition, item) = match found {
            Ok(found) => found,
            Err(refusal) => {
                tx.rollback().await?;
                return Ok(CalledBack::Refused(refusal));
            }
        };
        let completion = callback.completion(partition.feed.clone(), &item, partition.keep_history);
        let (mut feeds, left) = self.write_callback(&mut tx, &completion, partition.has_dependencies).await?;
        tx.commit().await?;
        self.settle_soon(left);
        feeds.push(partition.feed.to_string());
        self.announce_soon(feeds.into_iter().map(Hint::Due).collect());
        Ok(CalledBack::Written { status: completion.change.status, gate: completion.change.gate })
    }

    pub(super) async fn extend_wait(&self, ticket: &Ticket) -> Result<Heartbeat> {
        let mut tx = self.begin_for(&ticket.partition, Lane::Call, LIMIT, LOCK_WAIT).await?;
        let row = self.see_ticket(&mut tx, ticket, false).await?;
        let standing = match &row {
            Some(row) => self.partition_status(&mut tx, ticket).await?.map(|status| standing(row, status)),
            None => None,
        };
        let beat = match judge(ticket, standing.transpose()?.as_ref()) {
            Err(refusal) => Heartbeat::Refused(refusal),
            Ok(false) => Heartbeat::InFlight,
            Ok(true) => {
                let query = tx.query(self.sql.get(EXTEND)).bind(ticket.partition.as_ref());
                let query = query.bind(ticket.item.as_ref()).bind(ticket.version.saturating_add(1));
                let query = query.bind(micros(ticket.timeout)).fetch_optional(tx.conn()?).await;
                match query.map_err(translate)? {
                    Some(row) => Heartbeat::Extended(at::<DateTime<Utc>>(&row, 0)?),
                    // It was over while somebody had the row locked.
                    None => Heartbeat::Refused(Refusal::Expired),
                }
            }
        };
        tx.commit().await?;
        Ok(beat)
    }

    pub(super) async fn read_overdue(
        &self,
        leases: &[Arc<Lease>],
        limit: usize,
    ) -> Result<Vec<Vec<DueItem>>> {
        let LeaseArrays { ids, owners, lease_ids, epochs } = LeaseArrays::of(leases);
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        let query = tx.query(self.sql.get(OVERDUE)).bind(ids).bind(owners).bind(lease_ids).bind(epochs);
        let rows = query.bind(limit as i64).fetch_all(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        let mut found: HashMap<&str, Vec<DueItem>> = HashMap::new();
        for row in &rows {
            let id = get::<&str>(row, "id")?.into();
            found.entry(get(row, "partition")?).or_default().push(item(row, id)?);
        }
        let of = |lease: &Arc<Lease>| found.remove(lease.partition.as_ref()).unwrap_or_default();
        Ok(leases.iter().map(of).collect())
    }

    /// The partition and the item of a ticket, locked in this order, or why a callback is not taken.
    async fn find_callback(
        &self,
        tx: &mut Tx,
        ticket: &Ticket,
    ) -> Result<Result<(Locked, DueItem), Refusal>> {
        let Some(partition) = self.lock_of_callback(tx, &ticket.partition).await? else {
            return Ok(Err(Refusal::Used));
        };
        let Some(row) = self.see_ticket(tx, ticket, partition.keep_history).await? else {
            return Ok(Err(Refusal::Used));
        };
        match judge(ticket, Some(&standing(&row, partition.status)?)) {
            Ok(_) => Ok(Ok((partition, item(&row, ticket.item.clone())?))),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    async fn lock_of_callback(&self, tx: &mut Tx, partition: &str) -> Result<Option<Locked>> {
        let query = tx.query(self.sql.get(LOCK)).bind(partition);
        let row = query.fetch_optional(tx.conn()?).await.map_err(translate)?;
        let locked = |row: PgRow| {
            Ok(Locked {
                status: PartitionStatus::from_str(get(&row, "status")?)?,
                feed: get::<&str>(&row, "feed")?.into(),
                keep_history: get(&row, "keep_history")?,
                has_dependencies: get(&row, "has_dependencies")?,
            })
        };
        row.map(locked).transpose()
    }

    async fn partition_status(&self, tx: &mut Tx, ticket: &Ticket) -> Result<Option<PartitionStatus>> {
        let query = tx.query(self.sql.get(STATUS)).bind(ticket.partition.as_ref());
        let row = query.fetch_optional(tx.conn()?).await.map_err(translate)?;
        row.map(|row| PartitionStatus::from_str(at(&row, 0)?)).transpose()
    }

    async fn see_ticket(&self, tx: &mut Tx, ticket: &Ticket, with_data: bool) -> Result<Option<PgRow>> {
        let query = tx.query(self.sql.get(SEE)).bind(ticket.partition.as_ref()).bind(ticket.item.as_ref());
        query.bind(with_data).fetch_optional(tx.conn()?).await.map_err(translate)
    }

    /// The item's row is locked, and has this version. Returns the feeds that may have something new, and whose dependents are
    /// left.
    async fn write_callback(
        &self,
        tx: &mut Tx,
        completion: &Completion,
        has_dependencies: bool,
    ) -> Result<(Vec<String>, Left)> {
        let Completion { lease, item, version, change, .. } = completion;
        let query = tx.query(self.sql.get(WRITE)).bind(&*lease.partition).bind(&**item).bind(*version);
        let query = query.bind(change.status.as_str()).bind(change.gate).bind(change.pass);
        let query = query.bind(change.retry_count).bind(change.delay.map(micros));
        let query = query.bind(change.data.as_ref().map(|data| &data.bytes[..]));
        let query = query.bind(change.data.as_ref().map(|data| data.content_type.as_str()));
        let query = query.bind(change.error_messages.as_deref());
        query.execute(tx.conn()?).await.map_err(translate)?;
        self.keep_history(tx, std::iter::once(completion)).await?;
        let feeds = self.add_children(tx, vec![completion]).await?;
        let dependent = has_dependencies.then_some(completion);
        let left = self.unblock_dependents(tx, dependent.into_iter()).await?;
        let query = tx.query(self.sql.get(WAKE)).bind(&*lease.partition);
        query.execute(tx.conn()?).await.map_err(translate)?;
        Ok((feeds, left))
    }
}

fn standing(row: &PgRow, partition: PartitionStatus) -> Result<Standing> {
    Ok(Standing {
        partition,
        status: ItemStatus::from_str(get(row, "status")?)?,
        version: get(row, "version")?,
        born: born(row)?,
        is_overdue: get(row, "is_overdue")?,
        expired_version: get(row, "expired_version")?,
    })
}

fn born(row: &PgRow) -> Result<i64> {
    Ok(get::<DateTime<Utc>>(row, "created_at")?.timestamp_micros())
}

fn item(row: &PgRow, id: Arc<str>) -> Result<DueItem> {
    Ok(DueItem {
        id,
        gate: get(row, "gate")?,
        pass: get(row, "pass")?,
        retry_count: get(row, "retry_count")?,
        suspect_count: get(row, "suspect_count")?,
        version: get(row, "version")?,
        content_type: content_type(get(row, "content_type")?),
        size: get::<i32>(row, "size")?.unsigned_abs().into(),
        data: get::<Option<&[u8]>>(row, "data")?.map(Bytes::copy_from_slice),
        error_messages: get(row, "error_messages")?,
        gather: None,
        born: born(row)?,
        reference: None,
    })
}
