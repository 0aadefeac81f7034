//! Reading the data that stays behind when a page is read. One at a time: nothing is gained by several together, since
//! there is no round trip to save.

use gatefeed_core::item::Data;
use sqlx::Row;

use super::{Sqlite, error::Result, pool::Lane, text::owned};

const LOAD: &str = "SELECT CAST(data AS BLOB) AS data, content_type FROM gatefeed_items WHERE partition_id = ? AND id = ? AND version = ?";

impl Sqlite {
    pub(super) async fn load_data(&self, partition: &str, item: &str, version: i64) -> Result<Option<Data>> {
        let query = sqlx::query(LOAD).bind(partition).bind(item).bind(version);
        let Some(row) = query.fetch_optional(&mut *self.lanes.read(Lane::Work).await?).await? else {
            return Ok(None);
        };
        let bytes = row.try_get::<Vec<u8>, _>("data")?.into();
        Ok(Some(Data { bytes, content_type: owned(&row, "content_type")? }))
    }
}
