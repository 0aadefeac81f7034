//! Delivering: takes items by turns, hands each to the processor, and sends the outcome on. A task that has delivered one
//! goes on with the next that may be sent: while there is work none is started or woken for an item.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use gatefeed_core::{
    StoreError,
    answer::{Answer, Failure, Verdict},
    blob::{Link, check_not_reserved},
    item::{self, Data, DueItem},
    outcome::{Completion, Kept, decide},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    board::Turn,
    clock,
    context::{Backoff, Context, jittered},
    gathering::Gathering,
    outcome::Outcome,
    processor::{Delivery, Processor},
};

/// Bytes of large items that are in memory at a time, in KiB; smaller ones come with their pages.
const LARGE_KIB_MAX: usize = 256 * 1024;

/// How long a partition rests whose items could not be prepared.
const REST: Duration = Duration::from_secs(1);

/// How often the blob store is asked to take an answer's data; then its item is delivered again later.
const OFFLOAD_TRIES: u32 = 5;

/// Delivers until told to stop, then waits for what is in flight, until `context.abort`.
pub(crate) async fn run<P: Processor>(
    context: Arc<Context>,
    processor: Arc<P>,
    outcomes: mpsc::UnboundedSender<Outcome>,
) {
    let large = Arc::new(Semaphore::new(LARGE_KIB_MAX));
    let inline_max = context.store.blobs().map_or(u64::MAX, |blobs| blobs.inline_max());
    let sender = Arc::new(Sender { context, processor, outcomes, large, inline_max });
    let slots = Arc::new(Semaphore::new(sender.context.settings.concurrency));
    let mut deliveries = JoinSet::new();
    while let Some((slot, turn)) = sender.next(&slots).await {
        let sender = sender.clone();
        deliveries.spawn(async move {
            sender.deliver_from(turn).await;
            drop(slot);
        });
        while deliveries.try_join_next().is_some() {}
    }
    while deliveries.join_next().await.is_some() {}
}

/// What a delivery brings.
struct Loaded {
    data: Bytes,
    link: Option<Link>,
    large: Option<OwnedSemaphorePermit>,
}

struct Sender<P> {
    context: Arc<Context>,
    processor: Arc<P>,
    outcomes: mpsc::UnboundedSender<Outcome>,
    large: Arc<Semaphore>,
    /// Data of answers with more bytes than this goes to the blob store.
    inline_max: u64,
}

/// Why a delivery did not take place.
enum Skip {
    /// The lease, the item or this watcher's time is up: the database has the item as it is.
    GiveUp,
    /// The database did not answer: later.
    PutBack(StoreError),
    /// It cannot be delivered at all.
    Refuse(Failure),
}

impl<P: Processor> Sender<P> {
    /// A free slot and an item for it; `None`: stop.
    async fn next(&self, slots: &Arc<Semaphore>) -> Option<(OwnedSemaphorePermit, Turn)> {
        let turn = async {
            let slot = slots.clone().acquire_owned().await.ok()?;
            loop {
                self.processor.ready().await;
                let turn = self.context.board().next_turn(clock::now());
                match turn {
                    Some(turn) => return Some((slot, turn)),
                    None => self.context.send_bell.notified().await,
                }
            }
        };
        tokio::select! {
            biased;
            () = self.context.stop.cancelled() => None,
            turn = turn => turn,
        }
    }

    /// Delivers this one, and whatever may be sent after it without waiting.
    async fn deliver_from(&self, first: Turn) {
        let mut next = Some(first);
        while let Some(turn) = next {
            if turn.is_low {
                self.context.page_bell.notify_one();
            }
            self.deliver(turn).await;
            // A processor that never waits would keep everything else from its thread.
            tokio::task::coop::consume_budget().await;
            next = self.next_now();
        }
    }

    fn next_now(&self) -> Option<Turn> {
        if self.context.stop.is_cancelled() {
            return None;
        }
        self.processor.ready().now_or_never()?;
        self.context.board().next_turn(clock::now())
    }

    async fn deliver(&self, mut turn: Turn) {
        let cancel = turn.cancel.clone();
        let attempt = cancel.run_until_cancelled(self.attempt(&mut turn)).await.unwrap_or(Err(Skip::GiveUp));
        match attempt {
            Ok(verdict) => self.answer(turn, verdict),
            Err(Skip::Refuse(failure)) => self.answer(turn, Err(failure)),
            Err(Skip::GiveUp) => {
                self.context.board().given_up(&turn.lease, &turn.item.id);
                self.context.ring();
            }
            Err(Skip::PutBack(error)) => {
                let partition = &turn.lease.partition;
                tracing::warn!(%partition, %error, "could not prepare a delivery; trying again");
                self.context.board().put_back(&turn.lease, &turn.item.id, jittered(REST));
                self.context.ring();
            }
        }
    }

