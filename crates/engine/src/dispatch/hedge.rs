//! Several targets for one delivery (hedging): the next one only once the last has taken too long. The first answer that
//! will do wins, or the greatest, and all others are dropped, which closes their connections.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use gatefeed_core::answer::{Answer, Failure, Verdict};
use tokio::time::{Instant, sleep_until};
use tower::{Service, util::Oneshot};

use super::{missed::Missed, place::Flight, rotate::Rotate};

/// When and where another target gets the same delivery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HedgeOptions {
    /// How long each target is waited for before the next one is asked.
    pub after: HedgeAfter,
    /// At most so many targets for one delivery, the first included.
    pub targets: usize,
    /// At most so many further requests for a hundred deliveries.
    pub budget: u32,
    /// A JSON pointer into the data of the answers (`/version`): the answer with the greatest number there wins, of those
    /// that come in time. `None`: the first one.
    pub greatest: Option<String>,
    /// The statuses that will do, of those from 200 to 299; all others are failed attempts. Empty: all of them will.
    pub accept: Vec<u16>,
}

/// How long is too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HedgeAfter {
    /// This long; more than zero.
    Time(Duration),
    /// Longer than so many of a hundred of the last answers took; once there are enough of them.
    Percentile(u8),
}

impl HedgeOptions {
    /// Refuses what cannot work. The text says why.
    pub(super) fn check(&self, request_timeout: Duration) -> Result<(), String> {
        let is_in_time = match self.after {
            HedgeAfter::Time(time) => !time.is_zero() && time < request_timeout,
            HedgeAfter::Percentile(percent) => (1..=99).contains(&percent),
        };
        let is_pointer = |pointer: &String| pointer.is_empty() || pointer.starts_with('/');
        if !is_in_time {
            return Err("hedge_after is a time above zero and below the request timeout, or p1 to p99".into());
        }
        if self.targets < 2 || self.budget == 0 {
            return Err("hedging needs at least two targets for a delivery, and a budget above zero".into());
        }
        if self.accept.iter().any(|status| !(200..300).contains(status)) {
            return Err("hedge_accept has statuses from 200 to 299: no other is a success".into());
        }
        match self.greatest.as_ref().is_none_or(is_pointer) {
            true => Ok(()),
            false => Err("hedge_greatest is a JSON pointer, such as /version".into()),
        }
    }
}

/// Answers that can be told apart by a number in them.
pub(super) trait Graded {
    /// The number that a JSON pointer leads to.
    fn grade(&self, pointer: &str) -> Option<f64>;
}

impl Graded for Answer {
    fn grade(&self, pointer: &str) -> Option<f64> {
        let data = self.data.as_ref()?;
        serde_json::from_slice::<serde_json::Value>(&data.bytes).ok()?.pointer(pointer)?.as_f64()
    }
}

/// A batch has no number of its own: the first answer wins.
impl Graded for Vec<Verdict> {
    fn grade(&self, _: &str) -> Option<f64> {
        None
    }
}

/// Answers of the past.
const REMEMBERED: usize = 512;
/// Percentiles of fewer say nothing.
const ENOUGH: usize = 50;
/// The most requests that may be saved up, in hundredths.
const SAVED_MAX: i64 = 1000;

/// The account of a route that hedges.
pub(super) struct Hedge {
    options: HedgeOptions,
    /// Further requests that may be made, in hundredths.
    saved: AtomicI64,
    past: Mutex<Past>,
}

#[derive(Default)]
struct Past {
    /// Microseconds; the oldest is overwritten.
    took: Vec<u32>,
    next: usize,
    percentile: Option<Duration>,
}

impl Hedge {
    pub(super) fn new(options: HedgeOptions) -> Self {
        Self { options, saved: AtomicI64::new(0), past: Mutex::default() }
    }

    /// A delivery has begun: so much more may be spent.
    fn save(&self) {
        let more = |saved: i64| Some((saved + i64::from(self.options.budget)).min(SAVED_MAX));
        _ = self.saved.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
    }

