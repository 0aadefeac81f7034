//! Rows as types.

use std::{str::FromStr, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Datelike, NaiveDateTime, Utc};
use gatefeed_core::{
    StoreError,
    duration::DURATION_MAX,
    gather::Gather,
    item::{DueItem, content_type},
    partition::{FailurePolicy, PartitionState, PartitionStatus},
};
use sqlx::{Row, sqlite::SqliteRow};

use super::{
    error::Result,
    text::{maybe_text, owned, text},
};

/// The database's clock, as its columns are written.
macro_rules! now {
    () => {
        "strftime('%Y-%m-%d %H:%M:%f', 'now')"
    };
    // Plus a parameter made by `seconds`.
    ($parameter:literal) => {
        concat!("strftime('%Y-%m-%d %H:%M:%f', 'now', ", $parameter, ")")
    };
}
pub(super) use now;

/// When the time of a partition's gate is over; NULL: never.
macro_rules! deadline_at {
    ($p:literal) => {
        concat!(
            "strftime('%Y-%m-%d %H:%M:%f', coalesce(",
            $p,
            "gate_since, ",
            $p,
            "created_at), '+' || ",
            $p,
            "gate_deadline_seconds || ' seconds')"
        )
    };
}
pub(super) use deadline_at;

/// The columns of [`state`], of the table or alias `p`.
macro_rules! state_columns {
    () => {
        concat!(
            "p.feed, p.status, p.gate, p.manual_checkpoint, p.auto_close, p.max_in_flight, p.failure_policy, p.version,
            p.gate_deadline_seconds, p.keep_history, p.has_dependencies, coalesce(",
            $crate::sqlite::rows::deadline_at!("p."),
            " <= strftime('%Y-%m-%d %H:%M:%f', 'now'), 0) AS is_past_deadline"
        )
    };
}
pub(super) use state_columns;

/// The tables by primary key. Named, since after an ANALYZE of a small table SQLite scans it, however large it has
/// become: statements must not depend on statistics.
macro_rules! by_key {
    (partitions) => {
        "INDEXED BY sqlite_autoindex_gatefeed_partitions_1"
    };
    (items) => {
        "INDEXED BY sqlite_autoindex_gatefeed_items_1"
    };
}
pub(super) use by_key;

/// A duration as strftime adds it. More than [`DURATION_MAX`] is taken as that much: beyond the year 9999 strftime says
/// NULL, and what waits until then would wait for ever.
pub(super) fn seconds(duration: Duration) -> String {
    let duration = duration.min(DURATION_MAX);
    format!("+{}.{:03} seconds", duration.as_secs(), duration.subsec_millis())
}

/// A moment as the columns have it.
pub(super) fn moment(text: &str) -> Result<DateTime<Utc>> {
    let read = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f");
    Ok(read.map_err(|_| StoreError::Defect(format!("{text:?} is not a moment")))?.and_utc())
}

/// The text of a moment, to the millisecond. `Data` for one outside the years 1 to 9999.
pub(super) fn of_moment(moment: DateTime<Utc>) -> Result<String> {
    if (1..=9999).contains(&moment.year()) {
        return Ok(moment.format("%Y-%m-%d %H:%M:%S%.3f").to_string());
    }
    Err(StoreError::data(format!("{moment} is no moment that a database holds: use the years 1 to 9999"))
        .into())
}

/// A column's moment.
pub(super) fn at(row: &SqliteRow, column: &str) -> Result<DateTime<Utc>> {
    moment(row.try_get(column)?)
}

/// A column's moment, if it has one.
pub(super) fn maybe_at(row: &SqliteRow, column: &str) -> Result<Option<DateTime<Utc>>> {
    row.try_get::<Option<&str>, _>(column)?.map(moment).transpose()
}

/// A column's word.
pub(super) fn word<T: FromStr<Err = StoreError>>(row: &SqliteRow, column: &str) -> Result<T> {
    Ok(row.try_get::<&str, _>(column)?.parse()?)
}

/// The partition of a row with [`state_columns`].
pub(super) fn state(row: &SqliteRow) -> Result<PartitionState> {
    Ok(PartitionState {
        feed: owned(row, "feed")?,
        status: word::<PartitionStatus>(row, "status")?,
        gate: row.try_get("gate")?,
        manual_checkpoint: row.try_get("manual_checkpoint")?,
        auto_close: row.try_get("auto_close")?,
        max_in_flight: row.try_get("max_in_flight")?,
        failure_policy: word::<FailurePolicy>(row, "failure_policy")?,
        gate_deadline: row
            .try_get::<Option<u32>, _>("gate_deadline_seconds")?
            .map(|s| Duration::from_secs(s.into())),
        is_past_deadline: row.try_get("is_past_deadline")?,
        keep_history: row.try_get("keep_history")?,
        version: row.try_get("version")?,
        has_dependencies: row.try_get("has_dependencies")?,
    })
}

/// An item of a page.
pub(super) fn due_item(row: &SqliteRow) -> Result<DueItem> {
    Ok(DueItem {
        id: row.try_get::<&str, _>("id")?.into(),
        gate: row.try_get("gate")?,
        pass: row.try_get("pass")?,
        retry_count: row.try_get("retry_count")?,
        suspect_count: row.try_get("suspect_count")?,
        version: row.try_get("version")?,
        content_type: content_type(&text(row, "content_type")?),
        size: row.try_get::<i64, _>("size")?.unsigned_abs(),
        data: row.try_get::<Option<Vec<u8>>, _>("data")?.map(Bytes::from),
        error_messages: maybe_text(row, "error_messages")?,
        gather: row.try_get::<Option<&str>, _>("gather")?.map(Gather::parse).transpose()?,
        born: born(row)?,
        reference: None,
    })
}

/// The digits of an item's `created_at`.
pub(super) fn born(row: &SqliteRow) -> Result<i64> {
    let digits = row.try_get::<&str, _>("created_at")?.bytes().filter(u8::is_ascii_digit);
    Ok(digits.fold(0, |number: i64, digit| number.wrapping_mul(10).wrapping_add((digit - b'0').into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_milliseconds_or_none() {
        assert_eq!(moment("2026-01-31 23:59:59.123").unwrap().timestamp_subsec_millis(), 123);
        assert_eq!(moment("2026-01-31 23:59:59").unwrap().to_rfc3339(), "2026-01-31T23:59:59+00:00");
        assert!(moment("now").is_err());
    }

    #[test]
    fn durations_have_milliseconds() {
        assert_eq!(seconds(Duration::from_millis(30_007)), "+30.007 seconds");
    }
}
