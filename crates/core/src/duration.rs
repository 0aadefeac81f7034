//! The longest duration that anybody may choose.

use std::time::Duration;

/// No duration is longer: a year, which nobody misses, and with which neither clocks nor a database's moments overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Refuses a longer one. The text says how long it may be.
pub fn check(what: &str, duration: Duration) -> Result<(), String> {
    match duration <= DURATION_MAX {
        true => Ok(()),
        false => Err(format!("{what} of {duration:?} will not do: it must be at most 366 days")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_is_the_most() {
        assert_eq!(check("a grace period", DURATION_MAX), Ok(()));
        let refused = check("a grace period", DURATION_MAX + Duration::from_nanos(1)).unwrap_err();
        assert!(refused.starts_with("a grace period of ") && refused.contains("366 days"), "{refused}");
    }
}
