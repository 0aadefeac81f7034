//! Feeds, for `gatefeed status`.

use gatefeed_core::{
    Result,
    inspect::{FeedStatus, PartitionCounts, with_watchers},
};
use sqlx::postgres::PgRow;

use super::{
    Postgres,
    error::translate,
    inspect::{LIMIT, counts},
    pool::Lane,
    rows::get,
};

/// Open and failed items are counted by partition and gate first, from the partial indexes alone.
const FEEDS: &str = "SELECT p.feed,
        count(*) FILTER (WHERE p.status = 'available') AS partitions_available,
        count(*) FILTER (WHERE p.status = 'paused') AS partitions_paused,
        count(*) FILTER (WHERE p.status = 'complete') AS partitions_complete,
        count(*) FILTER (WHERE p.status = 'failed') AS partitions_failed,
        count(*) FILTER (WHERE p.status = 'cancelled') AS partitions_cancelled,
        count(*) FILTER (WHERE p.until > now()) AS leased,
        min(i.due_at) AS oldest_due_at,
        coalesce(sum(i.available), 0)::bigint AS available, coalesce(sum(i.waiting), 0)::bigint AS waiting,
        coalesce(sum(i.blocked), 0)::bigint AS blocked, coalesce(sum(i.failed), 0)::bigint AS failed
    FROM {schema}.gatefeed_partitions p
    LEFT JOIN (
        SELECT g.partition_id, sum(g.available) AS available, sum(g.waiting) AS waiting, sum(g.blocked) AS blocked,
            sum(g.failed) AS failed,
            min(g.due_at) FILTER (WHERE q.status = 'available' AND g.gate <= q.gate) AS due_at
        FROM (SELECT u.partition_id, u.gate, count(*) FILTER (WHERE u.status = 'available') AS available,
                  count(*) FILTER (WHERE u.status = 'waiting') AS waiting,
                  count(*) FILTER (WHERE u.status = 'blocked') AS blocked,
                  count(*) FILTER (WHERE u.status = 'failed') AS failed,
                  min(u.available_at) FILTER (WHERE u.available_at <= now()) AS due_at
              FROM (SELECT a.partition_id, a.gate, a.status, a.available_at
                    FROM {schema}.gatefeed_items a WHERE a.status = 'available'
                    UNION ALL
                    SELECT o.partition_id, o.gate, o.status, NULL FROM {schema}.gatefeed_items o
                    WHERE o.status IN ('waiting', 'blocked')
                    UNION ALL
                    SELECT f.partition_id, f.gate, f.status, NULL
                    FROM {schema}.gatefeed_items f WHERE f.status = 'failed') u
              GROUP BY u.partition_id, u.gate) g
        JOIN {schema}.gatefeed_partitions q ON q.id = g.partition_id
        GROUP BY g.partition_id) i ON i.partition_id = p.id
    GROUP BY p.feed ORDER BY p.feed";

impl Postgres {
    pub(super) async fn list_feeds(&self) -> Result<Vec<FeedStatus>> {
        let mut tx = self.begin(Lane::Look, LIMIT).await?;
        let rows = tx.query(self.sql.get(FEEDS)).fetch_all(tx.conn()?).await.map_err(translate)?;
        let watchers = self.alive(&mut tx).await?;
        tx.commit().await?;
        let feeds = rows.iter().map(feed_status).collect::<Result<_>>()?;
        Ok(with_watchers(feeds, watchers))
    }
}

fn feed_status(row: &PgRow) -> Result<FeedStatus> {
    Ok(FeedStatus {
        feed: get(row, "feed")?,
        partitions: PartitionCounts {
            available: get(row, "partitions_available")?,
            paused: get(row, "partitions_paused")?,
            complete: get(row, "partitions_complete")?,
            failed: get(row, "partitions_failed")?,
            cancelled: get(row, "partitions_cancelled")?,
        },
        leased: get(row, "leased")?,
        items: counts(row)?,
        oldest_due_at: get(row, "oldest_due_at")?,
        ..FeedStatus::default()
    })
}
