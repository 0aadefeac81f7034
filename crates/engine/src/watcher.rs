//! The watcher: how it is set up, how it starts, and how it stops.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    Result, Store, StoreError,
    budget::Bounds,
    duration,
    id::{DEFAULT_FEED, check_id},
    lease::{DURATION_DEFAULT, check_duration},
    retry::RetryPolicy,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    budget::{self, Concurrency},
    checkpoint, claim,
    context::{Context, Settings},
    deliver,
    lanes::Lanes,
    observe, outcome, overdue, page,
    policy::{Policies, Policy},
    processor::Processor,
    renew,
    report::{self, Reporter},
};

/// After the grace period, for writing outcomes and releasing leases.
const WRITE_BACK: Duration = Duration::from_secs(10);
/// For saying farewell: who is not told sees it when the reports stay away.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often `until_idle` looks whether it is over.
const IDLE_CHECK: Duration = Duration::from_millis(100);

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Finished {
    /// With `until_idle`: a partition of the feeds is failed.
    pub failed: bool,
}

/// A watcher in the making.
#[derive(Debug)]
pub struct Builder {
    store: Arc<dyn Store>,
    settings: Settings,
    shutdown: CancellationToken,
}

/// A watcher with its processor, ready to run.
#[derive(Debug)]
pub struct Watcher<P> {
    builder: Builder,
    processor: Arc<P>,
}

impl Watcher<()> {
    /// Starts with the defaults: feed `default`, 100 deliveries in flight, leases of 30 s, polls of 1 s, 25 s of
    /// grace, payloads up to 16 MiB.
    pub fn builder(store: Arc<dyn Store>) -> Builder {
        let settings = Settings {
            owner: format!("watcher-{}", uuid::Uuid::new_v4().simple()).into(),
            feeds: vec![DEFAULT_FEED.to_owned()],
            concurrency: Concurrency::new(Bounds::fixed(100)),
            policies: Policies::default(),
            lease_duration: DURATION_DEFAULT,
            poll_interval: Duration::from_secs(1),
            grace: Duration::from_secs(25),
            max_payload: 16 * 1024 * 1024,
            until_idle: false,
        };
        Builder { store, settings, shutdown: CancellationToken::new() }
    }
}

impl Builder {
    /// The name under which it leases; must be unique among running watchers.
    pub fn owner(mut self, owner: impl AsRef<str>) -> Self {
        self.settings.owner = owner.as_ref().into();
        self
    }

    /// The feeds it serves.
    pub fn feeds(mut self, feeds: Vec<String>) -> Self {
        self.settings.feeds = feeds;
        self
    }

    /// At most this many deliveries in flight.
    pub fn concurrency(self, concurrency: usize) -> Self {
        self.concurrency_between(concurrency, concurrency)
    }

    /// As many deliveries in flight as are of use, between these two: it begins with the least, takes more while items
    /// wait and the handler is as fast as ever, and fewer when they queue up in the handler, or are not needed.
    pub fn concurrency_between(self, min: usize, max: usize) -> Self {
        self.settings.concurrency.replace(Bounds { min, max });
        self
    }

    /// How failed attempts are repeated, in feeds without a policy of their own.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.settings.policies.others.retry = retry;
        self
    }

    /// Gives a feed a policy of its own.
    pub fn feed_policy(mut self, feed: &str, policy: Policy) -> Self {
        self.settings.policies.set_feed(feed, policy);
        self
    }

    /// Gives a gate of a feed a policy of its own.
    pub fn gate_policy(mut self, feed: &str, gate: i32, policy: Policy) -> Self {
        self.settings.policies.set_gate(feed, gate, policy);
        self
    }

    /// How long a lease lasts without renewal; 1 s to 24 h.
    pub fn lease_duration(mut self, duration: Duration) -> Self {
        self.settings.lease_duration = duration;
        self
    }

    /// How often it looks for work without being told; more than zero, at most [`duration::DURATION_MAX`].
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval;
        self
    }

    /// How long a stop waits for what is in flight; at most [`duration::DURATION_MAX`].
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// Items with more bytes than this fail without being delivered.
    pub fn max_payload(mut self, bytes: u64) -> Self {
        self.settings.max_payload = bytes;
        self
    }

    /// Ends by itself when nothing is left that a watcher could deliver.
    pub fn until_idle(mut self, until_idle: bool) -> Self {
        self.settings.until_idle = until_idle;
        self
    }

    /// Delivers links to data that lies in the blob store instead of the data, of feeds without a policy of their own.
    pub fn blob_links(mut self, blob_links: bool) -> Self {
        self.settings.policies.others.blob_links = blob_links;
        self
    }

    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (Arc<dyn Store>, Settings) {
        (self.store, self.settings)
    }

    /// Cancelling this token stops the watcher cleanly.
    pub fn shutdown(mut self, shutdown: CancellationToken) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Who does the work.
    pub fn processor<P: Processor>(self, processor: P) -> Watcher<P> {
        self.shared_processor(Arc::new(processor))
    }

    /// Who does the work, where others use it too (say, to report its health).
    pub fn shared_processor<P: Processor>(self, processor: Arc<P>) -> Watcher<P> {
        Watcher { builder: self, processor }
    }
}

