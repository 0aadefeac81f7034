//! Delivering: takes items by turns, hands each to the processor, and sends the outcome on. A task that has delivered one
//! goes on with the next that may be sent: while there is work none is started or woken for an item.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use gatefeed_core::{
    StoreError,
    answer::{Failure, Verdict},
    outcome::{Completion, Kept, decide},
    retry::RetryPolicy,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    board::Turn,
    clock,
    context::{Context, jittered},
    gathering::Gathering,
    outcome::Outcome,
    processor::{Delivery, Processor},
};

/// Bytes of large items that are in memory at a time, in KiB; smaller ones come with their pages.
const LARGE_KIB_MAX: usize = 256 * 1024;

/// How long a partition rests whose items could not be prepared.
const REST: Duration = Duration::from_secs(1);

/// Delivers until told to stop, then waits for what is in flight, until `context.abort`.
pub(crate) async fn run<P: Processor>(
    context: Arc<Context>,
    processor: Arc<P>,
    outcomes: mpsc::UnboundedSender<Outcome>,
) {
    let sender =
        Arc::new(Sender { context, processor, outcomes, large: Arc::new(Semaphore::new(LARGE_KIB_MAX)) });
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

struct Sender<P> {
    context: Arc<Context>,
    processor: Arc<P>,
    outcomes: mpsc::UnboundedSender<Outcome>,
    large: Arc<Semaphore>,
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
                self.withdraw(&turn).await;
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
        let (data, _large) = self.data(turn).await?;
        turn.item.data = turn.keep_history.then(|| data.clone());
        // Looked at before the note too, so that what is not sent is not noted, as a rule.
        if turn.suspect && turn.trusted_until.holds(clock::now()) {
            self.note_suspect(turn).await?;
        }
        if !turn.trusted_until.holds(clock::now()) {
            return Err(Skip::GiveUp);
        }
        let mut delivery = delivery(turn, data, &self.context.settings.retry);
        let gathering =
            |gather| Gathering::new(self.context.store.clone(), turn.lease.partition.clone(), gather);
        delivery.gathering = turn.item.gather.map(gathering);
        // In a block of its own, since a closure may panic before it returns its future.
        let work = AssertUnwindSafe(async { self.processor.process(delivery).await }).catch_unwind();
        Ok(work.await.unwrap_or_else(|_| Err(Failure::new("the processor panicked"))))
    }

    /// The item's data, and, for large data, its share of the memory for such.
    async fn data(&self, turn: &mut Turn) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Skip> {
        let (size, max) = (turn.item.size, self.context.settings.max_payload);
        if size > max {
            let message = format!("the data has {size} bytes, more than --max-payload allows ({max})");
            return Err(Skip::Refuse(Failure::final_(message)));
        }
        if let Some(data) = turn.item.data.take() {
            return Ok((data, None));
        }
        let kib = (size / 1024 + 1).min(LARGE_KIB_MAX as u64) as u32;
        let share = self.large.clone().acquire_many_owned(kib).await.map_err(|_| Skip::GiveUp)?;
        let loaded = self.context.store.load(&turn.lease.partition, &turn.item.id, turn.item.version).await;
        match loaded {
            Ok(Some(data)) => Ok((data, Some(share))),
            Ok(None) => Err(Skip::GiveUp),
            Err(error) => Err(Skip::PutBack(error)),
        }
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
                turn.is_noted = true;
                Ok(())
            }
            Ok(None) => Err(Skip::GiveUp),
            Err(error) => Err(Skip::PutBack(error)),
        }
    }

    /// Takes the note back: the delivery was not sent, or broken off by a clean stop, and nobody died of it. Of a lease
    /// that was lost it stays; so it does where the stop came while it was on its way.
    async fn withdraw(&self, turn: &Turn) {
        if !turn.is_noted {
            return;
        }
        let (lease, item) = (&turn.lease, &turn.item);
        if let Err(error) = self.context.store.withdraw_suspect(lease, &item.id, item.version).await {
            let partition = &lease.partition;
            tracing::debug!(%partition, %error, "could not take back the note of an attempt");
        }
    }

    fn answer(&self, turn: Turn, verdict: Verdict) {
        if let Err(failure) = &verdict {
            let (partition, item) = (&turn.lease.partition, &turn.item.id);
            let (gate, counted) = (turn.item.gate, failure.counted);
            tracing::debug!(%partition, %item, gate, counted, "attempt failed");
        }
        let policy = &self.context.settings.retry;
        let (change, children, nested) =
            decide(&turn.lease.partition, &turn.item, verdict, policy, rand::random());
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

fn delivery(turn: &Turn, data: Bytes, retry: &RetryPolicy) -> Delivery {
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
        version: item.version,
        born: item.born,
        retry: retry.clone(),
        gathering: None,
    }
}
