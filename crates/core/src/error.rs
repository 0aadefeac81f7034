//! What can go wrong between gatefeed and a database, in the field's terms.

/// A store's result.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why a store could not do what it was asked. Callers ask [`StoreError::is_retryable`]; only the store's
/// own `error.rs` looks at database error codes.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or did not answer in time. Whether the write took effect is unknown.
    #[error("{0}")]
    Unavailable(String),
    /// The blob store cannot be reached, has no room, or did not answer in time. No row refers to what was to be put there.
    #[error("{0}")]
    BlobStore(String),
    /// What lies in the blob store is not what was put there, or nothing does any more.
    #[error("{0}")]
    Damaged(String),
    /// The database asks for the same thing again: deadlock, serialization failure, busy.
    #[error("the database asked to try again: {0}")]
    Conflict(String),
    /// Somebody holds a lock on a row that was needed, for longer than one waits for it. Nothing was written.
    #[error("a row is locked by somebody else: {0}")]
    Locked(String),
    /// The database refuses this input (a CHECK, a trigger, a value that it cannot hold). Nothing was written.
    #[error("{0}")]
    Data(String),
    /// The schema has not been made.
    #[error("this database has no gatefeed tables{place}: run `gatefeed migrate` first")]
    SchemaMissing {
        /// " in schema NAME", or nothing.
        place: String,
    },
    /// The schema is older than this binary needs.
    #[error(
        "the database schema is at version {found}, this gatefeed needs {needed}: run `gatefeed migrate`"
    )]
    SchemaOlder {
        /// The version in the database.
        found: i64,
        /// The version this binary was built for.
        needed: i64,
    },
    /// The schema is newer than this binary knows. Nothing was changed.
    #[error(
        "the database schema is at version {found}, this gatefeed knows up to {known}: it was migrated by a newer \
         gatefeed, so upgrade this binary"
    )]
    SchemaNewer {
        /// The version in the database.
        found: i64,
        /// The newest version this binary knows.
        known: i64,
    },
    /// What was named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The action does not fit the state of what it was asked for; the text says what to do.
    #[error("{0}")]
    Refused(String),
    /// The thing is at another version than the one that the call is for. Nothing was written.
    #[error("{0}")]
    Changed(String),
    /// Items were to be added to a partition that is cancelled. Nothing was written.
    #[error("{0}")]
    Cancelled(String),
    /// The database URL or another setting is wrong.
    #[error("{0}")]
    Config(String),
    /// The database answered something that is a defect here or there.
    #[error("unexpected database error: {0}")]
    Defect(String),
}

impl StoreError {
    /// Input that the database refuses.
    pub fn data(message: impl Into<String>) -> Self {
        Self::Data(message.into())
    }

    /// Whether the same call can succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::BlobStore(_) | Self::Conflict(_) | Self::Locked(_))
    }

    /// Whether an item whose data cannot be read for this waits as it is, however long: what is away comes back, and settings,
    /// privileges and the schema are for whoever runs this process to mend. Anything else is about the item, and a failed
    /// attempt of it: it would be tried for ever otherwise.
    pub fn is_waited_for(&self) -> bool {
        let is_for_the_operator = matches!(
            self,
            Self::Config(_)
                | Self::SchemaMissing { .. }
                | Self::SchemaOlder { .. }
                | Self::SchemaNewer { .. }
        );
        is_for_the_operator || self.is_retryable()
    }

    /// Whether the input is at fault, or what it is for, so that a batch is worth splitting to find the culprit.
    pub fn is_data(&self) -> bool {
        matches!(self, Self::Data(_) | Self::Cancelled(_) | Self::Refused(_) | Self::NotFound(_))
    }
}