    async fn attempt(&self, turn: &mut Turn) -> Result<Verdict, Skip> {
        let Loaded { data, link, large: _large } = self.data(turn).await?;
        // What is referred to is kept by its reference.
        let kept = if turn.item.reference.is_some() { Bytes::new() } else { data.clone() };
        turn.item.data = turn.keep_history.then_some(kept);
        if turn.suspect {
            self.note_suspect(turn).await?;
        }
        if !turn.trusted_until.holds(clock::now()) {
            return Err(Skip::GiveUp);
        }
        let mut delivery = delivery(turn, data, link);
        let gathering =
            |gather| Gathering::new(self.context.store.clone(), turn.lease.partition.clone(), gather);
        delivery.gathering = turn.item.gather.map(gathering);
        // In a block of its own, since a closure may panic before it returns its future.
        let work = AssertUnwindSafe(async { self.processor.process(delivery).await }).catch_unwind();
        match work.await.unwrap_or_else(|_| Err(Failure::new("the processor panicked"))) {
            Ok(answer) => self.offload(answer).await,
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// Large data of an answer goes to the blob store here, where it holds up nobody else's outcome.
    async fn offload(&self, mut answer: Answer) -> Result<Verdict, Skip> {
        let is_for_the_row = |data: &mut Data| {
            data.bytes.len() as u64 <= self.inline_max && check_not_reserved(&data.content_type).is_ok()
        };
        if answer.data_mut().all(is_for_the_row) {
            return Ok(Ok(answer));
        }
        let data: Vec<Data> = answer.data_mut().map(|data| data.clone()).collect();
        let mut backoff = Backoff::new(Duration::from_millis(100), REST);
        for tries_left in (0..OFFLOAD_TRIES).rev() {
            match self.context.store.offload(data.clone()).await {
                Ok(stored) => {
                    answer.data_mut().zip(stored).for_each(|(data, stored)| *data = stored);
                    return Ok(Ok(answer));
                }
                Err(error) if !error.is_retryable() => return Ok(Err(Failure::new(error.to_string()))),
                Err(error) if tries_left == 0 => return Err(Skip::PutBack(error)),
                Err(_) => backoff.pause().await,
            }
        }
        Err(Skip::GiveUp)
    }

    /// A link to the item's data, or the data and, if it is large, its share of the memory for such.
    async fn data(&self, turn: &mut Turn) -> Result<Loaded, Skip> {
        if let Some(link) = self.link(&turn.item).await? {
            return Ok(Loaded { data: Bytes::new(), link: Some(link), large: None });
        }
        let (size, max) = (turn.item.size, self.context.settings.max_payload);
        if size > max {
            let message = format!("the data has {size} bytes, more than --max-payload allows ({max})");
            return Err(Skip::Refuse(Failure::final_(message)));
        }
        if let Some(data) = turn.item.data.take() {
            return Ok(Loaded { data, link: None, large: None });
        }
        let kib = (size / 1024 + 1).min(LARGE_KIB_MAX as u64) as u32;
        let share = self.large.clone().acquire_many_owned(kib).await.map_err(|_| Skip::GiveUp)?;
        let loaded = self.context.store.load(&turn.lease.partition, &turn.item.id, turn.item.version).await;
        match loaded {
            Ok(Some(data)) => {
                turn.item.content_type = item::content_type(&data.content_type);
                Ok(Loaded { data: data.bytes, link: None, large: Some(share) })
            }
            Ok(None) => Err(Skip::GiveUp),
            Err(error @ StoreError::NotFound(_)) => Err(Skip::Refuse(Failure::new(error.to_string()))),
            Err(error) => Err(Skip::PutBack(error)),
        }
    }

    /// If its data lies in the blob store, and handlers are to fetch it there. What is made of a blob, or joined with what
    /// came before, is sent whole.
    async fn link(&self, item: &DueItem) -> Result<Option<Link>, Skip> {
        let reference = item.reference.as_deref().filter(|reference| reference.is_whole());
        let reference = reference.filter(|_| self.context.settings.blob_links && item.gather.is_none());
        let (Some(reference), Some(blobs)) = (reference, self.context.store.blobs()) else { return Ok(None) };
        blobs.link(reference).await.map(Some).map_err(Skip::PutBack)
    }

    /// Writes the attempt down before it is sent. An item that has done this too often is what kills watchers.
    async fn note_suspect(&self, turn: &mut Turn) -> Result<(), Skip> {
        let item = &mut turn.item;
        if item.suspect_count >= self.context.settings.retry.suspect_deliveries_max() {
            return Err(Skip::Refuse(Failure::final_(format!(
                "its watcher died {} times while this item was the only one being delivered",
                item.suspect_count
            ))));
        }
        match self.context.store.begin_suspect(&turn.lease, &item.id, item.version).await {
            Ok(Some(version)) => {
                item.version = version;
                Ok(())
            }
            Ok(None) => Err(Skip::GiveUp),
            Err(error) => Err(Skip::PutBack(error)),
        }
    }

    fn answer(&self, turn: Turn, verdict: Verdict) {
        if let Err(failure) = &verdict {
            let (partition, item) = (&turn.lease.partition, &turn.item.id);
            let (gate, counted) = (turn.item.gate, failure.counted);
            tracing::debug!(%partition, %item, gate, counted, "attempt failed");
        }
        let policy = &self.context.settings.retry;
        let (change, children, nested) = decide(&turn.lease, &turn.item, verdict, policy, rand::random());
        let Turn { lease, feed, mut item, keep_history, .. } = turn;
        let delivered = item.data.take().filter(|_| keep_history);
        let kept = delivered.and_then(|data| Kept::of(&item, data, &change));
        let completion = Completion {
            lease: lease.clone(),
            feed,
            item: item.id.clone(),
            version: item.version,
            change,
            children,
            nested,
            kept,
        };
        let outcome = Outcome::new(completion, item);
        let bytes = outcome.bytes;
        let is_urgent = self.context.board().answered(&lease, bytes);
        // The receiver outlives the deliveries but for a watcher that is being dropped.
        _ = self.outcomes.send(outcome);
        if is_urgent {
            self.context.write_bell.notify_one();
        }
    }
}

fn delivery(turn: &Turn, data: Bytes, link: Option<Link>) -> Delivery {
    let item = &turn.item;
    Delivery {
        feed: turn.feed.clone(),
        partition: turn.lease.partition.clone(),
        item: item.id.clone(),
        gate: item.gate,
        pass: item.pass,
        attempt: item.retry_count.unsigned_abs().saturating_add(1),
        epoch: turn.lease.epoch,
        content_type: item.content_type.clone(),
        data,
        link,
        gathering: None,
    }
}
