//! Feeds, for `gatefeed status`.

use std::collections::BTreeMap;

use gatefeed_core::{
    inspect::{FeedStatus, ItemCounts, PartitionCounts, with_watchers},
    item::ItemStatus,
};
use sqlx::{Acquire, Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Sqlite,
    error::Result,
    page::{RANK_MIN, next_rank, of_group},
    pool::Lane,
    rows::{maybe_at, now, word},
    text::{owned, text},
    watchers::alive,
};

const FEEDS: &str = concat!(
    "SELECT feed, count(*) FILTER (WHERE status = 'available') AS available,
        count(*) FILTER (WHERE status = 'paused') AS paused, count(*) FILTER (WHERE status = 'complete') AS complete,
        count(*) FILTER (WHERE status = 'failed') AS failed,
        count(*) FILTER (WHERE status = 'cancelled') AS cancelled, count(*) FILTER (WHERE until > ",
    now!(),
    ") AS leased
    FROM gatefeed_partitions GROUP BY feed"
);

/// Counted by partition first, from the partial indexes alone.
const ITEMS: &str = "SELECT p.feed, c.status, sum(c.items) AS items FROM (
        SELECT partition_id, 'available' AS status, count(*) AS items FROM gatefeed_items
            WHERE status = 'available' GROUP BY partition_id
        UNION ALL
        SELECT partition_id, status, count(*) FROM gatefeed_items
            WHERE status IN ('waiting', 'blocked') GROUP BY partition_id, status
        UNION ALL
        SELECT partition_id, 'failed', count(*) FROM gatefeed_items WHERE status = 'failed' GROUP BY partition_id
    ) c CROSS JOIN gatefeed_partitions p ON p.id = c.partition_id
    GROUP BY p.feed, c.status";

/// The first item of each gate and priority, up to its partition's gate: a few probes a partition, however many
/// items it has.
pub(super) const OLDEST: &str = concat!(
    "WITH RECURSIVE groups (feed, partition_id, gate_max, rank) AS (
        SELECT p.feed, p.id, p.gate, ?1 FROM gatefeed_partitions p
        WHERE p.status = 'available' AND p.next_run_at IS NOT NULL
        UNION ALL
        SELECT g.feed, g.partition_id, g.gate_max, ",
    next_rank!("g.partition_id"),
    " FROM groups g WHERE g.rank IS NOT NULL
    )
    SELECT feed, min(due_at) AS oldest_due_at FROM (
        SELECT g.feed, (SELECT i.available_at FROM gatefeed_items i INDEXED BY gatefeed_items_due
            WHERE i.partition_id = g.partition_id AND i.status = 'available' AND ",
    of_group!("i"),
    " ORDER BY i.available_at LIMIT 1) AS due_at FROM groups g
    ) WHERE due_at <= ",
    now!(),
    " GROUP BY feed"
);

impl Sqlite {
    pub(super) async fn list_feeds(&self) -> Result<Vec<FeedStatus>> {
        let mut connection = self.lanes.read(Lane::Look).await?;
        // One transaction, so that all statements see the same moment; dropped, it ends.
        let mut tx = connection.begin().await?;
        let mut feeds = partitions_by_feed(&mut tx).await?;
        add_items(&mut tx, &mut feeds).await?;
        add_oldest(&mut tx, &mut feeds).await?;
        let watchers = alive(&mut tx).await?;
        tx.commit().await?;
        Ok(with_watchers(feeds.into_values().collect(), watchers))
    }
}

type Feeds = BTreeMap<String, FeedStatus>;

async fn partitions_by_feed(connection: &mut SqliteConnection) -> Result<Feeds> {
    let mut feeds = Feeds::new();
    for row in sqlx::query(FEEDS).fetch_all(connection).await? {
        let status = feed_status(&row)?;
        feeds.insert(status.feed.clone(), status);
    }
    Ok(feeds)
}

fn feed_status(row: &SqliteRow) -> Result<FeedStatus> {
    Ok(FeedStatus {
        feed: owned(row, "feed")?,
        partitions: PartitionCounts {
            available: row.try_get("available")?,
            paused: row.try_get("paused")?,
            complete: row.try_get("complete")?,
            failed: row.try_get("failed")?,
            cancelled: row.try_get("cancelled")?,
        },
        leased: row.try_get("leased")?,
        ..FeedStatus::default()
    })
}

async fn add_items(connection: &mut SqliteConnection, feeds: &mut Feeds) -> Result<()> {
    for row in sqlx::query(ITEMS).fetch_all(connection).await? {
        if let Some(status) = feeds.get_mut(&*text(&row, "feed")?) {
            count(&mut status.items, word(&row, "status")?, row.try_get("items")?);
        }
    }
    Ok(())
}

fn count(counts: &mut ItemCounts, status: ItemStatus, items: i64) {
    match status {
        ItemStatus::Available => counts.available += items,
        ItemStatus::Waiting => counts.waiting += items,
        ItemStatus::Blocked => counts.blocked += items,
        ItemStatus::Failed => counts.failed += items,
        ItemStatus::Complete | ItemStatus::Cancelled => {}
    }
}

async fn add_oldest(connection: &mut SqliteConnection, feeds: &mut Feeds) -> Result<()> {
    for row in sqlx::query(OLDEST).bind(RANK_MIN).fetch_all(connection).await? {
        if let Some(status) = feeds.get_mut(&*text(&row, "feed")?) {
            status.oldest_due_at = maybe_at(&row, "oldest_due_at")?;
        }
    }
    Ok(())
}
