//! What people and `--until-idle` look at.

use std::{str::FromStr, time::Duration};

use gatefeed_core::{
    Result,
    inspect::{
        DataPart, GateCounts, Glance, Idleness, ItemCounts, ItemFilter, ItemRow, LIMIT_MAX, PartitionFilter,
        PartitionRow,
    },
    item::ItemStatus,
    partition::{FailurePolicy, PartitionStatus},
};
use sqlx::{Row, postgres::PgRow};

use super::{
    Postgres,
    error::translate,
    operate::no_partition,
    pool::{Lane, Tx},
    rows::get,
};

pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// For what is found by a partition's key.
const KEY_LIMIT: Duration = Duration::from_secs(5);

const GATES: &str = "SELECT i.gate, count(*) FILTER (WHERE i.status = 'available') AS available,
        count(*) FILTER (WHERE i.status = 'waiting') AS waiting,
        count(*) FILTER (WHERE i.status = 'blocked') AS blocked,
        count(*) FILTER (WHERE i.status = 'complete') AS complete,
        count(*) FILTER (WHERE i.status = 'failed') AS failed,
        count(*) FILTER (WHERE i.status = 'cancelled') AS cancelled
    FROM {schema}.gatefeed_items i WHERE i.partition_id = $1 GROUP BY i.gate ORDER BY i.gate";

const PARTITIONS: &str = "SELECT p.*, i.*
    FROM (SELECT * FROM {schema}.gatefeed_partitions c
          WHERE ($1::text IS NULL OR c.feed = $1) AND ($2::text IS NULL OR c.status = $2)
            AND ($3::text IS NULL OR c.id = $3) AND ($4::text IS NULL OR c.id > $4)
          ORDER BY c.id LIMIT $5) p
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE u.status = 'available') AS available,
            count(*) FILTER (WHERE u.status = 'waiting') AS waiting,
            count(*) FILTER (WHERE u.status = 'blocked') AS blocked,
            count(*) FILTER (WHERE u.status = 'failed') AS failed
        FROM (SELECT a.status FROM {schema}.gatefeed_items a
              WHERE a.partition_id = p.id AND a.status = 'available'
              UNION ALL
              SELECT o.status FROM {schema}.gatefeed_items o
              WHERE o.partition_id = p.id AND o.status IN ('waiting', 'blocked')
              UNION ALL
              SELECT f.status FROM {schema}.gatefeed_items f
              WHERE f.partition_id = p.id AND f.status = 'failed') u) i
    ORDER BY p.id";

const ITEMS: &str =
    "SELECT i.partition_id, i.id, i.gate, i.status, i.priority, i.pass, i.retry_count, i.available_at,
        i.waiting_until, i.content_type, octet_length(i.data)::bigint AS size, CASE WHEN $7::int > 0 THEN substring(i.data FROM 1 FOR $7::int) END AS data,
        i.error_messages, i.version, i.created_at, i.updated_at
    FROM {schema}.gatefeed_items i
    WHERE i.partition_id = $1 AND ($2::text IS NULL OR i.status = $2) AND ($3::int IS NULL OR i.gate = $3)
        AND ($4::text IS NULL OR i.id = $4) AND ($5::text IS NULL OR i.id > $5)
    ORDER BY i.id LIMIT $6";

/// Work that is known (`next_run_at` is set; free and leased ones have an index each), or items that wait at a gate
/// that is reached.
const IDLENESS: &str = "SELECT
    (SELECT p.id FROM {schema}.gatefeed_partitions p WHERE p.feed = ANY ($1) AND p.status = 'available'
        AND p.owner IS NULL AND p.next_run_at IS NOT NULL
        AND (NOT p.manual_checkpoint OR p.next_run_at <= now() OR (SELECT true FROM {schema}.gatefeed_items h
            WHERE h.partition_id = p.id AND h.status = 'available' AND h.gate <= p.gate ORDER BY h.gate LIMIT 1))
        ORDER BY p.feed, p.priority DESC LIMIT 1) IS NULL
    AND (SELECT p.id FROM {schema}.gatefeed_partitions p WHERE p.feed = ANY ($1) AND p.status = 'available'
        AND p.owner IS NOT NULL AND p.next_run_at IS NOT NULL ORDER BY p.feed, p.until LIMIT 1) IS NULL
    AND (SELECT p.id FROM {schema}.gatefeed_items i JOIN {schema}.gatefeed_partitions p ON p.id = i.partition_id
     WHERE i.status IN ('waiting', 'blocked') AND i.status = 'waiting' AND p.feed = ANY ($1) AND p.status = 'available' AND i.gate <= p.gate
     LIMIT 1) IS NULL AS idle,
    (SELECT p.id FROM {schema}.gatefeed_partitions p WHERE p.feed = ANY ($1) AND p.status = 'failed' LIMIT 1)
     IS NOT NULL AS failed";

