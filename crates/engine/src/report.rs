//! Reporting: tells people, through the database, that this watcher is at work and how fast. Nothing depends on it.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use gatefeed_core::{
    Result,
    watcher::{FeedReport, REPORT_INTERVAL, Report},
};
use tokio::time::{Instant, timeout};

use crate::{
    board::Figures,
    context::{Context, jittered},
};

/// When it reports first: soon, so that who starts a watcher sees it.
const FIRST: Duration = Duration::from_millis(150);

/// Reports until the leases are released, also while the watcher drains, and then says farewell: after the last
/// report, which would else bring the watcher back. One call at a time, and a rest after each, however it ended.
pub(crate) async fn run(context: Arc<Context>) {
    let mut reporter = Reporter::new();
    if !left_within(&context, FIRST).await {
        // One of this name that died may be listed: it started at another time, and served other feeds perhaps.
        farewell(&context).await;
        loop {
            report(&context, &mut reporter).await;
            if left_within(&context, REPORT_INTERVAL).await {
                break;
            }
        }
    }
    farewell(&context).await;
}

/// Rests. True if the leases are released.
async fn left_within(context: &Context, rest: Duration) -> bool {
    timeout(jittered(rest), context.left.cancelled()).await.is_ok()
}

async fn report(context: &Context, reporter: &mut Reporter) {
    let report = reporter.report(context);
    attempt("report", context.store.report(&report)).await;
}

async fn farewell(context: &Context) {
    attempt("farewell", context.store.farewell(&context.settings.owner)).await;
}

/// What takes as long as the time to the next report is given up: that one says more.
async fn attempt(what: &str, call: impl Future<Output = Result<()>>) {
    match timeout(REPORT_INTERVAL, call).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(what, %error, "could not tell of this watcher"),
        Err(_) => tracing::debug!(what, "could not tell of this watcher in time"),
    }
}

/// What the report before said, from which rates are told.
struct Reporter {
    at: Instant,
    outcomes: BTreeMap<Arc<str>, u64>,
}

impl Reporter {
    fn new() -> Self {
        Self { at: Instant::now(), outcomes: BTreeMap::new() }
    }

    fn report(&mut self, context: &Context) -> Report {
        let figures = context.board().figures();
        Report {
            watcher: context.settings.owner.clone(),
            version: env!("CARGO_PKG_VERSION"),
            concurrency: context.settings.concurrency,
            feeds: self.feeds(figures),
        }
    }

    /// Rates are since the report before, even if that did not arrive: people want to know how fast it is now.
    fn feeds(&mut self, figures: BTreeMap<Arc<str>, Figures>) -> Vec<FeedReport> {
        let elapsed = self.at.elapsed();
        self.at += elapsed;
        figures.into_iter().map(|(feed, figures)| self.feed(feed, figures, elapsed)).collect()
    }

    fn feed(&mut self, feed: Arc<str>, figures: Figures, elapsed: Duration) -> FeedReport {
        let Figures { partitions, in_flight, outcomes } = figures;
        let before = self.outcomes.insert(feed.clone(), outcomes).unwrap_or(0);
        let outcomes_per_second = rate(outcomes.saturating_sub(before), elapsed);
        FeedReport { feed: feed.to_string(), partitions, in_flight, outcomes, outcomes_per_second }
    }
}

fn rate(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(feeds: &[(&str, u64)]) -> BTreeMap<Arc<str>, Figures> {
        let of = |(feed, outcomes): &(&str, u64)| {
            ((*feed).into(), Figures { partitions: 2, in_flight: 3, outcomes: *outcomes })
        };
        feeds.iter().map(of).collect()
    }

    fn rates(reporter: &mut Reporter, feeds: &[(&str, u64)]) -> Vec<f64> {
        reporter.feeds(figures(feeds)).iter().map(|feed| feed.outcomes_per_second).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_those_since_the_report_before_by_feed() {
        let mut reporter = Reporter::new();
        assert_eq!(rates(&mut reporter, &[("a", 0), ("b", 0)]), [0.0, 0.0], "no time has passed");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(rates(&mut reporter, &[("a", 10), ("b", 1)]), [5.0, 0.5]);
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(rates(&mut reporter, &[("a", 10), ("b", 3)]), [0.0, 0.5]);
    }

    #[tokio::test(start_paused = true)]
    async fn figures_are_passed_on() {
        let report = Reporter::new().feeds(figures(&[("a", 7)]));
        let expected = FeedReport {
            feed: "a".into(),
            partitions: 2,
            in_flight: 3,
            outcomes: 7,
            outcomes_per_second: 0.0,
        };
        assert_eq!(report, [expected]);
    }
}
