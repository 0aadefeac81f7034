//! Which blobs rows refer to.

use gatefeed_core::{StoreError, blob::Space};
use sqlx::Row;

use super::{Sqlite, error::Result, pool::Lane};

const SPACE: &str = "SELECT id, secret FROM gatefeed_blob_space";

/// Both tables in one statement: what moves from one to the other is seen in one of them.
pub(super) const REFERRED_TO: &str = "SELECT EXISTS (
        SELECT 1 FROM gatefeed_items INDEXED BY gatefeed_items_blob
        WHERE substr(content_type, 1, 30) = 'application/vnd.gatefeed.blob;'
            AND CAST(substr(data, 1, 71) AS BLOB) = ?1)
    OR EXISTS (
        SELECT 1 FROM gatefeed_history INDEXED BY gatefeed_history_blob
        WHERE substr(content_type, 1, 30) = 'application/vnd.gatefeed.blob;'
            AND CAST(substr(data, 1, 71) AS BLOB) = ?1)";

impl Sqlite {
    pub(super) async fn read_blob_space(&self) -> Result<Space> {
        let row = sqlx::query(SPACE).fetch_one(&mut *self.lanes.read(Lane::Ask).await?).await?;
        let id = row.try_get::<&str, _>("id")?.parse();
        let id = id.map_err(|_| StoreError::Defect("the id of the blob space is no uuid".into()))?;
        Ok(Space { id, secret: row.try_get("secret")? })
    }

    /// One after the other: what refers to a blob stays, unless it goes for good.
    pub(super) async fn find_references(&self, paths: &[String]) -> Result<Vec<String>> {
        let mut connection = self.lanes.read(Lane::Look).await?;
        let mut found = Vec::new();
        for path in paths {
            let query = sqlx::query_scalar::<_, bool>(REFERRED_TO).bind(path.as_bytes());
            if query.fetch_one(&mut *connection).await? {
                found.push(path.clone());
            }
        }
        Ok(found)
    }
}
