//! The store on SQLite (bundled), in WAL mode: one writer at a time over all processes, readers beside it.
//!
//! Differences from its twin: what decides happens inside BEGIN IMMEDIATE, which excludes every other writer, so
//! that no row is ever locked or skipped; `LISTEN` is a poll of `PRAGMA data_version`.

mod blobs;
mod callback;
mod checkpoint;
mod claim;
mod complete;
mod dependencies;
mod ended;
mod error;
mod fence;
mod file;
mod gather;
mod history;
mod ingest;
mod insert;
mod inspect;
mod load;
mod migrate;
mod nested;
mod operate;
mod page;
mod pool;
mod renew;
mod request;
mod rows;
mod status;
mod text;
mod tokens;
mod values;
mod wake;
mod watchers;
mod why;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use gatefeed_core::{
    Result, Store,
    acting::{Acted, Action},
    blob::Space,
    callback::{Callback, CalledBack, Heartbeat, Key, Ticket},
    gather::{GatherRequest, GatheredPage},
    ingest::{Arrival, Arrived},
    inspect::{
        Awaited, FeedStatus, GateCounts, Glance, Idleness, ItemFilter, ItemRow, PartitionFilter, PartitionRow,
    },
    item::{Data, DueItem, NewItem},
    lease::{Claim, Grant, Lease, Observed, Renewal},
    outcome::{Completion, Settled},
    partition::NewPartition,
    request::{Answered, Request},
    share::Peers,
    store::{Checkpointed, Migrated, Page, PageRequest, Push, Wakeups},
    token::{NewToken, Token},
    watcher::Report,
    why::Facts,
};

use self::pool::Lanes;
pub(crate) use self::{insert::push_into, values::values};
use crate::{Options, unsettled::Unsettled};

/// The store on SQLite.
#[derive(Debug)]
pub(crate) struct Sqlite {
    lanes: Arc<Lanes>,
    unsettled: Arc<Unsettled>,
}

impl Sqlite {
    /// Opens the file of a `sqlite:` URL, or makes it.
    pub(crate) async fn connect(url: &str, options: &Options) -> Result<Self> {
        let lanes = Lanes::open(url, options.synchronous).await?;
        Ok(Self { lanes: Arc::new(lanes), unsettled: Arc::default() })
    }

