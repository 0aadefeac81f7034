//! Items that depend on others or gather: inserting them, and settling what waits. The trigger refuses what could never
//! come free; it has no names to say so with, which are found here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use gatefeed_core::{StoreError, gather::Gather, item::NewItem, outcome::Completion};
use sqlx::{Row, SqliteConnection};

use super::{
    Sqlite,
    error::{Error, Result},
    insert::bind_item,
    pool::Lanes,
    rows::{by_key, now},
    values::{chunks, rows_of, values},
};
use crate::unsettled::{Left, Piece, Unsettled};

/// The most dependencies that a push may bring: they are kept until its end, since an item may come before what it
/// depends on.
const EDGES_MAX: usize = 1_000_000;

/// The most items that are looked at to name a cycle.
const LOOKED_AT_MAX: usize = 100_000;

/// Names at the beginning and at the end of a cycle that are shown.
const NAMES_MAX: usize = 10;

const DEPENDENCY: &str =
    "INSERT INTO gatefeed_dependencies (partition_id, item_id, depends_on) VALUES (?, ?, ?)";

/// What depends on the items of a JSON array.
pub(super) const OF_CHANGED: &str = "SELECT d.item_id FROM json_each(?2) c
    CROSS JOIN gatefeed_dependencies d INDEXED BY gatefeed_dependencies_of
        ON d.partition_id = ?1 AND d.depends_on = c.value GROUP BY d.item_id";

pub(super) const ALL: &str = "SELECT b.id FROM gatefeed_items b INDEXED BY gatefeed_items_parked
    WHERE ?2 IS NULL AND b.partition_id = ?1 AND b.status IN ('waiting', 'blocked') AND b.status = 'blocked'";

/// Settles blocked items, as `gatefeed_unblock` does on Postgres. `{candidates}` is one of the two above.
pub(super) const UNBLOCK: &str = concat!(
    "WITH candidates (id) AS ({candidates}), seen AS (
        SELECT c.id, i.on_dependency_failure AS policy,
            max(n.status IN ('available', 'waiting', 'blocked')) AS is_open,
            min(CASE WHEN i.on_dependency_failure <> 'run' AND n.status IN ('failed', 'cancelled')
                THEN 'dependency \"' || substr(n.id, 1, 100) || '\" '
                    || CASE n.status WHEN 'failed' THEN 'failed' ELSE 'was cancelled' END END) AS ended,
            min(CASE WHEN n.status IN ('available', 'waiting', 'blocked') AND n.gate > i.gate
                THEN 'dependency \"' || substr(n.id, 1, 100) || '\" has moved on to gate ' || n.gate || ', past gate '
                    || i.gate || ' of this item: neither can go on' END) AS passed
        FROM candidates c
        CROSS JOIN gatefeed_items i ",
    by_key!(items),
    " ON i.partition_id = ?1 AND i.id = c.id AND i.status = 'blocked'
        CROSS JOIN gatefeed_dependencies d ON d.partition_id = ?1 AND d.item_id = c.id
        LEFT JOIN gatefeed_items n ",
    by_key!(items),
    " ON n.partition_id = ?1 AND n.id = d.depends_on
        GROUP BY c.id
    ), decided (of_item, reason, new_status) AS (
        SELECT id, coalesce(ended, passed),
            CASE WHEN ended IS NOT NULL AND policy = 'skip' THEN 'cancelled'
                WHEN coalesce(ended, passed) IS NOT NULL THEN 'failed' ELSE 'available' END
        FROM seen WHERE coalesce(ended, passed) IS NOT NULL OR NOT coalesce(is_open, 0) LIMIT ?3
    ), sized AS (
        SELECT of_item, reason, new_status, CASE WHEN new_status <> 'available' THEN 0 ELSE coalesce((
            SELECT octet_length(n.data) FROM gatefeed_items i ",
    by_key!(items),
    " JOIN gatefeed_dependencies d ON d.partition_id = ?1 AND d.item_id = i.id
            JOIN gatefeed_items n ",
    by_key!(items),
    " ON n.partition_id = ?1 AND n.id = d.depends_on
            WHERE i.partition_id = ?1 AND i.id = of_item AND i.input = 'parent' LIMIT 1), 0) END AS bytes
        FROM decided
    ), summed AS (
        SELECT *, sum(bytes) OVER (ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before FROM sized
    )
    UPDATE gatefeed_items ",
    by_key!(items),
    " SET status = s.new_status, version = version + 1, updated_at = ",
    now!(),
    ",
        error_messages = CASE WHEN s.reason IS NULL THEN error_messages
            WHEN octet_length(error_messages) + octet_length(s.reason) < 8192
            THEN error_messages || char(10) || s.reason ELSE s.reason END,
        data = CASE WHEN s.new_status = 'available' AND input = 'parent'
            THEN coalesce((SELECT n.data FROM gatefeed_dependencies d JOIN gatefeed_items n
                ON n.partition_id = ?1 AND n.id = d.depends_on
                WHERE d.partition_id = ?1 AND d.item_id = s.of_item LIMIT 1), data) ELSE data END,
        content_type = CASE WHEN s.new_status = 'available' AND input = 'parent'
            THEN coalesce((SELECT n.content_type FROM gatefeed_dependencies d JOIN gatefeed_items n
                ON n.partition_id = ?1 AND n.id = d.depends_on
                WHERE d.partition_id = ?1 AND d.item_id = s.of_item LIMIT 1), content_type) ELSE content_type END
    FROM summed s WHERE s.bytes_before < ?4 AND partition_id = ?1 AND id = +s.of_item
    RETURNING id, status, CASE WHEN input = 'parent' AND status = 'available' THEN octet_length(data) ELSE 0 END
        AS copied"
);

