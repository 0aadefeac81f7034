//! One target and how it fares: whether one more delivery may go there now, and what has become of those that did. All of
//! it lives in memory: it is this process's view.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use gatefeed_core::{circuit::CircuitState, retry::RetryPolicy, share::Share};
use tokio::{sync::Notify, time::Instant};

use super::{
    breaker::{Breaker, Noted, Shut},
    limit::RateLimit,
    load::Load,
    spread::TargetLimits,
    target::Target,
};

/// How long a target that cannot be reached is left alone: full jitter over 200 ms, doubling up to 5 s.
pub(super) const PAUSE: RetryPolicy =
    RetryPolicy { max_retries: None, base: Duration::from_millis(200), cap: Duration::from_secs(5) };

/// A target and its account. Routes that limit it alike share it.
pub(super) struct Place {
    pub(super) target: Arc<Target>,
    /// Rounds of failures to reach it in a row; zero for as long as all is well, which is read without the lock.
    failures: AtomicU32,
    /// How many pauses there have been, by which the failures of one round are told from those of the next.
    round: AtomicU32,
    pause: Mutex<Pause>,
    load: Load,
    /// What lets in no more than it may, if anything does.
    guard: Option<Mutex<Guard>>,
    /// Somebody waits for something in flight to end.
    is_awaited: AtomicBool,
    /// Rung when more may begin than before, or less.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Pause {
    /// When it could not be reached for the first time since it last could.
    since: Option<Instant>,
    until: Option<Instant>,
    /// Why.
    message: String,
}

/// How a place is left alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Shunned {
    pub(super) state: CircuitState,
    pub(super) since: Instant,
    /// When it is tried next.
    pub(super) until: Instant,
}

struct Guard {
    breaker: Option<Breaker>,
    rate: Option<RateLimit>,
    /// The rate has given its leave for a delivery that has not begun yet.
    is_paid: bool,
    /// Of all watchers together.
    max_in_flight_of_all: Option<usize>,
    /// This watcher's part.
    max_in_flight: usize,
}

/// A delivery on its way to a place. Dropping it before its end says that it was given up.
pub(super) struct Flight {
    place: Arc<Place>,
    /// Which of the targets of its route.
    pub(super) index: usize,
    round: u32,
    generation: u32,
    began: Instant,
    /// What it takes is of interest, since others are compared with it.
    is_measured: bool,
    /// It is under way, and not just reserved.
    is_departed: bool,
    is_noted: bool,
}

/// How a delivery fared, as far as the target is concerned.
pub(super) enum Fared<'a> {
    /// The handler answered, whatever it said.
    Well,
    /// It was cut, timed out, or met an error of the server.
    Badly,
    /// No byte can have reached it.
    Unreachable(&'a str),
}

impl Guard {
    fn check(&mut self, in_flight: usize, now: Instant) -> Result<(), Shut> {
        if let Some(breaker) = &self.breaker {
            breaker.check(in_flight, now)?;
        }
        if in_flight >= self.max_in_flight {
            return Err(Shut::Busy);
        }
        if let Some(rate) = self.rate.as_ref().filter(|_| !self.is_paid) {
            rate.take().map_err(|wait| Shut::Until(now + wait))?;
            self.is_paid = true;
        }
        Ok(())
    }
}

impl Place {
    pub(super) fn new(target: Arc<Target>, limits: &TargetLimits, changed: Arc<Notify>) -> Self {
        let now = Instant::now();
        let guard = limits.is_any().then(|| {
            Mutex::new(Guard {
                breaker: limits.breaker.is_on().then(|| Breaker::new(limits.breaker.clone(), now)),
                rate: limits.rate.map(RateLimit::new),
                is_paid: false,
                max_in_flight_of_all: limits.max_in_flight,
                max_in_flight: limits.max_in_flight.unwrap_or(usize::MAX),
            })
        });
        Self {
            target,
            failures: AtomicU32::new(0),
            round: AtomicU32::new(0),
            pause: Mutex::default(),
            load: Load::new(),
            guard,
            is_awaited: AtomicBool::new(false),
            changed,
        }
    }

