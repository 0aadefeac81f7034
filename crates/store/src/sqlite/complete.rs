//! Writing outcomes.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt, HashSet};
use gatefeed_core::{
    item::NewItem,
    lease::Lease,
    outcome::{Completion, Settled},
};
use sqlx::{Row, SqliteConnection, query::Query, sqlite::SqliteArguments};

use super::{
    Sqlite,
    dependencies::unblock_dependents,
    error::Result,
    fence::{current, held},
    history::keep,
    insert::{insert_whole, make_partitions},
    nested::{add_nested, has_notes, settle_nested},
    rows::{by_key, now, seconds},
    values::{chunks, values},
};

pub(super) const SUSPECT: &str = concat!(
    "UPDATE gatefeed_items
    SET suspect_count = min(suspect_count + 1, 2147483647), version = version + 1, updated_at = ",
    now!(),
    " WHERE partition_id = ? AND id = ? AND version = ? AND status = 'available' RETURNING version"
);

pub(super) const WITHDRAW: &str = concat!(
    "UPDATE gatefeed_items SET suspect_count = max(suspect_count - 1, 0), version = version + 1, updated_at = ",
    now!(),
    " WHERE partition_id = ? AND id = ? AND version = ? AND status = 'available' RETURNING version"
);

impl Sqlite {
    pub(super) async fn write_outcomes(&self, completions: &[Completion]) -> Result<Vec<Settled>> {
        if completions.is_empty() {
            return Ok(Vec::new());
        }
        match self.write_all(completions, Answer::Count).await? {
            Some(settled) => Ok(settled),
            // Some are stale: which? That is rare, and may cost more.
            None => Ok(self.write_all(completions, Answer::Keys).await?.unwrap_or_default()),
        }
    }

    /// `None`, and nothing is written, if only counts were asked for and do not tell which are stale.
    async fn write_all(&self, completions: &[Completion], answer: Answer) -> Result<Option<Vec<Settled>>> {
        let mut tx = self.lanes.write().await?;
        let (mut settled, Linked { dependent, noted }) = fence(tx.conn()?, completions).await?;
        if !update_items(tx.conn()?, completions, &mut settled, answer).await? {
            return Ok(None);
        }
        let written =
            || completions.iter().zip(&settled).filter(|(_, s)| **s == Settled::Written).map(|(c, _)| c);
        keep(tx.conn()?, &written().collect::<Vec<_>>()).await?;
        add_children(tx.conn()?, written().collect()).await?;
        let mut left = Vec::new();
        if !dependent.is_empty() {
            let dependent = written().filter(|c| dependent.contains(c.lease.as_ref()));
            left = unblock_dependents(tx.conn()?, dependent).await?;
        }
        for lease in noted {
            let rest = settle_nested(tx.conn()?, &lease.partition, CLOSED_MAX).await?;
            left.extend(rest.map(|rest| (lease.partition.to_string(), rest)));
        }
        tx.commit().await?;
        self.settle_soon(left);
        Ok(Some(settled))
    }

    pub(super) async fn note_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<Option<i64>> {
        self.change_suspect(SUSPECT, lease, item, version).await
    }

    pub(super) async fn unnote_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<()> {
        self.change_suspect(WITHDRAW, lease, item, version).await.map(|_| ())
    }

    async fn change_suspect(
        &self,
        sql: &'static str,
        lease: &Lease,
        item: &str,
        version: i64,
    ) -> Result<Option<i64>> {
        let mut tx = self.lanes.write().await?;
        if current(tx.conn()?, &[lease]).await? == [false] {
            return Ok(None);
        }
        let query = sqlx::query_scalar(sql).bind(&*lease.partition).bind(item).bind(version);
        let noted = query.fetch_all(tx.conn()?).await?;
        tx.commit().await?;
        Ok(noted.first().copied())
    }
}

/// Closed partitions whose notes are applied with one batch of outcomes, about: the rest waits for the next, or for the
/// checkpoint.
const CLOSED_MAX: usize = 100;

