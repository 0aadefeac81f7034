//! Delivering: takes items by turns, hands each to the processor, and sends the outcome on. A task that has delivered one
//! goes on with the next that may be sent: while there is work none is started or woken for an item.

mod batch;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use gatefeed_core::{
    StoreError,
    answer::{Answer, Failure, Verdict},
    blob::{Link, check_not_reserved},
    item::{self, Data, DueItem},
    outcome::{Completion, Kept, decide},
    retry::RetryPolicy,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    board::{Origin, Turn},
    clock,
    context::{Backoff, Context, jittered},
    gathering::Gathering,
    outcome::Outcome,
    processor::{Delivery, Processor},
    tasks,
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
    let mut deliveries = JoinSet::new();
    while let Some(turn) = sender.next().await {
        let sender = sender.clone();
        deliveries.spawn(async move { sender.deliver_from(turn).await });
        tasks::reap(&mut deliveries);
    }
    tasks::finish(&mut deliveries).await;
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
    /// The database or the blob store did not answer, or this process lacks a setting: later.
    PutBack(StoreError),
    /// It cannot be delivered: a failed attempt.
    Refuse(Failure),
}

impl<P: Processor> Sender<P> {
    /// The next item that may be sent, within the budget of the board; `None`: stop.
    async fn next(&self) -> Option<Turn> {
        let turn = async {
            loop {
                // Made before the look, so that no change falls in between.
                let changed = self.processor.readiness_changed();
                let turn = self.context.next_turn_of_all();
                if let Some(turn) = turn {
                    return turn;
                }
                tokio::select! {
                    () = self.context.send_bell.notified() => {}
                    // What has become due meanwhile was not claimed.
                    () = changed => self.context.room_bell.notify_one(),
                }
            }
        };
        tokio::select! {
            biased;
            () = self.context.stop.cancelled() => None,
            turn = turn => Some(turn),
        }
    }

    /// Delivers this one, and whatever may be sent after it without waiting.
    async fn deliver_from(&self, first: Turn) {
        let mut next = Some(first);
        while let Some(turn) = next {
            if turn.is_low {
                self.context.page_bell.notify_one();
            }
            match turn.batch {
                Some(batch) => self.deliver_batch(turn, batch).await,
                None => self.deliver(turn.origin, turn.item).await,
            }
            // A processor that never waits would keep everything else from its thread.
            tokio::task::coop::consume_budget().await;
            next = self.next_now();
        }
        // What it leaves free, others may use.
        self.context.send_bell.notify_one();
    }

    fn next_now(&self) -> Option<Turn> {
        if self.context.stop.is_cancelled() {
            return None;
        }
        self.context.board().next_turn(clock::now())
    }

    async fn deliver(&self, origin: Origin, mut item: DueItem) {
        let cancel = origin.cancel.clone();
        let version = item.version;
        let attempt = cancel.run_until_cancelled(self.attempt(&origin, &mut item)).await;
        let attempt = attempt.unwrap_or(Err(Skip::GiveUp));
        self.withdraw(&origin, &item, version, &attempt).await;
        self.end(&origin, item, attempt);
    }

    /// Takes the note of [`Self::note_suspect`] back, which has raised the item's version: the delivery was not sent, or broken
    /// off by a clean stop, and nobody died of it. Of a lease that was lost it stays; so it does where the stop came
    /// while it was on its way.
    async fn withdraw(&self, origin: &Origin, item: &DueItem, version: i64, attempt: &Result<Verdict, Skip>) {
        if !matches!(attempt, Err(Skip::GiveUp)) || item.version == version {
            return;
        }
        let lease = &origin.lease;
        if let Err(error) = self.context.store.withdraw_suspect(lease, &item.id, item.version).await {
            let partition = &lease.partition;
            tracing::debug!(%partition, %error, "could not take back the note of an attempt");
        }
    }

