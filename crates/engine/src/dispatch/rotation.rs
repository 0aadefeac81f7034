//! Which target is next. While nothing is limited that is read from some atomics. With limits, a place is reserved before
//! an item is taken ([`Rotation::reserve`]): so no more are taken than may be sent, and all others wait where they are.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use gatefeed_core::circuit::Circuit;

use super::{
    breaker::Shut,
    limit::RateLimit,
    place::{Flight, Place, Shunned},
    split::Limit,
    spread::{Balance, Spread},
    target::Target,
};

/// A reserved place that nobody has used for so long is free again: what it was for has been given up.
const RESERVED_FOR: Duration = Duration::from_secs(10);
/// When it makes sense to ask again for what depends on something in flight.
const BUSY: Duration = Duration::from_millis(500);

/// The targets of a route.
pub(super) struct Rotation {
    places: Vec<Arc<Place>>,
    balance: Balance,
    next: AtomicUsize,
    /// Limits of the route itself.
    rates: Vec<RateLimit>,
    /// Something may keep deliveries back, beside that a target cannot be reached.
    is_guarded: bool,
    desk: Mutex<Desk>,
    /// A target was paused, or its pause has ended; other routes may ring it too.
    changed: Arc<Notify>,
}

/// What is kept of those that asked.
#[derive(Default)]
struct Desk {
    reserved: VecDeque<(Flight, Instant)>,
    /// How many of the route's limits have given their leave for a delivery for which there was no target then.
    paid: usize,
    /// When who was last refused should ask again.
    ask_at: Option<Instant>,
}

impl Desk {
    fn expire(&mut self, now: Instant) {
        while self.reserved.front().is_some_and(|(_, at)| now.duration_since(*at) >= RESERVED_FOR) {
            self.reserved.pop_front();
        }
    }
}

/// No target may have a delivery now.
#[derive(Debug)]
pub(super) struct Refused {
    /// Until one may be tried again, about.
    pub(super) remaining: Duration,
    /// Why.
    pub(super) message: String,
}

impl Rotation {
    /// `changed` is rung when a pause begins or ends early.
    pub(super) fn new(places: Vec<Arc<Place>>, spread: &Spread, changed: Arc<Notify>) -> Self {
        Self {
            is_guarded: !spread.rates.is_empty() || places.iter().any(|place| place.is_guarded()),
            places,
            balance: spread.balance,
            next: AtomicUsize::new(0),
            rates: spread.rates.clone(),
            desk: Mutex::default(),
            changed,
        }
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.places.iter().map(|place| &place.target)
    }

    /// A target that may have a delivery now: one that was reserved, if any was.
    pub(super) fn turn(&self) -> Result<Flight, Refused> {
        let now = Instant::now();
        if !self.is_guarded {
            let flight = self.admit(&mut 0, now, &[]).map_err(|until| self.refused(until, now));
            return flight.map(|flight| flight.depart(now));
        }
        let mut desk = self.desk();
        let flight = match desk.reserved.pop_front() {
            Some((flight, _)) => Ok(flight),
            None => self.admit(&mut desk.paid, now, &[]).map_err(|until| self.refused(until, now)),
        };
        flight.map(|flight| flight.depart(now))
    }

    /// Another target that may have the same delivery now, beside those that have it.
    pub(super) fn another(&self, beside: &[usize]) -> Option<Flight> {
        let now = Instant::now();
        let flight = match self.is_guarded {
            false => self.admit(&mut 0, now, beside),
            true => self.admit(&mut self.desk().paid, now, beside),
        };
        flight.ok().map(|flight| flight.depart(now))
    }

    /// Whether anything is to be reserved at all.
    pub(super) fn is_guarded(&self) -> bool {
        self.is_guarded
    }

    /// Whether some target may have a delivery now.
    pub(super) fn is_ready(&self) -> bool {
        if !self.is_guarded {
            // Read without the clock and the lock while all is well, since each item asks.
            return self.places.iter().any(|place| place.is_reachable())
                || self.remaining(Instant::now()).is_none();
        }
        let now = Instant::now();
        let mut desk = self.desk();
        desk.expire(now);
        let looked = self.pay(&mut desk.paid, now, &[]);
        if let Err(until) = looked {
            desk.ask_at = until;
        }
        looked.is_ok()
    }

