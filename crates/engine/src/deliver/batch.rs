//! Delivering several items of a partition and gate at once.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use gatefeed_core::{
    answer::{Failure, Verdict},
    item::DueItem,
};
use tokio::time::{Instant, timeout_at};

use super::{Sender, Skip};
use crate::{
    board::{Origin, Turn},
    clock,
    policy::Batch,
    processor::{Delivery, Processor},
};

/// What became of one of the items.
type Attempt = Result<Verdict, Skip>;

impl<P: Processor> Sender<P> {
    /// Delivers a batch, after it has waited for more where that makes sense. Each item has an outcome of its own.
    pub(super) async fn deliver_batch(&self, mut turn: Turn, batch: Batch) {
        self.linger(&mut turn, batch).await;
        let Turn { origin, item, mut more, .. } = turn;
        more.insert(0, item);
        let mut items = more;
        let cancel = origin.cancel.clone();
        let attempts = cancel.run_until_cancelled(self.attempt_all(&origin, &mut items)).await;
        let attempts =
            attempts.unwrap_or_else(|| items.iter().map(|_| Err(Skip::GiveUp)).collect::<Vec<Attempt>>());
        for (item, attempt) in items.into_iter().zip(attempts) {
            self.end(&origin, item, attempt);
        }
        // So much room has come free that others may begin too, beside the next of this task.
        self.context.send_bell.notify_one();
    }

    /// Waits until the batch is full, its partition has nothing more to give, or its time is up.
    async fn linger(&self, turn: &mut Turn, batch: Batch) {
        let until = Instant::now() + batch.linger;
        while turn.may_grow && Instant::now() < until {
            let grown = self.context.grow_bell.notified();
            self.context.board().grow(turn);
            if turn.may_grow {
                let grown = turn.origin.cancel.run_until_cancelled(grown);
                _ = timeout_at(until, self.context.stop.run_until_cancelled(grown)).await;
            }
            if turn.origin.cancel.is_cancelled() || self.context.stop.is_cancelled() {
                return;
            }
        }
    }

    /// Attempts all of them, in one delivery; what cannot be prepared is left out of it.
    async fn attempt_all(&self, origin: &Origin, items: &mut [DueItem]) -> Vec<Attempt> {
        let mut items: Vec<&mut DueItem> = items.iter_mut().collect();
        let _large = match self.large_share(&items).await {
            Ok(share) => share,
            Err(_) => return items.iter().map(|_| Err(Skip::GiveUp)).collect(),
        };
        let mut attempts: Vec<Attempt> = Vec::with_capacity(items.len());
        let (mut deliveries, mut places) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for item in &mut items {
            match self.prepare(origin, item).await {
                Ok(delivery) => {
                    places.push(attempts.len());
                    deliveries.push(delivery);
                    // In the place of what will be known later.
                    attempts.push(Err(Skip::GiveUp));
                }
                Err(skip) => attempts.push(Err(skip)),
            }
        }
        if deliveries.is_empty() || !origin.trusted_until.holds(clock::now()) {
            return attempts;
        }
        for (place, verdict) in places.into_iter().zip(self.process_all(deliveries).await) {
            attempts[place] = Ok(verdict);
        }
        attempts
    }

    /// As many verdicts as there are deliveries.
    async fn process_all(&self, deliveries: Vec<Delivery>) -> Vec<Verdict> {
        let count = deliveries.len();
        let work = AssertUnwindSafe(async { self.processor.process_batch(deliveries).await }).catch_unwind();
        let began = self.context.gauge.begin();
        let (mut verdicts, problem) = match work.await {
            Ok(verdicts) => (verdicts, "the processor has no verdict for this item of a batch"),
            Err(_) => (Vec::new(), "the processor panicked"),
        };
        verdicts.resize_with(count, || Err(Failure::new(problem)));
        verdicts.iter().for_each(|verdict| self.context.gauge.end(began, verdict));
        verdicts
    }
}