    /// An error, in the field's terms, of this file.
    fn named<T>(&self, result: error::Result<T>) -> Result<T> {
        result.map_err(|error| error.of(self.lanes.path()))
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn migrate(&self) -> Result<Migrated> {
        self.named(self.migrate_schema().await)
    }
    async fn check_schema(&self) -> Result<()> {
        self.named(self.check_version().await)
    }
    async fn ping(&self) -> Result<()> {
        self.named(self.answer().await)
    }
    async fn claim(&self, claim: &Claim) -> Result<Vec<Grant>> {
        self.named(self.grant(claim).await)
    }
    async fn renew(&self, leases: &[Arc<Lease>], duration: Duration) -> Result<Vec<Renewal>> {
        self.named(self.extend(leases, duration).await)
    }
    async fn observe(&self, leases: &[Arc<Lease>]) -> Result<Vec<Observed>> {
        self.named(self.look(leases).await)
    }
    async fn release(&self, leases: &[Arc<Lease>]) -> Result<()> {
        self.named(self.give_back(leases).await)
    }
    async fn progressed(&self, lease: &Lease) -> Result<()> {
        self.named(self.clear_expiries(lease).await)
    }
    async fn page(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        self.named(self.read_pages(requests).await)
    }
    async fn load(&self, partition: &str, item: &str, version: i64) -> Result<Option<Data>> {
        self.named(self.load_data(partition, item, version).await)
    }
    async fn gathered(&self, request: &GatherRequest) -> Result<GatheredPage> {
        self.named(self.read_gathered(request).await)
    }
    async fn begin_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<Option<i64>> {
        self.named(self.note_suspect(lease, item, version).await)
    }
    async fn withdraw_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<()> {
        self.named(self.unnote_suspect(lease, item, version).await)
    }
    async fn overdue(&self, leases: &[Arc<Lease>], limit: usize) -> Result<Vec<Vec<DueItem>>> {
        self.named(self.read_overdue(leases, limit).await)
    }
    async fn complete(&self, completions: &[Completion]) -> Result<Vec<Settled>> {
        self.named(self.write_outcomes(completions).await)
    }
    async fn checkpoint(&self, leases: &[Arc<Lease>], hold: Duration) -> Result<Vec<Checkpointed>> {
        self.named(self.step(leases, hold).await)
    }
    async fn wakeups(&self, _feeds: &[String]) -> Box<dyn Wakeups> {
        self.listen()
    }
    async fn blob_space(&self) -> Result<Space> {
        self.named(self.read_blob_space().await)
    }
    async fn referred_to(&self, paths: &[String]) -> Result<Vec<String>> {
        self.named(self.find_references(paths).await)
    }
    async fn report(&self, report: &Report) -> Result<()> {
        self.named(self.note_report(report).await)
    }
    async fn farewell(&self, watcher: &str) -> Result<()> {
        self.named(self.forget_watcher(watcher).await)
    }
    async fn ask(&self, watcher: &str, feeds: &[String]) -> Result<()> {
        self.named(self.ask_for_partitions(watcher, feeds).await)
    }
    async fn asked(&self, watcher: &str, feeds: &[String]) -> Result<Vec<(String, usize)>> {
        self.named(self.askers(watcher, feeds).await)
    }
    async fn peers(&self, watcher: &str, feeds: &[String]) -> Result<Peers> {
        self.named(self.others(watcher, feeds).await)
    }
    async fn begin_push(&self, partition: &NewPartition) -> Result<Box<dyn Push>> {
        self.named(self.open_push(partition).await)
    }
    async fn push_request(
        &self,
        partition: &NewPartition,
        items: &[NewItem],
        request: &Request,
    ) -> Result<Answered> {
        self.named(self.push_once(partition, items, request).await)
    }
    async fn answered(&self, partition: &NewPartition, request: &Request) -> Result<Option<Answered>> {
        self.named(self.find_request(partition, request).await)
    }
    async fn ingest(&self, arrivals: &[Arrival]) -> Result<Vec<Arrived>> {
        self.named(self.take_in(arrivals).await)
    }
    async fn glance(&self, partition: &str) -> Result<Option<Glance>> {
        self.named(self.look_at(partition).await)
    }
    async fn ended(&self, awaited: &[Awaited]) -> Result<Vec<bool>> {
        self.named(self.find_ended(awaited).await)
    }
    async fn backlog(&self, feed: &str, limit: u64) -> Result<u64> {
        self.named(self.count_backlog(feed, limit).await)
    }
    async fn add_token(&self, token: &NewToken) -> Result<()> {
        self.named(self.insert_token(token).await)
    }
    async fn tokens(&self) -> Result<Vec<Token>> {
        self.named(self.list_tokens().await)
    }
    async fn revoke_token(&self, id: &str) -> Result<()> {
        self.named(self.end_token(id).await)
    }
    async fn act(&self, partition: &str, version: Option<i64>, action: &Action) -> Result<Acted> {
        self.named(self.operate(partition, version, action).await)
    }
    async fn callback_key(&self) -> Result<Key> {
        self.named(self.key().await)
    }
    async fn call_back(&self, callback: &Callback) -> Result<CalledBack> {
        self.named(self.take_callback(callback).await)
    }
    async fn heartbeat(&self, ticket: &Ticket) -> Result<Heartbeat> {
        self.named(self.extend_wait(ticket).await)
    }
    async fn status(&self) -> Result<Vec<FeedStatus>> {
        self.named(self.list_feeds().await)
    }
    async fn partitions(&self, filter: &PartitionFilter) -> Result<Vec<PartitionRow>> {
        self.named(self.list_partitions(filter).await)
    }
    async fn items(&self, filter: &ItemFilter) -> Result<Vec<ItemRow>> {
        self.named(self.list_items(filter).await)
    }
    async fn gates(&self, partition: &str) -> Result<Vec<GateCounts>> {
        self.named(self.count_gates(partition).await)
    }
    async fn why(&self, partition: &str, item: Option<&str>) -> Result<Facts> {
        self.named(self.look_into(partition, item).await)
    }
    async fn changes(&self, _partition: &str) -> Box<dyn Wakeups> {
        self.listen()
    }
    async fn close(&self) {
        self.lanes.close().await;
    }
    async fn idleness(&self, feeds: &[String]) -> Result<Idleness> {
        self.named(self.measure_idleness(feeds).await)
    }
}
