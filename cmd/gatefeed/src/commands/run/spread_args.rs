//! The flags of `gatefeed run` for how much at a time, and how fast.

use std::{num::NonZeroU32, time::Duration};

use clap::Args;

use crate::{config::File, parse};

#[derive(Args, Clone, Debug)]
pub(crate) struct SpreadArgs {
    /// Let the watcher find how many deliveries at a time are of use, and no fewer than this [default: 1 with
    /// --max-concurrency]
    #[arg(
        long,
        env = "GATEFEED_MIN_CONCURRENCY",
        value_name = "NUMBER",
        help_heading = "Work",
        allow_hyphen_values = true,
        value_parser = parse::concurrency
    )]
    min_concurrency: Option<usize>,
    /// The same, and no more than this [default: --concurrency with --min-concurrency]
    #[arg(
        long,
        env = "GATEFEED_MAX_CONCURRENCY",
        value_name = "NUMBER",
        help_heading = "Work",
        allow_hyphen_values = true,
        value_parser = parse::concurrency
    )]
    max_concurrency: Option<usize>,
    /// At most so many deliveries a second, by all watchers of its feeds together: 100, 0.5, 30/m, 1000/h [default: no limit]
    #[arg(
        long,
        env = "GATEFEED_RATE_LIMIT",
        value_name = "RATE",
        help_heading = "Work",
        allow_hyphen_values = true,
        value_parser = parse::rate
    )]
    rate_limit: Option<Duration>,
    /// How many of them at once after a rest [default: a tenth of a second's worth]
    #[arg(
        long,
        env = "GATEFEED_BURST",
        value_name = "NUMBER",
        help_heading = "Work",
        requires = "rate_limit",
        value_parser = parse::burst
    )]
    burst: Option<NonZeroU32>,
    /// At most so many deliveries at a time to each target, by all watchers together [default: no limit]
    #[arg(
        long,
        env = "GATEFEED_TARGET_MAX_IN_FLIGHT",
        value_name = "NUMBER",
        help_heading = "Handler",
        allow_hyphen_values = true,
        value_parser = parse::concurrency
    )]
    target_max_in_flight: Option<usize>,
    /// Leave a target alone for a while after so many failures in a row; its items wait and keep their retries [default:
    /// never]
    #[arg(
        long,
        env = "GATEFEED_BREAKER_FAILURES",
        value_name = "NUMBER",
        help_heading = "Handler",
        allow_hyphen_values = true,
        value_parser = parse::count
    )]
    breaker_failures: Option<u32>,
}

impl SpreadArgs {
    /// Each flag that is there takes the place of its key.
    pub(super) fn enter(&self, file: &mut File) {
        let top = &mut file.handling;
        if self.rate_limit.is_some() {
            // With the limit of the file goes the burst that stands beside it.
            (top.spread.rate_limit, top.spread.burst) = (self.rate_limit, self.burst);
            top.origins.set_flag("rate_limit");
        }
        enter!(self => top.spread, top.origins; target_max_in_flight, breaker_failures);
        enter!(self => file, file.handling.origins; min_concurrency, max_concurrency);
    }
}
