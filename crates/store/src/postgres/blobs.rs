//! Which blobs rows refer to.

use std::time::Duration;

use gatefeed_core::{Result, blob::Space};

use super::{
    Postgres,
    error::translate,
    pool::Lane,
    rows::{at, get},
};

const LIMIT: Duration = Duration::from_secs(30);

const SPACE: &str = "SELECT id, secret FROM {schema}.gatefeed_blob_space";

/// Both tables in one statement: what moves from one to the other is seen in one of them.
pub(super) const REFERRED_TO: &str = "SELECT b.number
    FROM unnest($1::bytea[]) WITH ORDINALITY AS b (path, number)
    WHERE EXISTS (SELECT 1 FROM {schema}.gatefeed_items i
            WHERE substr(i.content_type, 1, 30) = 'application/vnd.gatefeed.blob;'
                AND substring(i.data FROM 1 FOR 71) = b.path)
        OR EXISTS (SELECT 1 FROM {schema}.gatefeed_history h
            WHERE substr(h.content_type, 1, 30) = 'application/vnd.gatefeed.blob;'
                AND substring(h.data FROM 1 FOR 71) = b.path)";

impl Postgres {
    pub(super) async fn read_blob_space(&self) -> Result<Space> {
        let mut tx = self.begin(Lane::Ask, LIMIT).await?;
        let row = tx.query(self.sql.get(SPACE)).fetch_one(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        Ok(Space { id: get(&row, "id")?, secret: get(&row, "secret")? })
    }

    pub(super) async fn find_references(&self, paths: &[String]) -> Result<Vec<String>> {
        let bytes: Vec<&[u8]> = paths.iter().map(|path| path.as_bytes()).collect();
        let mut tx = self.begin(Lane::Look, LIMIT).await?;
        let query = tx.query(self.sql.get(REFERRED_TO)).bind(bytes);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        let numbers = rows.iter().map(|row| at::<i64>(row, 0));
        numbers.map(|number| Ok(paths[number? as usize - 1].clone())).collect()
    }
}
