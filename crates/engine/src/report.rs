//! Reporting: tells people, through the database, that this watcher is at work and how fast, and which targets it leaves
//! alone; and sees which others there are, where limits are split with them. Nothing else depends on it.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use gatefeed_core::{
    Result,
    circuit::{Circuit, CircuitState},
    watcher::{ALIVE_FOR, FeedReport, REPORT_INTERVAL, Report},
};
use tokio::time::{Instant, timeout};

use crate::{
    board::Figures,
    context::{Backoff, Context, jittered},
    processor::Processor,
};

/// When it reports first: soon, so that who starts a watcher sees it.
const FIRST: Duration = Duration::from_millis(150);

/// How often it looks whether work has begun or ended.
const LOOK: Duration = Duration::from_secs(1);

/// A rate over less than this says nothing.
const RATE_OVER: Duration = Duration::from_millis(500);

/// Reports until the leases are released, also while the watcher drains, and then says farewell: after the last
/// report, which would else bring the watcher back. One call at a time, and a rest after each, however it ended.
pub(crate) async fn run<P: Processor>(context: Arc<Context>, processor: Arc<P>, mut reporter: Reporter) {
    if !reporter.is_introduced && !left_within(&context, FIRST).await {
        // One of this name that died may be listed: it started at another time, and served other feeds perhaps.
        farewell(&context).await;
        report(&context, &*processor, &mut reporter).await;
    }
    loop {
        rest(&context, &*processor, &reporter).await;
        if context.left.is_cancelled() {
            break farewell(&context).await;
        }
        report(&context, &*processor, &mut reporter).await;
        meet(&context, &*processor).await;
    }
}

/// Where limits are split over watchers: says that this one is there, and sees who else is, before anything is sent. If
/// that does not work for as long as others would take this one for dead, it goes on as if it were alone: else work would
/// hang on what is for people.
pub(crate) async fn introduce<P: Processor>(context: &Context, processor: &P) -> Reporter {
    let mut reporter = Reporter::new();
    if !processor.is_split() {
        return reporter;
    }
    let (by, mut backoff) = (Instant::now() + ALIVE_FOR, Backoff::new(FIRST, LOOK));
    farewell(context).await;
    loop {
        reporter.is_introduced = report(context, processor, &mut reporter).await;
        if reporter.is_introduced && meet(context, processor).await {
            break;
        }
        if Instant::now() >= by {
            tracing::warn!(
                "could not see which other watchers there are; limits are kept as if there were none"
            );
            break;
        }
        context.pause(&mut backoff).await;
    }
    reporter
}

/// Sees who else serves these feeds, if limits are split with them, or what cannot be sent from here is left to them.
/// False if that could not be seen: it stays as it was.
async fn meet<P: Processor>(context: &Context, processor: &P) -> bool {
    let (is_split, is_down) = (processor.is_split(), is_down(context, processor));
    if !is_split && !is_down {
        context.note_others(None);
        return true;
    }
    let peers = context.store.peers(&context.settings.owner, &context.settings.feeds);
    let peers = attempt("look for others", peers).await;
    if let Some(peers) = peers.as_ref().filter(|_| is_split) {
        processor.split(peers);
    }
    let is_seen = peers.is_some();
    if is_seen {
        context.note_others(peers.filter(|_| is_down));
        // Alone, it need not leave anything to others.
        context.room_bell.notify_one();
    }
    is_seen
}

/// Whether nothing can be sent of some feed.
fn is_down<P: Processor>(context: &Context, processor: &P) -> bool {
    context.settings.feeds.iter().any(|feed| processor.is_down(feed))
}

/// Until the next report is due: sooner when work begins or ends, so that nobody sees yesterday's rate, when it has
/// become another target that is left alone, and when it matters who else there is.
async fn rest<P: Processor>(context: &Context, processor: &P, reporter: &Reporter) {
    let due = Instant::now() + jittered(REPORT_INTERVAL);
    while Instant::now() < due && !left_within(context, LOOK).await {
        let is_unmet = !context.knows_others() && is_down(context, processor);
        let is_news = is_unmet || reporter.is_news(&context.board().figures());
        if is_news || reporter.is_change(&circuits(context, processor)) {
            return;
        }
    }
}

/// Rests. True if the leases are released.
async fn left_within(context: &Context, rest: Duration) -> bool {
    timeout(jittered(rest), context.left.cancelled()).await.is_ok()
}

/// The targets that are left alone, by feed.
type Circuits = BTreeMap<Arc<str>, Vec<Circuit>>;

fn circuits<P: Processor>(context: &Context, processor: &P) -> Circuits {
    let feeds = context.settings.feeds.iter();
    feeds.map(|feed| (feed.as_str().into(), processor.circuits(feed))).collect()
}

async fn report<P: Processor>(context: &Context, processor: &P, reporter: &mut Reporter) -> bool {
    let report = reporter.report(context, circuits(context, processor));
    attempt("report", context.store.report(&report)).await.is_some()
}

async fn farewell(context: &Context) {
    attempt("farewell", context.store.farewell(&context.settings.owner)).await;
}

/// What takes as long as the time to the next report is given up: that one says more. `None`: it has come to nothing.
async fn attempt<T>(what: &str, call: impl Future<Output = Result<T>>) -> Option<T> {
    match timeout(REPORT_INTERVAL, call).await {
        Ok(Ok(done)) => return Some(done),
        Ok(Err(error)) => tracing::debug!(what, %error, "could not tell of this watcher"),
        Err(_) => tracing::debug!(what, "could not tell of this watcher in time"),
    }
    None
}