/// Leases of partitions with dependencies, and of those that something nested in has closed.
#[derive(Default)]
struct Linked<'a> {
    dependent: HashSet<&'a Lease>,
    noted: Vec<&'a Lease>,
}

/// Fenced or, until it turns out to be written, stale; and what the partitions need beyond.
async fn fence<'a>(
    connection: &mut SqliteConnection,
    completions: &'a [Completion],
) -> Result<(Vec<Settled>, Linked<'a>)> {
    let mut leases: Vec<&Lease> = Vec::new();
    let mut places: HashMap<&Lease, usize> = HashMap::new();
    let mut of = Vec::with_capacity(completions.len());
    for completion in completions {
        of.push(*places.entry(completion.lease.as_ref()).or_insert(leases.len()));
        if of.last() == Some(&leases.len()) {
            leases.push(&completion.lease);
        }
    }
    let rows = held(connection, &leases, concat!("p.has_dependencies, ", has_notes!())).await?;
    let mut linked = Linked::default();
    for (lease, row) in leases.iter().zip(&rows) {
        let Some(row) = row else { continue };
        if row.try_get("has_dependencies")? {
            linked.dependent.insert(*lease);
        }
        if row.try_get("has_notes")? {
            linked.noted.push(*lease);
        }
    }
    let settled = |place: usize| if rows[place].is_some() { Settled::Stale } else { Settled::Fenced };
    Ok((of.into_iter().map(settled).collect(), linked))
}

/// What a statement says of what it wrote. A row for each outcome takes half as long as writing it.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Answer {
    Count,
    Keys,
}

/// What an outcome has to match.
type Key<'a> = (&'a str, &'a str, i64);

fn key(completion: &Completion) -> Key<'_> {
    (&completion.lease.partition, &completion.item, completion.version)
}

/// Writes what is not fenced and has the delivered version, each item once. False if counts cannot tell which.
async fn update_items(
    connection: &mut SqliteConnection,
    completions: &[Completion],
    settled: &mut [Settled],
    answer: Answer,
) -> Result<bool> {
    let mut places: HashMap<Key<'_>, usize> = HashMap::with_capacity(completions.len());
    let mut rows = Vec::with_capacity(completions.len());
    for (place, completion) in completions.iter().enumerate() {
        if settled[place] != Settled::Fenced && !places.contains_key(&key(completion)) {
            places.insert(key(completion), place);
            rows.push(completion);
        }
    }
    let (plain, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.change.is_plain());
    for chunk in chunks(&plain).chain(chunks(&others)) {
        let written = match answer {
            Answer::Count if count(connection, chunk).await? < chunk.len() as u64 => return Ok(false),
            Answer::Count => chunk.iter().map(|row| places[&key(row)]).collect(),
            Answer::Keys => keys(connection, chunk, &places).await?,
        };
        written.into_iter().for_each(|place| settled[place] = Settled::Written);
    }
    Ok(true)
}

/// Writes outcomes that are all plain or all not; returns how many.
async fn count(connection: &mut SqliteConnection, chunk: &[&Completion]) -> Result<u64> {
    let sql = update_sql(chunk);
    let query = chunk.iter().fold(sqlx::query(&sql), |query, row| bind(query, row));
    Ok(query.execute(connection).await?.rows_affected())
}

/// The same; returns the places of those that were written.
async fn keys(
    connection: &mut SqliteConnection,
    chunk: &[&Completion],
    places: &HashMap<Key<'_>, usize>,
) -> Result<Vec<usize>> {
    let sql = update_sql(chunk) + " RETURNING partition_id, id, version";
    let query = chunk.iter().fold(sqlx::query(&sql), |query, row| bind(query, row));
    let mut written = Vec::with_capacity(chunk.len());
    for row in query.fetch_all(connection).await? {
        let key: Key<'_> = (row.try_get(0)?, row.try_get(1)?, row.try_get::<i64, _>(2)? - 1);
        written.extend(places.get(&key));
    }
    Ok(written)
}

