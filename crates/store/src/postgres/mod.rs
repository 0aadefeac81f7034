//! The store on Postgres 14 or later.
//!
//! Every call is one READ COMMITTED transaction, whatever the server's default is: the lock-then-look steps need each
//! statement to see what was committed before it. It is an explicit one, which PgBouncer's transaction mode keeps together;
//! but for pages and plain outcomes, whose one statement is a transaction by itself where the server is reached
//! directly ([`Postgres::begin_single`]).

mod batch;
mod blobs;
mod callback;
mod checkpoint;
mod claim;
mod complete;
mod connect;
mod dependencies;
mod ended;
pub(crate) mod error;
mod gather;
mod history;
mod ingest;
pub(crate) mod insert;
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
mod schema;
mod stalled;
mod status;
#[cfg(test)]
mod tests;
mod tokens;
mod turns;
mod wake;
mod watchers;
mod why;

use std::{
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};

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
    store::{Checkpointed, Migrated, Page, PageRequest, Push, Pushed, Wakeups},
    token::{NewToken, Token},
    watcher::Report,
    why::Facts,
};

use self::{pool::Lanes, schema::Sql};
use crate::{Options, unsettled::Unsettled};

/// The schema unless one is asked for.
pub(crate) const PUBLIC: &str = "public";

/// The store on Postgres.
#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    lanes: Arc<Lanes>,
    sql: Arc<Sql>,
    pending: Arc<wake::Pending>,
    /// The shortest lease asked for, in milliseconds.
    lease_ms: Arc<AtomicU64>,
    /// Partitions whose new items watchers have not been told of.
    arrived: Arc<Mutex<ingest::Untold>>,
    /// When this process last looked for parents of closed partitions.
    woken_at: Arc<Mutex<Option<Instant>>>,
    unsettled: Arc<Unsettled>,
    turns: Arc<turns::Turns>,
    stalled: Arc<stalled::Stalled>,
    /// Large data that is waited for.
    wanted: Arc<Mutex<load::Wanted>>,
}

impl Postgres {
    pub(crate) async fn connect(url: &str, options: &Options) -> Result<Self> {
        let sql = Sql::of(options.schema.as_deref().unwrap_or(PUBLIC))?;
        let lanes = Lanes::connect(url, options.listen_url.as_deref()).await?;
        let lease_ms = Arc::new(AtomicU64::new(30_000));
        Ok(Self {
            lanes,
            sql,
            pending: Arc::default(),
            lease_ms,
            arrived: Arc::default(),
            woken_at: Arc::default(),
            unsettled: Arc::default(),
            turns: Arc::default(),
            stalled: Arc::default(),
            wanted: Arc::default(),
        })
    }
}

