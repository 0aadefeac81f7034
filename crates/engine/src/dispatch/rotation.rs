//! Which target is next, and which one is left alone because it cannot be reached. A pause lives in memory
//! only: it is this process's view of the network.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use gatefeed_core::retry::RetryPolicy;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use url::Url;

use super::target::{InvalidTarget, Target};

/// How long a target that cannot be reached is left alone: full jitter over 200 ms, doubling up to 5 s.
const PAUSE: RetryPolicy =
    RetryPolicy { max_retries: None, base: Duration::from_millis(200), cap: Duration::from_secs(5) };

/// All targets, taking turns.
pub(super) struct Rotation {
    places: Vec<Place>,
    next: AtomicUsize,
    /// A target was paused, or its pause has ended; other routes may ring it too.
    changed: Arc<Notify>,
}

/// A target and how it has fared.
struct Place {
    target: Arc<Target>,
    /// Rounds of failures in a row; zero for as long as all is well, which is read without the lock.
    failures: AtomicU32,
    /// How many pauses there have been, by which the failures of one round are told from those of the next.
    round: AtomicU32,
    pause: Mutex<Pause>,
}

#[derive(Default)]
struct Pause {
    until: Option<Instant>,
    /// Why.
    message: String,
}

/// A target whose turn it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    index: usize,
    round: u32,
}

impl Turn {
    /// Which of the targets.
    pub(super) fn index(&self) -> usize {
        self.index
    }
}

/// Every target is paused.
#[derive(Debug)]
pub(super) struct AllPaused {
    /// Until one may be tried again.
    pub(super) remaining: Duration,
    /// The last failure of one of them.
    pub(super) message: String,
}

