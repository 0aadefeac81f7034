//! Reading items that are due.

use std::time::Duration;

use bytes::Bytes;
use gatefeed_core::{
    Result,
    gather::Gather,
    item::{DueItem, INLINE_BYTES_MAX, content_type},
    store::{Cursor, Page, PageRequest},
};
use sqlx::postgres::PgRow;

use super::{
    Postgres,
    error::translate,
    pool::Lane,
    rows::{LeaseArrays, at},
};

const LIMIT: Duration = Duration::from_secs(30);

/// One page for each of several partitions. Within a partition a loose scan goes from one (gate, priority) to
/// the next; within those, what is due stands first, so that ever so many delayed items in front of due ones
/// cost one probe. The row comparison on the negated priority is what lets the index carry the keyset. The first group is
/// the cursor's own, and not looked for: that would walk over the entries of all its finished items, which stay in the
/// index until a vacuum. Which column stands where is told in [`item`] and [`place`].
pub(super) const PAGE: &str = "SELECT r.number, i.* FROM
    unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[], $5::int[], $6::bigint[], $7::timestamptz[],
           $8::text[], $9::bigint[]) WITH ORDINALITY
        AS r (id, owner, lease_id, epoch, after_gate, after_rank, after_at, after_id, page_limit, number)
    JOIN {schema}.gatefeed_partitions p
        ON p.id = r.id AND p.owner = r.owner AND p.lease_id = r.lease_id AND p.epoch = r.epoch
            AND p.status = 'available'
    CROSS JOIN LATERAL (
        WITH RECURSIVE groups (gate, rank) AS (
            SELECT r.after_gate, r.after_rank
            UNION ALL
            SELECT n.gate, n.rank FROM groups o CROSS JOIN LATERAL (
                SELECT g.gate, -(g.priority::bigint) AS rank FROM {schema}.gatefeed_items g
                WHERE g.partition_id = p.id AND g.status = 'available' AND g.gate <= p.gate
                    AND (g.gate, -(g.priority::bigint)) > (o.gate, o.rank)
                ORDER BY g.gate, -(g.priority::bigint) LIMIT 1) n
        )
        SELECT d.* FROM groups o CROSS JOIN LATERAL (
            SELECT i.gate, i.priority, i.available_at, i.id, i.pass, i.retry_count, i.suspect_count, i.version,
                i.content_type, octet_length(i.data) AS size,
                CASE WHEN octet_length(i.data) <= $10 THEN i.data END AS data, i.error_messages,
                i.gather::text AS gather, i.created_at
            FROM {schema}.gatefeed_items i
            WHERE i.partition_id = p.id AND i.status = 'available' AND i.gate = o.gate AND o.gate <= p.gate
                AND -(i.priority::bigint) = o.rank AND i.available_at <= now()
                AND (i.available_at, i.id) > (
                    CASE WHEN (o.gate, o.rank) = (r.after_gate, r.after_rank) THEN r.after_at ELSE '-infinity' END,
                    CASE WHEN (o.gate, o.rank) = (r.after_gate, r.after_rank) THEN r.after_id ELSE '' END)
            ORDER BY i.available_at, i.id LIMIT r.page_limit) d
        LIMIT r.page_limit) i";

impl Postgres {
    pub(super) async fn read_pages(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        let leases = LeaseArrays::new(requests.iter().map(|r| r.lease.as_ref()));
        let starts: Vec<Start> = requests.iter().map(|r| Start::of(r.after.as_ref())).collect();
        let limits: Vec<i64> = requests.iter().map(|r| r.limit as i64).collect();
        let mut tx = self.begin_single(Lane::Work, LIMIT, LIMIT).await?;
        let query = tx.query(self.sql.get(PAGE)).bind(leases.ids).bind(leases.owners).bind(leases.lease_ids);
        let query = query.bind(leases.epochs).bind(starts.iter().map(|s| s.gate).collect::<Vec<_>>());
        let query = query.bind(starts.iter().map(|s| s.rank).collect::<Vec<_>>());
        let query = query.bind(starts.iter().map(|s| s.at).collect::<Vec<_>>());
        let query = query.bind(starts.iter().map(|s| s.id).collect::<Vec<_>>()).bind(limits);
        let rows = query.bind(INLINE_BYTES_MAX as i32).fetch_all(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        into_pages(&rows, requests)
    }
}

/// Where a page starts, as parameters: before everything, if there is no cursor.
struct Start<'a> {
    gate: i32,
    rank: i64,
    at: chrono::DateTime<chrono::Utc>,
    id: &'a str,
}

impl<'a> Start<'a> {
    fn of(after: Option<&'a Cursor>) -> Self {
        let read = |cursor: &'a Cursor| {
            let at = cursor.available_at.parse().ok().and_then(chrono::DateTime::from_timestamp_micros)?;
            Some(Self { gate: cursor.gate, rank: -i64::from(cursor.priority), at, id: &cursor.id })
        };
        after.and_then(read).unwrap_or(Self { gate: -1, rank: 0, at: chrono::DateTime::UNIX_EPOCH, id: "" })
    }
}

/// Gate, negated priority and microseconds of `available_at`: the order of delivery, but for ids.
type Place = (i32, i64, i64);

fn into_pages(rows: &[PgRow], requests: &[PageRequest]) -> Result<Vec<Page>> {
    let mut read: Vec<Vec<(Place, DueItem)>> = requests.iter().map(|_| Vec::new()).collect();
    for row in rows {
        if let Some(items) = read.get_mut(at::<i64>(row, 0)? as usize - 1) {
            items.push((place(row)?, item(row)?));
        }
    }
    let pages = read.into_iter().zip(requests).map(|(mut items, request)| {
        // The statement yields this order already; SQL does not promise it. Stable, so that ids stay in theirs.
        items.sort_by_key(|(place, _)| *place);
        let next = items.last().filter(|_| items.len() >= request.limit).map(cursor);
        Page { items: items.into_iter().map(|(_, item)| item).collect(), next }
    });
    Ok(pages.collect())
}

fn place(row: &PgRow) -> Result<Place> {
    let available_at: chrono::DateTime<chrono::Utc> = at(row, 3)?;
    Ok((at(row, 1)?, -i64::from(at::<i32>(row, 2)?), available_at.timestamp_micros()))
}

fn item(row: &PgRow) -> Result<DueItem> {
    Ok(DueItem {
        gate: at(row, 1)?,
        id: at::<&str>(row, 4)?.into(),
        pass: at(row, 5)?,
        retry_count: at(row, 6)?,
        suspect_count: at(row, 7)?,
        version: at(row, 8)?,
        content_type: content_type(at(row, 9)?),
        size: at::<i32>(row, 10)?.unsigned_abs().into(),
        data: at::<Option<&[u8]>>(row, 11)?.map(Bytes::copy_from_slice),
        error_messages: at(row, 12)?,
        gather: at::<Option<&str>>(row, 13)?.map(Gather::parse).transpose()?,
        born: at::<chrono::DateTime<chrono::Utc>>(row, 14)?.timestamp_micros(),
        reference: None,
    })
}

fn cursor(((gate, rank, micros), item): &(Place, DueItem)) -> Cursor {
    Cursor { gate: *gate, priority: -rank as i32, available_at: micros.to_string(), id: item.id.to_string() }
}
