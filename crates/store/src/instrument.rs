//! What every call gets, once, at the seam: a span, a client-side time limit (a connection behind a dropped
//! network hangs for minutes otherwise), and a debug line with its time and size when it ends. Never data.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use gatefeed_core::{
    Result, Store, StoreError,
    gather::{GatherRequest, GatheredPage},
    ingest::{Arrival, Arrived},
    inspect::{FeedStatus, GateCounts, Glance, Idleness, ItemFilter, ItemRow, PartitionFilter, PartitionRow},
    item::NewItem,
    lease::{Claim, Grant, Lease, Observed, Renewal},
    outcome::{Completion, Settled},
    partition::NewPartition,
    store::{Checkpointed, Migrated, Page, PageRequest, Push, Pushed, RetryFilter, Rewound, Wakeups},
    token::{NewToken, Token},
    watcher::Report,
    why::Facts,
};
use tokio::time::{Instant, timeout};

/// Steps of the hot path: longer than the database's own limits, so that those speak first.
const STEP: Duration = Duration::from_secs(15);
/// What a person waits for, or a bulk insert.
const LONG: Duration = Duration::from_secs(90);
/// A push of any size, perhaps repeated; its statements have limits of their own.
const PUSH: Duration = Duration::from_secs(900);
/// What changes many items of a partition at once.
const WHOLE: Duration = Duration::from_secs(660);
/// A migration may rewrite tables.
const MIGRATION: Duration = Duration::from_secs(3700);

/// A store with limits and traces.
#[derive(Debug)]
pub(crate) struct Instrumented<S>(S);

impl<S> Instrumented<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self(inner)
    }
}

async fn call<T>(
    name: &'static str,
    size: usize,
    limit: Duration,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let started = Instant::now();
    let result = timeout(limit, work).await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(format!("the database did not answer `{name}` within {limit:?}")))
    });
    let elapsed_us = started.elapsed().as_micros() as u64;
    match &result {
        Ok(_) => tracing::trace!(target: "gatefeed::store", name, size, elapsed_us, "done"),
        Err(error) => tracing::debug!(target: "gatefeed::store", name, size, elapsed_us, %error, "failed"),
    }
    result
}