impl<P: Processor> Watcher<P> {
    /// What changes the number of deliveries in flight while it runs.
    pub fn concurrency(&self) -> Concurrency {
        self.builder.settings.concurrency.clone()
    }

    /// Runs until the shutdown token is cancelled (or nothing is left, with `until_idle`). Then it claims
    /// nothing more, waits for what is in flight up to the grace period, gives back the rest, writes the
    /// outcomes, releases its leases and takes itself off the list of watchers. While it runs it reconnects for ever.
    /// Dropping the future instead is like a crash: nothing is lost, but the leases have to expire.
    pub async fn run(self) -> Result<Finished> {
        let Builder { store, settings, shutdown } = self.builder;
        check(&settings)?;
        let lanes = lanes(&settings, &self.processor);
        let context = Arc::new(Context::new(store, settings, lanes, shutdown.child_token()));
        // Deliveries are tasks of their own: this ends them if this future is dropped.
        let _abort = context.abort.clone().drop_guard();
        run(context, self.processor).await
    }
}

/// With what the processor says of each feed and gate.
fn lanes<P: Processor>(settings: &Settings, processor: &Arc<P>) -> Lanes {
    let (is_ready, reserve) = (processor.clone(), processor.clone());
    let ready = Arc::new(move |feed: &str, gate| is_ready.is_ready(feed, gate));
    let reserve = Arc::new(move |feed: &str, gate| reserve.reserve(feed, gate));
    Lanes::new(&settings.policies, settings.max_payload, ready).with_reserve(reserve)
}

fn check(settings: &Settings) -> Result<()> {
    check_duration(settings.lease_duration)?;
    let names = settings.feeds.iter().map(|feed| ("feed", feed.as_str()));
    for (what, name) in names.chain([("watcher name", settings.owner.as_ref())]) {
        check_id(what, name).map_err(|error| StoreError::Config(error.to_string()))?;
    }
    let times = [("a poll interval", settings.poll_interval), ("a grace period", settings.grace)];
    let lingers = settings.policies.batches().filter_map(|(_, _, batch)| Some(("a linger", batch?.linger)));
    for (what, time) in times.into_iter().chain(lingers) {
        duration::check(what, time).map_err(StoreError::Config)?;
    }
    settings.concurrency.bounds().check().map_err(StoreError::Config)?;
    if settings.policies.batches().any(|(_, _, batch)| batch.is_some_and(|batch| batch.size == 0)) {
        return Err(StoreError::Config("a batch of no items would never end".into()));
    }
    if settings.policies.bounds().any(|(_, _, max)| max == 0) {
        return Err(StoreError::Config(
            "a feed's or gate's concurrency of zero would hold it for ever".into(),
        ));
    }
    if settings.feeds.is_empty() || settings.poll_interval.is_zero() {
        return Err(StoreError::Config("a watcher needs a feed and a poll interval above zero".into()));
    }
    Ok(())
}

async fn run<P: Processor>(context: Arc<Context>, processor: Arc<P>) -> Result<Finished> {
    let introduced = context.stop.run_until_cancelled(report::introduce(&context, &*processor)).await;
    let reporter = introduced.unwrap_or_else(Reporter::new);
    let (sender, receiver) = mpsc::unbounded_channel();
    // Ended with this future, in any order: they keep nothing that the database does not have.
    let mut keepers = JoinSet::new();
    keepers.spawn(renew::run(context.clone()));
    keepers.spawn(observe::run(context.clone()));
    keepers.spawn(budget::run(context.clone()));
    // Not watched: whatever becomes of it, the work goes on.
    let mut reports = JoinSet::new();
    reports.spawn(report::run(context.clone(), processor.clone(), reporter));
    let mut loops = JoinSet::new();
    let asked = processor.clone();
    loops.spawn(claim::run(context.clone(), Box::new(move |feed| asked.is_down(feed))));
    loops.spawn(page::run(context.clone()));
    loops.spawn(checkpoint::run(context.clone()));
    loops.spawn(overdue::run(context.clone(), sender.clone()));
    let mut deliveries = JoinSet::new();
    deliveries.spawn(deliver::run(context.clone(), processor, sender));
    let mut outcomes = JoinSet::new();
    outcomes.spawn(outcome::run(context.clone(), receiver));

    let finished = tokio::select! {
        () = context.stop.cancelled() => Ok(Finished::default()),
        finished = until_idle(&context) => Ok(finished),
        broken = broken(&mut keepers) => Err(broken),
        broken = broken(&mut loops) => Err(broken),
        broken = broken(&mut deliveries) => Err(broken),
        broken = broken(&mut outcomes) => Err(broken),
    };
    stop(&context, loops, deliveries, outcomes).await;
    context.left.cancel();
    _ = timeout(FAREWELL, reports.join_next()).await;
    match context.board().unwritten() {
        0 => finished,
        lost => Err(StoreError::Unavailable(format!(
            "{lost} outcomes could not be written before the end; their items will be delivered again"
        ))),
    }
}

