//! The circuit breaker of one target: pure, told the time and what deliveries came to.
//!
//! Closed, it counts. After so many failures in a row, or with such a share of them, it opens: nothing is sent for a while.
//! Then one delivery is the probe. If that fails it opens again, for twice as long; if not it closes, and lets in twice as
//! many with each round trip, so that what has waited does not fall upon a target that has just come back.

use std::time::Duration;

use tokio::time::Instant;

/// When the breaker of a target opens, and for how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BreakerOptions {
    /// After so many failures in a row; `None`: not by that.
    pub failures: Option<u32>,
    /// With so many failures in a hundred, of at least twenty deliveries within ten seconds; `None`: not by that.
    pub share: Option<u8>,
    /// How long it is open at first; more than zero. Each probe that fails doubles it …
    pub open: Duration,
    /// … up to this.
    pub open_max: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: None, share: None, open: Duration::from_secs(5), open_max: Duration::from_secs(60) }
    }
}

impl BreakerOptions {
    /// Whether it can open at all.
    pub fn is_on(&self) -> bool {
        self.failures.is_some() || self.share.is_some()
    }
}

/// Over which time the share of failures is taken …
const WINDOW: Duration = Duration::from_secs(10);
/// … and of how many deliveries at least.
const WINDOW_MIN: u32 = 20;
/// With so many let in at a time it is as if nothing had been.
const RAMP_END: usize = 64;
/// A target that has been down for longer may be down because of the very items that are its probes: from then on their
/// failures count, so that these items end some day.
const OUTAGE_MAX: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(super) struct Breaker {
    options: BreakerOptions,
    state: State,
    /// Grows with each transition: what began before one says nothing of the time after it.
    generation: u32,
    in_a_row: u32,
    window: Window,
    /// Probes that have failed since it was last closed for good.
    failed_probes: u32,
    /// How many it lets in at a time, after it has closed.
    ramp: Option<usize>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Closed,
    Open { since: Instant, until: Instant, is_probed: bool },
}

#[derive(Debug)]
struct Window {
    since: Instant,
    all: u32,
    failed: u32,
}

/// Why nothing more is let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shut {
    /// Open, until then.
    Until(Instant),
    /// Until something that is in flight has ended.
    Busy,
}

/// What the end of a delivery has done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Noted {
    /// The failure is one of an outage: it costs the item no retry.
    pub(super) is_outage: bool,
    /// It has opened, for this long.
    pub(super) opened: Option<Duration>,
    /// It has closed.
    pub(super) is_closed: bool,
}

impl Breaker {
    pub(super) fn new(options: BreakerOptions, now: Instant) -> Self {
        Self {
            options,
            state: State::Closed,
            generation: 0,
            in_a_row: 0,
            window: Window { since: now, all: 0, failed: 0 },
            failed_probes: 0,
            ramp: None,
        }
    }

    /// Since when it has been open, and until when nothing is let in, if it is.
    pub(super) fn open(&self) -> Option<(Instant, Instant)> {
        match self.state {
            State::Open { since, until, .. } => Some((since, until)),
            State::Closed => None,
        }
    }

    /// Whether one more may begin while so many are in flight.
    pub(super) fn check(&self, in_flight: usize, now: Instant) -> Result<(), Shut> {
        match (self.state, self.ramp) {
            (State::Open { until, .. }, _) if now < until => Err(Shut::Until(until)),
            (State::Open { is_probed: true, .. }, _) => Err(Shut::Busy),
            (State::Closed, Some(ramp)) if in_flight >= ramp => Err(Shut::Busy),
            _ => Ok(()),
        }
    }

    /// A delivery begins, after a [`Self::check`]. What is returned belongs to its end.
    pub(super) fn begin(&mut self) -> u32 {
        if let State::Open { is_probed, .. } = &mut self.state {
            *is_probed = true;
        }
        self.generation
    }

    /// It was dropped before it ended: another may be the probe.
    pub(super) fn dropped(&mut self, generation: u32) {
        if let State::Open { is_probed, .. } = &mut self.state
            && generation == self.generation
        {
            *is_probed = false;
        }
    }

    /// It has ended. `jitter` is uniform in [0, 1).
    pub(super) fn ended(&mut self, generation: u32, is_failure: bool, now: Instant, jitter: f64) -> Noted {
        if generation != self.generation {
            return Noted { is_outage: is_failure, ..Noted::default() };
        }
        match self.state {
            State::Open { since, .. } if is_failure => {
                self.failed_probes = self.failed_probes.saturating_add(1);
                let opened = self.open_up(since, now, jitter);
                let is_outage = now.duration_since(since) < OUTAGE_MAX;
                Noted { is_outage, opened: Some(opened), is_closed: false }
            }
            State::Open { .. } => {
                self.close(now);
                Noted { is_closed: true, ..Noted::default() }
            }
            State::Closed => self.count(is_failure, now, jitter),
        }
    }

