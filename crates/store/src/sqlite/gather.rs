//! Reading what an item gathers: some of the partition is looked at, and the data of what is wanted loaded.

use bytes::Bytes;
use gatefeed_core::{
    gather::{GatherRequest, GatheredItem, GatheredPage, SCAN_MAX, fitting},
    item::{Data, ItemStatus},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Sqlite,
    error::Result,
    operate::no_partition,
    pool::Lane,
    rows::{by_key, word},
    text::{after_item, owned, shown},
};

/// By the primary key: an index of what is finished would cost every outcome.
pub(super) const SCAN: &str = concat!(
    "SELECT id, status, gate, content_type, octet_length(data) AS size FROM gatefeed_items ",
    by_key!(items),
    " WHERE partition_id = ? AND id > CAST(? AS TEXT) ORDER BY id LIMIT ?"
);

const LOAD: &str =
    "SELECT CAST(data AS BLOB) FROM gatefeed_items WHERE partition_id = ? AND id = CAST(? AS TEXT)";

const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM gatefeed_partitions WHERE id = ?)";

impl Sqlite {
    /// What is terminal stays as it is but for operators, so that two statements see the same.
    pub(super) async fn read_gathered(&self, request: &GatherRequest) -> Result<GatheredPage> {
        let mut connection = self.lanes.read(Lane::Scan).await?;
        let after = after_item(&mut connection, &request.partition, request.after.as_deref()).await?;
        let scan = sqlx::query(SCAN).bind(&request.partition).bind(after);
        let mut rows = scan.bind(SCAN_MAX as i64).fetch_all(&mut *connection).await?;
        if rows.is_empty() && request.after.is_none() {
            must_exist(&mut connection, &request.partition).await?;
        }
        let is_end = rows.len() < SCAN_MAX;
        let seen: Vec<(bool, usize)> = rows.iter().map(|row| look(row, request)).collect::<Result<_>>()?;
        let (count, fit) = fitting(seen.iter().copied());
        rows.truncate(count);
        let next = match rows.last() {
            Some(row) if !(is_end && fit) => Some(owned(row, "id")?),
            _ => None,
        };
        let mut items = Vec::new();
        for (row, (is_wanted, _)) in rows.iter().zip(seen) {
            if is_wanted {
                items.extend(load(&mut connection, request, row).await?);
            }
        }
        Ok(GatheredPage { items, next })
    }
}

async fn must_exist(connection: &mut SqliteConnection, partition: &str) -> Result<()> {
    match sqlx::query_scalar(EXISTS).bind(partition).fetch_one(connection).await? {
        true => Ok(()),
        false => Err(no_partition(partition).into()),
    }
}

/// Whether it is wanted, and its size.
fn look(row: &SqliteRow, request: &GatherRequest) -> Result<(bool, usize)> {
    let is_wanted = row.try_get::<i32, _>("gate")? == request.gather.gate
        && request.gather.status.is(word::<ItemStatus>(row, "status")?);
    Ok((is_wanted, row.try_get::<i64, _>("size")?.unsigned_abs() as usize))
}

/// `None`: it was deleted in between.
async fn load(
    connection: &mut SqliteConnection,
    request: &GatherRequest,
    row: &SqliteRow,
) -> Result<Option<GatheredItem>> {
    let id: &[u8] = row.try_get("id")?;
    let load = sqlx::query_scalar::<_, Vec<u8>>(LOAD).bind(&request.partition).bind(id);
    let Some(bytes) = load.fetch_optional(connection).await?.map(Bytes::from) else { return Ok(None) };
    let data = Data { bytes, content_type: owned(row, "content_type")? };
    Ok(Some(GatheredItem { id: shown(id).into_owned(), status: word(row, "status")?, data }))
}
