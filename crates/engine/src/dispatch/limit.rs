//! How many requests a second: of a watcher, of a feed, of a gate, or to a target. Kept by each watcher for itself.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

/// A number of requests in a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// One more may begin each time this has passed; more than zero.
    pub every: Duration,
    /// So many may begin at once after a rest.
    pub burst: NonZeroU32,
}

/// Keeps a [`Rate`]. A clone shares it.
#[derive(Clone)]
pub struct RateLimit(Arc<Limiter>);

type Limiter = RateLimiter<NotKeyed, InMemoryState, RunningClock, NoOpMiddleware<Duration>>;

impl RateLimit {
    /// Begins with a whole burst.
    pub fn new(rate: Rate) -> Self {
        // A time of zero has been refused where it was given; the shortest is no limit either.
        let every = rate.every.max(Duration::from_nanos(1));
        let quota = Quota::with_period(every).unwrap_or(Quota::per_second(NonZeroU32::MAX));
        let clock = RunningClock(Instant::now());
        Self(Arc::new(RateLimiter::direct_with_clock(quota.allow_burst(rate.burst), clock)))
    }

    /// Takes one, or says how long it takes until there is one.
    pub(super) fn take(&self) -> Result<(), Duration> {
        let now = self.0.clock().now();
        // Never zero, so that nobody asks again at once.
        self.0.check().map_err(|until| until.wait_time_from(now).max(Duration::from_micros(100)))
    }
}

/// The same limit, not one that is as strict.
impl PartialEq for RateLimit {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for RateLimit {}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RateLimit")
    }
}

/// Tokio's clock, which tests can set.
#[derive(Clone, Debug)]
struct RunningClock(Instant);

impl Clock for RunningClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_one_at_a_time() {
        let rate = Rate { every: Duration::from_millis(100), burst: NonZeroU32::new(5).unwrap() };
        let limit = RateLimit::new(rate);
        let shared = limit.clone();
        let take =
            |count| (0..count).filter(|n| if n % 2 == 0 { &limit } else { &shared }.take().is_ok()).count();
        assert_eq!(take(20), 5);
        let (started, mut taken) = (Instant::now(), 0);
        while taken < 100 {
            match limit.take() {
                Ok(()) => taken += 1,
                Err(wait) => tokio::time::advance(wait).await,
            }
        }
        let elapsed = started.elapsed();
        assert!(elapsed >= 100 * rate.every && elapsed < 102 * rate.every, "{elapsed:?}");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(take(20), 5, "no more than a burst after however long a rest");
    }
}
