//! A store that fails on demand: wraps a real one, counts the calls that a watcher makes, and lets a rule decide
//! what becomes of each.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

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
use tokio::{sync::watch, time::sleep};

/// The calls that a watcher makes, and one of the API; the others pass through untouched.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Call {
    /// [`Store::claim`].
    Claim,
    /// [`Store::renew`].
    Renew,
    /// [`Store::observe`].
    Observe,
    /// [`Store::release`].
    Release,
    /// [`Store::progressed`].
    Progressed,
    /// [`Store::page`].
    Page,
    /// [`Store::load`].
    Load,
    /// [`Store::gathered`].
    Gathered,
    /// [`Store::begin_suspect`].
    BeginSuspect,
    /// [`Store::complete`].
    Complete,
    /// [`Store::checkpoint`].
    Checkpoint,
    /// [`Store::idleness`].
    Idleness,
    /// [`Store::ingest`].
    Ingest,
    /// [`Store::report`]; not counted among all, since it comes at a time of its own.
    Report,
    /// [`Store::ping`]; not counted among all, since it only comes after a failure.
    Ping,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Nothing happens to it.
    None,
    /// `Unavailable`; nothing is done.
    Refuse,
    /// It is done, and then its reply is lost: `Unavailable`.
    Lose,
    /// It hangs for this long, and then it is done.
    Hang(Duration),
    /// It is done, but its reply takes this much longer.
    Late(Duration),
    /// It is not done and never returns; [`FaultStore::stopped`] resolves.
    StopBefore,
    /// It is done and never returns; [`FaultStore::stopped`] resolves.
    StopAfter,
}

/// Decides, from the call, how many of its kind there have been (1 for the first), and how many of all kinds.
type Rule = Arc<dyn Fn(Call, u64, u64) -> Fault + Send + Sync>;
type OfLease = Arc<dyn Fn(&Lease) -> bool + Send + Sync>;
type OfArrival = Arc<dyn Fn(&Arrival) -> Option<StoreError> + Send + Sync>;
type OfOutcome = Arc<dyn Fn(&Completion) -> bool + Send + Sync>;

/// The store.
pub struct FaultStore {
    inner: Arc<dyn Store>,
    script: Mutex<Script>,
    stopped: watch::Sender<bool>,
}

struct Script {
    rule: Rule,
    is_skipped: OfLease,
    is_refused: OfOutcome,
    is_too_slow: OfOutcome,
    is_unreadable: OfLease,
    is_unsteppable: OfLease,
    is_unwelcome: OfArrival,
    counts: HashMap<Call, u64>,
    returned: HashMap<Call, u64>,
    granted: Vec<Arc<Lease>>,
}

impl std::fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FaultStore").field(&self.inner).finish()
    }
}