/// What the report before said, from which rates are told.
pub(crate) struct Reporter {
    at: Instant,
    outcomes: BTreeMap<Arc<str>, u64>,
    /// Whether anything was in flight, or had been written.
    is_busy: bool,
    circuits: Circuits,
    /// It has reported before anything was sent.
    is_introduced: bool,
}

impl Reporter {
    pub(crate) fn new() -> Self {
        Self {
            at: Instant::now(),
            outcomes: BTreeMap::new(),
            is_busy: false,
            circuits: BTreeMap::new(),
            is_introduced: false,
        }
    }

    fn report(&mut self, context: &Context, circuits: Circuits) -> Report {
        let figures = context.board().figures();
        self.circuits = circuits;
        Report {
            watcher: context.settings.owner.clone(),
            version: env!("CARGO_PKG_VERSION"),
            concurrency: context.board().concurrency(),
            feeds: self.feeds(figures).into_iter().map(|feed| self.with_circuits(feed)).collect(),
        }
    }

    fn with_circuits(&self, feed: FeedReport) -> FeedReport {
        FeedReport { circuits: self.circuits.get(&*feed.feed).cloned().unwrap_or_default(), ..feed }
    }

    /// Rates are since the report before, even if that did not arrive: people want to know how fast it is now.
    fn feeds(&mut self, figures: BTreeMap<Arc<str>, Figures>) -> Vec<FeedReport> {
        self.is_busy = self.finds_busy(&figures);
        let elapsed = self.at.elapsed();
        if elapsed < RATE_OVER {
            return figures.into_iter().map(|(feed, figures)| told(&feed, figures, 0.0)).collect();
        }
        self.at += elapsed;
        figures.into_iter().map(|(feed, figures)| self.feed(feed, figures, elapsed)).collect()
    }

    fn feed(&mut self, feed: Arc<str>, figures: Figures, elapsed: Duration) -> FeedReport {
        let before = self.outcomes.insert(feed.clone(), figures.outcomes).unwrap_or(0);
        let written = figures.outcomes.saturating_sub(before);
        told(&feed, figures, written as f64 / elapsed.as_secs_f64())
    }

    fn finds_busy(&self, figures: &BTreeMap<Arc<str>, Figures>) -> bool {
        let before = |feed: &Arc<str>| self.outcomes.get(feed).copied().unwrap_or(0);
        figures.iter().any(|(feed, now)| now.in_flight > 0 || now.outcomes > before(feed))
    }

    /// Whether other targets are left alone than at the last report, or in another way.
    fn is_change(&self, now: &Circuits) -> bool {
        let all = |circuits: &Circuits| {
            let of_feed = |(feed, circuits): (&Arc<str>, &Vec<Circuit>)| {
                circuits
                    .iter()
                    .map(|of| (feed.clone(), of.gate, of.target.clone(), of.state))
                    .collect::<Vec<_>>()
            };
            circuits.iter().flat_map(of_feed).collect::<Vec<(Arc<str>, Option<i32>, String, CircuitState)>>()
        };
        all(now) != all(&self.circuits)
    }

    /// Whether work has begun since the last report, or ended.
    fn is_news(&self, figures: &BTreeMap<Arc<str>, Figures>) -> bool {
        self.finds_busy(figures) != self.is_busy
    }
}

fn told(feed: &str, figures: Figures, outcomes_per_second: f64) -> FeedReport {
    let Figures { partitions, in_flight, outcomes } = figures;
    let circuits = Vec::new();
    FeedReport { feed: feed.to_owned(), partitions, in_flight, outcomes, outcomes_per_second, circuits }
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
    async fn the_beginning_and_the_end_of_work_are_news() {
        let idle =
            |outcomes| BTreeMap::from([(Arc::from("a"), Figures { partitions: 0, in_flight: 0, outcomes })]);
        let mut reporter = Reporter::new();
        tokio::time::advance(Duration::from_secs(1)).await;
        reporter.feeds(idle(0));
        assert!(!reporter.is_news(&idle(0)));
        assert!(reporter.is_news(&figures(&[("a", 0)])), "in flight");
        assert!(reporter.is_news(&idle(1)), "written meanwhile");
        tokio::time::advance(Duration::from_secs(1)).await;
        reporter.feeds(idle(1));
        assert!(reporter.is_news(&idle(1)), "the rate has to go");
        assert!(!reporter.is_news(&idle(2)), "still at work");
    }

    #[tokio::test(start_paused = true)]
    async fn another_target_that_is_left_alone_is_news_and_time_that_passes_is_not() {
        let of = |state, for_secs| {
            let target = "http://a/".into();
            let circuit =
                Circuit { target, gate: None, state, for_secs, next_try_secs: 1.0, targets_left: 0 };
            BTreeMap::from([("a".into(), vec![circuit])])
        };
        let well = BTreeMap::from([("a".into(), vec![])]);
        let mut reporter = Reporter::new();
        assert!(!reporter.is_change(&well) && reporter.is_change(&of(CircuitState::Open, 1.0)));
        reporter.circuits = of(CircuitState::Open, 1.0);
        assert!(!reporter.is_change(&of(CircuitState::Open, 2.0)));
        assert!(reporter.is_change(&of(CircuitState::HalfOpen, 2.0)) && reporter.is_change(&well));
        let reported =
            reporter.with_circuits(told("a", Figures { partitions: 0, in_flight: 0, outcomes: 0 }, 0.0));
        assert_eq!(reported.circuits, of(CircuitState::Open, 1.0)["a"]);
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
            circuits: vec![],
        };
        assert_eq!(report, [expected]);
    }
}
