//! What people see of the queue: the rows of `status`, `partitions` and `items`.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    circuit::CircuitStatus,
    error::StoreError,
    item::ItemStatus,
    partition::{FailurePolicy, PartitionStatus},
};

/// The most rows of one listing.
pub const LIMIT_MAX: usize = 10_000;

/// One feed, for `gatefeed status`. Open and failed items are counted through partial indexes; complete items are
/// not counted, only partitions are, of which there are far fewer. Watchers never ask for this.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FeedStatus {
    /// The feed.
    pub feed: String,
    /// Partitions by status.
    pub partitions: PartitionCounts,
    /// Partitions that a watcher holds now.
    pub leased: i64,
    /// Items by open status, and failed ones.
    pub items: ItemCounts,
    /// The `available_at` of the item that has been due for longest, at a gate that is reached, if one is due.
    /// Items in flight count as due.
    pub oldest_due_at: Option<DateTime<Utc>>,
    /// The watchers that serve it now, in order of id.
    pub watchers: Vec<WatcherStatus>,
    /// Deliveries in flight, by the watchers' last reports.
    pub in_flight: i64,
    /// Outcomes written a second, by the watchers' last reports.
    pub outcomes_per_second: f64,
}

/// What a watcher last reported of one feed. Watchers that have not reported for
/// [`crate::watcher::ALIVE_FOR`] are left out.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WatcherStatus {
    /// Its name: the `owner` of its leases.
    pub id: String,
    /// Its version of gatefeed.
    pub version: String,
    /// Its budget of deliveries in flight, over all its feeds.
    pub concurrency: i64,
    /// Partitions of this feed that it holds.
    pub partitions: i64,
    /// Deliveries of this feed in flight.
    pub in_flight: i64,
    /// Outcomes of this feed that it has written since it started, failed attempts included.
    pub outcomes: i64,
    /// Outcomes of this feed that it wrote a second, over its last interval between reports.
    pub outcomes_per_second: f64,
    /// Targets of this feed that it leaves alone: by gate, and those of all other gates first.
    #[serde(default)]
    pub circuits: Vec<CircuitStatus>,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it reported.
    pub seen_at: DateTime<Utc>,
}

/// Puts watchers, each with the feed it serves, to their feeds, and sums up what they report. A feed that has
/// no partition yet is listed too. Both are in order of feed.
pub fn with_watchers(feeds: Vec<FeedStatus>, watchers: Vec<(String, WatcherStatus)>) -> Vec<FeedStatus> {
    let named = |feed: FeedStatus| (feed.feed.clone(), feed);
    let mut feeds: BTreeMap<String, FeedStatus> = feeds.into_iter().map(named).collect();
    for (name, watcher) in watchers {
        let new = || FeedStatus { feed: name.clone(), ..FeedStatus::default() };
        let feed = feeds.entry(name.clone()).or_insert_with(new);
        feed.in_flight += watcher.in_flight;
        feed.outcomes_per_second += watcher.outcomes_per_second;
        feed.watchers.push(watcher);
    }
    feeds.into_values().collect()
}

/// The items at one gate of a partition by status.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GateCounts {
    /// The gate.
    pub gate: i32,
    /// Due, delayed, or in flight.
    pub available: i64,
    /// Parked.
    pub waiting: i64,
    /// With open dependencies.
    pub blocked: i64,
    /// Through.
    pub complete: i64,
    /// Failed.
    pub failed: i64,
    /// Ended by an operator.
    pub cancelled: i64,
}

impl GateCounts {
    /// Items that still hold the gate.
    pub fn open(&self) -> i64 {
        self.available + self.waiting + self.blocked
    }

    /// All items at the gate.
    pub fn total(&self) -> i64 {
        self.open() + self.complete + self.failed + self.cancelled
    }
}

/// Partitions of a feed by status.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PartitionCounts {
    /// Open ones.
    pub available: i64,
    /// Set aside ones.
    pub paused: i64,
    /// Complete ones.
    pub complete: i64,
    /// Failed ones.
    pub failed: i64,
    /// Cancelled ones.
    pub cancelled: i64,
}

/// Items of a feed or partition by status, as far as a partial index counts them.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemCounts {
    /// Available ones, due or delayed.
    pub available: i64,
    /// Parked ones.
    pub waiting: i64,
    /// Ones with open dependencies.
    pub blocked: i64,
    /// Failed ones.
    pub failed: i64,
}

/// Which partitions to list, in order of id.
#[derive(Clone, Debug, Default)]
pub struct PartitionFilter {
    /// Only this feed.
    pub feed: Option<String>,
    /// Only this status.
    pub status: Option<PartitionStatus>,
    /// Only this one.
    pub id: Option<String>,
    /// Ids after this one (keyset paging).
    pub after: Option<String>,
    /// At most this many, [`LIMIT_MAX`] at the most.
    pub limit: usize,
}

