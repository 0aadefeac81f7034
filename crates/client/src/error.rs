//! What can go wrong for an application.

use std::time::Duration;

use gatefeed_core::{StoreError, inspect::PartitionRow, partition::PartitionStatus};

/// A client's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the client could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the store says: the database is away, the tables are missing, a name is unknown, …
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The partition cannot be made like this. Nothing was sent.
    #[error("partition {id:?}: {why}")]
    #[non_exhaustive]
    Partition {
        /// The id that it was to have.
        id: String,
        /// What is wrong and what is expected.
        why: String,
    },
    /// An item will not do. Nothing of its push remains.
    #[error("items[{index}]{}: {why}", in_brackets(.id))]
    #[non_exhaustive]
    Item {
        /// Its place in the push, from 0.
        index: usize,
        /// Its id, if it was given one.
        id: Option<String>,
        /// What is wrong and what is expected.
        why: String,
    },
    /// The partition was not through in time. It goes on being processed.
    #[error("partition {:?} is not through after {waited:?}: {}", .partition.id, state(.partition))]
    #[non_exhaustive]
    TimedOut {
        /// The partition as it was seen last.
        partition: Box<PartitionRow>,
        /// For how long it was waited for.
        waited: Duration,
    },
}

impl Error {
    /// Whether the same call can succeed later without anybody changing anything: the database is away or
    /// asks for another try, or a wait was too short.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::TimedOut { .. } => true,
            Self::Partition { .. } | Self::Item { .. } => false,
        }
    }
}

fn in_brackets(id: &Option<String>) -> String {
    id.as_ref().map_or_else(String::new, |id| format!(" ({id:?})"))
}

/// Where it stands, what that means, and where to look.
fn state(partition: &PartitionRow) -> String {
    let (status, gate, items) = (partition.status.as_str(), partition.gate, &partition.items);
    let open = items.available + items.waiting + items.blocked;
    let hint = match partition.status {
        PartitionStatus::Paused => ", and nothing is delivered while it is paused",
        _ if partition.manual_checkpoint => ", and its gate is held until `gatefeed seal` or `advance`",
        _ if !partition.auto_close => ", and it stays open until `gatefeed seal`",
        _ if open > 0 && partition.owner.is_none() => {
            ", and no watcher holds it (`gatefeed status` lists them)"
        }
        _ => "",
    };
    let failed = items.failed;
    let id = quoted(&partition.id);
    format!(
        "it is {status} at gate {gate} with {open} open and {failed} failed items{hint}; see `gatefeed items {id}`"
    )
}

/// An id as a shell takes it.
fn quoted(id: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if id.chars().all(plain) { id.to_owned() } else { format!("'{}'", id.replace('\'', r"'\''")) }
}
