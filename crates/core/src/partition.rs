//! Partitions: what a batch of items is, seen from its owner and from whoever makes one.

use serde::Serialize;

use crate::error::StoreError;

/// What a partition's `status` column may say.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionStatus {
    /// Open: it is processed whenever it has work that is due.
    Available,
    /// Set aside by an operator: nothing is delivered, inserts are stored.
    Paused,
    /// Every item is through, and `auto_close` was on. An insert reopens it.
    Complete,
    /// Policy 'stop' met a failed item and nothing more could be delivered. A retry reopens it.
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

/// What a failed item means for its partition.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FailurePolicy {
    /// The gate does not advance past a failed item; once nothing more can be delivered the partition fails.
    #[default]
    Stop,
    /// Failed items count as through.
    Continue,
}

impl FailurePolicy {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Continue => "continue",
        }
    }
}

impl std::str::FromStr for FailurePolicy {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self, StoreError> {
        match word {
            "stop" => Ok(Self::Stop),
            "continue" => Ok(Self::Continue),
            _ => Err(StoreError::data(format!("unknown failure policy {word:?}"))),
        }
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
    /// Grows on grants and on every visible change.
    pub version: i64,
    /// Whether an item of it depends, or has ever depended, on another.
    pub has_dependencies: bool,
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
}

impl NewPartition {
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
        }
    }
}