    /// Reserves a target for the next [`Self::turn`], where anything is limited. No: none may have a delivery now.
    pub(super) fn reserve(&self) -> bool {
        if !self.is_guarded {
            return true;
        }
        let now = Instant::now();
        let mut desk = self.desk();
        desk.expire(now);
        match self.admit(&mut desk.paid, now, &[]) {
            Ok(flight) => {
                desk.reserved.push_back((flight, now));
                true
            }
            Err(until) => {
                desk.ask_at = until;
                false
            }
        }
    }

    /// Resolves when some target may be tried, as far as the targets are concerned.
    pub(super) async fn ready(&self) {
        loop {
            let changed = self.changed.notified();
            let now = Instant::now();
            let Err(until) = self.soonest(now) else { return };
            tokio::select! {
                () = sleep_until(until.unwrap_or(now + BUSY)) => {}
                () = changed => {}
            }
        }
    }

    /// How long it takes from `now` until it makes sense to ask again, if somebody was refused; told once.
    pub(super) fn remaining(&self, now: Instant) -> Option<Duration> {
        if self.is_guarded {
            return self.desk().ask_at.take().map(|at| at.saturating_duration_since(now));
        }
        let soonest = self.places.iter().map(|place| place.remaining(now)).min().unwrap_or_default();
        (!soonest.is_zero()).then_some(soonest)
    }

    /// For how long a delivery that was not taken by its target is put off: until some target may be tried.
    pub(super) fn put_off(&self) -> Duration {
        let now = Instant::now();
        match self.soonest(now) {
            Ok(()) => Duration::ZERO,
            Err(until) => until.map_or(BUSY, |until| until.saturating_duration_since(now)),
        }
    }

    /// The targets, and for how long the circuit of each has been open.
    pub(super) fn circuits(&self) -> impl Iterator<Item = (&Arc<Target>, Option<Duration>)> {
        self.places.iter().map(|place| (&place.target, place.open_for()))
    }

    /// What it limits for all watchers together.
    pub(super) fn limits(&self) -> impl Iterator<Item = Limit> {
        let rates = self.rates.iter().cloned().map(Limit::Rate);
        rates.chain(self.places.iter().filter(|place| place.is_split()).cloned().map(Limit::Place))
    }

    /// The targets that are left alone, as those of this gate.
    pub(super) fn shunned(&self, gate: Option<i32>) -> Vec<Circuit> {
        let now = Instant::now();
        let shunned: Vec<_> =
            self.places.iter().filter_map(|place| Some((place, place.shunned(now)?))).collect();
        let targets_left = u32::try_from(self.places.len() - shunned.len()).unwrap_or(u32::MAX);
        let circuit = |(place, how): &(&Arc<Place>, Shunned)| Circuit {
            target: Circuit::shown(&place.target.shown),
            gate,
            state: how.state,
            for_secs: now.saturating_duration_since(how.since).as_secs_f64(),
            next_try_secs: how.until.saturating_duration_since(now).as_secs_f64(),
            targets_left,
        };
        shunned.iter().map(circuit).collect()
    }

    /// Whether all targets are left alone, or tried without success so far.
    pub(super) fn is_down(&self) -> bool {
        let now = Instant::now();
        self.places.iter().all(|place| place.shunned(now).is_some())
    }

    /// What is wrong with each target, if something is.
    fn troubles(&self) -> impl Iterator<Item = Option<String>> {
        self.places.iter().map(|place| place.trouble())
    }

    /// Begins a delivery, or says when to ask again (`None`: when something in flight has ended).
    fn admit(&self, paid: &mut usize, now: Instant, not: &[usize]) -> Result<Flight, Option<Instant>> {
        let is_open = |index: &usize| self.is_open(*index, now, not);
        self.pay(paid, now, not)?;
        let Some(first) = self.choose(now, is_open) else { return Err(self.soonest(now).err().flatten()) };
        let mut soonest = None;
        for index in self.from(first).filter(|index| !not.contains(index)) {
            match self.places[index].begin(index, self.places.len() > 1, now) {
                Ok(flight) => {
                    *paid = 0;
                    return Ok(flight);
                }
                Err(shut) => soonest = sooner(soonest, shut),
            }
        }
        Err(soonest)
    }

