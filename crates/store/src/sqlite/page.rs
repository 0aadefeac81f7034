//! Reading items that are due.

use gatefeed_core::{
    item::INLINE_BYTES_MAX,
    store::{Cursor, Page, PageRequest},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Sqlite,
    error::Result,
    pool::Lane,
    rows::now,
    text::{Nameless, fail_items, named},
};

/// A gate and a priority as one number, in the order of delivery.
fn rank(gate: i32, priority: i32) -> i64 {
    (i64::from(gate) << 32) + i64::from(i32::MAX) - i64::from(priority)
}

/// The beginning: before every rank.
pub(super) const RANK_MIN: i64 = -1;

/// The group of items with the rank of `g`.
macro_rules! of_group {
    ($item:literal) => {
        concat!($item, ".gate = (g.rank >> 32) AND ", $item, ".priority = 2147483647 - (g.rank & 4294967295)")
    };
}
pub(super) use of_group;

/// The rank of the group after `g`, or NULL: two probes, however many items the partition has.
macro_rules! next_rank {
    ($partition:literal) => {
        concat!(
            "coalesce(
            (SELECT (n.gate << 32) + 2147483647 - n.priority FROM gatefeed_items n INDEXED BY gatefeed_items_due
             WHERE n.partition_id = ",
            $partition,
            " AND n.status = 'available' AND n.gate = (g.rank >> 32)
                AND n.priority < 2147483647 - (g.rank & 4294967295)
             ORDER BY n.priority DESC LIMIT 1),
            (SELECT (n.gate << 32) + 2147483647 - n.priority FROM gatefeed_items n INDEXED BY gatefeed_items_due
             WHERE n.partition_id = ",
            $partition,
            " AND n.status = 'available' AND n.gate > (g.rank >> 32)
                AND n.gate <= g.gate_max
             ORDER BY n.gate, n.priority DESC LIMIT 1))"
        )
    };
}
pub(super) use next_rank;

/// One page. A loose scan goes from one group of items with the same gate and priority to the next; within one,
/// what is due stands first, so that ever so many delayed items in front of due ones cost one probe. The CROSS
/// JOIN fixes the order of the loops, and with it that of the rows. The group of the cursor is the first, and read
/// from there.
pub(super) const PAGE: &str = concat!(
    "WITH RECURSIVE groups (gate_max, rank, after_at, after_id) AS (
        SELECT p.gate, ?5, ?6, ?7 FROM gatefeed_partitions p
        WHERE p.id = ?1 AND p.owner = ?2 AND p.lease_id = ?3 AND p.epoch = ?4 AND p.status = 'available'
            AND p.gate >= (?5 >> 32)
        UNION ALL
        SELECT g.gate_max, ",
    next_rank!("?1"),
    ", '', '' FROM groups g WHERE g.rank IS NOT NULL
    )
    SELECT i.id, i.gate, i.priority, i.pass, i.retry_count, i.suspect_count, i.version, i.available_at, i.created_at,
        i.content_type, octet_length(i.data) AS size,
        CASE WHEN octet_length(i.data) <= ?8 THEN CAST(i.data AS BLOB) END AS data, i.error_messages,
        CASE WHEN EXISTS (SELECT 1 FROM gatefeed_items h INDEXED BY gatefeed_items_gather
                WHERE h.partition_id = ?1 AND h.gather IS NOT NULL)
            THEN (SELECT h.gather FROM gatefeed_items h INDEXED BY gatefeed_items_gather
                WHERE h.partition_id = ?1 AND h.id = i.id AND h.gather IS NOT NULL) END AS gather
    FROM groups g CROSS JOIN gatefeed_items i INDEXED BY gatefeed_items_due
    WHERE i.partition_id = ?1 AND i.status = 'available' AND ",
    of_group!("i"),
    " AND (i.available_at, i.id) > (g.after_at, g.after_id) AND i.available_at <= ",
    now!(),
    " LIMIT ?9"
);

impl Sqlite {
    /// Each page is one statement, and so sees one moment.
    pub(super) async fn read_pages(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        let mut pages = Vec::with_capacity(requests.len());
        let mut connection = self.lanes.read(Lane::Work).await?;
        let mut failing = Vec::new();
        for request in requests {
            let (page, no_name) = read_page(&mut connection, request).await?;
            pages.push(page);
            if !no_name.is_empty() {
                failing.push((request.lease.as_ref(), no_name));
            }
        }
        drop(connection);
        fail_items(&self.lanes, &failing).await?;
        Ok(pages)
    }
}

/// A page, and the items on it that nobody can name.
async fn read_page(
    connection: &mut SqliteConnection,
    request: &PageRequest,
) -> Result<(Page, Vec<Nameless>)> {
    if request.limit == 0 {
        return Ok((Page { items: Vec::new(), next: request.after.clone() }, Vec::new()));
    }
    let lease = &request.lease;
    let (from, at, id) = match &request.after {
        Some(after) => (rank(after.gate, after.priority), after.available_at.as_str(), after.id.as_str()),
        None => (RANK_MIN, "", ""),
    };
    let query =
        sqlx::query(PAGE).bind(&*lease.partition).bind(&*lease.owner).bind(lease.lease_id.to_string());
    let query = query.bind(lease.epoch).bind(from).bind(at).bind(id).bind(INLINE_BYTES_MAX as i64);
    let rows = query.bind(i64::try_from(request.limit).unwrap_or(i64::MAX)).fetch_all(connection).await?;
    let (items, no_name) = named(&rows)?;
    let is_end = rows.len() < request.limit;
    let next = if is_end { None } else { Some(cursor(&rows, request)?) };
    Ok((Page { items, next }, no_name))
}

/// Behind the last item that has a name: those behind it, which have none, will have failed.
fn cursor(rows: &[SqliteRow], request: &PageRequest) -> Result<Cursor> {
    for row in rows.iter().rev() {
        if let Ok(id) = row.try_get::<&str, _>("id") {
            let (gate, priority) = (row.try_get("gate")?, row.try_get("priority")?);
            return Ok(Cursor {
                gate,
                priority,
                available_at: row.try_get("available_at")?,
                id: id.to_owned(),
            });
        }
    }
    Ok(request.after.clone().unwrap_or_else(beginning))
}

/// A cursor before everything: its rank is [`RANK_MIN`].
fn beginning() -> Cursor {
    Cursor { gate: -1, priority: i32::MIN, available_at: String::new(), id: String::new() }
}
