//! How many deliveries a watcher has in flight, where that is left to it: few enough that they do not queue up in the
//! handler, and as many as are of use. Pure: it is told what a stretch of time has shown, and says what comes next.
//!
//! While deliveries wait for a free slot and the handler takes as long as ever, more are tried. Once it takes twice as long
//! as it does with few, they are queueing there, and there are too many. When that is not their number, since the work
//! itself has become slower, fewer of them do not make it faster: then what it takes now is the new measure. What the handler
//! puts off, or where it takes no connection, there are too many too. What is not used is given up again.

use std::time::Duration;

/// A handler that takes this many times as long as with few deliveries has too many.
const SLOWER: f64 = 2.0;
/// Below this it shows no sign of queueing: the number may grow in large steps.
const AT_EASE: f64 = 1.3;

/// Between what the number of deliveries in flight may move; the same twice: it is fixed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// At least so many, more than zero.
    pub min: usize,
    /// At most so many, no less than `min`.
    pub max: usize,
}

/// What a stretch of time has shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sample {
    /// Deliveries that began and were accepted within it.
    pub accepted: u32,
    /// How long they took, together.
    pub accepted_time: Duration,
    /// Deliveries that began within it and failed, but for those that never reached the handler or were put off by it.
    pub failed: u32,
    /// How long they took, together.
    pub failed_time: Duration,
    /// Deliveries that began within it and that the handler has put off (429 or 503 with `Retry-After`), or that could not
    /// reach it.
    pub put_off: u32,
    /// A delivery has waited for a slot, all being taken.
    pub was_full: bool,
    /// The most that were in flight at a time.
    pub in_flight_max: usize,
}

/// The number of deliveries in flight, and what it is moved by.
#[derive(Clone, Debug)]
pub struct Budget {
    bounds: Bounds,
    now: f64,
    /// Seconds that a delivery takes as long as they do not queue up.
    base: Option<f64>,
    /// The last stretch ended with less: by which factor, and from which seconds a delivery.
    lowered: Option<(f64, f64)>,
    /// The number at which deliveries were put off last: up to there it goes carefully.
    put_off_at: Option<f64>,
}

impl Bounds {
    /// So many, whatever happens.
    pub fn fixed(number: usize) -> Self {
        Self { min: number, max: number }
    }

    /// Whether there is something to adapt.
    pub fn is_fixed(&self) -> bool {
        self.min >= self.max
    }

    /// Refuses what cannot be kept. The text says why.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self { min: 0, .. } | Self { max: 0, .. } => {
                Err("a concurrency of zero would deliver nothing".into())
            }
            Self { min, max } if min > max => {
                Err(format!("the least concurrency, {min}, is above the greatest, {max}"))
            }
            _ => Ok(()),
        }
    }
}

impl Sample {
    /// Seconds that a delivery took. Failures count where they took longer: those at once say nothing of the handler's
    /// pace, those by timeout do.
    fn latency(&self) -> Option<f64> {
        let mean = |time: Duration, count: u32| (count > 0).then(|| time.as_secs_f64() / f64::from(count));
        let (accepted, failed) =
            (mean(self.accepted_time, self.accepted), mean(self.failed_time, self.failed));
        match (accepted, failed) {
            (Some(accepted), Some(failed)) if failed <= accepted => Some(accepted),
            (None, None) => None,
            _ => mean(self.accepted_time + self.failed_time, self.accepted + self.failed),
        }
    }
}

