//! Reading items that are due.

use bytes::Bytes;
use gatefeed_core::{
    item::INLINE_BYTES_MAX,
    store::{Cursor, Page, PageRequest},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Sqlite,
    error::Result,
    rows::{due_item, now},
};

/// The first row of the next group of items with the same gate and priority after those of `g`, in the order of
/// delivery: two probes, however many items there are. `?1` is the partition.
macro_rules! next_group {
    () => {
        "coalesce(
            (SELECT n.rowid FROM gatefeed_items n
             WHERE n.partition_id = ?1 AND n.status = 'available' AND n.gate = g.gate AND n.priority < g.priority
             ORDER BY n.priority DESC LIMIT 1),
            (SELECT n.rowid FROM gatefeed_items n
             WHERE n.partition_id = ?1 AND n.status = 'available' AND n.gate > g.gate AND n.gate <= g.gate_max
             ORDER BY n.gate, n.priority DESC LIMIT 1))"
    };
}
pub(super) use next_group;

/// One page. A loose scan goes from one group to the next; within one, what is due stands first, so that ever so
/// many delayed items in front of due ones cost one probe. The CROSS JOINs fix the order of the loops, and with it
/// that of the rows. The group of the cursor is the first, and read from there; at the beginning it is a group
/// before all others, which has no items.
pub(super) const PAGE: &str = concat!(
    "WITH RECURSIVE groups (gate_max, gate, priority, after_at, after_id) AS (
        SELECT p.gate, ?5, ?6, ?7, ?8 FROM gatefeed_partitions p
        WHERE p.id = ?1 AND p.owner = ?2 AND p.lease_id = ?3 AND p.epoch = ?4 AND p.status = 'available'
            AND p.gate >= ?5
        UNION ALL
        SELECT g.gate_max, i.gate, i.priority, '', ''
        FROM groups g CROSS JOIN gatefeed_items i WHERE i.rowid = ",
    next_group!(),
    ")
    SELECT i.id, i.gate, i.priority, i.pass, i.retry_count, i.suspect_count, i.version, i.available_at,
        i.content_type, octet_length(i.data) AS size,
        CASE WHEN octet_length(i.data) <= ?9 THEN CAST(i.data AS BLOB) END AS data, i.error_messages
    FROM groups g CROSS JOIN gatefeed_items i
    WHERE i.partition_id = ?1 AND i.status = 'available' AND i.gate = g.gate AND i.priority = g.priority
        AND (i.available_at, i.id) > (g.after_at, g.after_id) AND i.available_at <= ",
    now!(),
    " LIMIT ?10"
);

const LOAD: &str = "SELECT CAST(data AS BLOB) FROM gatefeed_items WHERE partition_id = ? AND id = ? AND version = ?";

impl Sqlite {
    /// Each page is one statement, and so sees one moment.
    pub(super) async fn read_pages(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        let mut pages = Vec::with_capacity(requests.len());
        let mut connection = self.lanes.read().await?;
        for request in requests {
            pages.push(read_page(&mut connection, request).await?);
        }
        Ok(pages)
    }

    pub(super) async fn load_data(&self, partition: &str, item: &str, version: i64) -> Result<Option<Bytes>> {
        let query = sqlx::query_scalar::<_, Vec<u8>>(LOAD).bind(partition).bind(item).bind(version);
        Ok(query.fetch_optional(&mut *self.lanes.read().await?).await?.map(Bytes::from))
    }
}

async fn read_page(connection: &mut SqliteConnection, request: &PageRequest) -> Result<Page> {
    if request.limit == 0 {
        return Ok(Page { items: Vec::new(), next: request.after.clone() });
    }
    let beginning = Cursor { gate: -1, priority: 0, available_at: String::new(), id: String::new() };
    let (lease, after) = (&request.lease, request.after.as_ref().unwrap_or(&beginning));
    let query = sqlx::query(PAGE).bind(&*lease.partition).bind(&*lease.owner).bind(lease.lease_id.to_string());
    let query = query.bind(lease.epoch).bind(after.gate).bind(after.priority).bind(&after.available_at);
    let query = query.bind(&after.id).bind(INLINE_BYTES_MAX as i64);
    let rows = query.bind(i64::try_from(request.limit).unwrap_or(i64::MAX)).fetch_all(connection).await?;
    let last = rows.last().filter(|_| rows.len() == request.limit);
    Ok(Page { next: last.map(cursor).transpose()?, items: rows.iter().map(due_item).collect::<Result<_>>()? })
}

fn cursor(row: &SqliteRow) -> Result<Cursor> {
    Ok(Cursor {
        gate: row.try_get("gate")?,
        priority: row.try_get("priority")?,
        available_at: row.try_get("available_at")?,
        id: row.try_get("id")?,
    })
}