impl Place {
    fn new(url: Url) -> Result<Self, InvalidTarget> {
        let target = Arc::new(Target::new(url)?);
        Ok(Self { target, failures: AtomicU32::new(0), round: AtomicU32::new(0), pause: Mutex::default() })
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is left of its pause; zero if it is not paused.
    fn remaining(&self, now: Instant) -> Duration {
        if self.failures.load(Ordering::Acquire) == 0 {
            return Duration::ZERO;
        }
        self.pause().until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

impl Rotation {
    /// At least one target. `changed` is rung when a pause begins or ends early.
    pub(super) fn new(urls: Vec<Url>, changed: Arc<Notify>) -> Result<Self, InvalidTarget> {
        if urls.is_empty() {
            return Err(InvalidTarget("there is no target; expected at least one URL".into()));
        }
        let places = urls.into_iter().map(Place::new).collect::<Result<_, _>>()?;
        Ok(Self { places, next: AtomicUsize::new(0), changed })
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.places.iter().map(|place| &place.target)
    }

    /// The next target that is not paused.
    pub(super) fn turn(&self) -> Result<Turn, AllPaused> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.places.len();
        let now = Instant::now();
        let free = (first..self.places.len()).chain(0..first);
        match free.into_iter().find(|&index| self.places[index].remaining(now).is_zero()) {
            Some(index) => Ok(Turn { index, round: self.places[index].round.load(Ordering::Acquire) }),
            None => {
                let message = self.places[first].pause().message.clone();
                Err(AllPaused { remaining: self.remaining(now).unwrap_or_default(), message })
            }
        }
    }

    /// Records that the target could not be reached, which pauses it. Many deliveries of one round fail
    /// together: the first of them counts. Returns how long it takes until some target may be tried.
    pub(super) fn unreachable(&self, turn: &Turn, message: &str) -> Duration {
        let now = Instant::now();
        let place = &self.places[turn.index];
        let mut pause = place.pause();
        if place.round.load(Ordering::Acquire) == turn.round {
            let failures = place.failures.load(Ordering::Acquire);
            let length = PAUSE.backoff(failures.min(31) as i32, rand::random());
            *pause = Pause { until: Some(now + length), message: message.to_owned() };
            place.failures.store(failures.saturating_add(1), Ordering::Release);
            place.round.store(turn.round.wrapping_add(1), Ordering::Release);
            tracing::warn!(reason = message, ?length, "a target is paused");
        }
        drop(pause);
        self.changed.notify_waiters();
        self.remaining(now).unwrap_or_default()
    }

    /// Records that the target was reached, which ends its pause.
    pub(super) fn reached(&self, turn: &Turn) {
        let place = &self.places[turn.index];
        if place.failures.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut pause = place.pause();
        pause.until = None;
        place.failures.store(0, Ordering::Release);
        drop(pause);
        tracing::info!(url = place.target.shown, "a target is reachable again");
        self.changed.notify_waiters();
    }

    /// Whether some target is not paused.
    pub(super) fn is_ready(&self) -> bool {
        // Read without the clock and the lock while all is well, since each item asks.
        self.places.iter().any(|place| place.failures.load(Ordering::Acquire) == 0)
            || self.remaining(Instant::now()).is_none()
    }

    /// Resolves when some target is not paused.
    pub(super) async fn ready(&self) {
        loop {
            let changed = self.changed.notified();
            let now = Instant::now();
            let Some(remaining) = self.remaining(now) else { return };
            tokio::select! {
                () = sleep_until(now + remaining) => {}
                () = changed => {}
            }
        }
    }

    /// How long it takes from `now` until some target is not paused; `None`: one is not.
    pub(super) fn remaining(&self, now: Instant) -> Option<Duration> {
        let soonest = self.places.iter().map(|place| place.remaining(now)).min().unwrap_or_default();
        (!soonest.is_zero()).then_some(soonest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn rotation(count: usize) -> Rotation {
        let url = |n| Url::parse(&format!("http://127.0.0.1:{}/", 9000 + n)).unwrap();
        Rotation::new((0..count).map(url).collect(), Arc::default()).unwrap()
    }

    fn port(turn: &Turn) -> usize {
        9000 + turn.index()
    }

    /// Fails round after round until the pause is long enough to be seen.
    async fn pause(rotation: &Rotation) -> Duration {
        loop {
            let remaining = rotation.unreachable(&rotation.turn().unwrap(), "down");
            if remaining > Duration::from_millis(1) {
                return remaining;
            }
            tokio::time::advance(remaining).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn targets_take_turns_and_a_paused_one_is_skipped() {
        let rotation = rotation(3);
        let ports = |n| (0..n).map(|_| port(&rotation.turn().unwrap())).collect::<Vec<_>>();
        assert_eq!(ports(4), [9000, 9001, 9002, 9000]);
        let down = rotation.turn().unwrap();
        assert_eq!(rotation.unreachable(&down, "down"), Duration::ZERO, "others can be tried at once");
        let skipped = ports(6);
        assert!(!skipped.contains(&port(&down)) && skipped.contains(&9000) && skipped.contains(&9002));
        tokio::time::advance(PAUSE.base).await;
        assert!(ports(3).contains(&9001), "a pause ends");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_by_round_up_to_the_cap_and_start_again_after_a_success() {
        let rotation = rotation(1);
        let mut longest = [Duration::ZERO; 12];
        for _ in 0..200 {
            for (round, longest) in longest.iter_mut().enumerate() {
                let bound = (PAUSE.base * 2u32.pow(round as u32)).min(PAUSE.cap);
                let remaining = rotation.unreachable(&rotation.turn().unwrap(), "down");
                assert!(remaining <= bound, "round {round}: {remaining:?}");
                *longest = remaining.max(*longest);
                tokio::time::advance(bound).await;
            }
            rotation.reached(&rotation.turn().unwrap());
        }
        for (round, longest) in longest.into_iter().enumerate() {
            let bound = (PAUSE.base * 2u32.pow(round as u32)).min(PAUSE.cap);
            assert!(longest > bound / 2, "round {round}: never above {longest:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn deliveries_that_fail_together_are_one_round() {
        let rotation = rotation(1);
        let turns: Vec<_> = (0..100).map(|_| rotation.turn().unwrap()).collect();
        for turn in &turns {
            assert!(rotation.unreachable(turn, "down") <= PAUSE.base);
        }
        assert_eq!(rotation.places[0].failures.load(Ordering::Acquire), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn ready_waits_for_the_end_of_a_pause_or_for_a_success() {
        let rotation = rotation(1);
        assert!(rotation.ready().now_or_never().is_some());
        let turn = rotation.turn().unwrap();
        let remaining = pause(&rotation).await;
        let paused = rotation.turn().err().unwrap();
        assert_eq!((paused.remaining, paused.message.as_str()), (remaining, "down"));
        let started = Instant::now();
        rotation.ready().await;
        assert!(started.elapsed() >= remaining);

        pause(&rotation).await;
        let mut ready = Box::pin(rotation.ready());
        assert!((&mut ready).now_or_never().is_none());
        rotation.reached(&turn);
        assert!(ready.now_or_never().is_some(), "a success ends the pause at once");
    }

    #[test]
    fn no_target_is_refused() {
        assert!(
            Rotation::new(Vec::new(), Arc::default()).err().unwrap().to_string().contains("at least one")
        );
    }
}