/// A row of `gatefeed_dependencies`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Edge {
    partition: String,
    item: String,
    depends_on: String,
}

/// What items of a push depend on.
#[derive(Default)]
pub(super) struct Edges(Vec<Edge>);

impl Edges {
    fn add(&mut self, item: &NewItem) -> Result<()> {
        if self.0.len() + item.dependencies.on.len() > EDGES_MAX {
            return Err(StoreError::Refused(format!(
                "more than {EDGES_MAX} dependencies in one push: make it several, what others depend on first"
            ))
            .into());
        }
        let of = |id: &String| {
            let (partition, item) = (item.partition.clone(), item.id.clone());
            Edge { partition, item, depends_on: id.clone() }
        };
        self.0.extend(item.dependencies.on.iter().map(of));
        Ok(())
    }

    /// Writes them, and settles what is blocked by nothing.
    pub(super) async fn insert(self, connection: &mut SqliteConnection) -> Result<()> {
        for chunk in chunks(&self.0) {
            if let Err(error) = insert(connection, chunk).await {
                return Err(named(connection, chunk, error).await);
            }
        }
        // Each once: thousands may depend on the same one.
        let mut changed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for edge in &self.0 {
            changed.entry(&edge.partition).or_default().insert(&edge.depends_on);
        }
        for (partition, items) in changed {
            let items = items.into_iter().map(str::to_owned).collect();
            unblock(connection, partition, Some(items), None).await?;
        }
        Ok(())
    }
}

async fn insert(connection: &mut SqliteConnection, edges: &[Edge]) -> sqlx::Result<()> {
    let rows = values(edges.len(), 3);
    let sql = format!("INSERT INTO gatefeed_dependencies (partition_id, item_id, depends_on) {rows}");
    let mut query = sqlx::query(&sql);
    for edge in edges {
        query = query.bind(&edge.partition).bind(&edge.item).bind(&edge.depends_on);
    }
    query.execute(connection).await.map(|_| ())
}

/// What the trigger refused, with the names that it could not say. The statement was undone, so that its rows are gone
/// through one by one; the transaction ends with the error anyway.
async fn named(connection: &mut SqliteConnection, edges: &[Edge], error: sqlx::Error) -> Error {
    for edge in edges {
        let query = sqlx::query(DEPENDENCY).bind(&edge.partition).bind(&edge.item).bind(&edge.depends_on);
        let Err(error) = query.execute(&mut *connection).await else { continue };
        let Some(message) = error.as_database_error().map(|e| e.message().to_owned()) else {
            return error.into();
        };
        if !message.starts_with("gatefeed: ") {
            return error.into();
        }
        let path = match message.ends_with("a cycle") {
            true => cycle(connection, edge).await,
            false => Ok(format!("{} → {}", edge.item, edge.depends_on)),
        };
        return match path {
            Ok(path) => StoreError::data(format!("{message}: {path}")).into(),
            Err(error) => error.into(),
        };
    }
    error.into()
}

/// The shortest way from what an item depends on back to it.
async fn cycle(connection: &mut SqliteConnection, edge: &Edge) -> sqlx::Result<String> {
    let mut from: HashMap<String, String> = HashMap::new();
    let mut next = VecDeque::from([edge.depends_on.clone()]);
    while let Some(item) = next.pop_front() {
        if item == edge.item || from.len() > LOOKED_AT_MAX {
            break;
        }
        let below = "SELECT depends_on FROM gatefeed_dependencies WHERE partition_id = ? AND item_id = ?";
        let below = sqlx::query_scalar::<_, String>(below).bind(&edge.partition).bind(&item);
        for id in below.fetch_all(&mut *connection).await? {
            if id != edge.depends_on && !from.contains_key(&id) {
                from.insert(id.clone(), item.clone());
                next.push_back(id);
            }
        }
    }
    let mut path = vec![edge.item.as_str()];
    let mut at = edge.item.as_str();
    while let Some(before) = from.get(at) {
        path.push(before);
        at = before;
    }
    path.push(&edge.item);
    path.reverse();
    Ok(shown(&path))
}

fn shown(path: &[&str]) -> String {
    if path.len() <= 2 * NAMES_MAX {
        return path.join(" → ");
    }
    let (head, tail) = (&path[..NAMES_MAX], &path[path.len() - NAMES_MAX..]);
    format!("{} → … → {}", head.join(" → "), tail.join(" → "))
}

