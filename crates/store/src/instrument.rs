//! What every call gets, once, at the seam: a span, a client-side time limit (a connection behind a dropped
//! network hangs for minutes otherwise), and a debug line with its time and size when it ends. Never data. And what
//! carries data has the large part of it in the blob store ([`crate::blobs`]).

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use gatefeed_core::{
    Result, Store, StoreError,
    acting::{Acted, Action},
    blob::{Blobs, Space},
    callback::{Callback, CalledBack, Heartbeat, Key, Ticket},
    gather::{GatherRequest, GatheredPage},
    ingest::{Arrival, Arrived},
    inspect::{
        Awaited, FeedStatus, GateCounts, Glance, Idleness, ItemFilter, ItemRow, PartitionFilter, PartitionRow,
    },
    item::{Data, DueItem, ItemStatus, NewItem},
    lease::{Claim, Grant, Lease, Observed, Renewal},
    outcome::{Completion, Settled},
    partition::NewPartition,
    request::{Answered, Request},
    share::Peers,
    store::{Checkpointed, Migrated, Page, PageRequest, Push, Pushed, Wakeups},
    token::{NewToken, Token},
    watcher::Report,
    why::Facts,
};
use tokio::time::{Instant, timeout};

use crate::blobs::{BlobOptions, Depot};

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

/// A store with limits, traces and blobs.
#[derive(Debug)]
pub(crate) struct Instrumented<S>(Arc<S>, Arc<Depot>);

impl<S: Store> Instrumented<S> {
    pub(crate) fn new(inner: S, blobs: Option<&BlobOptions>) -> Result<Self> {
        let inner = Arc::new(inner);
        let depot = Depot::open(inner.clone(), blobs)?;
        Ok(Self(inner, Arc::new(depot)))
    }
}

async fn call<T>(
    name: &'static str,
    size: usize,
    limit: Duration,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let late = || StoreError::Unavailable(format!("the database did not answer `{name}` within {limit:?}"));
    timed(name, size, limit, late, work).await
}

/// As [`call`], of the blob store.
async fn blobs<T>(
    name: &'static str,
    size: usize,
    limit: Duration,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let late = || StoreError::BlobStore(format!("the blob store did not answer `{name}` within {limit:?}"));
    timed(name, size, limit, late, work).await
}