impl Postgres {
    pub(super) async fn list_partitions(&self, filter: &PartitionFilter) -> Result<Vec<PartitionRow>> {
        let mut tx = self.begin(Lane::Look, LIMIT).await?;
        let query = tx.query(self.sql.get(PARTITIONS)).bind(&filter.feed);
        let query =
            query.bind(filter.status.map(PartitionStatus::as_str)).bind(&filter.id).bind(&filter.after);
        let rows = query.bind(limit(filter.limit)).fetch_all(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        rows.iter().map(partition_row).collect()
    }

    pub(super) async fn list_items(&self, filter: &ItemFilter) -> Result<Vec<ItemRow>> {
        // One item is found by its key.
        let (lane, limit_of_it) = match (&filter.id, filter.data) {
            (Some(_), DataPart::All) => (Lane::Fetch, KEY_LIMIT),
            (Some(_), _) => (Lane::Ask, KEY_LIMIT),
            (None, _) => (Lane::Look, LIMIT),
        };
        let mut tx = self.begin(lane, limit_of_it).await?;
        let query = tx.query(self.sql.get(ITEMS)).bind(&filter.partition);
        let query = query.bind(filter.status.map(ItemStatus::as_str)).bind(filter.gate).bind(&filter.id);
        let query = query.bind(&filter.after).bind(limit(filter.limit)).bind(filter.data.bytes() as i32);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        if rows.is_empty() {
            self.find_partition(&mut tx, &filter.partition).await?;
        }
        tx.commit().await?;
        rows.iter().map(item_row).collect()
    }

    pub(super) async fn count_gates(&self, partition: &str) -> Result<Vec<GateCounts>> {
        let mut tx = self.begin(Lane::Look, LIMIT).await?;
        let query = tx.query(self.sql.get(GATES)).bind(partition);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        if rows.is_empty() {
            self.find_partition(&mut tx, partition).await?;
        }
        tx.commit().await?;
        rows.iter().map(gate_counts).collect()
    }

    pub(super) async fn look_at(&self, partition: &str) -> Result<Option<Glance>> {
        let find = "SELECT feed, status, gate, version FROM {schema}.gatefeed_partitions WHERE id = $1";
        let mut tx = self.begin(Lane::Ask, KEY_LIMIT).await?;
        let query = tx.query(self.sql.get(find)).bind(partition);
        let row = query.fetch_optional(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        row.as_ref().map(glance).transpose()
    }

    async fn find_partition(&self, tx: &mut Tx, partition: &str) -> Result<()> {
        let find = self.sql.get("SELECT 1 FROM {schema}.gatefeed_partitions WHERE id = $1");
        let found = tx.query(find).bind(partition).fetch_optional(tx.conn()?).await.map_err(translate)?;
        let missing = || no_partition(partition);
        found.map(|_| ()).ok_or_else(missing)
    }

    pub(super) async fn measure_idleness(&self, feeds: &[String]) -> Result<Idleness> {
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        let row =
            tx.query(self.sql.get(IDLENESS)).bind(feeds).fetch_one(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        Ok(Idleness { idle: row.get("idle"), failed: row.get("failed") })
    }
}

fn limit(asked: usize) -> i64 {
    asked.min(LIMIT_MAX) as i64
}

pub(super) fn counts(row: &PgRow) -> Result<ItemCounts> {
    Ok(ItemCounts {
        available: get(row, "available")?,
        waiting: get(row, "waiting")?,
        blocked: get(row, "blocked")?,
        failed: get(row, "failed")?,
    })
}

fn glance(row: &PgRow) -> Result<Glance> {
    Ok(Glance {
        feed: get(row, "feed")?,
        status: PartitionStatus::from_str(get(row, "status")?)?,
        gate: get(row, "gate")?,
        version: get(row, "version")?,
    })
}

fn gate_counts(row: &PgRow) -> Result<GateCounts> {
    Ok(GateCounts {
        gate: get(row, "gate")?,
        available: get(row, "available")?,
        waiting: get(row, "waiting")?,
        blocked: get(row, "blocked")?,
        complete: get(row, "complete")?,
        failed: get(row, "failed")?,
        cancelled: get(row, "cancelled")?,
    })
}

pub(super) fn partition_row(row: &PgRow) -> Result<PartitionRow> {
    Ok(PartitionRow {
        id: get(row, "id")?,
        feed: get(row, "feed")?,
        status: PartitionStatus::from_str(get(row, "status")?)?,
        gate: get(row, "gate")?,
        priority: get(row, "priority")?,
        manual_checkpoint: get(row, "manual_checkpoint")?,
        auto_close: get(row, "auto_close")?,
        max_in_flight: get::<Option<i32>>(row, "max_in_flight")?.map(i32::unsigned_abs),
        failure_policy: FailurePolicy::from_str(get(row, "failure_policy")?)?,
        gate_deadline_seconds: get(row, "gate_deadline_seconds")?,
        gate_since: get(row, "gate_since")?,
        keep_history: get(row, "keep_history")?,
        reason: get(row, "reason")?,
        parent_partition_id: get(row, "parent_partition_id")?,
        parent_item_id: get(row, "parent_item_id")?,
        owner: get(row, "owner")?,
        until: get(row, "until")?,
        epoch: get(row, "epoch")?,
        next_run_at: get(row, "next_run_at")?,
        version: get(row, "version")?,
        items: counts(row)?,
        created_at: get(row, "created_at")?,
        updated_at: get(row, "updated_at")?,
    })
}

fn item_row(row: &PgRow) -> Result<ItemRow> {
    Ok(ItemRow {
        partition_id: get(row, "partition_id")?,
        id: get(row, "id")?,
        gate: get(row, "gate")?,
        status: ItemStatus::from_str(get(row, "status")?)?,
        priority: get(row, "priority")?,
        pass: get(row, "pass")?,
        retry_count: get(row, "retry_count")?,
        available_at: get(row, "available_at")?,
        waiting_until: get(row, "waiting_until")?,
        content_type: get(row, "content_type")?,
        size: get(row, "size")?,
        data: get(row, "data")?,
        data_error: None,
        error_messages: get(row, "error_messages")?,
        version: get(row, "version")?,
        created_at: get(row, "created_at")?,
        updated_at: get(row, "updated_at")?,
    })
}
