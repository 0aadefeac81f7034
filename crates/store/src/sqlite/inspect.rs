//! What people and `--until-idle` look at.

use gatefeed_core::{
    inspect::{
        DataPart, GateCounts, Glance, Idleness, ItemCounts, ItemFilter, ItemRow, LIMIT_MAX, PartitionFilter,
        PartitionRow,
    },
    item::ItemStatus,
    partition::PartitionStatus,
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Sqlite,
    error::Result,
    operate::no_partition,
    pool::Lane,
    rows::{at, by_key, maybe_at, now, word},
    text::{after_item, after_partition, maybe_text, owned},
};

/// `{which}` is [`which`].
pub(super) const PARTITIONS: &str = "SELECT p.*,
        (SELECT count(*) FROM gatefeed_items i WHERE i.partition_id = p.id AND i.status = 'available') AS available,
        (SELECT count(*) FROM gatefeed_items i WHERE i.partition_id = p.id
            AND i.status IN ('waiting', 'blocked') AND i.status = 'waiting') AS waiting,
        (SELECT count(*) FROM gatefeed_items i WHERE i.partition_id = p.id
            AND i.status IN ('waiting', 'blocked') AND i.status = 'blocked') AS blocked,
        (SELECT count(*) FROM gatefeed_items i WHERE i.partition_id = p.id AND i.status = 'failed') AS failed
    FROM gatefeed_partitions p
    WHERE (?1 IS NULL OR p.feed = ?1) AND (?2 IS NULL OR p.status = ?2) AND {which} AND p.id > CAST(?3 AS TEXT)
    ORDER BY p.id LIMIT ?4";

/// `{which}` is [`which`].
pub(super) const ITEMS: &str =
    "SELECT partition_id, id, gate, status, priority, pass, retry_count, available_at,
        waiting_until, content_type, octet_length(data) AS size,
        CASE WHEN ?6 > 0 THEN coalesce(substr(CAST(data AS BLOB), 1, ?6), x'') END AS data, error_messages,
        version, created_at, updated_at
    FROM gatefeed_items
    WHERE partition_id = ?1 AND (?2 IS NULL OR status = ?2) AND (?3 IS NULL OR gate = ?3)
        AND {which} AND id > CAST(?4 AS TEXT)
    ORDER BY id LIMIT ?5";

/// Every item of the partition, by its primary key.
pub(super) const GATES: &str = concat!(
    "SELECT gate, count(*) FILTER (WHERE status = 'available') AS available,
        count(*) FILTER (WHERE status = 'waiting') AS waiting, count(*) FILTER (WHERE status = 'blocked') AS blocked,
        count(*) FILTER (WHERE status = 'complete') AS complete, count(*) FILTER (WHERE status = 'failed') AS failed,
        count(*) FILTER (WHERE status = 'cancelled') AS cancelled
    FROM gatefeed_items ",
    by_key!(items),
    " WHERE partition_id = ? GROUP BY gate ORDER BY gate"
);

/// Of one feed: work that is known (`next_run_at` is set, leased or not), items that wait at a gate that is
/// reached, and failed partitions.
pub(super) const IDLENESS: &str = concat!(
    "SELECT NOT EXISTS (SELECT 1 FROM gatefeed_partitions p INDEXED BY gatefeed_partitions_free
        WHERE p.feed = ?1 AND p.status = 'available' AND p.owner IS NULL AND p.next_run_at IS NOT NULL
            AND (NOT p.manual_checkpoint OR p.next_run_at <= ",
    now!(),
    " OR EXISTS (SELECT 1 FROM gatefeed_items h INDEXED BY gatefeed_items_due
                WHERE h.partition_id = p.id AND h.status = 'available' AND h.gate <= p.gate)))
    AND NOT EXISTS (SELECT 1 FROM gatefeed_partitions INDEXED BY gatefeed_partitions_leased
        WHERE feed = ?1 AND status = 'available' AND owner IS NOT NULL AND next_run_at IS NOT NULL)
    AND NOT EXISTS (SELECT 1 FROM gatefeed_items i INDEXED BY gatefeed_items_parked
        CROSS JOIN gatefeed_partitions p ",
    by_key!(partitions),
    " ON p.id = i.partition_id
        WHERE i.status IN ('waiting', 'blocked') AND i.status = 'waiting' AND p.feed = ?1
            AND p.status = 'available' AND i.gate <= p.gate) AS idle,
    EXISTS (SELECT 1 FROM gatefeed_partitions INDEXED BY gatefeed_partitions_failed
        WHERE feed = ?1 AND status = 'failed') AS failed"
);

impl Sqlite {
    pub(super) async fn list_partitions(&self, filter: &PartitionFilter) -> Result<Vec<PartitionRow>> {
        let sql = which(PARTITIONS, "p.id", "?5", filter.id.as_ref());
        let query = sqlx::query(&sql).bind(&filter.feed).bind(filter.status.map(PartitionStatus::as_str));
        let mut connection = self.lanes.read(Lane::Look).await?;
        let after = after_partition(&mut connection, filter.after.as_deref()).await?;
        let query = query.bind(after).bind(limit(filter.limit)).bind(&filter.id);
        let rows = query.fetch_all(&mut *connection).await?;
        rows.iter().map(partition_row).collect()
    }