/// Resolves when a loop panicked: a defect, after which the leases are given back and the error is reported.
async fn broken(tasks: &mut JoinSet<()>) -> StoreError {
    loop {
        match tasks.join_next().await {
            Some(Err(error)) => return StoreError::Defect(format!("a task of the watcher ended: {error}")),
            Some(Ok(())) => {}
            None => std::future::pending().await,
        }
    }
}

/// Resolves when nothing is left, if that is asked for.
async fn until_idle(context: &Context) -> Finished {
    loop {
        tokio::time::sleep(IDLE_CHECK).await;
        if !context.settings.until_idle || !context.board().is_empty() {
            continue;
        }
        match context.store.idleness(&context.settings.feeds).await {
            Ok(idleness) if idleness.idle => return Finished { failed: idleness.failed },
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "could not see whether anything is left; trying again"),
        }
    }
}

async fn stop(
    context: &Context,
    mut loops: JoinSet<()>,
    mut deliveries: JoinSet<()>,
    mut outcomes: JoinSet<()>,
) {
    let in_flight = context.board().in_flight();
    tracing::info!(in_flight, "stopping");
    context.stop.cancel();
    context.board().drain();
    if timeout(context.settings.grace, deliveries.join_next()).await.is_err() {
        tracing::warn!(
            in_flight = context.board().in_flight(),
            "the grace period is over; giving back the rest"
        );
        context.board().cancel_deliveries();
    }
    let written_by = Instant::now() + WRITE_BACK;
    _ = timeout_at(written_by, async {
        // A claim on its way may still be granted, and has to be given back.
        while loops.join_next().await.is_some() {}
        // The deliveries' end closes the channel, and with it the outcomes end.
        while deliveries.join_next().await.is_some() {}
        while outcomes.join_next().await.is_some() {}
    })
    .await;
    let leases = context.board().leases();
    match context.store.release(&leases).await {
        Ok(()) => tracing::info!(released = leases.len(), "stopped"),
        Err(error) => tracing::warn!(leases = leases.len(), %error, "stopped; the leases have to expire"),
    }
}

#[cfg(test)]
mod tests {
    use gatefeed_core::duration::DURATION_MAX;

    use super::*;
    use crate::policy::Batch;

    fn settings() -> Settings {
        Settings {
            owner: "w".into(),
            feeds: vec![DEFAULT_FEED.to_owned()],
            concurrency: Concurrency::new(Bounds::fixed(1)),
            policies: Policies::default(),
            lease_duration: DURATION_DEFAULT,
            poll_interval: DURATION_MAX,
            grace: DURATION_MAX,
            max_payload: 1,
            until_idle: false,
        }
    }

    fn lingering(linger: Duration) -> Settings {
        let mut settings = settings();
        let batch = Some(Batch { size: 2, linger });
        settings.policies.set_feed("f", Policy { batch, ..Policy::default() });
        settings
    }

    /// Clocks would overflow: at the next poll, with the next batch, or while it stops.
    #[test]
    fn times_that_no_clock_holds_are_refused() {
        check(&lingering(DURATION_MAX)).unwrap();
        for (what, settings) in [
            ("poll interval", Settings { poll_interval: Duration::MAX, ..settings() }),
            ("grace period", Settings { grace: Duration::MAX, ..settings() }),
            ("linger", lingering(Duration::MAX)),
        ] {
            let refused = check(&settings).unwrap_err();
            let is_told = refused.to_string().contains(what) && refused.to_string().contains("366 days");
            assert!(matches!(refused, StoreError::Config(_)) && is_told, "{refused}");
        }
    }
}
