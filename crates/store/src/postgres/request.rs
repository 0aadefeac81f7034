//! Requests with a key: noted with what they push, in one transaction.

use std::time::Duration;

use gatefeed_core::{
    Result, StoreError,
    id::posted_id,
    partition::NewPartition,
    request::{Answered, FORGOTTEN_MAX, KEPT, Request},
    store::Pushed,
};
use sqlx::{Row, postgres::PgRow};

use super::{
    Postgres,
    error::translate,
    pool::{Lane, Tx},
    rows::get,
};

/// Waits for one with the same key that has not committed. The partition's row is locked as the items' trigger locks it,
/// so that no request outlives its partition.
///
/// Says whether a single item had the key before: that has the id `$4`.
const NOTE: &str = "INSERT INTO {schema}.gatefeed_requests (partition_id, key, digest)
    SELECT p.id, $2, $3 FROM {schema}.gatefeed_partitions p WHERE p.id = $1 FOR KEY SHARE ON CONFLICT DO NOTHING
    RETURNING EXISTS (SELECT 1 FROM {schema}.gatefeed_items i
        WHERE i.partition_id = $1 AND i.id = $4 AND i.request_digest IS NOT NULL) AS is_taken";

/// In any feed, or in the one at `$3` only.
const FIND: &str = "SELECT r.digest, r.created, r.added, r.existing FROM {schema}.gatefeed_requests r
    JOIN {schema}.gatefeed_partitions p ON p.id = r.partition_id
    WHERE r.partition_id = $1 AND r.key = $2 AND ($3::text IS NULL OR p.feed = $3)";

/// For one statement.
const LOOK_MAX: Duration = Duration::from_secs(10);

const SETTLE: &str = "UPDATE {schema}.gatefeed_requests SET created = $3, added = $4, existing = $5
    WHERE partition_id = $1 AND key = $2";

const FORGET: &str =
    "DELETE FROM {schema}.gatefeed_requests r USING (
        SELECT partition_id, key FROM {schema}.gatefeed_requests WHERE created_at < now() - make_interval(secs => $1)
        ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED) old
    WHERE r.partition_id = old.partition_id AND r.key = old.key";

impl Postgres {
    /// Notes a request; its answer, if it came before.
    pub(super) async fn note_request(
        &self,
        tx: &mut Tx,
        partition: &str,
        request: &Request,
    ) -> Result<Option<Answered>> {
        let forget = tx.query(self.sql.get(FORGET)).bind(KEPT.as_secs_f64()).bind(i64::from(FORGOTTEN_MAX));
        forget.execute(tx.conn()?).await.map_err(translate)?;
        let note = tx.query(self.sql.get(NOTE)).bind(partition).bind(&request.key);
        let note = note.bind(request.digest.as_slice()).bind(posted_id(partition, &request.key));
        if let Some(noted) = note.fetch_optional(tx.conn()?).await.map_err(translate)? {
            return Ok(noted.get::<bool, _>("is_taken").then_some(Answered::Conflict));
        }
        let found = self.look_for(tx, partition, request, None).await?;
        // It, or its partition, was deleted between the statements.
        found.map(Some).ok_or_else(|| StoreError::Conflict("a request went away meanwhile".into()))
    }

    pub(super) async fn find_request(
        &self,
        partition: &NewPartition,
        request: &Request,
    ) -> Result<Option<Answered>> {
        let feed = partition.own_feed_only.then_some(partition.feed.as_str());
        let mut tx = self.begin(Lane::Ask, LOOK_MAX).await?;
        let found = self.look_for(&mut tx, &partition.id, request, feed).await?;
        tx.commit().await?;
        Ok(found)
    }

    /// What a request is answered that came before; `feed`: in no other one.
    async fn look_for(
        &self,
        tx: &mut Tx,
        partition: &str,
        request: &Request,
        feed: Option<&str>,
    ) -> Result<Option<Answered>> {
        let find = tx.query(self.sql.get(FIND)).bind(partition).bind(&request.key).bind(feed);
        let row = find.fetch_optional(tx.conn()?).await.map_err(translate)?;
        row.map(|row| found(&row, request)).transpose()
    }

    /// Notes what a request came to.
    pub(super) async fn settle_request(
        &self,
        tx: &mut Tx,
        partition: &str,
        request: &Request,
        pushed: Pushed,
    ) -> Result<()> {
        let count = |number| i64::try_from(number).unwrap_or(i64::MAX);
        let settle = tx.query(self.sql.get(SETTLE)).bind(partition).bind(&request.key);
        let settle = settle.bind(pushed.created).bind(count(pushed.added)).bind(count(pushed.existing));
        settle.execute(tx.conn()?).await.map_err(translate)?;
        Ok(())
    }
}

fn found(row: &PgRow, request: &Request) -> Result<Answered> {
    let count = |column| row.get::<i64, _>(column).unsigned_abs();
    let pushed = Pushed { created: get(row, "created")?, added: count("added"), existing: count("existing") };
    Ok(Answered::found(request, get(row, "digest")?, pushed))
}