    /// Whether something may keep it from having one more, beside that it cannot be reached.
    pub(super) fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }

    /// Whether it has limits that are split over watchers.
    pub(super) fn is_split(&self) -> bool {
        self.guard().is_some_and(|guard| guard.rate.is_some() || guard.max_in_flight_of_all.is_some())
    }

    /// Keeps this share of its limits from now on. True if that is something else.
    pub(super) fn split(&self, share: Share) -> bool {
        let Some(mut guard) = self.guard() else { return false };
        let max_in_flight = guard.max_in_flight_of_all.map_or(usize::MAX, |max| share.of(max));
        let is_another = max_in_flight != guard.max_in_flight;
        guard.max_in_flight = max_in_flight;
        guard.rate.as_ref().is_some_and(|rate| rate.split(share)) || is_another
    }

    /// Whether it could be reached when it was last tried.
    pub(super) fn is_reachable(&self) -> bool {
        self.failures.load(Ordering::Acquire) == 0
    }

    /// What is left of its pause; zero if it is not paused.
    pub(super) fn remaining(&self, now: Instant) -> Duration {
        if self.is_reachable() {
            return Duration::ZERO;
        }
        self.pause().until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// About when it would answer one more; to be compared with others.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        self.load.cost(now)
    }

    /// Whether one more may begin.
    pub(super) fn check(&self, now: Instant) -> Result<(), Shut> {
        let remaining = self.remaining(now);
        if !remaining.is_zero() {
            return Err(Shut::Until(now + remaining));
        }
        let Some(mut guard) = self.guard() else { return Ok(()) };
        let checked = guard.check(self.load.in_flight(), now);
        self.note_awaited(checked)
    }

    /// Begins one more, if that may be.
    pub(super) fn begin(
        self: &Arc<Self>,
        index: usize,
        is_measured: bool,
        now: Instant,
    ) -> Result<Flight, Shut> {
        let remaining = self.remaining(now);
        if !remaining.is_zero() {
            return Err(Shut::Until(now + remaining));
        }
        let mut generation = 0;
        if let Some(mut guard) = self.guard() {
            let checked = guard.check(self.load.in_flight(), now);
            self.note_awaited(checked)?;
            guard.is_paid = false;
            generation = guard.breaker.as_mut().map_or(0, Breaker::begin);
            self.load.begin();
        } else {
            self.load.begin();
        }
        let round = self.round.load(Ordering::Acquire);
        Ok(Flight {
            place: Arc::clone(self),
            index,
            round,
            generation,
            began: now,
            is_measured,
            is_departed: false,
            is_noted: false,
        })
    }

    fn note_awaited(&self, checked: Result<(), Shut>) -> Result<(), Shut> {
        if checked == Err(Shut::Busy) {
            self.is_awaited.store(true, Ordering::Release);
        }
        checked
    }

    /// For how long its circuit has been open, if it is.
    pub(super) fn open_for(&self) -> Option<Duration> {
        self.open().map(|(since, _)| since.elapsed())
    }

    fn open(&self) -> Option<(Instant, Instant)> {
        self.guard()?.breaker.as_ref()?.open()
    }

    /// How it is left alone, if it is: because it kept failing, or cannot be reached.
    pub(super) fn shunned(&self, now: Instant) -> Option<Shunned> {
        if let Some((since, until)) = self.open() {
            let state = if now < until { CircuitState::Open } else { CircuitState::HalfOpen };
            return Some(Shunned { state, since, until });
        }
        if self.is_reachable() {
            return None;
        }
        let pause = self.pause();
        let since = pause.since.unwrap_or(now);
        Some(Shunned { state: CircuitState::Unreachable, since, until: pause.until.unwrap_or(now) })
    }

    /// Why it is left alone, if it is.
    pub(super) fn trouble(&self) -> Option<String> {
        let shown = &self.target.shown;
        match self.open_for() {
            Some(time) => Some(format!(
                "the circuit to {shown} has been open for {} s: it kept failing",
                time.as_secs()
            )),
            None if self.is_reachable() => None,
            None => Some(self.pause().message.clone()),
        }
    }

    fn guard(&self) -> Option<MutexGuard<'_, Guard>> {
        self.guard.as_ref().map(|guard| guard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pauses it. Many deliveries of one round fail together: the first of them counts.
    fn pause_after(&self, round: u32, message: &str, now: Instant) {
        let mut pause = self.pause();
        if self.round.load(Ordering::Acquire) == round {
            let failures = self.failures.load(Ordering::Acquire);
            let length = PAUSE.backoff(failures.min(31) as i32, rand::random());
            let since = pause.since.filter(|_| failures > 0).or(Some(now));
            *pause = Pause { since, until: Some(now + length), message: message.to_owned() };
            self.failures.store(failures.saturating_add(1), Ordering::Release);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            tracing::warn!(reason = message, ?length, "a target is paused");
        }
        drop(pause);
        self.changed.notify_waiters();
    }

    /// It was reached, which ends its pause.
    fn reached(&self) {
        if self.is_reachable() {
            return;
        }
        let mut pause = self.pause();
        (pause.since, pause.until) = (None, None);
        self.failures.store(0, Ordering::Release);
        drop(pause);
        tracing::info!(url = self.target.shown, "a target is reachable again");
        self.changed.notify_waiters();
    }
}