#[async_trait]
impl<S: Store> Store for Instrumented<S> {
    async fn migrate(&self) -> Result<Migrated> {
        call("migrate", 0, MIGRATION, self.0.migrate()).await
    }
    async fn check_schema(&self) -> Result<()> {
        call("check_schema", 0, STEP, self.0.check_schema()).await
    }
    async fn ping(&self) -> Result<()> {
        call("ping", 0, STEP, self.0.ping()).await
    }
    async fn claim(&self, claim: &Claim) -> Result<Vec<Grant>> {
        call("claim", claim.limit, STEP, self.0.claim(claim)).await
    }
    async fn renew(&self, leases: &[Arc<Lease>], duration: Duration) -> Result<Vec<Renewal>> {
        call("renew", leases.len(), duration / 3, self.0.renew(leases, duration)).await
    }
    async fn observe(&self, leases: &[Arc<Lease>]) -> Result<Vec<Observed>> {
        call("observe", leases.len(), STEP, self.0.observe(leases)).await
    }
    async fn release(&self, leases: &[Arc<Lease>]) -> Result<()> {
        call("release", leases.len(), STEP, self.0.release(leases)).await
    }
    async fn progressed(&self, lease: &Lease) -> Result<()> {
        call("progressed", 1, STEP, self.0.progressed(lease)).await
    }
    async fn page(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        call("page", requests.len(), LONG, self.0.page(requests)).await
    }
    async fn load(&self, partition: &str, item: &str, version: i64) -> Result<Option<Bytes>> {
        call("load", 1, LONG, self.0.load(partition, item, version)).await
    }
    async fn gathered(&self, request: &GatherRequest) -> Result<GatheredPage> {
        call("gathered", 1, LONG, self.0.gathered(request)).await
    }
    async fn begin_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<Option<i64>> {
        call("begin_suspect", 1, STEP, self.0.begin_suspect(lease, item, version)).await
    }
    async fn complete(&self, completions: &[Completion]) -> Result<Vec<Settled>> {
        call("complete", completions.len(), STEP, self.0.complete(completions)).await
    }
    async fn checkpoint(&self, leases: &[Arc<Lease>], hold: Duration) -> Result<Vec<Checkpointed>> {
        call("checkpoint", leases.len(), STEP, self.0.checkpoint(leases, hold)).await
    }
    async fn wakeups(&self, feeds: &[String]) -> Box<dyn Wakeups> {
        self.0.wakeups(feeds).await
    }
    async fn report(&self, report: &Report) -> Result<()> {
        call("report", report.feeds.len(), STEP, self.0.report(report)).await
    }
    async fn farewell(&self, watcher: &str) -> Result<()> {
        call("farewell", 1, STEP, self.0.farewell(watcher)).await
    }
    async fn ask(&self, watcher: &str, feeds: &[String]) -> Result<()> {
        call("ask", feeds.len(), STEP, self.0.ask(watcher, feeds)).await
    }
    async fn asked(&self, watcher: &str, feeds: &[String]) -> Result<Vec<(String, usize)>> {
        call("asked", feeds.len(), STEP, self.0.asked(watcher, feeds)).await
    }
    async fn begin_push(&self, partition: &NewPartition) -> Result<Box<dyn Push>> {
        let push = call("begin_push", 1, LONG, self.0.begin_push(partition)).await?;
        Ok(Box::new(InstrumentedPush(push)))
    }
    async fn push(&self, partition: &NewPartition, items: &[NewItem]) -> Result<Pushed> {
        call("push", items.len(), PUSH, self.0.push(partition, items)).await
    }
    async fn ingest(&self, arrivals: &[Arrival]) -> Result<Vec<Arrived>> {
        call("ingest", arrivals.len(), STEP, self.0.ingest(arrivals)).await
    }
    async fn glance(&self, partition: &str) -> Result<Option<Glance>> {
        call("glance", 1, STEP, self.0.glance(partition)).await
    }
    async fn backlog(&self, feed: &str, limit: u64) -> Result<u64> {
        call("backlog", 1, LONG, self.0.backlog(feed, limit)).await
    }
    async fn add_token(&self, token: &NewToken) -> Result<()> {
        call("add_token", 1, STEP, self.0.add_token(token)).await
    }
    async fn tokens(&self) -> Result<Vec<Token>> {
        call("tokens", 0, STEP, self.0.tokens()).await
    }
    async fn revoke_token(&self, id: &str) -> Result<()> {
        call("revoke_token", 1, STEP, self.0.revoke_token(id)).await
    }
    async fn retry(&self, partition: &str, filter: &RetryFilter) -> Result<u64> {
        call("retry", 1, LONG, self.0.retry(partition, filter)).await
    }
    async fn seal(&self, partition: &str) -> Result<()> {
        call("seal", 1, LONG, self.0.seal(partition)).await
    }
    async fn advance(&self, partition: &str) -> Result<i32> {
        call("advance", 1, LONG, self.0.advance(partition)).await
    }
    async fn pause(&self, partition: &str) -> Result<()> {
        call("pause", 1, LONG, self.0.pause(partition)).await
    }
    async fn resume(&self, partition: &str) -> Result<()> {
        call("resume", 1, LONG, self.0.resume(partition)).await
    }
    async fn cancel(&self, partition: &str) -> Result<u64> {
        call("cancel", 1, WHOLE, self.0.cancel(partition)).await
    }
    async fn rewind(&self, partition: &str, gate: i32) -> Result<Rewound> {
        call("rewind", 1, WHOLE, self.0.rewind(partition, gate)).await
    }
    async fn status(&self) -> Result<Vec<FeedStatus>> {
        call("status", 0, LONG, self.0.status()).await
    }
    async fn partitions(&self, filter: &PartitionFilter) -> Result<Vec<PartitionRow>> {
        call("partitions", filter.limit, LONG, self.0.partitions(filter)).await
    }
    async fn items(&self, filter: &ItemFilter) -> Result<Vec<ItemRow>> {
        call("items", filter.limit, LONG, self.0.items(filter)).await
    }
    async fn gates(&self, partition: &str) -> Result<Vec<GateCounts>> {
        call("gates", 1, LONG, self.0.gates(partition)).await
    }
    async fn why(&self, partition: &str, item: Option<&str>) -> Result<Facts> {
        call("why", 1, LONG, self.0.why(partition, item)).await
    }
    async fn changes(&self, partition: &str) -> Box<dyn Wakeups> {
        self.0.changes(partition).await
    }
    async fn close(&self) {
        _ = timeout(STEP, self.0.close()).await;
    }
    async fn idleness(&self, feeds: &[String]) -> Result<Idleness> {
        call("idleness", feeds.len(), STEP, self.0.idleness(feeds)).await
    }
}

/// A push with limits and traces.
struct InstrumentedPush(Box<dyn Push>);

#[async_trait]
impl Push for InstrumentedPush {
    async fn add(&mut self, items: &[NewItem]) -> Result<()> {
        call("push", items.len(), LONG, self.0.add(items)).await
    }
    async fn commit(self: Box<Self>) -> Result<Pushed> {
        call("push_commit", 1, LONG, self.0.commit()).await
    }
}
