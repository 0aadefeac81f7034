//! The keys that say how deliveries are spread over targets, and what keeps them back.

use std::{num::NonZeroU32, time::Duration};

use gatefeed_engine::dispatch::{
    Balance, BreakerOptions, HedgeAfter, HedgeOptions, Rate, RateLimit, Spread, TargetLimits,
};

use super::document::Section;
use crate::parse;

/// As they were written; what is not there is `None`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spreading {
    balance: Option<Balance>,
    pub(crate) breaker_failures: Option<u32>,
    breaker_share: Option<u8>,
    pub(super) breaker_open: Option<Duration>,
    pub(super) breaker_open_max: Option<Duration>,
    pub(crate) target_max_in_flight: Option<usize>,
    pub(crate) target_rate_limit: Option<Duration>,
    target_burst: Option<NonZeroU32>,
    /// Of the whole watcher, of a feed with its gates, or of a gate: a bound at each of these levels.
    pub(crate) rate_limit: Option<Duration>,
    pub(crate) burst: Option<NonZeroU32>,
    /// The handler may get the same item twice at a time.
    pub(super) idempotent: Option<bool>,
    pub(super) hedge_after: Option<HedgeAfter>,
    hedge_targets: Option<usize>,
    hedge_budget: Option<u8>,
    hedge_greatest: Option<String>,
    hedge_accept: Option<Vec<u16>>,
}

/// Targets for one delivery, where that is not said.
const HEDGE_TARGETS: usize = 2;
/// Further requests for a hundred deliveries, where that is not said.
const HEDGE_BUDGET: u8 = 10;

impl Spreading {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        let spreading = Self {
            balance: section.value("balance", balance),
            breaker_failures: section.value("breaker_failures", parse::count),
            breaker_share: section.value("breaker_share", parse::share),
            breaker_open: section.value("breaker_open", parse::timeout),
            breaker_open_max: section.value("breaker_open_max", parse::timeout),
            target_max_in_flight: section.value("target_max_in_flight", parse::concurrency),
            target_rate_limit: section.value("target_rate_limit", parse::rate),
            target_burst: section.value("target_burst", parse::burst),
            rate_limit: section.value("rate_limit", parse::rate),
            burst: section.value("burst", parse::burst),
            idempotent: section.flag("idempotent"),
            hedge_after: section.value("hedge_after", hedge_after),
            hedge_targets: section.value("hedge_targets", hedge_targets),
            hedge_budget: section.value("hedge_budget", parse::share),
            hedge_greatest: section.value("hedge_greatest", pointer),
            hedge_accept: section.list("hedge_accept", status),
        };
        // Where a limit is inherited, so is its burst; at its own level it needs the limit beside it.
        if spreading.burst.is_some() && spreading.rate_limit.is_none() {
            section.problem_at("burst", "burst needs a rate_limit beside it".into());
        }
        spreading
    }

    /// What this says, and where it says nothing what `wider` says. A limit of a level stays where it was set.
    pub(super) fn or(&self, wider: &Self) -> Self {
        Self {
            balance: self.balance.or(wider.balance),
            breaker_failures: self.breaker_failures.or(wider.breaker_failures),
            breaker_share: self.breaker_share.or(wider.breaker_share),
            breaker_open: self.breaker_open.or(wider.breaker_open),
            breaker_open_max: self.breaker_open_max.or(wider.breaker_open_max),
            target_max_in_flight: self.target_max_in_flight.or(wider.target_max_in_flight),
            target_rate_limit: self.target_rate_limit.or(wider.target_rate_limit),
            target_burst: self.target_burst.or(wider.target_burst),
            rate_limit: self.rate_limit,
            burst: self.burst,
            idempotent: self.idempotent.or(wider.idempotent),
            hedge_after: self.hedge_after.or(wider.hedge_after),
            hedge_targets: self.hedge_targets.or(wider.hedge_targets),
            hedge_budget: self.hedge_budget.or(wider.hedge_budget),
            hedge_greatest: self.hedge_greatest.clone().or_else(|| wider.hedge_greatest.clone()),
            hedge_accept: self.hedge_accept.clone().or_else(|| wider.hedge_accept.clone()),
        }
    }

    /// The limit of this level itself.
    pub(super) fn rate_limit(&self) -> Option<RateLimit> {
        self.rate_limit.map(|every| RateLimit::new(rate(every, self.burst)))
    }

    /// What it comes to, with the limits of all levels.
    pub(super) fn spread(&self, rates: Vec<RateLimit>) -> Spread {
        let defaults = BreakerOptions::default();
        // Where one of two is said, the default of the other gives way to it.
        let open = self.breaker_open.unwrap_or(defaults.open);
        let open_max = self.breaker_open_max.unwrap_or(defaults.open_max.max(open));
        let breaker = BreakerOptions {
            failures: self.breaker_failures,
            share: self.breaker_share,
            open: open.min(open_max),
            open_max,
        };
        let limits = TargetLimits {
            breaker,
            max_in_flight: self.target_max_in_flight,
            rate: self.target_rate_limit.map(|every| rate(every, self.target_burst)),
        };
        let hedge = self.hedge_after.map(|after| HedgeOptions {
            after,
            targets: self.hedge_targets.unwrap_or(HEDGE_TARGETS),
            budget: self.hedge_budget.unwrap_or(HEDGE_BUDGET).into(),
            greatest: self.hedge_greatest.clone(),
            accept: self.hedge_accept.clone().unwrap_or_default(),
        });
        Spread { balance: self.balance.unwrap_or_default(), limits, rates, hedge }
    }
}

