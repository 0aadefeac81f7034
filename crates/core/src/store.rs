//! The Store trait: what gatefeed asks of a database. Postgres and SQLite implement it as twins, and one
//! conformance suite (in the testkit) holds them to this text.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    acting::{Acted, Action},
    blob::{Blobs, Space},
    callback::{Callback, CalledBack, Heartbeat, Key, Ticket},
    error::Result,
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
    token::{NewToken, Token},
    watcher::Report,
    why::Facts,
};

/// What `migrate` did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Migrated {
    /// The schema's version before; 0: there was none.
    pub from: i64,
    /// Its version now.
    pub to: i64,
}

/// Where the owner of a partition reads on.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// The lease; a page of a partition whose lease is not current is empty.
    pub lease: Arc<Lease>,
    /// The end of the previous page; `None` starts at the beginning.
    pub after: Option<Cursor>,
    /// At most this many items; zero reads none.
    pub limit: usize,
}

/// A place in the order (gate, priority descending, available_at, id).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cursor {
    /// The gate of the last item read.
    pub gate: i32,
    /// Its priority.
    pub priority: i32,
    /// Its available_at, as the store that made the cursor writes it.
    pub available_at: String,
    /// Its id.
    pub id: String,
}

/// Due items, in order.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The items.
    pub items: Vec<DueItem>,
    /// Where to go on; `None`: the end was reached.
    pub next: Option<Cursor>,
}

/// What became of a partition at a checkpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Checkpointed {
    /// Something is due; the lease is kept.
    Due,
    /// Something will be due in this time; the lease is kept.
    Wait(Duration),
    /// An item has waited for its callback for too long ([`Store::overdue`]); the lease is kept.
    Overdue,
    /// An inserter or another writer holds the row; the lease is kept.
    Busy,
    /// The gate rose to this one; the lease is kept.
    Advanced(i32),
    /// Idle, held, or no longer available: released.
    Slept,
    /// Complete: released.
    Closed,
    /// Failed: released.
    Failed,
    /// The lease is not current: nothing changed.
    Fenced,
}

/// What `push` did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pushed {
    /// Whether the partition was made.
    pub created: bool,
    /// Items added.
    pub added: u64,
    /// Items that existed already and were left as they are.
    pub existing: u64,
}

impl Pushed {
    /// Counts items of which so many were new.
    pub fn count(&mut self, items: usize, added: u64) {
        self.added += added;
        self.existing += items as u64 - added;
    }
}

/// A push whose items come bit by bit. All of it is one transaction: nothing is visible before the commit, and
/// dropping it leaves nothing behind.
#[async_trait]
pub trait Push: Send {
    /// Adds items; those whose id exists are left as they are. Those whose `partition` is another one are
    /// refused. After an error only dropping is left.
    async fn add(&mut self, items: &[NewItem]) -> Result<()>;

    /// Makes all of it visible, and wakes watchers.
    async fn commit(self: Box<Self>) -> Result<Pushed>;
}

/// Which failed items an operator retries.
#[derive(Clone, Debug, Default)]
pub struct RetryFilter {
    /// Only this item.
    pub item: Option<String>,
    /// Only this gate.
    pub gate: Option<i32>,
}

/// What a rewind did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rewound {
    /// Items that are available again.
    pub items: u64,
    /// Items that were removed, since answers will make them again.
    pub removed: u64,
}

/// Resolves when something may have become due; may do so for nothing.
#[async_trait]
pub trait Wakeups: Send {
    /// Waits for the next hint. Never fails: a broken connection is made again in the background, and the
    /// caller polls anyway. Cancel-safe.
    async fn next(&mut self);
}