/// Adds items that depend on others, blocked, or gather; those that exist are left as they are, dependencies and all.
pub(super) async fn insert_rich(
    connection: &mut SqliteConnection,
    items: &[&NewItem],
    edges: &mut Edges,
) -> Result<u64> {
    let mut added = HashSet::new();
    for chunk in chunks(items) {
        let sql = items_sql(chunk.len());
        let mut query = sqlx::query(&sql);
        for item in chunk {
            query = bind_item(query, item)?;
            query = query.bind(item.dependencies.on_failure.as_str()).bind(item.dependencies.input.as_str());
            query = query.bind(if item.dependencies.is_empty() { "available" } else { "blocked" });
            query = query.bind(item.gather.map(Gather::to_json));
        }
        for row in query.fetch_all(&mut *connection).await? {
            added.insert((row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?));
        }
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

fn items_sql(rows: usize) -> String {
    let rows = rows_of(rows, concat!("(?,?,?,?,?,?,coalesce(?,", now!(), "),?,?,?,?,?,?)"));
    format!(
        "INSERT INTO gatefeed_items (partition_id, id, gate, priority, content_type, data, available_at, creator_id,
            creator_gate, on_dependency_failure, input, status, gather) {rows}
        ON CONFLICT (partition_id, id) DO NOTHING RETURNING partition_id, id"
    )
}

/// Settles what depends on outcomes that were written, in partitions that have dependencies. Returns the partitions of which
/// something is left, for [`Sqlite::settle_soon`] after the commit.
pub(super) async fn unblock_dependents(
    connection: &mut SqliteConnection,
    written: impl Iterator<Item = &Completion>,
) -> Result<Left> {
    let mut changed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for completion in written {
        changed.entry(&completion.lease.partition).or_default().push(completion.item.to_string());
    }
    let piece = Piece::of(Piece::WITHIN, changed.len());
    let mut left = Vec::with_capacity(changed.len());
    for (partition, items) in changed {
        let rest = unblock(connection, partition, Some(items), Some(piece)).await?;
        left.extend(rest.map(|rest| (partition.to_owned(), rest)));
    }
    Ok(left)
}

impl Sqlite {
    /// Goes on with what is left, piece by piece.
    pub(super) fn settle_soon(&self, left: Left) {
        for (partition, items) in left {
            if self.unsettled.note(partition, items) {
                tokio::spawn(settle_rest(self.lanes.clone(), self.unsettled.clone()));
            }
        }
    }
}

async fn settle_rest(lanes: Arc<Lanes>, unsettled: Arc<Unsettled>) {
    let piece = |partition: String, items: Vec<String>| {
        let lanes = lanes.clone();
        async move {
            let settled = settle_piece(&lanes, &partition, items).await;
            settled.map_err(|error| error.of(lanes.path()))
        }
    };
    unsettled.go_on(piece).await;
}

/// Returns whose dependents are not all settled yet.
async fn settle_piece(lanes: &Lanes, partition: &str, items: Vec<String>) -> Result<Vec<String>> {
    let mut tx = lanes.write().await?;
    let left = unblock(tx.conn()?, partition, Some(items), Some(Piece::of(Piece::WITHIN, 1))).await?;
    tx.commit().await?;
    Ok(left.unwrap_or_default())
}

/// Settles the blocked items that depend on these, or, with `None`, all of the partition. What fails in turn has its
/// own dependents. After a piece of them it stops, and returns whose dependents it has not finished with.
pub(super) async fn unblock(
    connection: &mut SqliteConnection,
    partition: &str,
    changed: Option<Vec<String>>,
    piece: Option<Piece>,
) -> Result<Option<Vec<String>>> {
    let mut pending = changed;
    // No item is blocked twice, so that this is no limit.
    let mut room = piece.unwrap_or(Piece { rows: i64::MAX as usize, bytes: i64::MAX as usize });
    loop {
        let candidates = if pending.is_some() { OF_CHANGED } else { ALL };
        let sql = UNBLOCK.replace("{candidates}", candidates);
        let ids = pending.as_ref().map(|ids| serde_json::Value::from(ids.as_slice()).to_string());
        let query = sqlx::query(&sql).bind(partition).bind(ids);
        let query = query.bind(room.rows as i64).bind(room.bytes as i64);
        let rows = query.fetch_all(&mut *connection).await?;
        let (mut ended, mut has_nameless) = (Vec::new(), false);
        for row in &rows {
            if row.try_get::<&str, _>("status")? != "available" {
                match String::from_utf8(row.try_get("id")?) {
                    Ok(id) => ended.push(id),
                    Err(_) => has_nameless = true,
                }
            }
            room.bytes = room.bytes.saturating_sub(row.try_get::<i64, _>("copied")? as usize);
        }
        room.rows -= rows.len();
        if room.rows == 0 || room.bytes == 0 {
            let mut rest = pending.unwrap_or_default();
            rest.extend(ended);
            return Ok(Some(rest));
        }
        if ended.is_empty() && !has_nameless {
            return Ok(None);
        }
        // The dependents of what cannot be named are among all that are blocked.
        pending = (!has_nameless).then_some(ended);
    }
}
