//! Partitions as an application writes them.

use std::{fmt, time::Duration};

use gatefeed_core::{
    id::check_id,
    item::NewItem,
    partition::{FailurePolicy, NewPartition},
};

use crate::{
    error::{Error, Result},
    item::{IntoItem, Item},
};

/// A partition to be pushed, with items. Everything in it has been checked, and every item has its id: pushing
/// it again adds nothing twice.
///
/// ```
/// # use gatefeed_client::{FailurePolicy, Item, Partition};
/// # fn main() -> gatefeed_client::Result<()> {
/// #[derive(serde::Serialize)]
/// struct Page {
///     number: u32,
/// }
///
/// let partition = Partition::builder("batch-42")
///     .feed("scans")
///     .on_failure(FailurePolicy::Continue)
///     .item(Page { number: 1 })
///     .item(Item::json(&Page { number: 2 }).id("page-2"))
///     .gate(1, Item::json("rank them").id("rank"))
///     .build()?;
/// assert_eq!(partition.len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Partition {
    row: NewPartition,
    items: Vec<NewItem>,
}

impl Partition {
    /// Begins with the defaults of a plain INSERT: feed `default`, gate 0, completes by itself, stops at a failed
    /// item. A partition that exists already keeps its own settings when it is pushed.
    pub fn builder(id: impl Into<String>) -> PartitionBuilder {
        PartitionBuilder { row: NewPartition::new(id), items: Vec::new() }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.row.id
    }

    /// Its feed, if it does not exist yet.
    pub fn feed(&self) -> &str {
        &self.row.feed
    }

    /// How many items it comes with.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it comes without items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The ids of its items, in the order in which they were added.
    pub fn item_ids(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(|item| item.id.as_str())
    }

    pub(crate) fn row(&self) -> &NewPartition {
        &self.row
    }

    /// Its items in order of id: two pushes of the same ids at the same time then wait for each other's rows in
    /// the same order, which cannot deadlock.
    pub(crate) fn in_order(&self) -> Vec<NewItem> {
        let mut items = self.items.clone();
        items.sort_by(|a, b| a.id.cmp(&b.id));
        items
    }
}

/// The data of its items is not shown: it does not belong into logs.
impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition").field("row", &self.row).field("items", &self.items.len()).finish()
    }
}

/// A partition in the making.
#[derive(Clone, Debug)]
#[must_use = "build() makes the partition"]
pub struct PartitionBuilder {
    row: NewPartition,
    items: Vec<Item>,
}

impl PartitionBuilder {
    /// In this feed.
    pub fn feed(mut self, feed: impl Into<String>) -> Self {
        self.row.feed = feed.into();
        self
    }

    /// Higher is sooner, among the partitions of its feed.
    pub fn priority(mut self, priority: i32) -> Self {
        self.row.priority = priority;
        self
    }

    /// Holds the gate, and keeps the partition open, until [`seal`](crate::Client::seal): for a producer whose
    /// items come over some time. Items at the first gate are delivered meanwhile.
    pub fn hold(mut self) -> Self {
        self.row.manual_checkpoint = true;
        self.row.auto_close = false;
        self
    }

    /// Does not complete by itself when every item is through.
    pub fn keep_open(mut self) -> Self {
        self.row.auto_close = false;
        self
    }

    /// At most this many deliveries at a time; at least 1.
    pub fn max_in_flight(mut self, deliveries: u32) -> Self {
        self.row.max_in_flight = Some(deliveries);
        self
    }

    /// What failed items mean: `FailurePolicy::UpTo(10)` and `"5%".parse()?` put up with some at each gate.
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.row.failure_policy = policy;
        self
    }

    /// How long it may be at a gate that has open items, in whole seconds, before it fails.
    pub fn gate_deadline(mut self, time: Duration) -> Self {
        self.row.gate_deadline = Some(time);
        self
    }

    /// Keeps what answers replace, so that it can be [rewound](crate::Client::rewind).
    pub fn keep_history(mut self) -> Self {
        self.row.keep_history = true;
        self
    }

    /// With an item: an [`Item`], or a value that becomes JSON. Bytes and text that is JSON already are
    /// [`Item::bytes`] and [`Item::raw_json`] ([`IntoItem`] says why).
    pub fn item(mut self, item: impl IntoItem) -> Self {
        self.items.push(item.into_item());
        self
    }

    /// With an item at this gate.
    pub fn gate(self, gate: i32, item: impl IntoItem) -> Self {
        self.item(item.into_item().gate(gate))
    }

    /// With these items.
    pub fn items(mut self, items: impl IntoIterator<Item: IntoItem>) -> Self {
        self.items.extend(items.into_iter().map(IntoItem::into_item));
        self
    }

    /// Checks everything and gives items without an id a fresh one. Errs with [`Error::Partition`] or
    /// [`Error::Item`], which name what is wrong and what is expected.
    pub fn build(self) -> Result<Partition> {
        let Self { row, items } = self;
        if let Err(why) = check(&row) {
            return Err(Error::Partition { id: row.id, why });
        }
        let items = items.into_iter().enumerate();
        let items = items.map(|(index, item)| item.finish(&row.id, index)).collect::<Result<_>>()?;
        Ok(Partition { row, items })
    }
}

fn check(row: &NewPartition) -> Result<(), String> {
    check_id("partition id", &row.id).map_err(|e| e.to_string())?;
    check_id("feed", &row.feed).map_err(|e| e.to_string())?;
    row.gate_deadline_seconds().map_err(|e| e.to_string())?;
    match row.max_in_flight {
        Some(limit) if limit == 0 || i32::try_from(limit).is_err() => {
            Err(format!("max_in_flight is {limit}; it must be from 1 to {}", i32::MAX))
        }
        _ => Ok(()),
    }
}
