//! Items that depend on others or gather: inserting them, and settling what waits. The functions of the schema decide, so
//! that plain SQL and this program agree.

use std::{collections::HashSet, time::Duration};

use gatefeed_core::{Result, StoreError, gather::Gather, item::NewItem, outcome::Completion};
use sqlx::{Row, postgres::PgRow};

use super::{
    Postgres,
    error::translate,
    insert::{Inserter, bind_items, statements},
    pool::{Lane, Tx},
    rows::at,
    wake::Hint,
};
use crate::unsettled::{Left, Piece};

/// Rows of one statement.
const ROWS_MAX: usize = 10_000;

/// The most dependencies that a push may bring: they are kept until its end, since an item may come before what it
/// depends on.
const EDGES_MAX: usize = 1_000_000;

const ITEMS: &str = "INSERT INTO {schema}.gatefeed_items
        (partition_id, id, gate, priority, available_at, data, content_type, creator_id, creator_gate, status,
            on_dependency_failure, input, gather)
    SELECT n.partition_id, n.id, n.gate, n.priority, coalesce(n.available_at, now()), n.data, n.content_type,
        n.creator_id, n.creator_gate, n.status, n.on_dependency_failure, n.input, n.gather::jsonb
    FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::timestamptz[], $6::bytea[], $7::text[], $8::text[],
                $9::int[], $10::text[], $11::text[], $12::text[], $13::text[])
        AS n (partition_id, id, gate, priority, available_at, data, content_type, creator_id, creator_gate, status,
              on_dependency_failure, input, gather)
    ON CONFLICT DO NOTHING RETURNING partition_id, id";

const DEPENDENCIES: &str = "INSERT INTO {schema}.gatefeed_dependencies (partition_id, item_id, depends_on)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[])";

const UNBLOCK: &str = "SELECT c.partition_id, {schema}.gatefeed_unblock(c.partition_id, c.ids, $3, $4) FROM (
        SELECT partition_id, array_agg(id) AS ids FROM unnest($1::text[], $2::text[]) AS c (partition_id, id)
        GROUP BY partition_id ORDER BY partition_id) c";

const UNBLOCK_ALL: &str =
    "SELECT p.id, {schema}.gatefeed_unblock(p.id, NULL, $2, $3) FROM unnest($1::text[]) AS p (id)
    ORDER BY p.id";

const HOLD: &str = "SELECT p.feed FROM {schema}.gatefeed_partitions p WHERE p.id = $1 FOR NO KEY UPDATE OF p";

/// How long the next piece waits for somebody's lock.
const SETTLE_WAIT: Duration = Duration::from_secs(2);

/// Rows of `gatefeed_dependencies`.
#[derive(Default)]
pub(super) struct Edges {
    partitions: Vec<String>,
    items: Vec<String>,
    depends_on: Vec<String>,
}

impl Edges {
    /// All of an item's.
    fn add(&mut self, item: &NewItem) -> Result<()> {
        if self.items.len() + item.dependencies.on.len() > EDGES_MAX {
            return Err(StoreError::Refused(format!(
                "more than {EDGES_MAX} dependencies in one push: make it several, what others depend on first"
            )));
        }
        for id in &item.dependencies.on {
            self.partitions.push(item.partition.clone());
            self.items.push(item.id.clone());
            self.depends_on.push(id.clone());
        }
        Ok(())
    }
}

impl Inserter<'_> {
    /// Adds items that depend on others, blocked, or gather; those that exist are left as they are, dependencies and all.
    pub(super) async fn rich_items(&mut self, items: &[&NewItem], edges: &mut Edges) -> Result<u64> {
        let mut added = HashSet::new();
        for items in statements(items) {
            let all = || items.iter();
            let query = bind_items(self.query(ITEMS), items);
            let status = |i: &&NewItem| if i.dependencies.is_empty() { "available" } else { "blocked" };
            let query = query.bind(all().map(status).collect::<Vec<_>>());
            let query = query.bind(all().map(|i| i.dependencies.on_failure.as_str()).collect::<Vec<_>>());
            let query = query.bind(all().map(|i| i.dependencies.input.as_str()).collect::<Vec<_>>());
            let gather = |i: &&NewItem| i.gather.map(Gather::to_json);
            let query = query.bind(all().map(gather).collect::<Vec<_>>());
            let rows = query.fetch_all(&mut *self.connection).await.map_err(translate)?;
            added.extend(rows.iter().map(|row| (row.get::<String, _>(0), row.get::<String, _>(1))));
        }
        let count = added.len() as u64;
        for item in items {
            // The first of a name is the one that was added.
            if added.remove(&(item.partition.clone(), item.id.clone())) {
                edges.add(item)?;
            }
        }
        Ok(count)
    }

    /// Locks their partitions until the end of the transaction. The triggers refuse cycles and what could never come
    /// free.
    pub(super) async fn dependencies(&mut self, edges: Edges) -> Result<()> {
        let Edges { partitions, items, depends_on } = edges;
        let chunks = partitions.chunks(ROWS_MAX).zip(items.chunks(ROWS_MAX)).zip(depends_on.chunks(ROWS_MAX));
        for ((partitions, items), depends_on) in chunks {
            let query = self.query(DEPENDENCIES).bind(partitions).bind(items).bind(depends_on);
            query.execute(&mut *self.connection).await.map_err(translate)?;
        }
        Ok(())
    }
}