impl Flight {
    /// It is sent only now: what it takes counts from here.
    pub(super) fn depart(mut self, now: Instant) -> Self {
        (self.began, self.is_departed) = (now, true);
        self
    }

    /// When it was begun.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// It has ended. True if that it failed is part of an outage, and no fault of the item's.
    pub(super) fn ended(mut self, fared: Fared<'_>) -> bool {
        self.is_noted = true;
        let place = &self.place;
        let is_failure = !matches!(fared, Fared::Well);
        if !self.is_measured && !is_failure && place.guard.is_none() {
            place.reached();
            return false;
        }
        let now = Instant::now();
        let took = now.saturating_duration_since(self.began);
        match is_failure {
            false => place.load.answered(took, now),
            true => place.load.failed(took, now),
        }
        let noted = match place.guard() {
            Some(mut guard) => guard
                .breaker
                .as_mut()
                .map(|breaker| breaker.ended(self.generation, is_failure, now, rand::random())),
            None => None,
        };
        match fared {
            Fared::Well => place.reached(),
            Fared::Badly => {}
            Fared::Unreachable(message) => place.pause_after(self.round, message, now),
        }
        self.tell(noted.unwrap_or_default())
    }

    fn tell(&self, noted: Noted) -> bool {
        let (url, place) = (&self.place.target.shown, &self.place);
        if let Some(length) = noted.opened {
            tracing::warn!(url, ?length, "a circuit is open: the target keeps failing, and its items wait");
            place.changed.notify_waiters();
        }
        if noted.is_closed {
            tracing::info!(url, "a circuit is closed again");
            place.changed.notify_waiters();
        }
        noted.is_outage
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let place = &self.place;
        place.load.end();
        if !self.is_noted && self.is_departed && self.is_measured {
            // Such as one that another target was quicker than.
            let now = Instant::now();
            place.load.given_up(now.saturating_duration_since(self.began), now);
        }
        if !self.is_noted
            && let Some(mut guard) = place.guard()
            && let Some(breaker) = &mut guard.breaker
        {
            breaker.dropped(self.generation);
        }
        if place.is_guarded() && place.is_awaited.swap(false, Ordering::AcqRel) {
            place.changed.notify_waiters();
        }
    }
}
