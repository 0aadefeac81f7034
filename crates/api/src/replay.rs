//! Partitions that are made with an `Idempotency-Key`: whether a request is one that was answered before.

use std::collections::HashSet;

use axum::http::HeaderName;
use gatefeed_core::{
    id::posted_item_id,
    inspect::{ItemFilter, LIMIT_MAX, PartitionRow},
    item::NewItem,
    partition::NewPartition,
};

use crate::{app::App, problem::Problem};

/// Of an answer that was given before.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Items that are read at a time.
const PAGE: usize = LIMIT_MAX - 1;

/// How a partition is asked for.
pub(crate) struct Keyed<'a> {
    /// The `Idempotency-Key`.
    pub(crate) key: &'a str,
    /// Whether the partition's id is derived from it too.
    pub(crate) is_id_derived: bool,
    pub(crate) partition: &'a NewPartition,
    pub(crate) items: &'a [NewItem],
}

impl Keyed<'_> {
    /// Whether this was asked for before with the same key, and is there. Errs where it can be told that the key was
    /// used for something else.
    pub(crate) async fn is_done(&self, app: &App) -> Result<bool, Problem> {
        let Some(row) = app.store.partition(&self.partition.id).await? else { return Ok(false) };
        let found = self.found(app).await?;
        // A partition with an id of its own may have been made by anybody: only items tell that the key was used.
        if !self.is_id_derived && !self.has_derived(&found) {
            return Ok(false);
        }
        let has_all = self.items.iter().all(|item| found.contains(item.id.as_str()));
        if !has_all || (self.is_id_derived && differs(&row, self.partition)?) {
            return Err(Problem::conflict(
                "this Idempotency-Key has been used for another partition, or its items are gone: use another key",
            ));
        }
        Ok(true)
    }

    fn has_derived(&self, found: &HashSet<&str>) -> bool {
        let derived = |index| posted_item_id(&self.partition.id, self.key, index);
        (0..).zip(self.items).any(|(index, item)| found.contains(&*item.id) && item.id == derived(index))
    }

    /// The ids that are there already.
    async fn found(&self, app: &App) -> gatefeed_core::Result<HashSet<&str>> {
        let wanted: HashSet<&str> = self.items.iter().map(|item| item.id.as_str()).collect();
        let partition = self.partition.id.clone();
        let mut filter = ItemFilter { partition, limit: PAGE, ..ItemFilter::default() };
        let mut found = HashSet::new();
        while found.len() < wanted.len() {
            let rows = app.store.items(&filter).await?;
            found.extend(rows.iter().filter_map(|row| wanted.get(row.id.as_str())));
            let Some(last) = rows.last().filter(|_| rows.len() == PAGE) else { break };
            filter.after = Some(last.id.clone());
        }
        Ok(found)
    }
}

/// Whether a partition was made otherwise than it is asked for now. Sealing it may have let its gate go since.
fn differs(row: &PartitionRow, asked: &NewPartition) -> Result<bool, Problem> {
    let is_same = row.feed == asked.feed
        && row.priority == asked.priority
        && row.max_in_flight == asked.max_in_flight
        && row.failure_policy == asked.failure_policy
        && row.gate_deadline_seconds == asked.gate_deadline_seconds()?
        && row.keep_history == asked.keep_history;
    let is_held_more =
        (row.manual_checkpoint && !asked.manual_checkpoint) || (!row.auto_close && asked.auto_close);
    Ok(!is_same || is_held_more)
}
