//! Items that have waited for their callback for too long: their attempts have failed.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    Result,
    answer::Failure,
    callback::TIMED_OUT,
    item::DueItem,
    lease::Lease,
    outcome::{Completion, decide},
};
use tokio::sync::mpsc;

use crate::{
    context::{Context, jittered},
    outcome::Outcome,
};

/// How often it is looked, at the latest: a partition that is never through with the rest of its work does not come to a
/// checkpoint, which would tell.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most items at a time: each is in memory with its log of errors, of some KiB.
const ITEMS_MAX: usize = 2_000;

/// Looks until told to stop.
pub(crate) async fn run(context: Arc<Context>, outcomes: mpsc::UnboundedSender<Outcome>) {
    while !context.stop.is_cancelled() {
        let rest = jittered(INTERVAL.min(context.settings.poll_interval));
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = context.overdue_bell.notified() => {}
            () = context.stop.cancelled() => return,
        }
        if let Err(error) = look(&context, &outcomes).await {
            tracing::warn!(%error, "could not look for callbacks that did not come; trying again");
        }
    }
}

async fn look(context: &Context, outcomes: &mpsc::UnboundedSender<Outcome>) -> Result<()> {
    let mut writable = context.board().writable();
    if writable.is_empty() {
        return Ok(());
    }
    // The limit is one for all: each comes first at times.
    let first = rand::random_range(0..writable.len());
    writable.rotate_left(first);
    let (leases, feeds): (Vec<_>, Vec<_>) = writable.into_iter().unzip();
    let found = context.store.overdue(&leases, ITEMS_MAX).await?;
    for ((lease, feed), items) in leases.iter().zip(feeds).zip(found) {
        for item in items {
            end(context, lease, &feed, item, outcomes);
        }
    }
    Ok(())
}

/// The attempt's outcome is written like any other; a callback that was first makes it stale.
fn end(
    context: &Context,
    lease: &Arc<Lease>,
    feed: &Arc<str>,
    item: DueItem,
    outcomes: &mpsc::UnboundedSender<Outcome>,
) {
    let verdict = Err(Failure::new(TIMED_OUT));
    let policy = context.settings.policies.retry(feed, item.gate);
    let (change, children, nested) = decide(&lease.partition, &item, verdict, policy, rand::random());
    let (id, version) = (item.id.clone(), item.version);
    let completion = Completion {
        lease: lease.clone(),
        feed: feed.clone(),
        item: id.clone(),
        version,
        change,
        children,
        nested,
        kept: None,
    };
    let outcome = Outcome::new(completion, item);
    if !context.board().overdue(lease, &id, outcome.bytes) {
        return;
    }
    tracing::debug!(partition = %lease.partition, item = %id, "no callback came in time");
    // The receiver outlives this loop but for a watcher that is being dropped.
    _ = outcomes.send(outcome);
    context.write_bell.notify_one();
}