    /// Whether a further request may be made; then it is paid for.
    fn spend(&self) -> bool {
        let less = |saved: i64| (saved >= 100).then_some(saved - 100);
        self.saved.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    /// How long a target is waited for; `None`: that is not known yet.
    fn after(&self) -> Option<Duration> {
        match self.options.after {
            HedgeAfter::Time(time) => Some(time),
            HedgeAfter::Percentile(_) => self.past().percentile,
        }
    }

    fn answered(&self, took: Duration) {
        if let HedgeAfter::Percentile(percent) = self.options.after {
            self.past().note(took, percent);
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    fn note(&mut self, took: Duration, percent: u8) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        match self.took.get_mut(self.next) {
            Some(oldest) => *oldest = micros,
            None => self.took.push(micros),
        }
        self.next = (self.next + 1) % REMEMBERED;
        // Sorting so many takes some microseconds.
        if self.took.len() >= ENOUGH && (self.percentile.is_none() || self.next.is_multiple_of(32)) {
            let mut sorted = self.took.clone();
            sorted.sort_unstable();
            let place = (sorted.len() * usize::from(percent)).div_ceil(100).clamp(1, sorted.len());
            self.percentile =
                Some(Duration::from_micros(sorted[place - 1].into()).max(Duration::from_millis(1)));
        }
    }
}

/// What has been asked of several targets.
struct Race<'a, S, A> {
    rotate: &'a Rotate<S>,
    hedge: &'a Hedge,
    asked: Vec<usize>,
    best: Option<(f64, A)>,
    failure: Option<Failure>,
}

/// Asks the target of this flight, and others when it takes too long.
pub(super) async fn race<S, R>(
    rotate: &Rotate<S>,
    hedge: &Hedge,
    first: Flight,
    request: R,
) -> Result<S::Response, Failure>
where
    S: Service<R, Error = Missed> + Clone,
    S::Response: Graded,
    R: Clone,
{
    hedge.save();
    let after = hedge.after();
    let mut asked_at = Instant::now();
    let mut race = Race { rotate, hedge, asked: vec![first.index], best: None, failure: None };
    let mut running = FuturesUnordered::new();
    running.push(send(rotate.service(first.index), first, request.clone()));
    let mut may_ask_more = after.is_some() && race.may_ask_more();
    while !running.is_empty() || may_ask_more {
        // The next target is asked then; or, if there is no next one, a greater answer has come too late.
        let until = after.filter(|_| may_ask_more || race.best.is_some()).map(|after| asked_at + after);
        tokio::select! {
            Some((flight, sent)) = running.next() => {
                if let Some(answer) = race.take(flight, sent)? {
                    return Ok(answer);
                }
            }
            () = sleep_until(until.unwrap_or(asked_at)), if until.is_some() => {
                if !may_ask_more {
                    break;
                }
                let next = race.next();
                may_ask_more = next.is_some() && race.may_ask_more();
                if let Some(flight) = next {
                    asked_at = Instant::now();
                    running.push(send(rotate.service(flight.index), flight, request.clone()));
                }
            }
        }
    }
    race.result()
}

async fn send<S, R>(service: S, flight: Flight, request: R) -> (Flight, Result<S::Response, Missed>)
where
    S: Service<R, Error = Missed>,
{
    (flight, Oneshot::new(service, request).await)
}

impl<S: Clone, A: Graded> Race<'_, S, A> {
    /// An answer has come. The one that wins at once is returned; a failure that no other target would mend is the error.
    fn take(&mut self, flight: Flight, sent: Result<A, Missed>) -> Result<Option<A>, Failure> {
        let took = flight.began().elapsed();
        match self.rotate.noted(flight, sent) {
            Ok(answer) => {
                self.hedge.answered(took);
                let Some(pointer) = &self.hedge.options.greatest else { return Ok(Some(answer)) };
                let grade = answer.grade(pointer).unwrap_or(f64::NEG_INFINITY);
                if self.best.as_ref().is_none_or(|(best, _)| grade > *best) {
                    self.best = Some((grade, answer));
                }
                Ok(None)
            }
            Err(failure) if failure.no_retry => Err(failure),
            Err(failure) => {
                // One that counts says more than one that could not be reached.
                if self.failure.as_ref().is_none_or(|known| !known.counted) {
                    self.failure = Some(failure);
                }
                Ok(None)
            }
        }
    }

    fn may_ask_more(&self) -> bool {
        self.asked.len() < self.hedge.options.targets
    }

    /// The next target, if one may be asked.
    fn next(&mut self) -> Option<Flight> {
        if !self.may_ask_more() || !self.hedge.spend() {
            return None;
        }
        let flight = self.rotate.another(&self.asked)?;
        self.asked.push(flight.index);
        Some(flight)
    }

