//! What people see of the queue: the rows of `status`, `partitions` and `items`.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{
    item::ItemStatus,
    partition::{FailurePolicy, PartitionStatus},
};

/// The most rows of one listing.
pub const LIMIT_MAX: usize = 10_000;

/// One feed, for `gatefeed status`. Open and failed items are counted through partial indexes; complete items are
/// not counted, only partitions are, of which there are far fewer. Watchers never ask for this.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FeedStatus {
    /// The feed.
    pub feed: String,
    /// Partitions by status.
    pub partitions: PartitionCounts,
    /// Partitions that a watcher holds now.
    pub leased: i64,
    /// Items by open status, and failed ones.
    pub items: ItemCounts,
    /// The `next_run_at` of the partition that has been due for longest, if one is due.
    pub oldest_due_at: Option<DateTime<Utc>>,
}

/// Partitions of a feed by status.
#[derive(Clone, Debug, Default, Serialize)]
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
#[derive(Clone, Debug, Default, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
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
    pub failure_policy: FailurePolicy,
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
    /// Whether to read the data too.
    pub with_data: bool,
}

/// One item, for `gatefeed items`.
#[derive(Clone, Debug, Serialize)]
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
    /// What the data is.
    pub content_type: String,
    /// The size of the data in bytes.
    pub size: i64,
    /// The data, if it was asked for.
    #[serde(skip)]
    pub data: Option<Vec<u8>>,
    /// What its attempts failed with.
    pub error_messages: Option<String>,
    /// Grows on every change.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it changed last.
    pub updated_at: DateTime<Utc>,
}

/// Whether anything is left that a watcher could deliver, for `--until-idle`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Idleness {
    /// Nothing open is left but in paused, held and failed partitions.
    pub idle: bool,
    /// A partition of the feeds is failed.
    pub failed: bool,
}