async fn timed<T>(
    name: &'static str,
    size: usize,
    limit: Duration,
    late: impl FnOnce() -> StoreError + Send,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let started = Instant::now();
    let result = timeout(limit, work).await.unwrap_or_else(|_| Err(late()));
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
        let mut pages = call("page", requests.len(), LONG, self.0.page(requests)).await?;
        self.1.mark(&mut pages);
        Ok(pages)
    }
    async fn load(&self, partition: &str, item: &str, version: i64) -> Result<Option<Data>> {
        match call("load", 1, LONG, self.0.load(partition, item, version)).await? {
            Some(data) => Ok(Some(blobs("fetch", 1, LONG, self.1.resolve(data)).await?)),
            None => Ok(None),
        }
    }
    async fn gathered(&self, request: &GatherRequest) -> Result<GatheredPage> {
        let page = call("gathered", 1, LONG, self.0.gathered(request)).await?;
        blobs("fetch", page.items.len(), LONG, self.1.resolve_gathered(page)).await
    }
    async fn begin_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<Option<i64>> {
        call("begin_suspect", 1, STEP, self.0.begin_suspect(lease, item, version)).await
    }
    async fn withdraw_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<()> {
        call("withdraw_suspect", 1, STEP, self.0.withdraw_suspect(lease, item, version)).await
    }
    async fn overdue(&self, leases: &[Arc<Lease>], limit: usize) -> Result<Vec<Vec<DueItem>>> {
        call("overdue", leases.len(), STEP, self.0.overdue(leases, limit)).await
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
    async fn offload(&self, data: Vec<Data>) -> Result<Vec<Data>> {
        blobs("offload", data.len(), LONG, self.1.offload(data)).await
    }
    fn blobs(&self) -> Option<Arc<dyn Blobs>> {
        self.1.is_open().then(|| self.1.clone() as Arc<dyn Blobs>)
    }
    async fn blob_space(&self) -> Result<Space> {
        call("blob_space", 0, STEP, self.0.blob_space()).await
    }
    async fn referred_to(&self, paths: &[String]) -> Result<Vec<String>> {
        call("referred_to", paths.len(), LONG, self.0.referred_to(paths)).await
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
    async fn peers(&self, watcher: &str, feeds: &[String]) -> Result<Peers> {
        call("peers", feeds.len(), STEP, self.0.peers(watcher, feeds)).await
    }
    async fn begin_push(&self, partition: &NewPartition) -> Result<Box<dyn Push>> {
        let push = call("begin_push", 1, LONG, self.0.begin_push(partition)).await?;
        Ok(Box::new(InstrumentedPush(push, self.1.clone())))
    }
    async fn push(&self, partition: &NewPartition, items: &[NewItem]) -> Result<Pushed> {
        let put = blobs("offload", items.len(), PUSH, self.1.offload_items(items)).await?;
        call("push", items.len(), PUSH, self.0.push(partition, put.as_deref().unwrap_or(items))).await
    }
    async fn push_request(
        &self,
        partition: &NewPartition,
        items: &[NewItem],
        request: &Request,
    ) -> Result<Answered> {
        let put = blobs("offload", items.len(), PUSH, self.1.offload_items(items)).await?;
        let items = put.as_deref().unwrap_or(items);
        call("push_request", items.len(), PUSH, self.0.push_request(partition, items, request)).await
    }
    async fn answered(&self, partition: &NewPartition, request: &Request) -> Result<Option<Answered>> {
        call("answered", 1, STEP, self.0.answered(partition, request)).await
    }
    async fn ingest(&self, arrivals: &[Arrival]) -> Result<Vec<Arrived>> {
        let put = blobs("offload", arrivals.len(), LONG, self.1.offload_arrivals(arrivals)).await?;
        call("ingest", arrivals.len(), STEP, self.0.ingest(put.as_deref().unwrap_or(arrivals))).await
    }
    async fn glance(&self, partition: &str) -> Result<Option<Glance>> {
        call("glance", 1, STEP, self.0.glance(partition)).await
    }
    async fn ended(&self, awaited: &[Awaited]) -> Result<Vec<bool>> {
        call("ended", awaited.len(), STEP, self.0.ended(awaited)).await
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
    async fn act(&self, partition: &str, version: Option<i64>, action: &Action) -> Result<Acted> {
        let (name, limit) = match action {
            Action::Retry(_) => ("retry", LONG),
            Action::Seal => ("seal", LONG),
            Action::Advance => ("advance", LONG),
            Action::Pause => ("pause", LONG),
            Action::Resume => ("resume", LONG),
            Action::Cancel => ("cancel", WHOLE),
            Action::Rewind(_) => ("rewind", WHOLE),
        };
        call(name, 1, limit, self.0.act(partition, version, action)).await
    }
    async fn callback_key(&self) -> Result<Key> {
        call("callback_key", 0, STEP, self.0.callback_key()).await
    }
    async fn call_back(&self, callback: &Callback) -> Result<CalledBack> {
        let put = blobs("offload", 1, LONG, self.1.offload_callback(callback)).await?;
        call("call_back", 1, STEP, self.0.call_back(put.as_ref().unwrap_or(callback))).await
    }
    async fn heartbeat(&self, ticket: &Ticket) -> Result<Heartbeat> {
        call("heartbeat", 1, STEP, self.0.heartbeat(ticket)).await
    }
    async fn status(&self) -> Result<Vec<FeedStatus>> {
        call("status", 0, LONG, self.0.status()).await
    }
    async fn partitions(&self, filter: &PartitionFilter) -> Result<Vec<PartitionRow>> {
        call("partitions", filter.limit, LONG, self.0.partitions(filter)).await
    }
    async fn items(&self, filter: &ItemFilter) -> Result<Vec<ItemRow>> {
        let rows = call("items", filter.limit, LONG, self.0.items(&Depot::reading(filter))).await?;
        blobs("fetch", rows.len(), LONG, self.1.resolve_rows(rows, filter.data)).await
    }
    async fn gates(&self, partition: &str) -> Result<Vec<GateCounts>> {
        call("gates", 1, LONG, self.0.gates(partition)).await
    }
    async fn why(&self, partition: &str, item: Option<&str>) -> Result<Facts> {
        let mut facts = call("why", 1, LONG, self.0.why(partition, item)).await?;
        if let Some(item) = facts.item.as_ref().filter(|item| item.status == ItemStatus::Available) {
            facts.data_error = self.1.trouble(partition, &item.id).await;
        }
        Ok(facts)
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

/// A push with limits, traces and blobs.
struct InstrumentedPush(Box<dyn Push>, Arc<Depot>);

#[async_trait]
impl Push for InstrumentedPush {
    async fn add(&mut self, items: &[NewItem]) -> Result<()> {
        let put = blobs("offload", items.len(), PUSH, self.1.offload_items(items)).await?;
        call("push", items.len(), LONG, self.0.add(put.as_deref().unwrap_or(items))).await
    }
    async fn commit(self: Box<Self>) -> Result<Pushed> {
        call("push_commit", 1, LONG, self.0.commit()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_is_late_is_named() {
        let late = Duration::ZERO;
        let database = call::<()>("load", 1, late, std::future::pending()).await.unwrap_err();
        assert!(
            matches!(&database, StoreError::Unavailable(why) if why.starts_with("the database did not answer"))
        );
        let store = blobs::<()>("fetch", 1, late, std::future::pending()).await.unwrap_err();
        assert!(
            matches!(&store, StoreError::BlobStore(why) if why.starts_with("the blob store did not answer"))
        );
    }
}