    /// Takes note of what became of an item.
    fn end(&self, origin: &Origin, item: DueItem, attempt: Result<Verdict, Skip>) {
        match attempt {
            Ok(verdict) => self.answer(origin, item, verdict),
            Err(Skip::Refuse(failure)) => self.answer(origin, item, Err(failure)),
            Err(Skip::GiveUp) => {
                let mut board = self.context.board();
                board.left_lane(&origin.feed, item.gate);
                board.given_up(&origin.lease, &item.id);
                drop(board);
                self.context.ring();
            }
            Err(Skip::PutBack(error)) => {
                let partition = &origin.lease.partition;
                tracing::warn!(%partition, %error, "could not prepare a delivery; trying again");
                let mut board = self.context.board();
                board.left_lane(&origin.feed, item.gate);
                board.put_back(&origin.lease, &item.id, jittered(REST));
                drop(board);
                self.context.ring();
            }
        }
    }

    async fn attempt(&self, origin: &Origin, item: &mut DueItem) -> Result<Verdict, Skip> {
        let link = self.link(origin, item).await?;
        let _large = match link {
            Some(_) => None,
            None => self.large_share(&[item]).await?,
        };
        let delivery = self.prepare(origin, item, link).await?;
        if !origin.trusted_until.holds(clock::now()) {
            return Err(Skip::GiveUp);
        }
        // In a block of its own, since a closure may panic before it returns its future.
        let work = AssertUnwindSafe(async { self.processor.process(delivery).await }).catch_unwind();
        let began = self.context.gauge.begin();
        let verdict = work.await.unwrap_or_else(|_| Err(Failure::new("the processor panicked")));
        self.context.gauge.end(began, &verdict);
        self.offload(verdict).await
    }

