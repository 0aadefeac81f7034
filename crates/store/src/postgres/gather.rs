//! Reading what an item gathers: some of the partition is looked at, and the data of what is wanted loaded.

use std::{collections::HashMap, str::FromStr, time::Duration};

use bytes::Bytes;
use gatefeed_core::{
    Result,
    gather::{GatherRequest, GatheredItem, GatheredPage, SCAN_MAX, fitting},
    item::{Data, ItemStatus},
};
use sqlx::{Row, postgres::PgRow};

use super::{
    Postgres,
    error::translate,
    operate::no_partition,
    pool::{Lane, Tx},
    rows::get,
};

const LIMIT: Duration = Duration::from_secs(30);

/// By the primary key: an index of what is finished would cost every outcome.
pub(super) const SCAN: &str = "SELECT id, status, gate, content_type, octet_length(data) AS size
    FROM {schema}.gatefeed_items WHERE partition_id = $1 AND id > $2 ORDER BY id LIMIT $3";

const LOAD: &str =
    "SELECT id, data FROM {schema}.gatefeed_items WHERE partition_id = $1 AND id = ANY ($2::text[])";

const EXISTS: &str = "SELECT 1 FROM {schema}.gatefeed_partitions WHERE id = $1";

impl Postgres {
    pub(super) async fn read_gathered(&self, request: &GatherRequest) -> Result<GatheredPage> {
        let mut tx = self.begin(Lane::Scan, LIMIT).await?;
        let page = self.gather(&mut tx, request).await?;
        tx.commit().await?;
        Ok(page)
    }

    async fn gather(&self, tx: &mut Tx, request: &GatherRequest) -> Result<GatheredPage> {
        let after = request.after.as_deref().unwrap_or("");
        let scan = tx.query(self.sql.get(SCAN)).bind(&request.partition).bind(after).bind(SCAN_MAX as i64);
        let mut rows = scan.fetch_all(tx.conn()?).await.map_err(translate)?;
        if rows.is_empty() && request.after.is_none() {
            self.must_exist(tx, &request.partition).await?;
        }
        let is_end = rows.len() < SCAN_MAX;
        let (count, fit) = fitting(rows.iter().map(|row| (is_wanted(row, request), size(row))));
        rows.truncate(count);
        let next = rows.last().filter(|_| !(is_end && fit)).map(|row| row.get("id"));
        rows.retain(|row| is_wanted(row, request));
        let ids: Vec<&str> = rows.iter().map(|row| row.get("id")).collect();
        let mut loaded = HashMap::new();
        if !ids.is_empty() {
            let load = tx.query(self.sql.get(LOAD)).bind(&request.partition).bind(ids);
            for row in load.fetch_all(tx.conn()?).await.map_err(translate)? {
                loaded.insert(row.get::<String, _>("id"), Bytes::from(row.get::<Vec<u8>, _>("data")));
            }
        }
        let items = rows.iter().filter_map(|row| {
            let id: String = row.get("id");
            let bytes = loaded.remove(&id)?;
            Some(item(row, id, bytes))
        });
        Ok(GatheredPage { items: items.collect::<Result<_>>()?, next })
    }

    async fn must_exist(&self, tx: &mut Tx, partition: &str) -> Result<()> {
        let exists = tx.query(self.sql.get(EXISTS)).bind(partition);
        let found = exists.fetch_optional(tx.conn()?).await.map_err(translate)?;
        found.map(|_| ()).ok_or_else(|| no_partition(partition))
    }
}

fn is_wanted(row: &PgRow, request: &GatherRequest) -> bool {
    let status = ItemStatus::from_str(row.get("status"));
    row.get::<i32, _>("gate") == request.gather.gate
        && status.is_ok_and(|status| request.gather.status.is(status))
}

fn size(row: &PgRow) -> usize {
    row.get::<i32, _>("size").unsigned_abs() as usize
}

fn item(row: &PgRow, id: String, bytes: Bytes) -> Result<GatheredItem> {
    let data = Data { bytes, content_type: get(row, "content_type")? };
    Ok(GatheredItem { id, status: ItemStatus::from_str(get(row, "status")?)?, data })
}
