//! Items: one unit of work.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{dependency::Dependencies, error::StoreError, gather::Gather};

/// Item data up to this size is read with its page; larger data is loaded when the item is dispatched, so that
/// a page of a thousand items stays small however large they are.
pub const INLINE_BYTES_MAX: usize = 16 * 1024;

/// What an item's `status` column may say.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ItemStatus {
    /// Open: delivered once it is due and its gate is reached.
    Available,
    /// Open: parked until a callback or a nested partition.
    Waiting,
    /// Open: dependencies are not through.
    Blocked,
    /// Terminal: through.
    Complete,
    /// Terminal: its attempts are used up, or its handler said not to retry.
    Failed,
    /// Terminal: ended by an operator.
    Cancelled,
}

impl ItemStatus {
    /// Every status, in the order in which people read them.
    pub const ALL: [Self; 6] =
        [Self::Available, Self::Waiting, Self::Blocked, Self::Complete, Self::Failed, Self::Cancelled];

    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Waiting => "waiting",
            Self::Blocked => "blocked",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether an item of this status still holds its gate.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Available | Self::Waiting | Self::Blocked)
    }
}

impl std::str::FromStr for ItemStatus {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self, StoreError> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == word)
            .ok_or_else(|| StoreError::data(format!("unknown item status {word:?}")))
    }
}

/// A content type as items carry it: JSON, which nearly all have, is not copied.
pub fn content_type(text: &str) -> Cow<'static, str> {
    if text == crate::id::JSON { Cow::Borrowed(crate::id::JSON) } else { Cow::Owned(text.to_owned()) }
}

/// Bytes and what they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Data {
    /// The bytes, as stored and as sent.
    pub bytes: Bytes,
    /// Their content type ([`crate::id::check_content_type`]).
    pub content_type: String,
}

impl Data {
    /// JSON text, kept to the letter (large integers keep their digits).
    pub fn json(text: impl Into<Bytes>) -> Self {
        Self { bytes: text.into(), content_type: crate::id::JSON.to_owned() }
    }
}

/// An item to be added. An id that exists already is left as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewItem {
    /// The partition it goes into.
    pub partition: String,
    /// Its id within the partition.
    pub id: String,
    /// The gate at which it is delivered first; ≥ 0.
    pub gate: i32,
    /// Higher is sooner, within a gate.
    pub priority: i32,
    /// Not delivered before; `None`: due at once, by the database's clock.
    pub available_at: Option<DateTime<Utc>>,
    /// What its handler gets.
    pub data: Data,
    /// Which answer makes it; `None`: a push does, or the answer of an item in another partition.
    pub creator: Option<Creator>,
    /// What it waits for.
    pub dependencies: Dependencies,
    /// What it asks for.
    pub gather: Option<Gather>,
}

/// The answer that made an item of the same partition. A rewind to its gate or below takes the item away, since the
/// answer will make it again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Creator {
    /// The item that was answered.
    pub item: String,
    /// Its gate then.
    pub gate: i32,
}

impl NewItem {
    /// An item at gate 0 with the defaults of a plain INSERT.
    pub fn new(partition: impl Into<String>, id: impl Into<String>, data: Data) -> Self {
        Self {
            partition: partition.into(),
            id: id.into(),
            gate: 0,
            priority: 0,
            available_at: None,
            data,
            creator: None,
            dependencies: Dependencies::default(),
            gather: None,
        }
    }

    /// A push has one partition; items of another one are `Refused`.
    pub fn check_partition(items: &[Self], partition: &str) -> Result<(), StoreError> {
        let Some(item) = items.iter().find(|item| item.partition != partition) else { return Ok(()) };
        Err(StoreError::Refused(format!(
            "item {:?} is of partition {:?}, not of {partition:?}: push one partition at a time",
            item.id, item.partition
        )))
    }
}

/// An item that is due, as its owner reads it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DueItem {
    /// Its id within the partition.
    pub id: Arc<str>,
    /// The gate it is at.
    pub gate: i32,
    /// How often it has been accepted, retried by an operator or rewound.
    pub pass: i32,
    /// Failed attempts at this gate so far.
    pub retry_count: i32,
    /// Deliveries begun in suspect mode whose end was never written; 0 for almost every item.
    pub suspect_count: i32,
    /// The version that an outcome has to match.
    pub version: i64,
    /// What the data is; JSON, as a rule, which then is not copied for each item.
    pub content_type: Cow<'static, str>,
    /// The size of the data in bytes.
    pub size: u64,
    /// The data, if it has at most [`INLINE_BYTES_MAX`] bytes; else it is loaded at dispatch.
    pub data: Option<Bytes>,
    /// The failures it has met, one a line ([`crate::error_log`]).
    pub error_messages: Option<String>,
    /// What it asks for.
    pub gather: Option<Gather>,
}
