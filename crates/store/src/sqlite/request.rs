//! Requests with a key: noted with what they push, in one transaction. Nobody else writes meanwhile, so that one that is
//! looked for and not found is new.

use gatefeed_core::{
    id::posted_id,
    item::NewItem,
    partition::NewPartition,
    request::{Answered, FORGOTTEN_MAX, KEPT, Request},
    store::Pushed,
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Sqlite,
    error::Result,
    insert::{check_feed, push_all},
    pool::Lane,
};

/// In any feed, or in the one at `?3` only.
const FIND: &str = "SELECT r.digest, r.created, r.added, r.existing FROM gatefeed_requests r
    JOIN gatefeed_partitions p ON p.id = r.partition_id
    WHERE r.partition_id = ?1 AND r.key = ?2 AND (?3 IS NULL OR p.feed = ?3)";

/// A single item that was posted with a key and has this id.
const POSTED: &str =
    "SELECT 1 FROM gatefeed_items WHERE partition_id = ? AND id = ? AND request_digest IS NOT NULL";

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
        if let Some(answered) = look_for(tx.conn()?, &partition.id, request, None).await? {
            return Ok(answered);
        }
        let posted = sqlx::query(POSTED).bind(&partition.id).bind(posted_id(&partition.id, &request.key));
        if posted.fetch_optional(tx.conn()?).await?.is_some() {
            return Ok(Answered::Conflict);
        }
        let pushed = push_all(tx.conn()?, partition, items).await?;
        note(tx.conn()?, &partition.id, request, pushed).await?;
        tx.commit().await?;
        Ok(Answered::Now(pushed))
    }

    pub(super) async fn find_request(
        &self,
        partition: &NewPartition,
        request: &Request,
    ) -> Result<Option<Answered>> {
        let feed = partition.own_feed_only.then_some(partition.feed.as_str());
        look_for(&mut *self.lanes.read(Lane::Ask).await?, &partition.id, request, feed).await
    }
}

/// What a request is answered that came before; `feed`: in no other one.
async fn look_for(
    connection: &mut SqliteConnection,
    partition: &str,
    request: &Request,
    feed: Option<&str>,
) -> Result<Option<Answered>> {
    let find = sqlx::query(FIND).bind(partition).bind(&request.key).bind(feed);
    let row = find.fetch_optional(connection).await?;
    row.map(|row| found(&row, request)).transpose()
}

fn found(row: &SqliteRow, request: &Request) -> Result<Answered> {
    let count = |column| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
    let pushed =
        Pushed { created: row.try_get("created")?, added: count("added")?, existing: count("existing")? };
    Ok(Answered::found(request, row.try_get("digest")?, pushed))
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