/// A database that holds partitions and items. Times are the database's; every call is atomic.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug + 'static {
    // --- the schema ---

    /// Brings the schema to this binary's version. Forward only, one at a time over all processes; a newer
    /// schema is refused with `SchemaNewer`.
    async fn migrate(&self) -> Result<Migrated>;

    /// Errs unless the schema is exactly this binary's: `SchemaMissing`, `SchemaOlder`, `SchemaNewer`.
    async fn check_schema(&self) -> Result<()>;

    /// Errs unless the database answers.
    async fn ping(&self) -> Result<()>;

    // --- leases ---

    /// Leases partitions that are available, due and free (or whose lease has expired), by priority and age.
    /// Each grant raises epoch and version; taking over an expired lease raises `expiries`.
    async fn claim(&self, claim: &Claim) -> Result<Vec<Grant>>;

    /// Makes leases last `duration` from now. Runs on a connection of its own and never waits for a lock. The
    /// result has one entry for each lease, in order. Renews while lease id and epoch are current, whether or
    /// not `until` has passed and whatever the partition's status is; raises no version.
    async fn renew(&self, leases: &[Arc<Lease>], duration: Duration) -> Result<Vec<Renewal>>;

    /// Looks at partitions that the caller holds; one entry for each lease, in order.
    async fn observe(&self, leases: &[Arc<Lease>]) -> Result<Vec<Observed>>;

    /// Gives leases back, behind others that are due; those that are not current are left alone, and those whose
    /// row stays locked have to expire. Raises no version.
    async fn release(&self, leases: &[Arc<Lease>]) -> Result<()>;

    /// Notes that an item got through: `expiries` is 0 again, if the lease is current.
    async fn progressed(&self, lease: &Lease) -> Result<()>;

    // --- the way of an item ---

    /// Reads due items (available, `available_at` reached, at or below the partition's gate) in the order
    /// gate, priority descending, available_at, id. One page for each request, in order; none for a
    /// partition whose lease is not current or which is not available. The cost grows neither with
    /// finished items nor with delayed ones.
    async fn page(&self, requests: &[PageRequest]) -> Result<Vec<Page>>;

    /// Loads the data of one item, if it still has this version; from the blob store, if it lies there.
    async fn load(&self, partition: &str, item: &str, version: i64) -> Result<Option<Data>>;

    /// Reads what is gathered, a page at a time, in order of id. `NotFound` without the partition.
    async fn gathered(&self, request: &GatherRequest) -> Result<GatheredPage>;

    /// Notes, fenced, that an item is about to be delivered in suspect mode: `suspect_count` and version
    /// rise. Returns the new version, or `None` when fenced or stale.
    async fn begin_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<Option<i64>>;

    /// Takes back what [`Store::begin_suspect`] noted: the delivery was given up before it ended, and not by the watcher's
    /// death. Fenced; nothing happens unless the item has this version, which then rises.
    async fn withdraw_suspect(&self, lease: &Lease, item: &str, version: i64) -> Result<()>;

    /// Items that have waited for their callback for too long, at most `limit` over all partitions; one entry for each
    /// lease, in order, and none for a partition whose lease is not current or which is not available. Their outcomes,
    /// failed attempts, are written by [`Store::complete`]; once they are, a next call finds others. The cost does not
    /// grow with items that wait.
    async fn overdue(&self, leases: &[Arc<Lease>], limit: usize) -> Result<Vec<Vec<DueItem>>>;

    /// Writes outcomes in one transaction; one entry for each, in order. A completion is written if its lease
    /// is current (`until` does not matter: an unstolen lease's late answer is good work) and its item has
    /// the delivered version; then its children are added too, their missing partitions made (in the
    /// completion's feed), existing ids left alone. What it nests is made first: `Data` where such a partition exists or
    /// would be over [`crate::nested::DEPTH_MAX`] deep. Of partitions whose outcomes are written, items that wait for
    /// nested ones which have closed go on ([`crate::nested::settle`]). A second completion of the same version is `Stale`.
    /// A partition whose row somebody has locked is `Busy` and holds up no other; `Locked` means that another
    /// lock (an item's, that of a child's partition) could not be had in a moment; nothing of the batch was written.
    /// `Data` means that an input is refused and nothing of the batch was written; callers split it.
    async fn complete(&self, completions: &[Completion]) -> Result<Vec<Settled>>;

    /// Lets partitions with nothing in flight take their next step ([`crate::checkpoint::decide`]); one entry
    /// for each lease, in order. Before that, items that wait for nested partitions which have closed go on. A nested
    /// partition that closes wakes its parent, without waiting for it. Never waits for a lock.
    async fn checkpoint(&self, leases: &[Arc<Lease>], hold: Duration) -> Result<Vec<Checkpointed>>;

    /// Hints that something may have become due in these feeds.
    async fn wakeups(&self, feeds: &[String]) -> Box<dyn Wakeups>;

    // --- blobs ---

    /// Puts what is too large for a row into the blob store, if there is one, and gives back what rows are to have. For
    /// whoever writes data otherwise than by a push, before the transaction. `Data` where data from outside pretends to be
    /// a reference.
    async fn offload(&self, data: Vec<Data>) -> Result<Vec<Data>> {
        Ok(data)
    }

    /// The blob store; `None`: there is none.
    fn blobs(&self) -> Option<Arc<dyn Blobs>> {
        None
    }

    /// This database's part of a blob store.
    async fn blob_space(&self) -> Result<Space>;

    /// Which of these blobs' paths a row refers to: an item's, or one that is kept for a rewind.
    async fn referred_to(&self, paths: &[String]) -> Result<Vec<String>>;

    // --- watchers among each other ---

    /// Notes that a watcher is alive and what it does: one row for each of its feeds. Rows of watchers that have
    /// not been heard of for [`crate::watcher::FORGOTTEN_AFTER`] go. Wakes nobody.
    async fn report(&self, report: &Report) -> Result<()>;

    /// Takes a watcher's rows away: it has stopped. Unknown ones are fine.
    async fn farewell(&self, watcher: &str) -> Result<()>;

    /// Asks those that hold partitions of these feeds to hand some over: this watcher has room and has found nothing to
    /// claim. Counts for [`crate::watcher::ASKS_FOR`]. Writes nothing unless somebody else holds one that is due, or
    /// before the watcher's first report. Wakes nobody.
    async fn ask(&self, watcher: &str, feeds: &[String]) -> Result<()>;

    /// How many other watchers ask for partitions, by feed: of these feeds, those for which any does.
    async fn asked(&self, watcher: &str, feeds: &[String]) -> Result<Vec<(String, usize)>>;

    /// The other watchers that are alive ([`crate::watcher::ALIVE_FOR`]) and serve some of these feeds, for whoever splits
    /// limits with them. Its cost grows with watchers alone.
    async fn peers(&self, watcher: &str, feeds: &[String]) -> Result<Peers>;

    // --- acting from outside; each is safe while a watcher holds the lease ---

    /// Begins a push into a partition, which is made if it is missing (an existing one is left as it is). The
    /// transaction may stay open while the caller fetches the next items: on SQLite that keeps every other writer
    /// out, on Postgres it only keeps this partition from going idle, closing or failing, and other such pushes
    /// into it waiting; `Locked` says that another one was open for too long.
    async fn begin_push(&self, partition: &NewPartition) -> Result<Box<dyn Push>>;

    /// Adds items, and their partition if it is missing, in one transaction; as [`Store::begin_push`], but safe to
    /// do several times at once with the same ids.
    async fn push(&self, partition: &NewPartition, items: &[NewItem]) -> Result<Pushed> {
        let mut push = self.begin_push(partition).await?;
        push.add(items).await?;
        push.commit().await
    }

    /// As [`Store::push`], of a request that may come again: what it came to is kept in the same transaction, for
    /// [`crate::request::KEPT`] at least unless the partition is deleted. The same request again adds nothing, whatever
    /// has become of the partition, also when both come at the same time; another one with its key adds nothing either.
    async fn push_request(
        &self,
        partition: &NewPartition,
        items: &[NewItem],
        request: &Request,
    ) -> Result<Answered>;

    /// How a request of [`Store::push_request`] was answered, if one with its key came before; `None`: not yet, or its
    /// partition is none to its caller. Writes nothing.
    async fn answered(&self, partition: &NewPartition, request: &Request) -> Result<Option<Answered>>;

    /// Adds items of any number of partitions in one transaction, making partitions that are missing, for callers that
    /// wait together; one entry for each, in order. `Data` means that one of them is refused and nothing was written;
    /// callers split them. `Conflict` and `Locked` mean that nothing was written and the same again may work. Wakes
    /// watchers, soon after it has returned. `NotFound` as `Data`: the partition of one of them is not its caller's.
    async fn ingest(&self, arrivals: &[Arrival]) -> Result<Vec<Arrived>>;

    /// Does what an operator asks for. With a `version`, only if the partition is at that one, which is looked at in the
    /// same transaction: `Changed` otherwise. What each action does, and when it errs, the methods below say.
    async fn act(&self, partition: &str, version: Option<i64>, action: &Action) -> Result<Acted>;

    /// Makes failed items available again (pass + 1, no retries used, due now) and reopens a failed or
    /// complete partition. Returns how many. `NotFound` without the partition or the item named; `Refused`
    /// where the partition is cancelled.
    async fn retry(&self, partition: &str, filter: &RetryFilter) -> Result<u64> {
        Ok(self.act(partition, None, &Action::Retry(filter.clone())).await?.items)
    }

    /// `manual_checkpoint` off, `auto_close` on. `NotFound` without the partition. Twice is once.
    async fn seal(&self, partition: &str) -> Result<()> {
        self.act(partition, None, &Action::Seal).await.map(drop)
    }

    /// Raises the gate by hand to the lowest open one and returns that. `Refused`, saying why, while an item
    /// at or below the gate is open, past a failed item under 'stop', or when nothing is open above it.
    async fn advance(&self, partition: &str) -> Result<i32> {
        Ok(self.act(partition, None, &Action::Advance).await?.gate)
    }

    /// Sets a partition aside: its owner keeps the lease, sends nothing more within half a second, lets what is in flight
    /// end, and then gives it back. Twice is once. `Refused` for one that has ended ([`crate::acting::pause`]).
    async fn pause(&self, partition: &str) -> Result<()> {
        self.act(partition, None, &Action::Pause).await.map(drop)
    }

    /// Lets a paused partition go on, and one that has failed with open items at or below its gate, as after a
    /// deadline, which starts anew. `Refused` for others ([`crate::acting::resume`]).
    async fn resume(&self, partition: &str) -> Result<()> {
        self.act(partition, None, &Action::Resume).await.map(drop)
    }

    /// Ends a partition: its open items are cancelled, the epoch rises and nobody owns it, so that what is in flight is
    /// aborted and its late answers are fenced. Inserts are refused from then on (`Cancelled`). Returns how many items were
    /// cancelled, those of the partitions that it has nested, and that those have, included. Twice is once, but for items
    /// that a transaction, open during the first, has committed since. `Refused` for a complete partition
    /// ([`crate::acting::cancel`]).
    async fn cancel(&self, partition: &str) -> Result<u64> {
        Ok(self.act(partition, None, &Action::Cancel).await?.items)
    }

    /// Goes back to a gate that was reached, in a partition with `keep_history`. Its items at that gate or beyond it, but
    /// for cancelled ones, are available again (pass + 1, no retries used) at the lowest gate from there on that they
    /// have come to, with the data they last came there with; those that answers at or beyond the gate have made are
    /// removed, and partitions that they have nested are cancelled. The epoch rises and nobody owns the partition; a failed
    /// or complete one is open again, a paused one stays paused. `Refused`, saying why, by [`crate::acting::rewind`].
    async fn rewind(&self, partition: &str, gate: i32) -> Result<Rewound> {
        let Acted { items, removed, .. } = self.act(partition, None, &Action::Rewind(gate)).await?;
        Ok(Rewound { items, removed })
    }

    // --- who may use the API ---

    /// Adds a token. `Data` where the id is taken, `Refused` where [`crate::token::HOLDING_MAX`] hold already. Of those that
    /// hold no more, all but the newest [`crate::token::ENDED_MAX`] are forgotten.
    async fn add_token(&self, token: &NewToken) -> Result<()>;

    /// All tokens, revoked and expired ones too, in order of id; at most [`crate::token::TOKENS_MAX`].
    async fn tokens(&self) -> Result<Vec<Token>>;

    /// Revokes a token; twice is once. `NotFound` without it.
    async fn revoke_token(&self, id: &str) -> Result<()>;

    // --- callbacks; any process may take them, whoever holds the lease ---

    /// The key that signs the tokens of this database. It is made with the first call, and stays.
    async fn callback_key(&self) -> Result<Key>;

    /// Writes the outcome of an attempt that somebody else has delivered, with all that [`Store::complete`] writes with
    /// one, and wakes its partition; or says why not, by [`crate::callback::judge`]. Needs no lease: the partition's row is
    /// locked, and the version decides. `Data` means that an input is refused, `Locked` that a lock could not be
    /// had in a moment; either way nothing was written and the token is as good as before.
    async fn call_back(&self, callback: &Callback) -> Result<CalledBack>;

    /// Lets an item that waits wait for the ticket's timeout from now on, if that is longer. Raises no version.
    async fn heartbeat(&self, ticket: &Ticket) -> Result<Heartbeat>;

    // --- looking ---

    /// The feeds, in order of name.
    async fn status(&self) -> Result<Vec<FeedStatus>>;

    /// Partitions, in order of id.
    async fn partitions(&self, filter: &PartitionFilter) -> Result<Vec<PartitionRow>>;

    /// One partition, if there is one of this id.
    async fn partition(&self, id: &str) -> Result<Option<PartitionRow>> {
        let filter = PartitionFilter { id: Some(id.to_owned()), limit: 1, ..PartitionFilter::default() };
        Ok(self.partitions(&filter).await?.pop())
    }

    /// Items of a partition, in order of id. `NotFound` without the partition.
    async fn items(&self, filter: &ItemFilter) -> Result<Vec<ItemRow>>;

    /// The gates of a partition that have items, in order, with their items by status. Counts all of the
    /// partition's items, finished ones too: for people who wait, not for watchers. `NotFound` without the
    /// partition.
    async fn gates(&self, partition: &str) -> Result<Vec<GateCounts>>;

    /// What [`crate::why::explain`] wants to know of a partition, and of one of its items. Its cost grows with neither
    /// open nor finished items. `NotFound` without the partition or the item.
    async fn why(&self, partition: &str, item: Option<&str>) -> Result<Facts>;

    /// A partition, if there is one of this id, without counting anything.
    async fn glance(&self, partition: &str) -> Result<Option<Glance>>;

    /// Whether each of these has ended, in order: partitions that have closed, items that are not open, and what is not there.
    /// For everybody at once who waits.
    async fn ended(&self, awaited: &[Awaited]) -> Result<Vec<bool>>;

    /// How many available items a feed's available partitions have, counted up to `limit`.
    async fn backlog(&self, feed: &str, limit: u64) -> Result<u64>;

    /// Hints that this partition may have closed (or been reopened, or changed in another way).
    async fn changes(&self, partition: &str) -> Box<dyn Wakeups>;

    /// Ends all connections; no call may follow. For programs that end: SQLite then tidies up the files
    /// beside the database's.
    async fn close(&self);

    /// Whether anything that a watcher could deliver is left in these feeds: leased elsewhere, delayed and
    /// waiting items count; paused, held and failed partitions do not.
    async fn idleness(&self, feeds: &[String]) -> Result<Idleness>;
}