/// Without a burst, as many at once as come in a tenth of a second, and one at least.
fn rate(every: Duration, burst: Option<NonZeroU32>) -> Rate {
    let tenth = Duration::from_millis(100).as_nanos() / every.as_nanos().max(1);
    let usual = u32::try_from(tenth).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    Rate { every, burst: burst.unwrap_or(usual) }
}

fn balance(text: &str) -> Result<Balance, String> {
    match text {
        "least-loaded" => Ok(Balance::LeastLoaded),
        "turns" => Ok(Balance::Turns),
        _ => Err("expected \"least-loaded\" or \"turns\"".into()),
    }
}

fn hedge_after(text: &str) -> Result<HedgeAfter, String> {
    let expected = || "expected a time such as \"200ms\", or a percentile from \"p1\" to \"p99\"".to_owned();
    match text.strip_prefix('p') {
        Some(percent) => {
            let percent = percent.parse().ok().filter(|percent| (1..=99).contains(percent));
            percent.map(HedgeAfter::Percentile).ok_or_else(expected)
        }
        None => parse::timeout(text).map(HedgeAfter::Time).map_err(|_| expected()),
    }
}

fn hedge_targets(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (2..=100).contains(number));
    number.ok_or_else(|| "expected a whole number from 2 to 100, the first target included".into())
}

fn status(text: &str) -> Result<u16, String> {
    let status = text.parse().ok().filter(|status| (200..300).contains(status));
    status
        .ok_or_else(|| "expected statuses from 200 to 299, such as [200, 204]: no other is a success".into())
}

fn pointer(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err("expected a JSON pointer into the answers' data, such as \"/version\"".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_what_comes_in_a_tenth_of_a_second() {
        let burst = |every| rate(every, None).burst.get();
        let expected = [(1000, 1), (100, 1), (10, 10), (1, 100)];
        for (ms, expected) in expected {
            assert_eq!(burst(Duration::from_millis(ms)), expected, "every {ms} ms");
        }
        assert_eq!(rate(Duration::from_secs(1), NonZeroU32::new(7)).burst.get(), 7);
    }

    #[test]
    fn when_another_target_is_asked() {
        assert_eq!(hedge_after("p95"), Ok(HedgeAfter::Percentile(95)));
        assert_eq!(hedge_after("200ms"), Ok(HedgeAfter::Time(Duration::from_millis(200))));
        for bad in ["p0", "p100", "p", "0s", "-1s", "95", ""] {
            assert!(hedge_after(bad).is_err(), "{bad}");
        }
    }
}