impl Budget {
    /// Begins with the least.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, now: bounds.min as f64, base: None, lowered: None, put_off_at: None }
    }

    /// How many may be in flight now.
    pub fn current(&self) -> usize {
        (self.now as usize).clamp(self.bounds.min, self.bounds.max)
    }

    /// Its bounds.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// New bounds, which hold from now on.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.set(self.now);
    }

    /// Takes what a stretch of time has shown.
    pub fn adapt(&mut self, sample: &Sample) {
        let before = self.now;
        self.adapt_to_pace(sample);
        if sample.put_off > 0 {
            // By a tenth for a few of them, by half if it was all.
            let all = sample.accepted + sample.failed + sample.put_off;
            let factor = (1.0 - f64::from(sample.put_off) / f64::from(all)).clamp(0.5, 0.9);
            self.set(self.now.min(before * factor));
            self.put_off_at = Some(before);
        } else if self.put_off_at.is_some_and(|number| self.now > number) {
            self.put_off_at = None;
        }
    }

    fn adapt_to_pace(&mut self, sample: &Sample) {
        let Some(latency) = sample.latency() else { return self.give_up_unused(sample) };
        let base = self.base_after(latency);
        self.base = Some(base);
        let is_near = self.put_off_at.is_some_and(|number| self.now * 1.5 > number);
        let growth = if latency <= AT_EASE * base && !is_near { 0.5 } else { 0.1 };
        if latency > SLOWER * base {
            let factor = (SLOWER * base / latency).clamp(0.5, 0.8);
            self.lowered = Some((factor, latency));
            self.set(self.now * factor);
        } else if sample.was_full {
            self.set(self.now + (self.now * growth).max(1.0));
        } else {
            self.give_up_unused(sample);
        }
    }

    /// What a delivery takes as long as they do not queue up, after a stretch in which it took this.
    fn base_after(&mut self, latency: f64) -> f64 {
        let lowered = self.lowered.take();
        let Some(base) = self.base else { return latency };
        let is_least = self.current() == self.bounds.min;
        // Halfway between what it would be if they had queued up, and what it was.
        let is_no_help = lowered.is_some_and(|(factor, before)| latency > before * (1.0 + factor) / 2.0);
        match latency {
            latency if latency < base => base + (latency - base) * 0.5,
            latency if latency > SLOWER * base && (is_no_help || is_least) => latency,
            _ => base,
        }
    }

    fn give_up_unused(&mut self, sample: &Sample) {
        if sample.in_flight_max * 2 < self.current() {
            self.set(self.now * 0.9);
        }
    }

    fn set(&mut self, number: f64) {
        self.now = number.clamp(self.bounds.min as f64, self.bounds.max as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { min: 2, max: 200 };

    /// A handler that does so much at a time, each taking so many seconds; what is more queues up.
    #[derive(Clone, Copy)]
    struct Handler {
        at_a_time: f64,
        takes: f64,
    }

    impl Handler {
        /// A stretch with this much to do: how it shows at a budget, with some noise.
        fn sample(self, budget: usize, waiting: usize, noise: f64) -> Sample {
            let in_flight = budget.min(waiting);
            let latency = self.takes * (in_flight as f64 / self.at_a_time).max(1.0) * noise;
            let accepted = 100;
            Sample {
                accepted,
                accepted_time: Duration::from_secs_f64(latency * f64::from(accepted)),
                was_full: waiting > budget,
                in_flight_max: in_flight,
                ..Sample::default()
            }
        }

        fn stretches(self, budget: &mut Budget, count: usize, waiting: usize) {
            for n in 0..count {
                let noise = [1.0, 1.08, 0.95, 1.03, 0.93][n % 5];
                budget.adapt(&self.sample(budget.current(), waiting, noise));
            }
        }
    }

    #[test]
    fn it_grows_until_deliveries_queue_up_and_stays_there() {
        let mut budget = Budget::new(BOUNDS);
        assert_eq!(budget.current(), 2);
        let handler = Handler { at_a_time: 20.0, takes: 0.1 };
        handler.stretches(&mut budget, 20, 10_000);
        for _ in 0..200 {
            handler.stretches(&mut budget, 1, 10_000);
            assert!((15..=60).contains(&budget.current()), "{}", budget.current());
        }
    }

    #[test]
    fn it_uses_all_it_may_where_the_handler_can() {
        let mut budget = Budget::new(BOUNDS);
        Handler { at_a_time: 5000.0, takes: 0.1 }.stretches(&mut budget, 20, 10_000);
        assert_eq!(budget.current(), 200);
    }

    #[test]
    fn it_goes_down_as_well_as_up() {
        let mut budget = Budget::new(BOUNDS);
        let (fast, slow) = (Handler { at_a_time: 100.0, takes: 0.1 }, Handler { at_a_time: 5.0, takes: 0.1 });
        fast.stretches(&mut budget, 40, 10_000);
        assert!(budget.current() >= 80, "{}", budget.current());
        slow.stretches(&mut budget, 40, 10_000);
        assert!(budget.current() <= 20, "{}", budget.current());
        fast.stretches(&mut budget, 60, 10_000);
        assert!(budget.current() >= 80, "{}", budget.current());
    }

    #[test]
    fn work_that_is_slower_by_itself_is_no_reason_to_do_less() {
        let mut budget = Budget::new(BOUNDS);
        Handler { at_a_time: 5000.0, takes: 0.1 }.stretches(&mut budget, 20, 10_000);
        Handler { at_a_time: 5000.0, takes: 3.0 }.stretches(&mut budget, 20, 10_000);
        assert_eq!(budget.current(), 200);
    }

    #[test]
    fn what_is_not_used_is_given_up() {
        let mut budget = Budget::new(BOUNDS);
        let handler = Handler { at_a_time: 5000.0, takes: 0.1 };
        handler.stretches(&mut budget, 20, 10_000);
        handler.stretches(&mut budget, 40, 10);
        assert!((10..=25).contains(&budget.current()), "{}", budget.current());
        for _ in 0..40 {
            budget.adapt(&Sample::default());
        }
        assert_eq!(budget.current(), 2);
    }

    #[test]
    fn failures_at_once_are_no_pace_and_timeouts_are() {
        let second = Duration::from_secs(1);
        let sample = |accepted, failed, failed_time| Sample {
            accepted,
            accepted_time: second * accepted,
            failed,
            failed_time,
            ..Sample::default()
        };
        assert_eq!(sample(4, 4, Duration::ZERO).latency(), Some(1.0));
        assert_eq!(sample(1, 1, 59 * second).latency(), Some(30.0));
        assert_eq!(sample(0, 2, 6 * second).latency(), Some(3.0));
        assert_eq!(Sample::default().latency(), None);
    }

    /// One that takes so many at a time, and puts off at once what is more.
    fn refusing(room: usize, budget: &mut Budget, stretches: usize) -> Vec<usize> {
        let stretch = |_| {
            let number = budget.current();
            let accepted = u32::try_from(number.min(room)).unwrap() * 5;
            budget.adapt(&Sample {
                accepted,
                accepted_time: Duration::from_millis(100) * accepted,
                put_off: u32::try_from(number.saturating_sub(room)).unwrap() * 50,
                was_full: true,
                in_flight_max: number,
                ..Sample::default()
            });
            budget.current()
        };
        (0..stretches).map(stretch).collect()
    }

    #[test]
    fn it_stays_where_the_handler_begins_to_put_off() {
        let mut budget = Budget::new(BOUNDS);
        let numbers = refusing(40, &mut budget, 200);
        assert!(numbers[30..].iter().all(|number| (18..=50).contains(number)), "{numbers:?}");
        let over = numbers[30..].iter().filter(|number| **number > 40).count();
        assert!(over * 3 <= numbers.len(), "most of the time nothing is put off: {numbers:?}");
        // It takes more again.
        assert_eq!(refusing(1000, &mut budget, 60).last(), Some(&200));
    }

    #[test]
    fn nothing_but_refusals_bring_it_down_to_the_least() {
        let mut budget = Budget::new(BOUNDS);
        Handler { at_a_time: 5000.0, takes: 0.1 }.stretches(&mut budget, 20, 10_000);
        let put_off = |put_off, accepted| Sample {
            put_off,
            accepted,
            accepted_time: Duration::from_millis(100) * accepted,
            was_full: true,
            in_flight_max: 200,
            ..Sample::default()
        };
        budget.adapt(&put_off(1, 1000));
        assert_eq!(budget.current(), 180, "one in a thousand, once a stretch");
        budget.adapt(&put_off(500, 0));
        assert_eq!(budget.current(), 90);
        for _ in 0..10 {
            budget.adapt(&put_off(5, 0));
        }
        assert_eq!(budget.current(), 2);
    }

    #[test]
    fn bounds_that_cannot_be_kept_are_refused() {
        for (min, max, expected) in [(0, 5, "zero"), (0, 0, "zero"), (6, 5, "6, is above the greatest, 5")] {
            assert!(Bounds { min, max }.check().unwrap_err().contains(expected));
        }
        assert!(Bounds { min: 5, max: 5 }.check().is_ok());
    }

    proptest! {
        #[test]
        fn whatever_happens_the_bounds_hold(
            stretches in prop::collection::vec((0u32..50, 0u64..100_000, 0u32..50, 0u64..100_000, 0u32..20, any::<bool>(), 0usize..300), 1..100),
            bounds in prop::collection::vec((1usize..50, 0usize..100), 1..5),
        ) {
            let bounds: Vec<_> = bounds.into_iter().map(|(min, more)| Bounds { min, max: min + more }).collect();
            let mut budget = Budget::new(bounds[0]);
            for (n, (accepted, ms, failed, failed_ms, put_off, was_full, in_flight_max)) in stretches.into_iter().enumerate() {
                let bounds = bounds[n % bounds.len()];
                budget.set_bounds(bounds);
                prop_assert!((bounds.min..=bounds.max).contains(&budget.current()));
                let (accepted_time, failed_time) = (Duration::from_millis(ms), Duration::from_millis(failed_ms));
                budget.adapt(&Sample { accepted, accepted_time, failed, failed_time, put_off, was_full, in_flight_max });
                prop_assert!((bounds.min..=bounds.max).contains(&budget.current()));
            }
        }
    }
}
