//! How long a loop that looks at the database rests between two looks.

use std::time::Duration;

/// At the most: what is told later than that is of no use to those who follow.
const REST_MAX: Duration = Duration::from_secs(30);

/// After a look that failed: the database may have been away for as long as a look waits for it, and be back now.
const FAILED_REST_MAX: Duration = Duration::from_secs(2);

/// After a look that took so long: as much as makes looking one part in `share` of the time, and no less than `least`.
pub(crate) fn rest(took: Duration, share: u32, least: Duration, has_failed: bool) -> Duration {
    let most = if has_failed { FAILED_REST_MAX } else { REST_MAX };
    (took * (share - 1)).min(most).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_takes_its_share_and_a_failure_is_no_reason_to_rest() {
        let [blink, second, hang] = [1, 1000, 15_000].map(Duration::from_millis);
        assert_eq!(rest(blink, 10, Duration::from_millis(200), false), Duration::from_millis(200));
        assert_eq!(rest(second, 10, Duration::from_millis(200), false), 9 * second);
        assert_eq!(rest(hang, 10, Duration::from_millis(200), false), REST_MAX);
        assert_eq!(rest(hang, 10, Duration::from_millis(200), true), FAILED_REST_MAX);
        assert_eq!(rest(blink, 10, second, true), second);
    }
}
