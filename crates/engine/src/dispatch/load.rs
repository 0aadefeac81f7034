//! How busy a target is: what it has in flight, times what it takes to answer at its worst of late (peak EWMA). One that
//! has become slow is felt at once, and trusted again by and by.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// After this time a third of what was known is left.
const DECAY_SECS: f64 = 5.0;
/// What a failure takes, however fast it came: else a target that refuses at once would look like the best.
const FAILURE_SECS: f64 = 1.0;
/// Nothing takes less than this: of targets that all answer at once, chance would else choose the same one for seconds.
const LEAST_SECS: f64 = 0.01;

#[derive(Debug)]
pub(super) struct Load {
    in_flight: AtomicUsize,
    peak: Mutex<Peak>,
}

#[derive(Debug)]
struct Peak {
    secs: f64,
    at: Instant,
}

impl Load {
    pub(super) fn new() -> Self {
        Self { in_flight: AtomicUsize::new(0), peak: Mutex::new(Peak { secs: 0.0, at: Instant::now() }) }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    /// One has ended, or was dropped.
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// It was answered after this time.
    pub(super) fn answered(&self, took: Duration, now: Instant) {
        self.peak().note(took.as_secs_f64(), now);
    }

    /// It failed.
    pub(super) fn failed(&self, took: Duration, now: Instant) {
        self.peak().note(took.as_secs_f64().max(FAILURE_SECS), now);
    }

    /// It was given up after this time, without an answer: it takes no less.
    pub(super) fn given_up(&self, took: Duration, now: Instant) {
        let mut peak = self.peak();
        if took.as_secs_f64() > peak.secs_at(now) {
            peak.note(took.as_secs_f64(), now);
        }
    }

    /// About when it would answer one more; to be compared with others.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        (self.in_flight() as f64 + 1.0) * self.peak().secs_at(now).max(LEAST_SECS)
    }

    fn peak(&self) -> MutexGuard<'_, Peak> {
        self.peak.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peak {
    fn secs_at(&self, now: Instant) -> f64 {
        self.secs * weight(now.saturating_duration_since(self.at))
    }

    fn note(&mut self, secs: f64, now: Instant) {
        let weight = weight(now.saturating_duration_since(self.at));
        self.secs = if secs >= self.secs { secs } else { self.secs * weight + secs * (1.0 - weight) };
        self.at = now;
    }
}

fn weight(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / DECAY_SECS).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_is_in_flight_costs() {
        let (one, other, now) = (Load::new(), Load::new(), Instant::now());
        one.begin();
        assert!(one.cost(now) > other.cost(now));
        one.end();
        assert_eq!(one.cost(now), other.cost(now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_felt_at_once_and_forgotten_by_and_by() {
        let (load, mut now) = (Load::new(), Instant::now());
        load.answered(SECOND / 100, now);
        load.answered(SECOND, now);
        assert_eq!(load.cost(now), 1.0);
        for _ in 0..100 {
            load.answered(SECOND / 100, now);
        }
        assert!(load.cost(now) > 0.9, "a moment later it is the same");
        for _ in 0..30 {
            now += SECOND;
            load.answered(SECOND / 100, now);
        }
        assert!(load.cost(now) < 0.02, "{}", load.cost(now));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_at_once_look_slow_for_a_while() {
        let (good, bad, now) = (Load::new(), Load::new(), Instant::now());
        good.answered(SECOND / 10, now);
        bad.failed(Duration::ZERO, now);
        assert!(bad.cost(now) > 5.0 * good.cost(now));
        // Nobody asks it meanwhile.
        let later = now + 30 * SECOND;
        good.answered(SECOND / 10, later);
        assert!(bad.cost(later) < good.cost(later), "it is tried again");
    }
}