    fn count(&mut self, is_failure: bool, now: Instant, jitter: f64) -> Noted {
        self.in_a_row = if is_failure { self.in_a_row.saturating_add(1) } else { 0 };
        self.window.count(is_failure, now);
        if !is_failure {
            self.ramp = self.ramp.map(|ramp| ramp + 1).filter(|ramp| *ramp < RAMP_END);
            if self.ramp.is_none() {
                self.failed_probes = 0;
            }
            return Noted::default();
        }
        // One that has just come back and fails at once has not come back.
        let is_relapse = self.ramp.is_some();
        let is_many = self.options.failures.is_some_and(|failures| self.in_a_row >= failures);
        if !is_relapse && !is_many && !self.options.share.is_some_and(|share| self.window.reaches(share)) {
            return Noted::default();
        }
        if is_relapse {
            self.failed_probes = self.failed_probes.saturating_add(1);
        }
        Noted { is_outage: true, opened: Some(self.open_up(now, now, jitter)), is_closed: false }
    }

    fn open_up(&mut self, since: Instant, now: Instant, jitter: f64) -> Duration {
        let doubled = self.options.open.saturating_mul(1 << self.failed_probes.min(20));
        let time = doubled.min(self.options.open_max.max(self.options.open)).mul_f64(0.8 + 0.2 * jitter);
        self.state = State::Open { since, until: now + time, is_probed: false };
        self.generation = self.generation.wrapping_add(1);
        self.ramp = None;
        time
    }

    fn close(&mut self, now: Instant) {
        self.state = State::Closed;
        self.generation = self.generation.wrapping_add(1);
        self.in_a_row = 0;
        self.window = Window { since: now, all: 0, failed: 0 };
        self.ramp = Some(2);
    }
}

impl Window {
    fn count(&mut self, is_failure: bool, now: Instant) {
        if now.duration_since(self.since) >= WINDOW {
            *self = Self { since: now, all: 0, failed: 0 };
        }
        self.all += 1;
        self.failed += u32::from(is_failure);
    }