/// One partition, for `gatefeed partitions`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PartitionRow {
    /// Its id.
    pub id: String,
    /// Its feed.
    pub feed: String,
    /// Its status.
    pub status: PartitionStatus,
    /// Its gate.
    pub gate: i32,
    /// Higher is sooner.
    pub priority: i32,
    /// Whether an operator holds the gate.
    pub manual_checkpoint: bool,
    /// Whether it completes by itself.
    pub auto_close: bool,
    /// At most this many deliveries at a time.
    pub max_in_flight: Option<u32>,
    /// What failed items mean.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "stop"))]
    pub failure_policy: FailurePolicy,
    /// How long it may be at a gate that has open items, in seconds; none: for ever.
    pub gate_deadline_seconds: Option<i32>,
    /// Since when it has been at its gate, or has had work there again; none: since it was made.
    pub gate_since: Option<DateTime<Utc>>,
    /// Whether it can be rewound.
    pub keep_history: bool,
    /// Why it is failed or cancelled.
    pub reason: Option<String>,
    /// The partition of the item that waits for it, if an answer has nested it.
    pub parent_partition_id: Option<String>,
    /// That item.
    pub parent_item_id: Option<String>,
    /// Who holds it.
    pub owner: Option<String>,
    /// The lease's end.
    pub until: Option<DateTime<Utc>>,
    /// The fencing token.
    pub epoch: i64,
    /// When it has work next; none: nothing to do.
    pub next_run_at: Option<DateTime<Utc>>,
    /// Grows on every visible change.
    pub version: i64,
    /// Its open and failed items.
    pub items: ItemCounts,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it changed last.
    pub updated_at: DateTime<Utc>,
}

/// What one looks at again and again while one waits for a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glance {
    /// Its feed.
    pub feed: String,
    /// Its status.
    pub status: PartitionStatus,
    /// Its gate.
    pub gate: i32,
    /// Grows on grants and on every visible change.
    pub version: i64,
}

/// What somebody waits for the end of.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Awaited {
    /// The partition of this id.
    Partition(String),
    /// An item.
    Item {
        /// Its partition.
        partition: String,
        /// Its id.
        id: String,
    },
}

/// Which items of a partition to list, in order of id.
#[derive(Clone, Debug, Default)]
pub struct ItemFilter {
    /// The partition.
    pub partition: String,
    /// Only this status.
    pub status: Option<ItemStatus>,
    /// Only this gate.
    pub gate: Option<i32>,
    /// Only this one.
    pub id: Option<String>,
    /// Ids after this one (keyset paging).
    pub after: Option<String>,
    /// At most this many, [`LIMIT_MAX`] at the most.
    pub limit: usize,
    /// How much of the data to read too.
    pub data: DataPart,
}

/// How much of each item's data a listing reads.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DataPart {
    /// None of it.
    #[default]
    None,
    /// At most this many bytes from its beginning.
    First(u32),
    /// All of it.
    All,
}

impl DataPart {
    /// The number of bytes, for statements that cut.
    pub fn bytes(self) -> i64 {
        match self {
            Self::None => 0,
            Self::First(bytes) => bytes.into(),
            Self::All => i64::from(i32::MAX),
        }
    }
}

/// One item, for `gatefeed items`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemRow {
    /// Its partition.
    pub partition_id: String,
    /// Its id.
    pub id: String,
    /// Its gate.
    pub gate: i32,
    /// Its status.
    pub status: ItemStatus,
    /// Higher is sooner.
    pub priority: i32,
    /// How often it has been accepted, retried by an operator or rewound.
    pub pass: i32,
    /// Failed attempts at its gate.
    pub retry_count: i32,
    /// Not delivered before.
    pub available_at: DateTime<Utc>,
    /// Without a callback by then, the attempt has failed; none, unless it waits for one.
    pub waiting_until: Option<DateTime<Utc>>,
    /// What the data is.
    pub content_type: String,
    /// The size of the data in bytes.
    pub size: i64,
    /// The data, or the part of it, that was asked for.
    #[serde(skip)]
    pub data: Option<Vec<u8>>,
    /// Why the data that was asked for cannot be read: it is not in the blob store, or this process has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_error: Option<String>,
    /// What its attempts failed with.
    pub error_messages: Option<String>,
    /// Grows on every change.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it changed last.
    pub updated_at: DateTime<Utc>,
}

impl ItemRow {
    /// The data as JSON of some type. `Data`, saying what is wrong, where it was not read, is not JSON or is of
    /// another type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        let Some(data) = &self.data else {
            if let Some(why) = &self.data_error {
                return Err(StoreError::data(format!("item {:?} has no data: {why}", self.id)));
            }
            return Err(StoreError::data(format!("item {:?} was listed without its data", self.id)));
        };
        serde_json::from_slice(data).map_err(|error| {
            StoreError::data(format!("the data of item {:?} is not what was expected: {error}", self.id))
        })
    }
}

/// An item as a program reads it: with the data that was read, if it was.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JsonItem<'a> {
    /// The item.
    #[serde(flatten)]
    row: &'a ItemRow,
    /// The data, where it is UTF-8. JSON is a string here too, so that no digit is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    /// The data in base64, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl<'a> JsonItem<'a> {
    /// Of a row.
    pub fn new(row: &'a ItemRow) -> Self {
        let bytes = row.data.as_deref();
        let data = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
        let data_base64 = bytes.filter(|_| data.is_none()).map(|bytes| BASE64_STANDARD.encode(bytes));
        Self { row, data, data_base64 }
    }
}

/// Whether anything is left that a watcher could deliver, for `--until-idle`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Idleness {
    /// Nothing open is left but in paused, held and failed partitions.
    pub idle: bool,
    /// A partition of the feeds is failed.
    pub failed: bool,
}
