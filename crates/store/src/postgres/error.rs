//! Postgres errors in the field's terms. The only place that looks at SQLSTATE codes.

use std::io::ErrorKind;

use gatefeed_core::StoreError;
use sqlx::Error;

/// What an error of the driver means.
pub(super) fn translate(error: Error) -> StoreError {
    match error {
        Error::Database(error) => match error.code().as_deref() {
            Some(code) => from_code(code, error.message()),
            None => StoreError::Defect(error.message().to_owned()),
        },
        Error::Io(_) | Error::Tls(_) | Error::WorkerCrashed | Error::Protocol(_) => {
            StoreError::Unavailable(format!("the database cannot be reached: {error}"))
        }
        Error::Configuration(error) => {
            StoreError::Config(format!("the database URL cannot be used: {error}"))
        }
        error => StoreError::Defect(error.to_string()),
    }
}

/// Whether connecting failed because the server comes up just now, or has no room just now.
pub(super) fn is_starting(error: &Error) -> bool {
    match error {
        Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
        // too_many_connections, cannot_connect_now
        Error::Database(error) => matches!(error.code().as_deref(), Some("53300" | "57P03")),
        _ => false,
    }
}

/// Whether the server has chosen this one of two that waited for each other to give way.
pub(crate) fn is_deadlock(error: &Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("40P01"))
}

/// Classes of the SQL standard and Postgres' appendix A.
fn from_code(code: &str, message: &str) -> StoreError {
    let message = message.to_owned();
    match code {
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => StoreError::Conflict(message),
        // lock_not_available
        "55P03" => StoreError::Locked(message),
        // query_canceled (statement_timeout) and admin shutdowns
        "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" => {
            StoreError::Unavailable(message)
        }
        // object_not_in_prerequisite_state: a database that takes no connections just now
        "55000" => StoreError::Unavailable(message),
        // insufficient_privilege, reserved_name
        "42501" | "42939" => StoreError::Config(message),
        // undefined_table, undefined_column, undefined_function, invalid_schema_name
        "42P01" | "42703" | "42883" | "3F000" => {
            StoreError::Defect(format!("{message} (has the schema been changed by hand?)"))
        }
        "25006" => StoreError::Unavailable("the database is read-only: is this a replica?".into()),
        "P0002" => StoreError::NotFound(message),
        // check_violation, by the trigger of items
        "23514" if message.ends_with("is cancelled and takes no items") => StoreError::Cancelled(message),
        _ => match &code[..2.min(code.len())] {
            // connection exceptions, insufficient resources, system errors
            "08" | "53" | "58" => StoreError::Unavailable(message),
            // data exceptions, integrity constraints, raised exceptions
            "22" | "23" | "P0" => StoreError::Data(message),
            "28" | "3D" => StoreError::Config(message),
            _ => StoreError::Defect(format!("{message} (SQLSTATE {code})")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_terms() {
        assert!(from_code("40P01", "x").is_retryable());
        assert!(from_code("57P01", "x").is_retryable());
        assert!(from_code("53300", "x").is_retryable());
        assert!(from_code("23514", "x").is_data());
        assert!(from_code("22021", "x").is_data());
        let cancelled = "gatefeed: partition \"p\" is cancelled and takes no items";
        assert!(matches!(from_code("23514", cancelled), StoreError::Cancelled(_)));
        for code in ["28P01", "42501", "42939"] {
            assert!(matches!(from_code(code, "x"), StoreError::Config(_)), "{code}");
        }
        assert!(from_code("55000", "x").is_retryable());
        assert!(matches!(from_code("", "x"), StoreError::Defect(_)));
    }
}
