//! The in-flight budget: moves it by what deliveries take, where it is not fixed, and when somebody changes its bounds.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use gatefeed_core::{
    Result, StoreError,
    answer::Verdict,
    budget::{Bounds, Budget, Sample},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::context::{Context, jittered};

/// A stretch is no shorter …
const STRETCH_MIN: Duration = Duration::from_millis(500);
/// … and sees this many deliveries from their beginning to their end, or as many as may be in flight, if that is less …
const DELIVERIES_MIN: u32 = 50;
/// … unless that takes longer than this.
const STRETCH_MAX: Duration = Duration::from_secs(10);
/// One in which nothing is in flight any more ends after this.
const IDLE_STRETCH: Duration = Duration::from_secs(1);
/// How often it looks whether a stretch is over.
const LOOK: Duration = Duration::from_millis(100);

/// Changes how many deliveries a watcher has in flight while it runs. With fewer, what is in flight goes on, and nothing
/// begins before enough has ended.
#[derive(Clone, Debug)]
pub struct Concurrency {
    bounds: Arc<watch::Sender<Bounds>>,
    now: Arc<AtomicUsize>,
}

impl Concurrency {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds: Arc::new(watch::Sender::new(bounds)), now: Arc::default() }
    }

    /// At most so many from now on. Errs at zero.
    pub fn set(&self, number: usize) -> Result<()> {
        self.set_between(number, number)
    }

    /// As many as are of use from now on, between these two. Errs at zero, and where the first is above the second.
    pub fn set_between(&self, min: usize, max: usize) -> Result<()> {
        let bounds = Bounds { min, max };
        bounds.check().map_err(StoreError::Config)?;
        self.bounds.send_replace(bounds);
        Ok(())
    }

    /// How many may be in flight now; zero before the watcher runs.
    pub fn current(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn bounds(&self) -> Bounds {
        *self.bounds.borrow()
    }

    pub(crate) fn replace(&self, bounds: Bounds) {
        self.bounds.send_replace(bounds);
    }

    fn changes(&self) -> watch::Receiver<Bounds> {
        self.bounds.subscribe()
    }
}

/// Moves the budget for ever.
pub(crate) async fn run(context: Arc<Context>) {
    let mut changes = context.settings.concurrency.changes();
    let mut budget = Budget::new(*changes.borrow_and_update());
    loop {
        apply(&context, &budget);
        tokio::select! {
            // The settings keep a sender.
            _ = changes.changed() => budget.set_bounds(*changes.borrow_and_update()),
            sample = stretch(&context), if !budget.bounds().is_fixed() => budget.adapt(&sample),
        }
    }
}

fn apply(context: &Context, budget: &Budget) {
    let Bounds { min, max } = budget.bounds();
    context.gauge.turn(!budget.bounds().is_fixed());
    let before = context.board().set_concurrency(budget.current());
    context.settings.concurrency.now.store(budget.current(), Ordering::Relaxed);
    if before != budget.current() {
        tracing::debug!(concurrency = budget.current(), before, min, max, "deliveries in flight");
        context.ring();
    }
}

/// What the next stretch shows: of deliveries that begin within it, so that it says nothing of the number before.
async fn stretch(context: &Context) -> Sample {
    context.gauge.begin_stretch();
    context.board().take_usage();
    let started = Instant::now();
    loop {
        sleep(jittered(LOOK)).await;
        let (is_idle, concurrency) = {
            let board = context.board();
            (board.in_flight() == 0, board.concurrency())
        };
        let enough = DELIVERIES_MIN.min(u32::try_from(concurrency).unwrap_or(u32::MAX));
        let is_over = started.elapsed() >= if is_idle { IDLE_STRETCH } else { STRETCH_MAX };
        if is_over || started.elapsed() >= STRETCH_MIN && context.gauge.seen() >= enough {
            let (was_full, in_flight_max) = context.board().take_usage();
            return Sample { was_full, in_flight_max, ..context.gauge.take() };
        }
    }
}

/// Takes the time of deliveries, if that is asked for: else it costs a look at a flag.
#[derive(Debug)]
pub(crate) struct Gauge {
    is_on: AtomicBool,
    stretch: Mutex<(Instant, Sample)>,
}

impl Gauge {
    pub(crate) fn new() -> Self {
        Self { is_on: AtomicBool::new(false), stretch: Mutex::new((Instant::now(), Sample::default())) }
    }

    fn turn(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// A delivery begins.
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.is_on.load(Ordering::Relaxed).then(Instant::now)
    }

    /// It has ended. How fast one was that never reached the handler, or was put off by it, says nothing of its pace.
    pub(crate) fn end(&self, began: Option<Instant>, verdict: &Verdict) {
        let Some(began) = began else { return };
        let took = began.elapsed();
        self.with(|since, sample| match verdict {
            _ if began < *since => {}
            Ok(_) => {
                sample.accepted += 1;
                sample.accepted_time += took;
            }
            Err(failure) if failure.counted => {
                sample.failed += 1;
                sample.failed_time += took;
            }
            Err(_) => sample.put_off += 1,
        });
    }

    fn begin_stretch(&self) {
        self.with(|since, sample| (*since, *sample) = (Instant::now(), Sample::default()));
    }

    fn seen(&self) -> u32 {
        self.with(|_, sample| sample.accepted + sample.failed + sample.put_off)
    }

    fn take(&self) -> Sample {
        self.with(|_, sample| *sample)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Instant, &mut Sample) -> T) -> T {
        let mut stretch = self.stretch.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, sample) = &mut *stretch;
        act(since, sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefeed_core::answer::{Answer, Failure};

    #[tokio::test(start_paused = true)]
    async fn a_stretch_is_told_by_the_deliveries_that_began_in_it() {
        let gauge = Gauge::new();
        assert!(gauge.begin().is_none(), "off");
        gauge.turn(true);
        let early = gauge.begin();
        tokio::time::advance(Duration::from_secs(5)).await;
        gauge.begin_stretch();
        let began = gauge.begin();
        tokio::time::advance(Duration::from_secs(2)).await;
        for began in [early, began, None] {
            gauge.end(began, &Ok(Answer::done()));
        }
        gauge.end(began, &Err(Failure::new("x")));
        gauge.end(began, &Err(Failure::delayed("unreachable", None)));
        let two = Duration::from_secs(2);
        let (accepted, failed, put_off) = (1, 1, 1);
        let times = Sample { accepted_time: two, failed_time: two, ..Sample::default() };
        assert_eq!((gauge.take(), gauge.seen()), (Sample { accepted, failed, put_off, ..times }, 3));
    }

    #[test]
    fn bounds_that_cannot_be_kept_change_nothing() {
        let concurrency = Concurrency::new(Bounds::fixed(5));
        assert!(concurrency.set(0).is_err() && concurrency.set_between(7, 6).is_err());
        assert_eq!(concurrency.bounds(), Bounds::fixed(5));
        concurrency.set_between(2, 9).unwrap();
        assert_eq!(concurrency.bounds(), Bounds { min: 2, max: 9 });
    }
}