    /// Asks each limit of the route for its leave, once there is a target for the delivery; whose turn it is stays as it is.
    fn pay(&self, paid: &mut usize, now: Instant, not: &[usize]) -> Result<(), Option<Instant>> {
        if !(0..self.places.len()).any(|index| self.is_open(index, now, not)) {
            return Err(self.soonest(now).err().flatten());
        }
        while let Some(rate) = self.rates.get(*paid) {
            rate.take().map_err(|wait| now + wait)?;
            *paid += 1;
        }
        Ok(())
    }

    fn is_open(&self, index: usize, now: Instant, not: &[usize]) -> bool {
        !not.contains(&index) && self.places[index].check(now).is_ok()
    }

    /// The target that is to be tried first, of those that may have one more.
    fn choose(&self, now: Instant, is_open: impl Fn(&usize) -> bool) -> Option<usize> {
        let count = self.places.len();
        if count == 1 {
            return Some(0).filter(is_open);
        }
        let one = self.from(self.next.fetch_add(1, Ordering::Relaxed) % count).find(&is_open)?;
        if self.balance == Balance::Turns {
            return Some(one);
        }
        let other = self
            .from((one + rand::random_range(1..count)) % count)
            .find(|index| *index != one && is_open(index));
        let cost = |index: usize| self.places[index].cost(now);
        Some(other.filter(|other| cost(*other) < cost(one)).unwrap_or(one))
    }

    /// All targets, beginning with this one.
    fn from(&self, first: usize) -> impl Iterator<Item = usize> + use<> {
        (first..self.places.len()).chain(0..first)
    }

    /// Ok if a target may have one more; else when that may be so, if that is a matter of time.
    fn soonest(&self, now: Instant) -> Result<(), Option<Instant>> {
        let mut soonest = None;
        for place in &self.places {
            match place.check(now) {
                Ok(()) => return Ok(()),
                Err(shut) => soonest = sooner(soonest, shut),
            }
        }
        Err(soonest)
    }