impl Postgres {
    /// Settles what depends on the items that were written, in partitions that have dependencies. Returns the partitions of
    /// which something is left, for [`Self::settle_soon`] after the commit.
    pub(super) async fn unblock_dependents(
        &self,
        tx: &mut Tx,
        written: impl Iterator<Item = &Completion>,
    ) -> Result<Left> {
        let (partitions, items): (Vec<String>, Vec<String>) =
            written.map(|c| (c.lease.partition.to_string(), c.item.to_string())).unzip();
        if items.is_empty() {
            return Ok(Vec::new());
        }
        self.unblock(tx, partitions, items, self.write_limit()).await
    }

    /// A piece of what depends on these items; returns the partitions of which something is left.
    pub(super) async fn unblock(
        &self,
        tx: &mut Tx,
        partitions: Vec<String>,
        items: Vec<String>,
        limit: Duration,
    ) -> Result<Left> {
        let count = partitions.iter().collect::<HashSet<_>>().len();
        let piece = Piece::of(limit, count);
        let query = tx.query(self.sql.get(UNBLOCK)).bind(partitions).bind(items);
        let query = query.bind(piece.rows as i64).bind(piece.bytes as i64);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        let left = |row: &PgRow| Ok((at(row, 0)?, at::<Option<_>>(row, 1)?.unwrap_or_default()));
        rows.iter().map(left).collect()
    }

    /// Goes on with what is left, piece by piece.
    pub(super) fn settle_soon(&self, left: Left) {
        for (partition, items) in left {
            if self.unsettled.note(partition, items) {
                tokio::spawn(self.clone().settle_rest());
            }
        }
    }

    async fn settle_rest(self) {
        let piece = |partition: String, items: Vec<String>| {
            let this = self.clone();
            async move { this.settle_piece(&partition, &items).await }
        };
        self.unsettled.go_on(piece).await;
    }

    /// Returns whose dependents are not all settled yet.
    async fn settle_piece(&self, partition: &str, items: &[String]) -> Result<Vec<String>> {
        let mut tx = self.begin_for(partition, Lane::Call, Piece::WITHIN, SETTLE_WAIT).await?;
        let found = tx.query(self.sql.get(HOLD)).bind(partition).fetch_optional(tx.conn()?).await;
        let Some(row) = found.map_err(translate)? else { return Ok(Vec::new()) };
        let left = self
            .unblock(&mut tx, vec![partition.to_owned(); items.len()], items.to_vec(), Piece::WITHIN)
            .await?;
        tx.commit().await?;
        self.announce_soon(vec![Hint::Due(at(&row, 0)?)]);
        Ok(left.into_iter().flat_map(|(_, left)| left).collect())
    }

    /// Settles whatever is blocked in these partitions and need not be: what somebody changed by hand, or came with an
    /// old snapshot. Their rows are locked. Returns those in which more is left.
    pub(super) async fn unblock_all(&self, tx: &mut Tx, partitions: &[&str]) -> Result<HashSet<String>> {
        if partitions.is_empty() {
            return Ok(HashSet::new());
        }
        let piece = Piece::of(Piece::WITHIN, partitions.len());
        let query = tx.query(self.sql.get(UNBLOCK_ALL)).bind(partitions);
        let query = query.bind(piece.rows as i64).bind(piece.bytes as i64);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        let mut more = HashSet::new();
        for row in &rows {
            if at::<Option<Vec<String>>>(row, 1)?.is_some() {
                more.insert(at(row, 0)?);
            }
        }
        Ok(more)
    }
}