    pub(super) async fn list_items(&self, filter: &ItemFilter) -> Result<Vec<ItemRow>> {
        // One item is found by its key.
        let lane = match (&filter.id, filter.data) {
            (Some(_), DataPart::All) => Lane::Fetch,
            (Some(_), _) => Lane::Ask,
            (None, _) => Lane::Look,
        };
        let mut connection = self.lanes.read(lane).await?;
        let sql = which(ITEMS, "id", "?7", filter.id.as_ref());
        let query = sqlx::query(&sql).bind(&filter.partition).bind(filter.status.map(ItemStatus::as_str));
        let after = after_item(&mut connection, &filter.partition, filter.after.as_deref()).await?;
        let query = query.bind(filter.gate).bind(after).bind(limit(filter.limit));
        let query = query.bind(filter.data.bytes()).bind(&filter.id);
        let rows = query.fetch_all(&mut *connection).await?;
        if rows.is_empty() && !exists(&mut connection, &filter.partition).await? {
            return Err(no_partition(&filter.partition).into());
        }
        rows.iter().map(item_row).collect()
    }

    pub(super) async fn count_gates(&self, partition: &str) -> Result<Vec<GateCounts>> {
        let mut connection = self.lanes.read(Lane::Look).await?;
        let rows = sqlx::query(GATES).bind(partition).fetch_all(&mut *connection).await?;
        if rows.is_empty() && !exists(&mut connection, partition).await? {
            return Err(no_partition(partition).into());
        }
        rows.iter().map(gate_counts).collect()
    }

    pub(super) async fn look_at(&self, partition: &str) -> Result<Option<Glance>> {
        let query = sqlx::query("SELECT feed, status, gate, version FROM gatefeed_partitions WHERE id = ?");
        let row = query.bind(partition).fetch_optional(&mut *self.lanes.read(Lane::Ask).await?).await?;
        row.as_ref().map(glance).transpose()
    }

    pub(super) async fn measure_idleness(&self, feeds: &[String]) -> Result<Idleness> {
        let mut all = Idleness { idle: true, failed: false };
        let mut connection = self.lanes.read(Lane::Work).await?;
        for feed in feeds {
            let row = sqlx::query(IDLENESS).bind(feed).fetch_one(&mut *connection).await?;
            all.idle &= row.try_get::<bool, _>("idle")?;
            all.failed |= row.try_get::<bool, _>("failed")?;
        }
        Ok(all)
    }
}

async fn exists(connection: &mut SqliteConnection, partition: &str) -> Result<bool> {
    let exists = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM gatefeed_partitions WHERE id = ?)");
    Ok(exists.bind(partition).fetch_one(connection).await?)
}

/// The statement for one id (found by the primary key) or for all. The parameter is named either way.
pub(super) fn which(sql: &str, column: &str, parameter: &str, id: Option<&String>) -> String {
    sql.replace(
        "{which}",
        &match id {
            Some(_) => format!("{column} = {parameter}"),
            None => format!("{parameter} IS NULL"),
        },
    )
}

fn limit(asked: usize) -> i64 {
    asked.min(LIMIT_MAX) as i64
}

fn glance(row: &SqliteRow) -> Result<Glance> {
    Ok(Glance {
        feed: owned(row, "feed")?,
        status: word(row, "status")?,
        gate: row.try_get("gate")?,
        version: row.try_get("version")?,
    })
}

fn gate_counts(row: &SqliteRow) -> Result<GateCounts> {
    Ok(GateCounts {
        gate: row.try_get("gate")?,
        available: row.try_get("available")?,
        waiting: row.try_get("waiting")?,
        blocked: row.try_get("blocked")?,
        complete: row.try_get("complete")?,
        failed: row.try_get("failed")?,
        cancelled: row.try_get("cancelled")?,
    })
}

pub(super) fn partition_row(row: &SqliteRow) -> Result<PartitionRow> {
    Ok(PartitionRow {
        id: owned(row, "id")?,
        feed: owned(row, "feed")?,
        status: word(row, "status")?,
        gate: row.try_get("gate")?,
        priority: row.try_get("priority")?,
        manual_checkpoint: row.try_get("manual_checkpoint")?,
        auto_close: row.try_get("auto_close")?,
        max_in_flight: row.try_get("max_in_flight")?,
        failure_policy: word(row, "failure_policy")?,
        gate_deadline_seconds: row.try_get("gate_deadline_seconds")?,
        gate_since: maybe_at(row, "gate_since")?,
        keep_history: row.try_get("keep_history")?,
        reason: maybe_text(row, "reason")?,
        parent_partition_id: maybe_text(row, "parent_partition_id")?,
        parent_item_id: maybe_text(row, "parent_item_id")?,
        owner: maybe_text(row, "owner")?,
        until: maybe_at(row, "until")?,
        epoch: row.try_get("epoch")?,
        next_run_at: maybe_at(row, "next_run_at")?,
        version: row.try_get("version")?,
        items: ItemCounts {
            available: row.try_get("available")?,
            waiting: row.try_get("waiting")?,
            blocked: row.try_get("blocked")?,
            failed: row.try_get("failed")?,
        },
        created_at: at(row, "created_at")?,
        updated_at: at(row, "updated_at")?,
    })
}

fn item_row(row: &SqliteRow) -> Result<ItemRow> {
    Ok(ItemRow {
        partition_id: owned(row, "partition_id")?,
        id: owned(row, "id")?,
        gate: row.try_get("gate")?,
        status: word(row, "status")?,
        priority: row.try_get("priority")?,
        pass: row.try_get("pass")?,
        retry_count: row.try_get("retry_count")?,
        available_at: at(row, "available_at")?,
        waiting_until: maybe_at(row, "waiting_until")?,
        content_type: owned(row, "content_type")?,
        size: row.try_get("size")?,
        data: row.try_get("data")?,
        data_error: None,
        error_messages: maybe_text(row, "error_messages")?,
        version: row.try_get("version")?,
        created_at: at(row, "created_at")?,
        updated_at: at(row, "updated_at")?,
    })
}