    fn reaches(&self, share: u8) -> bool {
        self.all >= WINDOW_MIN && u64::from(self.failed) * 100 >= u64::from(share) * u64::from(self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPTIONS: BreakerOptions = BreakerOptions {
        failures: Some(3),
        share: Some(50),
        open: Duration::from_secs(10),
        open_max: Duration::from_secs(60),
    };

    fn breaker() -> (Breaker, Instant) {
        let now = Instant::now();
        (Breaker::new(OPTIONS, now), now)
    }

    fn fail(breaker: &mut Breaker, now: Instant) -> Noted {
        let generation = breaker.begin();
        breaker.ended(generation, true, now, 1.0)
    }

    fn succeed(breaker: &mut Breaker, now: Instant) -> Noted {
        let generation = breaker.begin();
        breaker.ended(generation, false, now, 1.0)
    }

    fn opened(breaker: &mut Breaker, now: Instant) -> Duration {
        for _ in 0..2 {
            assert_eq!(fail(breaker, now), Noted::default());
        }
        fail(breaker, now).opened.unwrap()
    }

    fn open_since(breaker: &Breaker) -> Option<Instant> {
        breaker.open().map(|(since, _)| since)
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_success_between_does_not() {
        let (mut breaker, now) = breaker();
        for _ in 0..10 {
            fail(&mut breaker, now);
            fail(&mut breaker, now);
            assert_eq!(breaker.check(0, now), Ok(()));
            for _ in 0..3 {
                succeed(&mut breaker, now);
            }
        }
        assert_eq!(opened(&mut breaker, now), OPTIONS.open);
        assert_eq!(breaker.check(0, now), Err(Shut::Until(now + OPTIONS.open)));
        assert_eq!(open_since(&breaker), Some(now));
    }

    #[test]
    fn a_share_of_failures_opens_it() {
        let (mut breaker, now) = breaker();
        let mut all = 0;
        while open_since(&breaker).is_none() {
            succeed(&mut breaker, now);
            fail(&mut breaker, now);
            all += 2;
        }
        assert_eq!(all, 20);

        let (mut breaker, mut now) = self::breaker();
        for _ in 0..50 {
            succeed(&mut breaker, now);
            fail(&mut breaker, now);
            now += Duration::from_secs(2);
        }
        assert_eq!(open_since(&breaker), None, "too few within the time");
    }

    #[test]
    fn one_probe_decides_and_the_time_doubles() {
        let (mut breaker, mut now) = breaker();
        let mut time = opened(&mut breaker, now);
        for expected in [20, 40, 60, 60] {
            assert!(breaker.check(0, now + time - Duration::from_millis(1)).is_err());
            now += time;
            assert_eq!(breaker.check(0, now), Ok(()));
            let probe = breaker.begin();
            assert_eq!(breaker.check(1, now), Err(Shut::Busy), "one at a time");
            let noted = breaker.ended(probe, true, now, 1.0);
            time = Duration::from_secs(expected);
            assert_eq!(noted, Noted { is_outage: true, opened: Some(time), is_closed: false });
        }
        now += time;
        assert!(succeed(&mut breaker, now).is_closed);
        assert_eq!((breaker.check(0, now), open_since(&breaker)), (Ok(()), None));
    }

    #[test]
    fn a_probe_that_was_dropped_makes_way_for_another() {
        let (mut breaker, now) = breaker();
        let now = now + opened(&mut breaker, now);
        let probe = breaker.begin();
        assert_eq!(breaker.check(0, now), Err(Shut::Busy));
        breaker.dropped(probe);
        assert_eq!(breaker.check(0, now), Ok(()));
    }

    #[test]
    fn recovery_is_no_stampede() {
        let (mut breaker, now) = breaker();
        let mut now = now + opened(&mut breaker, now);
        succeed(&mut breaker, now);
        // What it lets in at a time, round trip by round trip.
        let mut rounds = Vec::new();
        while rounds.last() != Some(&200) {
            let mut begun = Vec::new();
            while begun.len() < 200 && breaker.check(begun.len(), now).is_ok() {
                begun.push(breaker.begin());
            }
            rounds.push(begun.len());
            now += Duration::from_millis(10);
            for generation in begun {
                breaker.ended(generation, false, now, 1.0);
            }
        }
        assert_eq!(rounds, [2, 4, 8, 16, 32, 200]);
    }

    #[test]
    fn a_relapse_opens_it_at_once_and_for_longer() {
        let (mut breaker, now) = breaker();
        let now = now + opened(&mut breaker, now);
        succeed(&mut breaker, now);
        assert_eq!(fail(&mut breaker, now).opened, Some(2 * OPTIONS.open));
    }

    #[test]
    fn what_began_before_it_opened_changes_nothing_and_costs_nothing() {
        let (mut breaker, now) = breaker();
        let early = [breaker.begin(), breaker.begin()];
        let time = opened(&mut breaker, now);
        assert_eq!(breaker.ended(early[0], true, now, 1.0), Noted { is_outage: true, ..Noted::default() });
        assert_eq!(breaker.ended(early[1], false, now, 1.0), Noted::default());
        assert_eq!(breaker.check(0, now), Err(Shut::Until(now + time)));
    }

    #[test]
    fn after_a_day_failures_count_again() {
        let (mut breaker, now) = breaker();
        opened(&mut breaker, now);
        assert!(fail(&mut breaker, now + OUTAGE_MAX / 2).is_outage);
        assert!(!fail(&mut breaker, now + OUTAGE_MAX).is_outage);
    }

    proptest! {
        /// Whatever ends when, and however: while it is open one probe at a time is let in, no sooner than it says, and as
        /// soon as everything has ended one is let in some day.
        #[test]
        fn it_never_stays_shut_and_never_lets_in_two_probes(acts in prop::collection::vec((0u8..4, 0usize..8, 0u64..30), 1..200)) {
            let (mut breaker, mut now) = breaker();
            let mut in_flight: Vec<(u32, bool)> = Vec::new();
            for (act, which, secs) in acts {
                match act {
                    0 => {
                        let is_open = open_since(&breaker).is_some();
                        if breaker.check(in_flight.len(), now).is_ok() {
                            let probes = in_flight.iter().filter(|(of, is_probe)| *is_probe && *of == breaker.generation).count();
                            prop_assert!(!is_open || probes == 0);
                            in_flight.push((breaker.begin(), is_open));
                        }
                    }
                    1 | 2 if !in_flight.is_empty() => {
                        let (generation, _) = in_flight.swap_remove(which % in_flight.len());
                        breaker.ended(generation, act == 1, now, 0.5);
                    }
                    3 if !in_flight.is_empty() => {
                        let (generation, _) = in_flight.swap_remove(which % in_flight.len());
                        breaker.dropped(generation);
                    }
                    _ => now += Duration::from_secs(secs),
                }
            }
            for (generation, _) in in_flight.drain(..) {
                breaker.dropped(generation);
            }
            prop_assert_eq!(breaker.check(0, now + OPTIONS.open_max), Ok(()));
        }
    }
}