    /// Large data of an answer goes to the blob store here, where it holds up nobody else's outcome.
    async fn offload(&self, verdict: Verdict) -> Result<Verdict, Skip> {
        let Ok(mut answer) = verdict else { return Ok(verdict) };
        if self.is_for_the_row(&mut answer) {
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

    fn is_for_the_row(&self, answer: &mut Answer) -> bool {
        let fits = |data: &mut Data| data.bytes.len() as u64 <= self.inline_max;
        answer.data_mut().all(|data| fits(data) && check_not_reserved(&data.content_type).is_ok())
    }

    /// The share that large data has to have of the memory for such: of all that these items will load.
    async fn large_share(&self, items: &[&mut DueItem]) -> Result<Option<OwnedSemaphorePermit>, Skip> {
        let max = self.context.settings.max_payload;
        let is_large = |item: &&&mut DueItem| item.data.is_none() && item.size <= max;
        let kib: u64 = items.iter().filter(is_large).map(|item| item.size / 1024 + 1).sum();
        if kib == 0 {
            return Ok(None);
        }
        let kib = kib.min(LARGE_KIB_MAX as u64) as u32;
        self.large.clone().acquire_many_owned(kib).await.map(Some).map_err(|_| Skip::GiveUp)
    }

    /// What is handed over of an item, with a link to its data or the data itself.
    async fn prepare(
        &self,
        origin: &Origin,
        item: &mut DueItem,
        link: Option<Link>,
    ) -> Result<Delivery, Skip> {
        let data = if link.is_some() { Bytes::new() } else { self.data(origin, item).await? };
        // What is referred to is kept by its reference.
        let kept = if item.reference.is_some() { Bytes::new() } else { data.clone() };
        item.data = origin.keep_history.then_some(kept);
        // Looked at before the note too, so that what is not sent is not noted, as a rule.
        if origin.suspect && origin.trusted_until.holds(clock::now()) {
            self.note_suspect(origin, item).await?;
        }
        let retry = self.context.settings.policies.retry(&origin.feed, item.gate);
        let mut delivery = delivery(origin, item, data, retry);
        delivery.link = link;
        let gathering =
            |gather| Gathering::new(self.context.store.clone(), origin.lease.partition.clone(), gather);
        delivery.gathering = item.gather.map(gathering);
        Ok(delivery)
    }

    async fn data(&self, origin: &Origin, item: &mut DueItem) -> Result<Bytes, Skip> {
        let (size, max) = (item.size, self.context.settings.max_payload);
        if size > max {
            let message = format!("the data has {size} bytes, more than --max-payload allows ({max})");
            return Err(Skip::Refuse(Failure::final_(message)));
        }
        if let Some(data) = item.data.take() {
            return Ok(data);
        }
        match self.context.store.load(&origin.lease.partition, &item.id, item.version).await {
            Ok(Some(data)) => {
                item.content_type = item::content_type(&data.content_type);
                Ok(data.bytes)
            }
            Ok(None) => Err(Skip::GiveUp),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// If its data lies in the blob store, and handlers are to fetch it there. What is made of a blob, or joined with what
    /// came before, is sent whole.
    async fn link(&self, origin: &Origin, item: &DueItem) -> Result<Option<Link>, Skip> {
        let is_wanted = self.context.settings.policies.blob_links(&origin.feed, item.gate);
        let reference = item.reference.as_deref().filter(|reference| reference.is_whole());
        let reference = reference.filter(|_| is_wanted && item.gather.is_none());
        let (Some(reference), Some(blobs)) = (reference, self.context.store.blobs()) else { return Ok(None) };
        blobs.link(reference).await.map(Some).map_err(unreadable)
    }

    /// Writes the attempt down before it is sent. An item that has done this too often is what kills watchers.
    async fn note_suspect(&self, origin: &Origin, item: &mut DueItem) -> Result<(), Skip> {
        let policy = self.context.settings.policies.retry(&origin.feed, item.gate);
        if item.suspect_count >= policy.suspect_deliveries_max() {
            return Err(Skip::Refuse(Failure::final_(format!(
                "its watcher died {} times while this item was the only one being delivered",
                item.suspect_count
            ))));
        }
        match self.context.store.begin_suspect(&origin.lease, &item.id, item.version).await {
            Ok(Some(version)) => {
                item.version = version;
                Ok(())
            }
            Ok(None) => Err(Skip::GiveUp),
            Err(error) => Err(Skip::PutBack(error)),
        }
    }

    fn answer(&self, origin: &Origin, mut item: DueItem, verdict: Verdict) {
        let gate = item.gate;
        if let Err(failure) = &verdict {
            let (partition, counted) = (&origin.lease.partition, failure.counted);
            tracing::debug!(%partition, item = %item.id, gate, counted, "attempt failed");
        }
        let policy = self.context.settings.policies.retry(&origin.feed, gate);
        let (change, children, nested) =
            decide(&origin.lease.partition, &item, verdict, policy, rand::random());
        let delivered = item.data.take().filter(|_| origin.keep_history);
        let kept = delivered.and_then(|data| Kept::of(&item, data, &change));
        let completion = Completion {
            lease: origin.lease.clone(),
            feed: origin.feed.clone(),
            item: item.id.clone(),
            version: item.version,
            change,
            children,
            nested,
            kept,
        };
        let outcome = Outcome::new(completion, item);
        let mut board = self.context.board();
        let is_awaited = board.left_lane(&origin.feed, gate);
        let is_urgent = board.answered(&origin.lease, outcome.bytes);
        drop(board);
        if is_awaited {
            self.context.send_bell.notify_one();
        }
        // The receiver outlives the deliveries but for a watcher that is being dropped.
        _ = self.outcomes.send(outcome);
        if is_urgent {
            self.context.write_bell.notify_one();
        }
    }
}

/// An item's data cannot be read.
fn unreadable(error: StoreError) -> Skip {
    match error.is_waited_for() {
        true => Skip::PutBack(error),
        false => Skip::Refuse(Failure::new(error.to_string())),
    }
}

fn delivery(origin: &Origin, item: &DueItem, data: Bytes, retry: &RetryPolicy) -> Delivery {
    Delivery {
        feed: origin.feed.clone(),
        partition: origin.lease.partition.clone(),
        item: item.id.clone(),
        gate: item.gate,
        pass: item.pass,
        attempt: item.retry_count.unsigned_abs().saturating_add(1),
        epoch: origin.lease.epoch,
        content_type: item.content_type.clone(),
        data,
        version: item.version,
        born: item.born,
        retry: retry.clone(),
        link: None,
        gathering: None,
    }
}
