//! How the deliveries of a route are spread over its targets, and what keeps them back.

use std::time::Duration;

use gatefeed_core::duration;

use super::{
    breaker::BreakerOptions,
    hedge::HedgeOptions,
    limit::{Rate, RateLimit},
};

/// How one of several targets is chosen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Balance {
    /// Of two, the next in turn and one at random, the one that has less in flight and answers sooner; the first, if they
    /// are alike.
    #[default]
    LeastLoaded,
    /// They take turns.
    Turns,
}

/// What keeps deliveries back from each target of a route. Routes that are alike in this share what they know of a target
/// that they have in common.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TargetLimits {
    /// When it is left alone since it keeps failing.
    pub breaker: BreakerOptions,
    /// The most deliveries in flight to it.
    pub max_in_flight: Option<usize>,
    /// The most deliveries a second to it.
    pub rate: Option<Rate>,
}

/// How the deliveries of a route are spread.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Spread {
    /// How a target is chosen.
    pub balance: Balance,
    /// What holds for each target.
    pub limits: TargetLimits,
    /// What holds for the route, and for others that share these: a delivery needs one of each.
    pub rates: Vec<RateLimit>,
    /// Whether another target gets the same delivery if the first one is slow.
    pub hedge: Option<HedgeOptions>,
}

impl TargetLimits {
    /// Whether anything is limited at all.
    pub(super) fn is_any(&self) -> bool {
        self.breaker.is_on() || self.max_in_flight.is_some() || self.rate.is_some()
    }
}

impl Spread {
    /// Refuses what cannot work. The text says why.
    pub(super) fn check(&self, request_timeout: Duration) -> Result<(), String> {
        let TargetLimits { breaker, max_in_flight, rate } = &self.limits;
        if *max_in_flight == Some(0) {
            return Err("with no delivery in flight to a target nothing would be delivered".into());
        }
        if breaker.is_on() && breaker.open.is_zero() {
            return Err("a circuit that is open for no time at all protects nothing".into());
        }
        duration::check("a circuit's time", breaker.open.max(breaker.open_max))?;
        if breaker.failures == Some(0) || breaker.share.is_some_and(|share| !(1..=100).contains(&share)) {
            return Err("a circuit opens after at least one failure, or at a share from 1% to 100%".into());
        }
        if rate.is_some_and(|rate| rate.every.is_zero()) {
            return Err("a rate without end is no limit".into());
        }
        duration::check("a rate's distance", rate.map_or(Duration::ZERO, |rate| rate.every))?;
        self.hedge.as_ref().map_or(Ok(()), |hedge| hedge.check(request_timeout))
    }
}
