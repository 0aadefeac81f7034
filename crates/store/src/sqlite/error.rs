//! SQLite's errors in the field's terms. The only place that looks at its result codes.

use std::path::Path;

use gatefeed_core::StoreError;

/// What a call in this folder comes to, before the file is named.
pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

/// An error on its way out.
#[derive(Debug)]
pub(super) enum Error {
    /// The driver's.
    Driver(sqlx::Error),
    /// Ours.
    Store(StoreError),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Error {
    /// Whether another transaction is in the way.
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Self::Driver(error) => matches!(code(error), Some(5 | 6)),
            Self::Store(error) => matches!(error, StoreError::Conflict(_)),
        }
    }

    /// What it means, for the database in this file.
    pub(super) fn of(self, file: &Path) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Driver(error) => match (code(&error), error) {
                (Some(code), sqlx::Error::Database(error)) => from_code(code, error.message(), file),
                (_, error) => from_driver(&error, file),
            },
        }
    }
}

/// The primary result code: the lower byte of the extended one.
fn code(error: &sqlx::Error) -> Option<i64> {
    let extended: i64 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Result codes as <https://sqlite.org/rescode.html> lists them.
fn from_code(code: i64, message: &str, file: &Path) -> StoreError {
    let file = file.display();
    match code {
        // ERROR: a table that is not there has not been made yet.
        1 if message.starts_with("no such table: gatefeed_") => {
            StoreError::SchemaMissing { place: String::new() }
        }
        // BUSY, LOCKED
        5 | 6 => StoreError::Conflict(format!("{file} is locked by another writer: {message}")),
        // NOMEM, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL
        7 | 9 | 10 | 13 | 14 | 15 => StoreError::Unavailable(format!("{file}: {message}")),
        // PERM, READONLY, AUTH
        3 | 8 | 23 => StoreError::Config(format!("{file} cannot be written: {message}")),
        // CORRUPT, NOTADB
        11 | 26 => StoreError::Config(format!("{file} is not a SQLite database, or is damaged: {message}")),
        // CONSTRAINT, by the trigger of items.
        19 if message.starts_with("gatefeed: partition is cancelled and takes no items") => {
            StoreError::Cancelled(message.to_owned())
        }
        // TOOBIG, CONSTRAINT, MISMATCH: the message names the constraint, or is a trigger's own.
        18..=20 => StoreError::Data(message.to_owned()),
        _ => StoreError::Defect(format!("{file}: {message} (SQLite code {code})")),
    }
}

fn from_driver(error: &sqlx::Error, file: &Path) -> StoreError {
    use sqlx::Error::{Io, PoolClosed, PoolTimedOut, WorkerCrashed};
    let message = format!("{}: {error}", file.display());
    match error {
        Io(_) | PoolClosed | PoolTimedOut | WorkerCrashed => StoreError::Unavailable(message),
        _ => StoreError::Defect(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_terms() {
        let of = |code, message| from_code(code, message, Path::new("x.db"));
        assert!(matches!(of(5, ""), StoreError::Conflict(_)));
        for code in [10, 13, 14] {
            assert!(matches!(of(code, ""), StoreError::Unavailable(_)), "{code}");
        }
        assert!(of(19, "CHECK constraint failed: gatefeed_x").to_string().ends_with("gatefeed_x"));
        assert!(of(26, "").to_string().contains("x.db is not a SQLite database"));
        assert!(matches!(of(1, "no such table: gatefeed_items"), StoreError::SchemaMissing { .. }));
        assert!(matches!(of(1, "near \"SELEC\": syntax error"), StoreError::Defect(_)));
    }
}