fn update_sql(chunk: &[&Completion]) -> String {
    let is_plain = chunk.first().is_some_and(|row| row.change.is_plain());
    if is_plain { done_sql(chunk.len()) } else { change_sql(chunk.len()) }
}

type Update<'q> = Query<'q, sqlx::Sqlite, SqliteArguments<'q>>;

fn bind<'q>(query: Update<'q>, completion: &'q Completion) -> Update<'q> {
    let query = query.bind(&*completion.lease.partition).bind(&*completion.item).bind(completion.version);
    let change = &completion.change;
    if change.is_plain() {
        return query;
    }
    let query =
        query.bind(change.status.as_str()).bind(change.gate).bind(change.pass).bind(change.retry_count);
    let query = query.bind(change.delay.map(seconds)).bind(change.data.as_ref().map(|d| d.bytes.as_ref()));
    let query = query.bind(change.data.as_ref().map(|d| &d.content_type)).bind(&change.error_messages);
    query.bind(change.wait.map(seconds))
}

/// Most outcomes are plain: the item is through, and that is all. Fewer columns are written, and checked, than by
/// [`change_sql`], and their values come from no other table.
pub(super) fn done_sql(rows: usize) -> String {
    let outcomes = values(rows, 3);
    format!(
        concat!(
            "UPDATE gatefeed_items SET status = 'complete', pass = min(pass, 2147483646) + 1, suspect_count = 0,
                version = version + 1, updated_at = ",
            now!(),
            " WHERE rowid IN (WITH o (of_partition, of_item, of_version) AS ({outcomes})
                SELECT i.rowid FROM o CROSS JOIN gatefeed_items i ",
            by_key!(items),
            " ON i.partition_id = o.of_partition AND i.id = o.of_item WHERE i.version = o.of_version)"
        ),
        outcomes = outcomes
    )
}

/// All other outcomes. The one that an owner writes to an item that waits is that it has waited for too long, unless a
/// heartbeat has extended its time meanwhile. The unary
/// pluses keep SQLite from building an index of them and looking up each item of the table in it.
pub(super) fn change_sql(rows: usize) -> String {
    let outcomes = values(rows, 12);
    format!(
        concat!(
            "WITH o (of_partition, of_item, of_version, new_status, new_gate, new_pass, new_retry_count, delay, new_data,
                new_content_type, new_error_messages, wait) AS ({outcomes})
            UPDATE gatefeed_items ",
            by_key!(items),
            " SET status = o.new_status, gate = CASE WHEN status = 'waiting' THEN gate ELSE o.new_gate END,
                pass = CASE WHEN status = 'waiting' THEN pass ELSE o.new_pass END, retry_count = o.new_retry_count,
                suspect_count = 0, available_at = CASE WHEN o.delay IS NULL THEN available_at ELSE ",
            now!("o.delay"),
            " END,
                content_type = coalesce(o.new_content_type, content_type), data = coalesce(o.new_data, data),
                error_messages = coalesce(o.new_error_messages, error_messages), waiting_until = ",
            now!("o.wait"),
            ", expired_version = CASE WHEN status = 'waiting' THEN version - 1 ELSE expired_version END,
                version = version + 1, updated_at = ",
            now!(),
            " FROM o WHERE partition_id = +o.of_partition AND id = +o.of_item AND version = +o.of_version
                AND (status <> 'waiting' OR coalesce(waiting_until <= ",
            now!(),
            ", 1))"
        ),
        outcomes = outcomes
    )
}

/// Children join their parents' transaction, and only those of parents that were written.
pub(super) async fn add_children(connection: &mut SqliteConnection, parents: Vec<&Completion>) -> Result<()> {
    add_nested(connection, &parents).await?;
    let children: Vec<&NewItem> = parents.iter().flat_map(|parent| &parent.children).collect();
    if children.is_empty() {
        return Ok(());
    }
    let mut partitions = BTreeMap::new();
    for parent in &parents {
        for child in &parent.children {
            partitions.entry(child.partition.as_str()).or_insert(&*parent.feed);
        }
    }
    make_partitions(connection, partitions).await?;
    insert_whole(connection, &children).await?;
    Ok(())
}
