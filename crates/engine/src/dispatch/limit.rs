//! How many requests a second: of all feeds, of a feed, of a gate, or to a target. It holds for all watchers together: each
//! keeps its share, and what it has saved up stays when that becomes another.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gatefeed_core::{duration::DURATION_MAX, share::Share};

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
pub struct RateLimit(Arc<Whole>);

struct Whole {
    /// Of all watchers together.
    rate: Rate,
    part: Mutex<Part>,
}

/// What is this watcher's.
struct Part {
    share: Share,
    rate: Rate,
    limiter: Limiter,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, RunningClock, NoOpMiddleware<Duration>>;

impl RateLimit {
    /// Begins with a whole burst, and as if nobody shared it.
    pub fn new(rate: Rate) -> Self {
        // A time of zero has been refused where it was given; the shortest is no limit either. The longest fits the clock.
        let rate = Rate { every: rate.every.clamp(Duration::from_nanos(1), DURATION_MAX), ..rate };
        Self(Arc::new(Whole { rate, part: Mutex::new(Part::new(rate, Share::WHOLE, None)) }))
    }

    /// Takes one, or says how long it takes until there is one.
    pub(super) fn take(&self) -> Result<(), Duration> {
        // Never zero, so that nobody asks again at once.
        self.part().take().map_err(|wait| wait.max(Duration::from_micros(100)))
    }

    /// Keeps this share from now on. True if it was another.
    pub(super) fn split(&self, share: Share) -> bool {
        let mut part = self.part();
        if part.share == share {
            return false;
        }
        let saved = part.saved();
        *part = Part::new(self.0.rate, share, Some(saved));
        true
    }

    fn part(&self) -> MutexGuard<'_, Part> {
        self.0.part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// With so many saved up; `None`: a whole burst.
    fn new(whole: Rate, share: Share, saved: Option<f64>) -> Self {
        let rate = Rate { every: share.of_period(whole.every), burst: share.of_burst(whole.burst) };
        let quota = Quota::with_period(rate.every).unwrap_or(Quota::per_second(NonZeroU32::MAX));
        let clock = RunningClock::new();
        let limiter = RateLimiter::direct_with_clock(quota.allow_burst(rate.burst), clock.clone());
        if let Some(saved) = saved {
            // It begins with a burst. Without it, and after the time in which so many come, it has them.
            _ = limiter.check_n(rate.burst);
            clock.skip(rate.every.mul_f64(saved.min(f64::from(rate.burst.get()))));
        }
        Self { share, rate, limiter }
    }

    fn take(&self) -> Result<(), Duration> {
        let now = self.limiter.clock().now();
        self.limiter.check().map_err(|until| until.wait_time_from(now))
    }

    /// Takes all there are, and says how many that is, the one that is coming included.
    fn saved(&self) -> f64 {
        let mut all = 0;
        for number in (0..32).rev().filter_map(|bit| NonZeroU32::new(1 << bit)) {
            if number <= self.rate.burst && matches!(self.limiter.check_n(number), Ok(Ok(()))) {
                all += number.get();
            }
        }
        match self.take() {
            Ok(()) => f64::from(all) + 1.0,
            Err(wait) => f64::from(all) + (1.0 - wait.as_secs_f64() / self.rate.every.as_secs_f64()).max(0.0),
        }
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

/// Tokio's clock, which tests can set, and from which time can be left out. A clone is the same.
#[derive(Clone, Debug)]
struct RunningClock {
    since: Instant,
    skipped_nanos: Arc<AtomicU64>,
}

impl RunningClock {
    fn new() -> Self {
        Self { since: Instant::now(), skipped_nanos: Arc::default() }
    }

    fn skip(&self, time: Duration) {
        self.skipped_nanos.store(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for RunningClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.since.elapsed() + Duration::from_nanos(self.skipped_nanos.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefeed_core::share::{PeerGroup, Peers};
    use proptest::prelude::*;

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

    fn shares(watchers: usize) -> Vec<Share> {
        let before = |before| PeerGroup { feeds: vec!["a".into()], watchers: watchers - 1, before };
        (0..watchers).map(|nth| Peers::new(vec![before(nth)]).share(|_| true)).collect()
    }

    /// Takes as often as it may for so long.
    async fn taken(limits: &[RateLimit], time: Duration) -> usize {
        let (end, mut taken) = (Instant::now() + time, 0);
        while Instant::now() < end {
            taken += limits.iter().filter(|limit| limit.take().is_ok()).count();
            tokio::time::advance(Duration::from_millis(5)).await;
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_take_no_more_than_one_alone() {
        let rate = Rate { every: Duration::from_millis(100), burst: NonZeroU32::new(7).unwrap() };
        let limits: Vec<RateLimit> = (0..3).map(|_| RateLimit::new(rate)).collect();
        for (limit, share) in limits.iter().zip(shares(3)) {
            assert!(limit.split(share) && !limit.split(share), "told once");
        }
        let at_once: usize =
            limits.iter().map(|limit| (0..20).filter(|_| limit.take().is_ok()).count()).sum();
        assert_eq!(at_once, 7, "the burst is split too");
        let taken = taken(&limits, Duration::from_secs(60)).await;
        assert!((597..=600).contains(&taken), "{taken} at ten a second");
    }

    #[tokio::test(start_paused = true)]
    async fn no_distance_is_too_long_for_the_clock() {
        let limit = RateLimit::new(Rate { every: Duration::MAX, burst: NonZeroU32::MIN });
        let [one, _] = shares(2)[..] else { unreachable!() };
        limit.split(one);
        assert!(limit.take().is_ok());
        assert!(limit.take().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn another_share_grants_no_second_burst_and_takes_nothing_away() {
        let rate = Rate { every: Duration::from_secs(3600), burst: NonZeroU32::new(4).unwrap() };
        let limit = RateLimit::new(rate);
        let [one, _] = shares(2)[..] else { unreachable!() };
        limit.split(one);
        assert_eq!((0..9).filter(|_| limit.take().is_ok()).count(), 2);
        limit.split(Share::WHOLE);
        limit.split(one);
        assert!(limit.take().is_err(), "no second burst");
        // Watchers come and go so often that none would ever come if each began anew.
        for minutes in 0..120 {
            assert!(limit.take().is_err(), "after {minutes} minutes, of which half count half");
            tokio::time::advance(Duration::from_secs(60)).await;
            limit.split(if minutes % 2 == 0 { Share::WHOLE } else { one });
            if minutes > 75 && limit.take().is_ok() {
                return;
            }
        }
        panic!("none in two hours");
    }

    proptest! {
        /// However shares change, no more are granted than by one that nobody shares.
        #[test]
        fn no_change_of_shares_grants_more(changes in prop::collection::vec((1usize..5, 0u64..500), 1..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let rate = Rate { every: Duration::from_millis(100), burst: NonZeroU32::new(5).unwrap() };
                let (limit, started, mut taken) = (RateLimit::new(rate), Instant::now(), 0);
                for (watchers, ms) in changes {
                    limit.split(shares(watchers)[watchers - 1]);
                    taken += (0..20).filter(|_| limit.take().is_ok()).count();
                    tokio::time::advance(Duration::from_millis(ms)).await;
                    let may = 5.0 + started.elapsed().as_secs_f64() * 10.0;
                    prop_assert!(taken as f64 <= may + 0.001, "{taken} of {may}");
                }
                Ok(())
            })?;
        }
    }
}
