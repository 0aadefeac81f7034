//! Targets that a watcher leaves alone for a while: what it reports of them, and what people see.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// So many are reported of a feed, at most: those that come first by gate and target.
pub const CIRCUITS_MAX: usize = 32;

/// So many bytes of a target are reported, at most.
pub const TARGET_BYTES_MAX: usize = 300;

/// Why a target is left alone, and whether it is tried.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CircuitState {
    /// It keeps failing: nothing is sent there.
    Open,
    /// It kept failing: one delivery is let through, or is on its way, by which it is decided.
    HalfOpen,
    /// No connection comes about; it is tried a few times a second to every few seconds.
    Unreachable,
}

/// A target that a watcher leaves alone, as the watcher knows it: by a clock that has no date. Written as JSON.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Circuit {
    /// The URL without credentials and query, at most [`TARGET_BYTES_MAX`].
    pub target: String,
    /// The gate that has this target for its own; none: the feed's, for all other gates.
    pub gate: Option<i32>,
    /// How it is.
    pub state: CircuitState,
    /// For how many seconds it has been so, half-open included.
    pub for_secs: f64,
    /// After how many seconds it is tried next; zero if that is due or under way.
    pub next_try_secs: f64,
    /// How many other targets of the same feed or gate may have deliveries; zero: its items wait.
    pub targets_left: u32,
}

/// A target that a watcher leaves alone, by the database's clock.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CircuitStatus {
    /// The URL without credentials and query.
    pub target: String,
    /// The gate that has this target for its own; none: the feed's, for all other gates.
    pub gate: Option<i32>,
    /// How it is: `open`, `half-open` or `unreachable`.
    pub state: CircuitState,
    /// Since when it is left alone.
    pub since: DateTime<Utc>,
    /// When it is tried next; in the past, if that is under way.
    pub until: DateTime<Utc>,
    /// How many other targets of the same feed or gate may have deliveries; zero: its items wait.
    pub targets_left: u32,
}

impl CircuitState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::Unreachable => "unreachable",
        }
    }
}

impl Circuit {
    /// The column of a row: no more than [`CIRCUITS_MAX`] of them.
    pub fn write(circuits: &[Self]) -> String {
        let some = &circuits[..circuits.len().min(CIRCUITS_MAX)];
        // Of numbers and words, which are always JSON.
        serde_json::to_string(some).unwrap_or_else(|_| "[]".to_owned())
    }

    /// Reads the column of a row that was written at this time. What cannot be read is left out: it is for people only.
    pub fn read(column: &str, seen_at: DateTime<Utc>) -> Vec<CircuitStatus> {
        let circuits: Vec<Self> = serde_json::from_str(column).unwrap_or_default();
        circuits.into_iter().map(|circuit| circuit.status(seen_at)).collect()
    }

    /// Cuts a target to what is reported.
    pub fn shown(target: &str) -> String {
        let end = (0..=TARGET_BYTES_MAX.min(target.len())).rev().find(|end| target.is_char_boundary(*end));
        target[..end.unwrap_or(0)].to_owned()
    }

    fn status(self, seen_at: DateTime<Utc>) -> CircuitStatus {
        let Self { target, gate, state, for_secs, next_try_secs, targets_left } = self;
        let since = seen_at.checked_sub_signed(seconds(for_secs)).unwrap_or(seen_at);
        let until = seen_at.checked_add_signed(seconds(next_try_secs)).unwrap_or(seen_at);
        CircuitStatus { target, gate, state, since, until, targets_left }
    }
}

/// To the millisecond.
fn seconds(secs: f64) -> TimeDelta {
    let duration = Duration::try_from_secs_f64(secs).unwrap_or_default();
    TimeDelta::milliseconds(i64::try_from(duration.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circuit(target: &str) -> Circuit {
        Circuit {
            target: target.into(),
            gate: Some(2),
            state: CircuitState::HalfOpen,
            for_secs: 90.5,
            next_try_secs: 4.0,
            targets_left: 1,
        }
    }

    #[test]
    fn what_is_written_is_read_by_the_time_of_its_row() {
        let at = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let read = Circuit::read(&Circuit::write(&[circuit("http://a/")]), at);
        let expected = CircuitStatus {
            target: "http://a/".into(),
            gate: Some(2),
            state: CircuitState::HalfOpen,
            since: at - TimeDelta::milliseconds(90_500),
            until: at + TimeDelta::seconds(4),
            targets_left: 1,
        };
        assert_eq!(read, [expected]);
        assert_eq!(serde_json::to_value(read[0].state).unwrap(), read[0].state.as_str());
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for column in ["", "[]", "null", "{}", r#"[{"target": 1}]"#] {
            assert_eq!(Circuit::read(column, Utc::now()), [], "{column}");
        }
        let far = Circuit { for_secs: f64::MAX, next_try_secs: -1.0, ..circuit("http://a/") };
        assert_eq!(Circuit::read(&Circuit::write(&[far]), DateTime::UNIX_EPOCH).len(), 1);
    }

    #[test]
    fn a_row_is_bounded() {
        let many: Vec<Circuit> = (0..100).map(|n| circuit(&format!("http://{n}/"))).collect();
        assert_eq!(Circuit::read(&Circuit::write(&many), Utc::now()).len(), CIRCUITS_MAX);
        let long = "ä".repeat(TARGET_BYTES_MAX);
        assert_eq!(Circuit::shown(&long).len(), TARGET_BYTES_MAX);
        assert_eq!(Circuit::shown(&format!("x{long}")).len(), TARGET_BYTES_MAX - 1, "between characters");
        assert_eq!(Circuit::shown("http://a/"), "http://a/");
    }
}
