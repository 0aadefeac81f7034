//! Writing outcomes.

use std::collections::{BTreeMap, HashMap, HashSet};

use gatefeed_core::{
    item::NewItem,
    lease::Lease,
    outcome::{Completion, Settled},
};
use sqlx::{Row, SqliteConnection};

use super::{
    Sqlite,
    dependencies::unblock_dependents,
    error::Result,
    fence::{current, held},
    insert::{insert_whole, make_partitions},
    rows::{by_key, now, seconds},
    values::{chunks, values},
};

pub(super) const SUSPECT: &str = concat!(
    "UPDATE gatefeed_items
    SET suspect_count = min(suspect_count + 1, 2147483647), version = version + 1, updated_at = ",
    now!(),
    " WHERE partition_id = ? AND id = ? AND version = ? AND status = 'available' RETURNING version"
);

impl Sqlite {
    pub(super) async fn write_outcomes(&self, completions: &[Completion]) -> Result<Vec<Settled>> {
        if completions.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.lanes.write().await?;
        let (mut settled, linked) = fence(tx.conn()?, completions).await?;
        update_items(tx.conn()?, completions, &mut settled).await?;
        let written =
            || completions.iter().zip(&settled).filter(|(_, s)| **s == Settled::Written).map(|(c, _)| c);
        add_children(tx.conn()?, written().collect()).await?;
        if !linked.is_empty() {
            let linked = written().filter(|c| linked.contains(c.lease.as_ref()));
            unblock_dependents(tx.conn()?, linked).await?;
        }
        tx.commit().await?;
        Ok(settled)
    }

    pub(super) async fn note_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<Option<i64>> {
        let mut tx = self.lanes.write().await?;
        if current(tx.conn()?, &[lease]).await? == [false] {
            return Ok(None);
        }
        let query = sqlx::query_scalar(SUSPECT).bind(&*lease.partition).bind(item).bind(version);
        let noted = query.fetch_all(tx.conn()?).await?;
        tx.commit().await?;
        Ok(noted.first().copied())
    }
}

/// Fenced or, until it turns out to be written, stale; and the leases of partitions that have dependencies.
async fn fence<'a>(
    connection: &mut SqliteConnection,
    completions: &'a [Completion],
) -> Result<(Vec<Settled>, HashSet<&'a Lease>)> {
    let mut leases: Vec<&Lease> = Vec::new();
    let mut places = HashMap::new();
    let mut of = Vec::with_capacity(completions.len());
    for completion in completions {
        of.push(*places.entry(completion.lease.as_ref()).or_insert(leases.len()));
        if of.last() == Some(&leases.len()) {
            leases.push(&completion.lease);
        }
    }
    let rows = held(connection, &leases, "p.has_dependencies").await?;
    let mut linked = HashSet::new();
    for (lease, row) in leases.iter().zip(&rows) {
        if row.as_ref().is_some_and(|row| row.get("has_dependencies")) {
            linked.insert(*lease);
        }
    }
    let settled = |place: usize| if rows[place].is_some() { Settled::Stale } else { Settled::Fenced };
    Ok((of.into_iter().map(settled).collect(), linked))
}

/// Writes what is not fenced and has the delivered version, each item once.
async fn update_items(
    connection: &mut SqliteConnection,
    completions: &[Completion],
    settled: &mut [Settled],
) -> Result<()> {
    let mut places: HashMap<(&str, &str, i64), usize> = HashMap::with_capacity(completions.len());
    let mut rows = Vec::with_capacity(completions.len());
    for (place, completion) in completions.iter().enumerate() {
        let key = (&*completion.lease.partition, completion.item.as_str(), completion.version);
        if settled[place] != Settled::Fenced && !places.contains_key(&key) {
            places.insert(key, place);
            rows.push(completion);
        }
    }
    for chunk in chunks(&rows) {
        for (partition, item, version) in update(connection, chunk).await? {
            let place = places.get(&(partition.as_str(), item.as_str(), version - 1));
            if let Some(settled) = place.and_then(|place| settled.get_mut(*place)) {
                *settled = Settled::Written;
            }
        }
    }
    Ok(())
}

/// The partitions, ids and new versions of those that were written.
async fn update(
    connection: &mut SqliteConnection,
    completions: &[&Completion],
) -> Result<Vec<(String, String, i64)>> {
    let sql = update_sql(completions.len());
    let mut query = sqlx::query(&sql);
    for completion in completions {
        let change = &completion.change;
        query = query.bind(&*completion.lease.partition).bind(&completion.item).bind(completion.version);
        query =
            query.bind(change.status.as_str()).bind(change.gate).bind(change.pass).bind(change.retry_count);
        query = query.bind(change.delay.map(seconds)).bind(change.data.as_ref().map(|d| d.bytes.as_ref()));
        query = query.bind(change.data.as_ref().map(|d| &d.content_type)).bind(&change.error_messages);
    }
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

/// The unary pluses keep SQLite from building an index of the outcomes and looking up each item of the table in it.
pub(super) fn update_sql(rows: usize) -> String {
    let outcomes = values(rows, 11);
    format!(
        concat!(
            "WITH o (of_partition, of_item, of_version, new_status, new_gate, new_pass, new_retry_count, delay, new_data,
                new_content_type, new_error_messages) AS ({outcomes})
            UPDATE gatefeed_items ",
            by_key!(items),
            " SET status = o.new_status, gate = o.new_gate, pass = o.new_pass, retry_count = o.new_retry_count,
                suspect_count = 0, available_at = CASE WHEN o.delay IS NULL THEN available_at ELSE ",
            now!("o.delay"),
            " END,
                content_type = coalesce(o.new_content_type, content_type), data = coalesce(o.new_data, data),
                error_messages = coalesce(o.new_error_messages, error_messages),
                version = version + 1, updated_at = ",
            now!(),
            " FROM o WHERE partition_id = +o.of_partition AND id = +o.of_item AND version = +o.of_version
            RETURNING partition_id, id, version"
        ),
        outcomes = outcomes
    )
}

/// Children join their parents' transaction, and only those of parents that were written.
async fn add_children(connection: &mut SqliteConnection, parents: Vec<&Completion>) -> Result<()> {
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
