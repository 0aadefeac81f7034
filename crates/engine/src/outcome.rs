//! Outcomes: gathered for some milliseconds and written by one task, one statement for many items.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    StoreError,
    answer::Failure,
    item::DueItem,
    outcome::{Completion, Settled, decide},
};
use tokio::{sync::mpsc, time::Instant};

use crate::context::{Backoff, Context};

/// The most outcomes of one batch …
const BATCH_MAX: usize = 1000;
/// … and the most bytes.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a batch waits to fill.
const LINGER: Duration = Duration::from_millis(3);

/// A completion on its way, and what is needed to decide again if the database refuses it.
pub(crate) struct Outcome {
    completion: Completion,
    item: DueItem,
    /// What it takes in memory, about.
    pub(crate) bytes: usize,
}

impl Outcome {
    pub(crate) fn new(completion: Completion, item: DueItem) -> Self {
        let data = completion.change.data.as_ref().map_or(0, |data| data.bytes.len());
        let children: usize = completion.children.iter().map(|c| c.data.bytes.len() + 256).sum();
        Self { completion, item, bytes: data + children + 512 }
    }

    /// The lowest gate of its partition at which it makes something due at once.
    fn due_gate(&self) -> Option<i32> {
        let Completion { change, children, lease, .. } = &self.completion;
        let again = change.status.is_open() && change.delay.is_none_or(|delay| delay.is_zero());
        let own =
            children.iter().filter(|child| *child.partition == *lease.partition).map(|child| child.gate);
        own.chain(again.then_some(change.gate)).min()
    }
}

/// Writes until the last sender is gone and everything is written.
pub(crate) async fn run(context: Arc<Context>, mut outcomes: mpsc::UnboundedReceiver<Outcome>) {
    let mut waiting = None;
    while let Some(batch) = gather(&context, &mut outcomes, &mut waiting).await {
        write(&context, batch).await;
        context.ring();
    }
}

/// The next batch; `None`: no more will come. `waiting` is what did not fit into the one before.
async fn gather(
    context: &Context,
    outcomes: &mut mpsc::UnboundedReceiver<Outcome>,
    waiting: &mut Option<Outcome>,
) -> Option<Vec<Outcome>> {
    let first = match waiting.take() {
        Some(first) => first,
        None => outcomes.recv().await?,
    };
    let mut bytes = first.bytes;
    let mut batch = vec![first];
    let full_at = Instant::now() + LINGER;
    while batch.len() < BATCH_MAX {
        let next = match outcomes.try_recv() {
            Ok(next) => Some(next),
            // Nothing else is under way: lingering would wait for nothing.
            Err(_) if context.board().in_flight() == 0 => outcomes.try_recv().ok(),
            Err(_) => tokio::time::timeout_at(full_at, outcomes.recv()).await.ok().flatten(),
        };
        let Some(next) = next else { break };
        bytes += next.bytes;
        if bytes > BATCH_BYTES_MAX {
            *waiting = Some(next);
            break;
        }
        batch.push(next);
    }
    Some(batch)
}

/// Writes a batch, however long it takes: an outcome is work that was done. Input that the database refuses is
/// found by halving, so that only the culprit fails.
async fn write(context: &Context, batch: Vec<Outcome>) {
    let mut stack = vec![batch];
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
    while let Some(mut batch) = stack.pop() {
        let completions: Vec<Completion> = batch.iter().map(|o| o.completion.clone()).collect();
        match context.store.complete(&completions).await {
            Ok(settled) => settle(context, &batch, &settled).await,
            Err(error) if error.is_data() && batch.len() > 1 => {
                let rest = batch.split_off(batch.len() / 2);
                stack.extend([rest, batch]);
            }
            Err(error) if error.is_data() => stack.extend(refused(context, batch, &error)),
            Err(error) => {
                let is_lost = batch.is_empty() || context.abort.is_cancelled();
                tracing::warn!(outcomes = batch.len(), %error, "could not write outcomes; trying again");
                if is_lost {
                    continue;
                }
                stack.push(batch);
                backoff.pause().await;
            }
        }
    }
}

/// The one outcome that the database refuses becomes a failed attempt.
fn refused(context: &Context, mut batch: Vec<Outcome>, error: &StoreError) -> Option<Vec<Outcome>> {
    let mut outcome = batch.pop()?;
    let (partition, item) = (outcome.completion.lease.partition.clone(), outcome.item.id.clone());
    let is_plain = outcome.completion.change.data.is_none() && outcome.completion.children.is_empty();
    tracing::warn!(%partition, item, is_plain, "the database refused an outcome");
    if is_plain {
        let mut board = context.board();
        board.settled(&outcome.completion.lease, &item, Settled::Stale, None, outcome.bytes);
        return None;
    }
    let failure = Failure::new(format!("the database refused the answer: {error}"));
    let policy = &context.settings.retry;
    let (change, children) =
        decide(&outcome.completion.lease, &outcome.item, Err(failure), policy, rand::random());
    outcome.completion.change = change;
    outcome.completion.children = children;
    Some(vec![outcome])
}

async fn settle(context: &Context, batch: &[Outcome], settled: &[Settled]) {
    let mut progressed = Vec::new();
    {
        let mut board = context.board();
        for (outcome, settled) in batch.iter().zip(settled) {
            let lease = &outcome.completion.lease;
            if board.settled(lease, &outcome.completion.item, *settled, outcome.due_gate(), outcome.bytes) {
                tracing::warn!(partition = %lease.partition, "the lease was taken over; outcomes dropped");
            }
            if *settled == Settled::Written && board.progressed(lease) {
                progressed.push(lease.clone());
            }
        }
    }
    for lease in progressed {
        if let Err(error) = context.store.progressed(&lease).await {
            tracing::debug!(partition = %lease.partition, %error, "could not note progress");
        }
    }
}