    fn refused(&self, until: Option<Instant>, now: Instant) -> Refused {
        let remaining = until.map_or(BUSY, |until| until.saturating_duration_since(now));
        let message = self.troubles().flatten().next();
        Refused { remaining, message: message.unwrap_or_else(|| "as much is under way as may be".to_owned()) }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sooner(soonest: Option<Instant>, shut: Shut) -> Option<Instant> {
    match (soonest, shut) {
        (Some(soonest), Shut::Until(until)) => Some(soonest.min(until)),
        (None, Shut::Until(until)) => Some(until),
        (soonest, Shut::Busy) => soonest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{
        breaker::BreakerOptions,
        limit::Rate,
        place::{Fared, PAUSE},
        spread::TargetLimits,
    };
    use futures_util::FutureExt;
    use proptest::prelude::*;
    use url::Url;

    fn rotation_of(count: usize, spread: &Spread) -> Rotation {
        let changed: Arc<Notify> = Arc::default();
        let place = |n| {
            let url = Url::parse(&format!("http://127.0.0.1:{}/", 9000 + n)).unwrap();
            Arc::new(Place::new(Arc::new(Target::new(url).unwrap()), &spread.limits, Arc::clone(&changed)))
        };
        Rotation::new((0..count).map(place).collect(), spread, changed.clone())
    }

    fn rotation(count: usize) -> Rotation {
        rotation_of(count, &Spread { balance: Balance::Turns, ..Spread::default() })
    }

    fn limited(limits: TargetLimits) -> Spread {
        Spread { limits, ..Spread::default() }
    }

    fn unreachable(rotation: &Rotation) -> Duration {
        rotation.turn().unwrap().ended(Fared::Unreachable("down"));
        rotation.put_off()
    }

    /// Fails round after round until the pause is long enough to be seen.
    async fn pause(rotation: &Rotation) -> Duration {
        loop {
            let remaining = unreachable(rotation);
            if remaining > Duration::from_millis(1) {
                return remaining;
            }
            tokio::time::advance(remaining).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn targets_take_turns_and_a_paused_one_is_skipped() {
        let rotation = rotation(3);
        let turns = |n| (0..n).map(|_| rotation.turn().unwrap().index).collect::<Vec<_>>();
        assert_eq!(turns(4), [0, 1, 2, 0]);
        assert_eq!(unreachable(&rotation), Duration::ZERO, "others can be tried at once");
        let skipped = turns(6);
        assert!(!skipped.contains(&1) && skipped.contains(&0) && skipped.contains(&2));
        tokio::time::advance(PAUSE.base).await;
        assert!(turns(3).contains(&1), "a pause ends");
    }

    /// Who is asked whether there is a target, and then reserves one, moves on by one.
    #[tokio::test(start_paused = true)]
    async fn guarded_targets_take_turns_too() {
        let limits = TargetLimits { max_in_flight: Some(100), ..TargetLimits::default() };
        let rotation = rotation_of(2, &Spread { balance: Balance::Turns, ..limited(limits) });
        let mut turns = Vec::new();
        for _ in 0..4 {
            assert!(rotation.is_ready() && rotation.reserve());
            turns.push(rotation.turn().unwrap().index);
        }
        assert_eq!(turns, [0, 1, 0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_by_round_up_to_the_cap_and_start_again_after_a_success() {
        let rotation = rotation(1);
        let mut longest = [Duration::ZERO; 12];
        for _ in 0..200 {
            for (round, longest) in longest.iter_mut().enumerate() {
                let bound = (PAUSE.base * 2u32.pow(round as u32)).min(PAUSE.cap);
                let remaining = unreachable(&rotation);
                assert!(remaining <= bound, "round {round}: {remaining:?}");
                *longest = remaining.max(*longest);
                tokio::time::advance(bound).await;
            }
            rotation.turn().unwrap().ended(Fared::Well);
        }
        for (round, longest) in longest.into_iter().enumerate() {
            let bound = (PAUSE.base * 2u32.pow(round as u32)).min(PAUSE.cap);
            assert!(longest > bound / 2, "round {round}: never above {longest:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn deliveries_that_fail_together_are_one_round() {
        let rotation = rotation(1);
        let flights: Vec<_> = (0..100).map(|_| rotation.turn().unwrap()).collect();
        for flight in flights {
            flight.ended(Fared::Unreachable("down"));
            assert!(rotation.put_off() <= PAUSE.base, "the second round may be twice as long");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ready_waits_for_the_end_of_a_pause_or_for_a_success() {
        let rotation = rotation(1);
        assert!(rotation.ready().now_or_never().is_some());
        let early = rotation.turn().unwrap();
        let remaining = pause(&rotation).await;
        let refused = rotation.turn().err().unwrap();
        assert_eq!((refused.remaining, refused.message.as_str()), (remaining, "down"));
        let started = Instant::now();
        assert!(rotation.is_down());
        rotation.ready().await;
        assert!(started.elapsed() >= remaining);
        assert!(rotation.is_down(), "nobody knows yet whether it can be reached again");

        pause(&rotation).await;
        let mut ready = Box::pin(rotation.ready());
        assert!((&mut ready).now_or_never().is_none());
        early.ended(Fared::Well);
        assert!(ready.now_or_never().is_some(), "a success ends the pause at once");
    }

    /// What each target got, of deliveries that take so many milliseconds there, or fail at once (`None`).
    async fn shares(rotation: &Rotation, takes: &[Option<u64>], rounds: usize) -> Vec<usize> {
        let mut got = vec![0; takes.len()];
        let mut under_way: Vec<(Instant, Flight)> = Vec::new();
        for _ in 0..rounds {
            tokio::time::advance(Duration::from_millis(1)).await;
            let (over, on) = under_way.into_iter().partition(|(until, _)| *until <= Instant::now());
            under_way = on;
            for (_, flight) in over {
                flight.ended(Fared::Well);
            }
            let flight = rotation.turn().unwrap();
            got[flight.index] += 1;
            match takes[flight.index] {
                Some(ms) => under_way.push((Instant::now() + Duration::from_millis(ms), flight)),
                None => _ = flight.ended(Fared::Badly),
            }
        }
        got
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_loaded_of_two_gets_it() {
        let rotation = rotation_of(3, &Spread::default());
        let got = shares(&rotation, &[Some(10), Some(10), Some(200)], 3000).await;
        assert!(got[2] * 5 < got[0] && got[2] * 5 < got[1], "{got:?}");
        assert!(got[0] * 2 > got[1] && got[1] * 2 > got[0], "{got:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_given_up_is_as_slow_as_that_and_a_reservation_is_not() {
        let limits = TargetLimits { max_in_flight: Some(9), ..TargetLimits::default() };
        let rotation = rotation_of(2, &limited(limits));
        assert!(rotation.reserve() && rotation.reserve());
        tokio::time::advance(RESERVED_FOR).await;
        assert!(rotation.is_ready());
        let turns = |count| (0..count).map(|_| rotation.turn().unwrap().index).collect::<Vec<_>>();
        assert_eq!(turns(4).iter().sum::<usize>(), 2, "they are alike, and take turns");
        let slow = rotation.turn().unwrap();
        let index = slow.index;
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(slow);
        assert_eq!(turns(4), [1 - index; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_at_once_is_avoided_and_tried_again() {
        let rotation = rotation_of(2, &Spread::default());
        let failing = shares(&rotation, &[Some(10), None], 20_000).await;
        assert!((1..2000).contains(&failing[1]), "{failing:?}");
        let well = shares(&rotation, &[Some(10), Some(10)], 60_000).await;
        assert!(well[1] > 15_000, "{well:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_has_no_more_in_flight_than_it_may() {
        let limits = TargetLimits { max_in_flight: Some(2), ..TargetLimits::default() };
        let rotation = rotation_of(2, &limited(limits));
        let mut flights: Vec<_> = (0..4).map(|_| rotation.turn().unwrap()).collect();
        assert!(rotation.turn().is_err() && !rotation.is_ready());
        let changed = rotation.changed.notified();
        drop(flights.pop());
        assert!(changed.now_or_never().is_some(), "who waits is told");
        assert!(rotation.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_reserved_is_not_given_twice() {
        let limits = TargetLimits { max_in_flight: Some(1), ..TargetLimits::default() };
        let rotation = rotation_of(1, &limited(limits));
        assert!(rotation.is_ready() && rotation.is_ready(), "who only looks takes nothing");
        assert!(rotation.reserve());
        assert!(!rotation.is_ready() && !rotation.reserve(), "the only place is reserved");
        assert!(!rotation.is_down(), "it is busy");
        let flight = rotation.turn().unwrap();
        assert!(!rotation.is_ready() && !rotation.reserve());
        flight.ended(Fared::Well);
        assert!(rotation.reserve());
        tokio::time::advance(RESERVED_FOR).await;
        assert!(rotation.is_ready(), "what nobody came for is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_kept_and_who_was_refused_knows_when_to_ask_again() {
        let every = Duration::from_millis(100);
        let rate = Rate { every, burst: 3.try_into().unwrap() };
        let limits = TargetLimits { rate: Some(rate), ..TargetLimits::default() };
        let of_route = Spread { rates: vec![RateLimit::new(rate)], ..Spread::default() };
        for spread in [limited(limits), of_route] {
            let rotation = rotation_of(1, &spread);
            let (started, mut sent) = (Instant::now(), 0);
            while started.elapsed() < 100 * every {
                while rotation.is_ready() && rotation.reserve() {
                    rotation.turn().unwrap().ended(Fared::Well);
                    sent += 1;
                }
                let wait = rotation.remaining(Instant::now()).unwrap();
                assert!(wait <= every);
                assert_eq!(
                    rotation.remaining(Instant::now()),
                    None,
                    "told once, so that nobody runs in circles"
                );
                tokio::time::advance(wait.max(Duration::from_micros(1))).await;
            }
            assert!((100..=103).contains(&sent), "{sent}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_narrow_limit_is_not_used_up_by_what_a_wide_one_refuses() {
        let rate = |ms| Rate { every: Duration::from_millis(ms), burst: 1.try_into().unwrap() };
        let (narrow, wide) = (RateLimit::new(rate(1000)), RateLimit::new(rate(10)));
        let spread = Spread { rates: vec![narrow, wide.clone()], ..Spread::default() };
        let rotation = rotation_of(1, &spread);
        let mut sent = 0;
        for _ in 0..10_000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            // Others take nearly all of it.
            if rand::random_range(0..10) > 0 {
                _ = wide.take();
            }
            if rotation.is_ready() {
                rotation.turn().unwrap().ended(Fared::Well);
                sent += 1;
            }
        }
        assert!((8..=11).contains(&sent), "{sent}");
    }

    fn breaker(failures: u32) -> Spread {
        let breaker = BreakerOptions { failures: Some(failures), ..BreakerOptions::default() };
        limited(TargetLimits { breaker, ..TargetLimits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_circuit_lets_nothing_through_but_one_probe() {
        let rotation = rotation_of(1, &breaker(3));
        let mut outages = Vec::new();
        for _ in 0..3 {
            outages.push(rotation.turn().unwrap().ended(Fared::Badly));
        }
        assert_eq!(outages, [false, false, true]);
        assert!(!rotation.is_ready());
        let refused = rotation.turn().err().unwrap();
        assert!(
            refused.message.contains("circuit to http://127.0.0.1:9000/ has been open"),
            "{}",
            refused.message
        );
        assert!(rotation.is_down());
        rotation.ready().await;
        assert!(rotation.is_down() && rotation.is_ready() && rotation.reserve());
        assert!(!rotation.is_ready() && !rotation.reserve(), "one probe");
        let probe = rotation.turn().unwrap();
        assert!(!rotation.is_ready());
        let changed = rotation.changed.notified();
        assert!(!probe.ended(Fared::Well));
        assert!(changed.now_or_never().is_some() && rotation.is_ready());
        assert!(rotation.circuits().all(|(_, open)| open.is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn others_go_on_beside_an_open_circuit() {
        let rotation = rotation_of(2, &breaker(1));
        let failed = rotation.turn().unwrap();
        let index = failed.index;
        failed.ended(Fared::Badly);
        assert!(!rotation.is_down());
        for _ in 0..100 {
            assert_ne!(rotation.turn().unwrap().index, index);
        }
        assert_eq!(rotation.put_off(), Duration::ZERO);
    }

    proptest! {
        /// However deliveries begin, end and are dropped: no bound is passed, and when all is over everything is free again.
        #[test]
        fn bounds_hold_and_nothing_stays_taken(
            targets in 1usize..4,
            max in 1usize..4,
            acts in prop::collection::vec((0u8..6, 0usize..16, 0u64..3000), 1..150),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let breaker = BreakerOptions { failures: Some(3), ..BreakerOptions::default() };
                let limits = TargetLimits { breaker, max_in_flight: Some(max), rate: None };
                let rotation = rotation_of(targets, &limited(limits));
                let mut flights: Vec<Flight> = Vec::new();
                for (act, which, ms) in acts {
                    let one = |flights: &mut Vec<Flight>| {
                        let index = which.checked_rem(flights.len());
                        index.map(|index| flights.swap_remove(index))
                    };
                    match act {
                        0 => flights.extend(rotation.turn().ok()),
                        1 => _ = rotation.is_ready() && which % 2 == 0 && rotation.reserve(),
                        2 => _ = one(&mut flights).map(|flight| flight.ended(Fared::Well)),
                        3 => _ = one(&mut flights).map(|flight| flight.ended(Fared::Badly)),
                        4 => drop(one(&mut flights)),
                        _ => tokio::time::advance(Duration::from_millis(ms)).await,
                    }
                    for index in 0..targets {
                        prop_assert!(flights.iter().filter(|flight| flight.index == index).count() <= max);
                    }
                }
                flights.clear();
                tokio::time::advance(Duration::from_secs(100)).await;
                prop_assert!(rotation.is_ready(), "nothing stays taken, and no circuit stays open");
                Ok(())
            })?;
        }
    }
}