impl FaultStore {
    /// Wraps a store; nothing fails until a rule says so.
    pub fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        let script = Script {
            rule: Arc::new(|_, _, _| Fault::None),
            is_skipped: Arc::new(|_| false),
            is_refused: Arc::new(|_| false),
            is_too_slow: Arc::new(|_| false),
            is_unreadable: Arc::new(|_| false),
            is_unsteppable: Arc::new(|_| false),
            is_unwelcome: Arc::new(|_| None),
            counts: HashMap::new(),
            returned: HashMap::new(),
            granted: Vec::new(),
        };
        Arc::new(Self { inner, script: Mutex::new(script), stopped: watch::Sender::new(false) })
    }

    /// Wraps a store with a rule: the call, its number among those of its kind, its number among all.
    pub fn with(
        inner: Arc<dyn Store>,
        rule: impl Fn(Call, u64, u64) -> Fault + Send + Sync + 'static,
    ) -> Arc<Self> {
        let store = Self::new(inner);
        store.rule(rule);
        store
    }

    /// From now on this rule decides.
    pub fn rule(&self, rule: impl Fn(Call, u64, u64) -> Fault + Send + Sync + 'static) {
        self.script().rule = Arc::new(rule);
    }

    /// From now on these leases are never renewed: their rows are "locked by somebody".
    pub fn skip_renewals(&self, is_skipped: impl Fn(&Lease) -> bool + Send + Sync + 'static) {
        self.script().is_skipped = Arc::new(is_skipped);
    }

    /// From now on a batch with such an outcome in it is refused as `Data`.
    pub fn refuse_outcomes(&self, is_refused: impl Fn(&Completion) -> bool + Send + Sync + 'static) {
        self.script().is_refused = Arc::new(is_refused);
    }

    /// From now on a batch with such an outcome in it takes longer than the database allows: `Unavailable`, as a
    /// statement's timeout is, and nothing is done.
    pub fn too_slow_outcomes(&self, is_too_slow: impl Fn(&Completion) -> bool + Send + Sync + 'static) {
        self.script().is_too_slow = Arc::new(is_too_slow);
    }

    /// From now on these partitions cannot be read: a page that asks for one of them fails for good.
    pub fn unreadable(&self, is_unreadable: impl Fn(&Lease) -> bool + Send + Sync + 'static) {
        self.script().is_unreadable = Arc::new(is_unreadable);
    }

    /// From now on a checkpoint of one of these partitions takes longer than the database allows, as
    /// [`Self::too_slow_outcomes`].
    pub fn unsteppable(&self, is_unsteppable: impl Fn(&Lease) -> bool + Send + Sync + 'static) {
        self.script().is_unsteppable = Arc::new(is_unsteppable);
    }

    /// From now on a batch with such an arrival in it ends with this error, and nothing is done.
    pub fn unwelcome(&self, is_unwelcome: impl Fn(&Arrival) -> Option<StoreError> + Send + Sync + 'static) {
        self.script().is_unwelcome = Arc::new(is_unwelcome);
    }

    /// How often this was called.
    pub fn count(&self, call: Call) -> u64 {
        self.script().counts.get(&call).copied().unwrap_or(0)
    }

    /// How often this has returned, in whatever way.
    pub fn returned(&self, call: Call) -> u64 {
        self.script().returned.get(&call).copied().unwrap_or(0)
    }

    /// Every lease that was granted through this store, current or not.
    pub fn granted(&self) -> Vec<Arc<Lease>> {
        self.script().granted.clone()
    }

    /// Gives every granted lease back behind the watcher's back, as if it had expired this moment. Unlike an
    /// expiry this does not count as one.
    pub async fn expire(&self) -> Result<()> {
        self.inner.release(&self.granted()).await
    }

    /// Resolves once a call was stopped.
    pub async fn stopped(&self) {
        // The sender lives as long as `self`.
        _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call and asks the rule about it.
    fn fault(&self, call: Call) -> Fault {
        let (rule, nth, total) = {
            let mut script = self.script();
            let count = script.counts.entry(call).or_default();
            *count += 1;
            let nth = *count;
            let counted = script.counts.iter().filter(|(call, _)| !matches!(call, Call::Report | Call::Ping));
            (script.rule.clone(), nth, counted.map(|(_, count)| count).sum())
        };
        rule(call, nth, total)
    }

    async fn call<T: Send>(&self, call: Call, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let result = self.suffer(self.fault(call), work).await;
        *self.script().returned.entry(call).or_default() += 1;
        result
    }

    async fn suffer<T: Send>(&self, fault: Fault, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match fault {
            Fault::None => work.await,
            Fault::Refuse => Err(unavailable()),
            Fault::Lose => {
                work.await?;
                Err(unavailable())
            }
            Fault::Hang(time) => {
                sleep(time).await;
                work.await
            }
            Fault::Late(time) => {
                let result = work.await;
                sleep(time).await;
                result
            }
            Fault::StopBefore => self.stop().await,
            Fault::StopAfter => {
                drop(work.await);
                self.stop().await
            }
        }
    }

    async fn stop<T>(&self) -> Result<T> {
        self.stopped.send_replace(true);
        std::future::pending().await
    }

    async fn renew_others(&self, leases: &[Arc<Lease>], duration: Duration) -> Result<Vec<Renewal>> {
        let is_skipped = self.script().is_skipped.clone();
        let others: Vec<_> = leases.iter().filter(|lease| !is_skipped(lease)).cloned().collect();
        let mut renewals = self.inner.renew(&others, duration).await?.into_iter();
        let renewal = |lease: &Arc<Lease>| {
            if is_skipped(lease) { Renewal::Skipped } else { renewals.next().unwrap_or(Renewal::Skipped) }
        };
        Ok(leases.iter().map(renewal).collect())
    }

    async fn ingest_if_welcome(&self, arrivals: &[Arrival]) -> Result<Vec<Arrived>> {
        let is_unwelcome = self.script().is_unwelcome.clone();
        match arrivals.iter().find_map(|arrival| is_unwelcome(arrival)) {
            Some(error) => Err(error),
            None => self.inner.ingest(arrivals).await,
        }
    }

    async fn page_unless_unreadable(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        let is_unreadable = self.script().is_unreadable.clone();
        if requests.iter().any(|request| is_unreadable(&request.lease)) {
            return Err(StoreError::data("made unreadable by the test"));
        }
        self.inner.page(requests).await
    }

    async fn step_unless_too_slow(&self, leases: &[Arc<Lease>], hold: Duration) -> Result<Vec<Checkpointed>> {
        let is_unsteppable = self.script().is_unsteppable.clone();
        if leases.iter().any(|lease| is_unsteppable(lease)) {
            return Err(StoreError::Unavailable("took too long, says the test".into()));
        }
        self.inner.checkpoint(leases, hold).await
    }

    async fn complete_unless_refused(&self, completions: &[Completion]) -> Result<Vec<Settled>> {
        let is_refused = self.script().is_refused.clone();
        if completions.iter().any(|completion| is_refused(completion)) {
            return Err(StoreError::data("refused by the test"));
        }
        let is_too_slow = self.script().is_too_slow.clone();
        if completions.iter().any(|completion| is_too_slow(completion)) {
            return Err(StoreError::Unavailable("took too long, says the test".into()));
        }
        self.inner.complete(completions).await
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("made to fail by the test".into())
}

#[async_trait]
impl Store for FaultStore {
    async fn migrate(&self) -> Result<Migrated> {
        self.inner.migrate().await
    }
    async fn check_schema(&self) -> Result<()> {
        self.inner.check_schema().await
    }
    async fn ping(&self) -> Result<()> {
        self.call(Call::Ping, self.inner.ping()).await
    }
    async fn claim(&self, claim: &Claim) -> Result<Vec<Grant>> {
        let work = async {
            let grants = self.inner.claim(claim).await?;
            self.script().granted.extend(grants.iter().map(|grant| grant.lease.clone()));
            Ok(grants)
        };
        self.call(Call::Claim, work).await
    }
    async fn renew(&self, leases: &[Arc<Lease>], duration: Duration) -> Result<Vec<Renewal>> {
        self.call(Call::Renew, self.renew_others(leases, duration)).await
    }
    async fn observe(&self, leases: &[Arc<Lease>]) -> Result<Vec<Observed>> {
        self.call(Call::Observe, self.inner.observe(leases)).await
    }
    async fn release(&self, leases: &[Arc<Lease>]) -> Result<()> {
        self.call(Call::Release, self.inner.release(leases)).await
    }
    async fn progressed(&self, lease: &Lease) -> Result<()> {
        self.call(Call::Progressed, self.inner.progressed(lease)).await
    }
    async fn page(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        self.call(Call::Page, self.page_unless_unreadable(requests)).await
    }
    async fn load(&self, partition: &str, item: &str, version: i64) -> Result<Option<Data>> {
        self.call(Call::Load, self.inner.load(partition, item, version)).await
    }
    async fn gathered(&self, request: &GatherRequest) -> Result<GatheredPage> {
        self.call(Call::Gathered, self.inner.gathered(request)).await
    }
    async fn begin_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<Option<i64>> {
        self.call(Call::BeginSuspect, self.inner.begin_suspect(lease, item, version)).await
    }
    async fn withdraw_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<()> {
        self.inner.withdraw_suspect(lease, item, version).await
    }
    async fn overdue(&self, leases: &[Arc<Lease>], limit: usize) -> Result<Vec<Vec<DueItem>>> {
        self.inner.overdue(leases, limit).await
    }
    async fn complete(&self, completions: &[Completion]) -> Result<Vec<Settled>> {
        self.call(Call::Complete, self.complete_unless_refused(completions)).await
    }
    async fn checkpoint(&self, leases: &[Arc<Lease>], hold: Duration) -> Result<Vec<Checkpointed>> {
        self.call(Call::Checkpoint, self.step_unless_too_slow(leases, hold)).await
    }
    async fn wakeups(&self, feeds: &[String]) -> Box<dyn Wakeups> {
        self.inner.wakeups(feeds).await
    }
    async fn offload(&self, data: Vec<Data>) -> Result<Vec<Data>> {
        self.inner.offload(data).await
    }
    fn blobs(&self) -> Option<Arc<dyn Blobs>> {
        self.inner.blobs()
    }
    async fn blob_space(&self) -> Result<Space> {
        self.inner.blob_space().await
    }
    async fn referred_to(&self, paths: &[String]) -> Result<Vec<String>> {
        self.inner.referred_to(paths).await
    }

    async fn report(&self, report: &Report) -> Result<()> {
        self.call(Call::Report, self.inner.report(report)).await
    }
    async fn farewell(&self, watcher: &str) -> Result<()> {
        self.inner.farewell(watcher).await
    }
    async fn ask(&self, watcher: &str, feeds: &[String]) -> Result<()> {
        self.inner.ask(watcher, feeds).await
    }
    async fn asked(&self, watcher: &str, feeds: &[String]) -> Result<Vec<(String, usize)>> {
        self.inner.asked(watcher, feeds).await
    }
    async fn peers(&self, watcher: &str, feeds: &[String]) -> Result<Peers> {
        self.inner.peers(watcher, feeds).await
    }
    async fn begin_push(&self, partition: &NewPartition) -> Result<Box<dyn Push>> {
        self.inner.begin_push(partition).await
    }
    async fn push(&self, partition: &NewPartition, items: &[NewItem]) -> Result<Pushed> {
        self.inner.push(partition, items).await
    }
    async fn push_request(
        &self,
        partition: &NewPartition,
        items: &[NewItem],
        request: &Request,
    ) -> Result<Answered> {
        self.inner.push_request(partition, items, request).await
    }
    async fn answered(&self, partition: &NewPartition, request: &Request) -> Result<Option<Answered>> {
        self.inner.answered(partition, request).await
    }
    async fn ingest(&self, arrivals: &[Arrival]) -> Result<Vec<Arrived>> {
        self.call(Call::Ingest, self.ingest_if_welcome(arrivals)).await
    }
    async fn glance(&self, partition: &str) -> Result<Option<Glance>> {
        self.inner.glance(partition).await
    }
    async fn ended(&self, awaited: &[Awaited]) -> Result<Vec<bool>> {
        self.inner.ended(awaited).await
    }
    async fn backlog(&self, feed: &str, limit: u64) -> Result<u64> {
        self.inner.backlog(feed, limit).await
    }
    async fn add_token(&self, token: &NewToken) -> Result<()> {
        self.inner.add_token(token).await
    }
    async fn tokens(&self) -> Result<Vec<Token>> {
        self.inner.tokens().await
    }
    async fn revoke_token(&self, id: &str) -> Result<()> {
        self.inner.revoke_token(id).await
    }
    async fn act(&self, partition: &str, version: Option<i64>, action: &Action) -> Result<Acted> {
        self.inner.act(partition, version, action).await
    }
    async fn callback_key(&self) -> Result<Key> {
        self.inner.callback_key().await
    }
    async fn call_back(&self, callback: &Callback) -> Result<CalledBack> {
        self.inner.call_back(callback).await
    }
    async fn heartbeat(&self, ticket: &Ticket) -> Result<Heartbeat> {
        self.inner.heartbeat(ticket).await
    }
    async fn status(&self) -> Result<Vec<FeedStatus>> {
        self.inner.status().await
    }
    async fn partitions(&self, filter: &PartitionFilter) -> Result<Vec<PartitionRow>> {
        self.inner.partitions(filter).await
    }
    async fn items(&self, filter: &ItemFilter) -> Result<Vec<ItemRow>> {
        self.inner.items(filter).await
    }
    async fn gates(&self, partition: &str) -> Result<Vec<GateCounts>> {
        self.inner.gates(partition).await
    }
    async fn why(&self, partition: &str, item: Option<&str>) -> Result<Facts> {
        self.inner.why(partition, item).await
    }
    async fn changes(&self, partition: &str) -> Box<dyn Wakeups> {
        self.inner.changes(partition).await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
    async fn idleness(&self, feeds: &[String]) -> Result<Idleness> {
        self.call(Call::Idleness, self.inner.idleness(feeds)).await
    }
}
