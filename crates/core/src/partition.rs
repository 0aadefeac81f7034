//! Partitions: what a batch of items is, seen from its owner and from whoever makes one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
pub use crate::failure_policy::FailurePolicy;

/// What a partition's `status` column may say.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PartitionStatus {
    /// Open: it is processed whenever it has work that is due.
    Available,
    /// Set aside by an operator: nothing is delivered, inserts are stored.
    Paused,
    /// Every item is through, and `auto_close` was on. An insert reopens it.
    Complete,
    /// Its failure policy or a gate's deadline stopped it; `reason` says which. A retry reopens it.
    Failed,
    /// Ended by an operator: inserts are refused.
    Cancelled,
}

impl PartitionStatus {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Paused => "paused",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether a partition of this status is through, for better or worse: nothing happens by itself any more.
    pub fn is_closed(self) -> bool {
        match self {
            Self::Complete | Self::Failed | Self::Cancelled => true,
            Self::Available | Self::Paused => false,
        }
    }
}

impl std::str::FromStr for PartitionStatus {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self, StoreError> {
        [Self::Available, Self::Paused, Self::Complete, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|s| s.as_str() == word)
            .ok_or_else(|| StoreError::data(format!("unknown partition status {word:?}")))
    }
}

/// The part of a partition's row that its owner acts on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartitionState {
    /// The feed it belongs to.
    pub feed: String,
    /// Its status; an owner stops delivering when this is no longer `Available`.
    pub status: PartitionStatus,
    /// Items at gates up to this one may be delivered.
    pub gate: i32,
    /// When true the gate is advanced by an operator only.
    pub manual_checkpoint: bool,
    /// When true the partition completes once all its items are terminal.
    pub auto_close: bool,
    /// At most this many deliveries at a time, if set; always positive.
    pub max_in_flight: Option<u32>,
    /// What failed items mean.
    pub failure_policy: FailurePolicy,
    /// How long it may be at a gate that has open items; `None`: for ever.
    pub gate_deadline: Option<Duration>,
    /// That time is over, by the database's clock: nothing more is sent, and the next checkpoint fails the partition
    /// unless its gate is through by then.
    pub is_past_deadline: bool,
    /// Whether outcomes keep what they replace ([`crate::outcome::Kept`]), so that the partition can be rewound.
    pub keep_history: bool,
    /// Grows on grants and on every visible change.
    pub version: i64,
    /// Whether an item of it depends, or has ever depended, on another.
    pub has_dependencies: bool,
}

impl PartitionState {
    /// Whether its owner may send.
    pub fn is_workable(&self) -> bool {
        self.status == PartitionStatus::Available && !self.is_past_deadline
    }
}

/// A partition to be made, if it does not exist yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewPartition {
    /// Its id ([`crate::id::check_id`]).
    pub id: String,
    /// Its feed.
    pub feed: String,
    /// Higher is sooner.
    pub priority: i32,
    /// Hold the gate until an operator or `seal` lets it go.
    pub manual_checkpoint: bool,
    /// Complete once everything is through.
    pub auto_close: bool,
    /// At most this many deliveries at a time.
    pub max_in_flight: Option<u32>,
    /// What failed items mean.
    pub failure_policy: FailurePolicy,
    /// How long it may be at a gate that has open items, in whole seconds; `None`: for ever.
    pub gate_deadline: Option<Duration>,
    /// Keep what outcomes replace, so that it can be rewound.
    pub keep_history: bool,
    /// For whoever may touch its feed alone: a partition of this id in another feed is as none, and pushing into it errs
    /// with `NotFound`, which is looked at in the transaction that adds.
    pub own_feed_only: bool,
}

/// What a partition of another feed is to whoever may touch one feed alone.
pub fn elsewhere(id: &str) -> StoreError {
    StoreError::NotFound(format!("partition {id:?} does not exist"))
}

impl NewPartition {
    /// The deadline as the column has it. `Data` for one that is under a second, has a fraction of one, or is over 68
    /// years.
    pub fn gate_deadline_seconds(&self) -> Result<Option<i32>, StoreError> {
        let Some(deadline) = self.gate_deadline else { return Ok(None) };
        let seconds = i32::try_from(deadline.as_secs()).ok().filter(|seconds| *seconds > 0);
        let seconds = seconds.filter(|_| deadline.subsec_nanos() == 0);
        let refused =
            || StoreError::data(format!("a gate's deadline of {deadline:?} is not in whole seconds from 1"));
        Ok(Some(seconds.ok_or_else(refused)?))
    }

    /// A partition with the defaults of a plain INSERT.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            feed: crate::id::DEFAULT_FEED.to_owned(),
            priority: 0,
            manual_checkpoint: false,
            auto_close: true,
            max_in_flight: None,
            failure_policy: FailurePolicy::Stop,
            gate_deadline: None,
            keep_history: false,
            own_feed_only: false,
        }
    }
}