    fn result(self) -> Result<A, Failure> {
        match (self.best, self.failure) {
            (Some((_, answer)), _) => Ok(answer),
            (None, Some(failure)) => Err(failure),
            (None, None) => Err(Failure::delayed("no target was asked", None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{
        rotate::tests::{LIMIT, Reply, Route, route_of},
        spread::{Balance, Spread, TargetLimits},
    };
    use futures_util::FutureExt;
    use gatefeed_core::item::Data;
    use proptest::prelude::*;
    use std::sync::{Arc, atomic::AtomicUsize};
    use tokio::time::{advance, sleep};
    use tower::ServiceExt;

    const AFTER: Duration = Duration::from_millis(100);

    fn options() -> HedgeOptions {
        HedgeOptions {
            after: HedgeAfter::Time(AFTER),
            targets: 2,
            budget: 100,
            greatest: None,
            accept: Vec::new(),
        }
    }

    fn hedged(hedge: HedgeOptions) -> Spread {
        Spread { hedge: Some(hedge), balance: Balance::Turns, ..Spread::default() }
    }

    /// How often each target was asked, and how often that was dropped.
    #[derive(Clone, Default)]
    struct Counts {
        asked: Arc<[AtomicUsize; 3]>,
        dropped: Arc<[AtomicUsize; 3]>,
    }

    struct Asked(Counts, usize, bool);

    impl Drop for Asked {
        fn drop(&mut self) {
            if !self.2 {
                self.0.dropped[self.1].fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    impl Counts {
        /// A route whose targets take this long, and then answer with this or fail.
        fn route(&self, hedge: HedgeOptions, takes: [(Duration, Reply); 3]) -> Route {
            let counts = self.clone();
            route_of(3, &hedged(hedge), move |index| {
                let (counts, (time, reply)) = (counts.clone(), takes[index].clone());
                async move {
                    counts.asked[index].fetch_add(1, Ordering::SeqCst);
                    let mut asked = Asked(counts, index, false);
                    sleep(time).await;
                    asked.2 = true;
                    reply
                }
            })
        }

        fn asked(&self) -> [usize; 3] {
            std::array::from_fn(|index| self.asked[index].load(Ordering::SeqCst))
        }

        fn dropped(&self) -> [usize; 3] {
            std::array::from_fn(|index| self.dropped[index].load(Ordering::SeqCst))
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_in_time_is_the_only_one() {
        let counts = Counts::default();
        let route = counts.route(options(), [(ms(99), Ok(1)), (ms(1), Ok(2)), (ms(1), Ok(3))]);
        assert_eq!(route.oneshot(()).await, Ok(1));
        assert_eq!(counts.asked(), [1, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_is_asked_only_after_that_time_and_the_first_answer_wins() {
        let counts = Counts::default();
        let route = counts.route(options(), [(ms(1000), Ok(1)), (ms(50), Ok(2)), (ms(1), Ok(3))]);
        let started = Instant::now();
        assert_eq!(route.oneshot(()).await, Ok(2));
        assert_eq!(started.elapsed(), AFTER + ms(50));
        assert_eq!((counts.asked(), counts.dropped()), ([1, 1, 0], [1, 0, 0]), "the loser is dropped");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_targets_than_it_may_however_long_they_take() {
        let counts = Counts::default();
        let never = (2 * LIMIT, Ok(1));
        let route = counts.route(options(), [never.clone(), never.clone(), never]);
        let failure = route.oneshot(()).await.unwrap_err();
        assert!(failure.message.contains("no answer within 60s"), "{failure:?}");
        assert_eq!(counts.asked().iter().sum::<usize>(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_waits_for_the_other_answer_and_for_its_time() {
        let counts = Counts::default();
        let failed = Err(Missed::Failed(Failure::new("x")));
        let route = counts.route(options(), [(ms(1), failed.clone()), (ms(10), Ok(2)), (ms(1), Ok(3))]);
        let started = Instant::now();
        assert_eq!(route.oneshot(()).await, Ok(2));
        assert_eq!(started.elapsed(), AFTER + ms(10));
        let counts = Counts::default();
        let both = [(ms(1), failed.clone()), (ms(10), failed.clone()), (ms(1), Ok(3))];
        assert_eq!(counts.route(options(), both).oneshot(()).await, Err(Failure::new("x")));
        let counts = Counts::default();
        let last = Err(Missed::Failed(Failure::final_("no such page")));
        let route = counts.route(options(), [(ms(1), last), (ms(10), Ok(2)), (ms(1), Ok(3))]);
        assert_eq!(route.oneshot(()).await, Err(Failure::final_("no such page")));
        assert_eq!(counts.asked(), [1, 0, 0], "another would say the same");
    }

    #[tokio::test(start_paused = true)]
    async fn the_greatest_answer_in_time_wins() {
        let greatest =
            HedgeOptions { greatest: Some("/version".into()), targets: 3, budget: 200, ..options() };
        let (one, two) = (Counts::default(), Counts::default());
        let route = one.route(greatest.clone(), [(ms(10), Ok(5)), (ms(10), Ok(7)), (ms(20), Ok(6))]);
        assert_eq!(route.oneshot(()).await, Ok(7));
        assert_eq!(one.asked(), [1, 1, 1]);
        let started = Instant::now();
        let route = two.route(greatest, [(ms(10), Ok(5)), (ms(10), Ok(6)), (ms(5000), Ok(9))]);
        assert_eq!(route.oneshot(()).await, Ok(6), "the third is too late");
        assert_eq!((started.elapsed(), two.dropped()), (3 * AFTER, [0, 0, 1]));
    }

    #[test]
    fn a_pointer_leads_to_a_number_in_the_data() {
        let answer = |text: &str| Answer::done().with_data(Data::json(text.to_owned()));
        assert_eq!(answer(r#"{"a":{"version":7}}"#).grade("/a/version"), Some(7.0));
        for other in [answer(r#"{"version":"7"}"#), answer("[]"), answer("x"), Answer::done()] {
            assert_eq!(other.grade("/version"), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_percentile_is_known_after_some_answers() {
        let counts = Counts::default();
        let after = HedgeAfter::Percentile(90);
        let slow = counts
            .route(HedgeOptions { after, ..options() }, [(ms(20), Ok(1)), (ms(20), Ok(1)), (ms(20), Ok(1))]);
        for _ in 0..ENOUGH {
            slow.clone().oneshot(()).await.unwrap();
        }
        assert_eq!(counts.asked().iter().sum::<usize>(), ENOUGH);

        let hedge = Hedge::new(HedgeOptions { after, ..options() });
        assert_eq!(hedge.after(), None);
        for took in 1..=100 {
            hedge.answered(ms(took));
        }
        let known = hedge.after().unwrap();
        assert!(known >= ms(80) && known <= ms(91), "{known:?}");
        for _ in 0..2 * REMEMBERED {
            hedge.answered(ms(5));
        }
        assert_eq!(hedge.after(), Some(ms(5)), "what is long ago is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_delivery_drops_all_requests() {
        let counts = Counts::default();
        let never = (2 * LIMIT, Ok(1));
        let route = counts.route(options(), [never.clone(), never.clone(), never]);
        let mut running = Box::pin(route.oneshot(()));
        assert!((&mut running).now_or_never().is_none());
        advance(AFTER).await;
        assert!((&mut running).now_or_never().is_none());
        drop(running);
        assert_eq!((counts.asked(), counts.dropped()), ([1, 1, 0], [1, 1, 0]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// However long targets take and whatever they say: each delivery has one result, no target gets it twice, no more
        /// than may are asked, and the further requests are within their budget.
        #[test]
        fn the_budget_holds_and_nothing_is_doubled(
            takes in prop::collection::vec((0u64..300, any::<bool>(), any::<bool>()), 3),
            targets in 2usize..4,
            budget in 1u32..100,
            deliveries in 1usize..60,
            by_greatest in any::<bool>(),
            max_in_flight in prop::option::of(1usize..3),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let counts = Counts::default();
                let greatest = by_greatest.then(|| "/x".to_owned());
                let hedge = HedgeOptions { targets, budget, greatest, ..options() };
                let limits = TargetLimits { max_in_flight, ..TargetLimits::default() };
                let takes: Vec<(Duration, Reply)> = takes.into_iter().map(|(time, is_ok, is_reached)| (ms(time), match (is_ok, is_reached) {
                    (true, _) => Ok(1),
                    (false, true) => Err(Missed::Broken(Failure::new("x"))),
                    (false, false) => Err(Missed::Unreachable("y".into())),
                })).collect();
                let shared = counts.clone();
                let route = route_of(3, &Spread { limits, ..hedged(hedge) }, move |index| {
                    let (counts, (time, reply)) = (shared.clone(), takes[index].clone());
                    async move {
                        counts.asked[index].fetch_add(1, Ordering::SeqCst);
                        sleep(time).await;
                        reply
                    }
                });
                for _ in 0..deliveries {
                    let before = counts.asked();
                    _ = route.clone().oneshot(()).await;
                    let each: Vec<usize> = counts.asked().iter().zip(before).map(|(now, before)| now - before).collect();
                    prop_assert!(each.iter().all(|times| *times <= 1) && each.iter().sum::<usize>() <= targets);
                }
                let all: usize = counts.asked().iter().sum();
                prop_assert!((all.saturating_sub(deliveries)) * 100 <= budget as usize * deliveries);
                Ok(())
            })?;
        }
    }
}