#[async_trait]
impl Store for Postgres {
    async fn migrate(&self) -> Result<Migrated> {
        self.migrate_schema().await
    }
    async fn check_schema(&self) -> Result<()> {
        self.check_version().await
    }
    async fn ping(&self) -> Result<()> {
        self.answer().await
    }
    async fn claim(&self, claim: &Claim) -> Result<Vec<Grant>> {
        self.grant(claim).await
    }
    async fn renew(&self, leases: &[Arc<Lease>], duration: Duration) -> Result<Vec<Renewal>> {
        self.extend(leases, duration).await
    }
    async fn observe(&self, leases: &[Arc<Lease>]) -> Result<Vec<Observed>> {
        self.look(leases).await
    }
    async fn release(&self, leases: &[Arc<Lease>]) -> Result<()> {
        self.give_back(leases).await
    }
    async fn progressed(&self, lease: &Lease) -> Result<()> {
        self.clear_expiries(lease).await
    }
    async fn page(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        self.read_pages(requests).await
    }
    async fn load(&self, partition: &str, item: &str, version: i64) -> Result<Option<Data>> {
        self.load_data(partition, item, version).await
    }
    async fn gathered(&self, request: &GatherRequest) -> Result<GatheredPage> {
        self.read_gathered(request).await
    }
    async fn begin_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<Option<i64>> {
        self.note_suspect(lease, item, version).await
    }
    async fn withdraw_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<()> {
        self.unnote_suspect(lease, item, version).await
    }
    async fn overdue(&self, leases: &[Arc<Lease>], limit: usize) -> Result<Vec<Vec<DueItem>>> {
        self.read_overdue(leases, limit).await
    }
    async fn complete(&self, completions: &[Completion]) -> Result<Vec<Settled>> {
        self.write_outcomes(completions).await
    }
    async fn checkpoint(&self, leases: &[Arc<Lease>], hold: Duration) -> Result<Vec<Checkpointed>> {
        self.step(leases, hold).await
    }
    async fn wakeups(&self, feeds: &[String]) -> Box<dyn Wakeups> {
        self.listen(self.sql.channel.clone(), feeds)
    }
    async fn blob_space(&self) -> Result<Space> {
        self.read_blob_space().await
    }
    async fn referred_to(&self, paths: &[String]) -> Result<Vec<String>> {
        self.find_references(paths).await
    }
    async fn report(&self, report: &Report) -> Result<()> {
        self.note_report(report).await
    }
    async fn farewell(&self, watcher: &str) -> Result<()> {
        self.forget(watcher).await
    }
    async fn ask(&self, watcher: &str, feeds: &[String]) -> Result<()> {
        self.ask_for_partitions(watcher, feeds).await
    }
    async fn asked(&self, watcher: &str, feeds: &[String]) -> Result<Vec<(String, usize)>> {
        self.askers(watcher, feeds).await
    }
    async fn peers(&self, watcher: &str, feeds: &[String]) -> Result<Peers> {
        self.others(watcher, feeds).await
    }
    async fn begin_push(&self, partition: &NewPartition) -> Result<Box<dyn Push>> {
        Ok(Box::new(self.start_push(partition).await?))
    }
    async fn push(&self, partition: &NewPartition, items: &[NewItem]) -> Result<Pushed> {
        self.push_whole(partition, items).await
    }
    async fn push_request(
        &self,
        partition: &NewPartition,
        items: &[NewItem],
        request: &Request,
    ) -> Result<Answered> {
        self.push_all(partition, items, Some(request)).await
    }
    async fn answered(&self, partition: &NewPartition, request: &Request) -> Result<Option<Answered>> {
        self.find_request(partition, request).await
    }
    async fn ingest(&self, arrivals: &[Arrival]) -> Result<Vec<Arrived>> {
        self.take_in(arrivals).await
    }
    async fn glance(&self, partition: &str) -> Result<Option<Glance>> {
        self.look_at(partition).await
    }
    async fn ended(&self, awaited: &[Awaited]) -> Result<Vec<bool>> {
        self.find_ended(awaited).await
    }
    async fn backlog(&self, feed: &str, limit: u64) -> Result<u64> {
        self.count_backlog(feed, limit).await
    }
    async fn add_token(&self, token: &NewToken) -> Result<()> {
        self.insert_token(token).await
    }
    async fn tokens(&self) -> Result<Vec<Token>> {
        self.list_tokens().await
    }
    async fn revoke_token(&self, id: &str) -> Result<()> {
        self.end_token(id).await
    }
    async fn act(&self, partition: &str, version: Option<i64>, action: &Action) -> Result<Acted> {
        self.operate(partition, version, action).await
    }
    async fn callback_key(&self) -> Result<Key> {
        self.key().await
    }
    async fn call_back(&self, callback: &Callback) -> Result<CalledBack> {
        self.take_callback(callback).await
    }
    async fn heartbeat(&self, ticket: &Ticket) -> Result<Heartbeat> {
        self.extend_wait(ticket).await
    }
    async fn status(&self) -> Result<Vec<FeedStatus>> {
        self.list_feeds().await
    }
    async fn partitions(&self, filter: &PartitionFilter) -> Result<Vec<PartitionRow>> {
        self.list_partitions(filter).await
    }
    async fn items(&self, filter: &ItemFilter) -> Result<Vec<ItemRow>> {
        self.list_items(filter).await
    }
    async fn gates(&self, partition: &str) -> Result<Vec<GateCounts>> {
        self.count_gates(partition).await
    }
    async fn why(&self, partition: &str, item: Option<&str>) -> Result<Facts> {
        self.look_into(partition, item).await
    }
    async fn changes(&self, partition: &str) -> Box<dyn Wakeups> {
        self.listen(self.sql.ended.clone(), &[partition.to_owned()])
    }
    async fn close(&self) {
        self.announce_rest().await;
        self.lanes.close().await;
    }
    async fn idleness(&self, feeds: &[String]) -> Result<Idleness> {
        self.measure_idleness(feeds).await
    }
}
