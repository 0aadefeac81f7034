//! When a failed attempt is tried again.

use std::time::Duration;

/// How often and how soon failed attempts are repeated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RetryPolicy {
    /// Retries at a gate beyond the first delivery; `None` means for ever.
    pub max_retries: Option<u32>,
    /// The first retry waits up to this long.
    pub base: Duration,
    /// No retry waits longer than this, unless the handler asks for it.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_retries: Some(5), base: Duration::from_millis(500), cap: Duration::from_secs(300) }
    }
}

impl RetryPolicy {
    /// Whether an item that has been retried `retry_count` times at its gate may be tried again.
    pub fn allows_another(&self, retry_count: i32) -> bool {
        self.max_retries.is_none_or(|max| i64::from(retry_count) < i64::from(max))
    }

    /// The delay before the next attempt: full jitter over an exponential bound, so that what failed together
    /// does not come back together. `jitter` is uniform in [0, 1).
    pub fn backoff(&self, retry_count: i32, jitter: f64) -> Duration {
        let doublings = retry_count.clamp(0, 31) as u32;
        let bound = self.base.saturating_mul(1 << doublings).min(self.cap);
        bound.mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// How many deliveries in suspect mode may end with the watcher's death before the item is held to be the
    /// cause: never more than ordinary attempts, and three where those are unlimited.
    pub fn suspect_deliveries_max(&self) -> i32 {
        self.max_retries.map_or(3, |max| max.saturating_add(1).min(3) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_plus_max_retries_deliveries() {
        let policy = RetryPolicy { max_retries: Some(2), ..RetryPolicy::default() };
        assert_eq!((0..10).filter(|n| policy.allows_another(*n)).count(), 2);
        let forever = RetryPolicy { max_retries: None, ..RetryPolicy::default() };
        assert!(forever.allows_another(i32::MAX));
        assert!(!RetryPolicy { max_retries: Some(0), ..RetryPolicy::default() }.allows_another(0));
    }

    proptest! {
        #[test]
        fn backoff_stays_under_an_exponential_bound_and_the_cap(count in -1..i32::MAX, jitter in 0.0..1.0f64) {
            let policy = RetryPolicy::default();
            let delay = policy.backoff(count, jitter);
            prop_assert!(delay <= policy.cap);
            if (0..9).contains(&count) {
                prop_assert!(delay <= policy.base * 2u32.pow(count as u32));
            }
            prop_assert_eq!(policy.backoff(count, 0.0), Duration::ZERO);
        }
    }
}
