//! Requests with a key: noted with what they push, in one transaction. Nobody else writes meanwhile, so that one that is
//! looked for and not found is new.

use gatefeed_core::{
    item::NewItem,
    partition::NewPartition,
    request::{Answered, FORGOTTEN_MAX, KEPT, Request},
    store::Pushed,
};
use sqlx::{Row, SqliteConnection};

use super::{
    Sqlite,
    error::Result,
    insert::{check_feed, push_all},
};

const FIND: &str =
    "SELECT digest, created, added, existing FROM gatefeed_requests WHERE partition_id = ? AND key = ?";

const NOTE: &str = "INSERT INTO gatefeed_requests (partition_id, key, digest, created, added, existing)
    VALUES (?, ?, ?, ?, ?, ?)";

const FORGET: &str = "DELETE FROM gatefeed_requests WHERE rowid IN (
    SELECT rowid FROM gatefeed_requests WHERE created_at < strftime('%Y-%m-%d %H:%M:%f', 'now', ?1)
    ORDER BY created_at LIMIT ?2)";

impl Sqlite {
    pub(super) async fn push_once(
        &self,
        partition: &NewPartition,
        items: &[NewItem],
        request: &Request,
    ) -> Result<Answered> {
        let mut tx = self.lanes.write().await?;
        forget(tx.conn()?).await?;
        if partition.own_feed_only {
            check_feed(tx.conn()?, &partition.id, &partition.feed).await?;
        }
        let find = sqlx::query(FIND).bind(&partition.id).bind(&request.key);
        if let Some(row) = find.fetch_optional(tx.conn()?).await? {
            let count = |column| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
            let pushed = Pushed {
                created: row.try_get("created")?,
                added: count("added")?,
                existing: count("existing")?,
            };
            return Ok(Answered::found(request, row.try_get("digest")?, pushed));
        }
        let pushed = push_all(tx.conn()?, partition, items).await?;
        note(tx.conn()?, &partition.id, request, pushed).await?;
        tx.commit().await?;
        Ok(Answered::Now(pushed))
    }
}

async fn note(
    connection: &mut SqliteConnection,
    partition: &str,
    request: &Request,
    pushed: Pushed,
) -> Result<()> {
    let count = |number| i64::try_from(number).unwrap_or(i64::MAX);
    let note = sqlx::query(NOTE).bind(partition).bind(&request.key).bind(request.digest.as_slice());
    let note = note.bind(pushed.created).bind(count(pushed.added)).bind(count(pushed.existing));
    note.execute(connection).await?;
    Ok(())
}

async fn forget(connection: &mut SqliteConnection) -> Result<()> {
    let age = format!("-{} seconds", KEPT.as_secs());
    sqlx::query(FORGET).bind(age).bind(FORGOTTEN_MAX).execute(connection).await?;
    Ok(())
}
