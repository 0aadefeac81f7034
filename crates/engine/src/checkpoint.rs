//! Checkpoints: partitions with nothing left to do take their next step, several at a time.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{Result, lease::Lease, store::Checkpointed};
use tokio::time::Instant;

use crate::context::{Backoff, Context};

/// For how long an owner would rather wait for a delayed item than release and claim again.
const HOLD: Duration = Duration::from_secs(2);

/// How many in a row have to fail, each by itself, before it is the database that does.
const FAILED_MAX: usize = 2;
/// A checkpoint that failed by itself is made again after so many times what it took …
const REST: u32 = 6;
/// … but no sooner and no later than this.
const REST_MIN: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_secs(60);

/// Steps until told to stop.
pub(crate) async fn run(context: Arc<Context>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    while !context.stop.is_cancelled() {
        give_back(&context).await;
        let leases = context.board().checks();
        if leases.is_empty() {
            tokio::select! {
                () = context.check_bell.notified() => {}
                () = context.stop.cancelled() => {}
            }
            continue;
        }
        if check_all(&context, &leases).await {
            backoff.reset();
        } else {
            context.pause(&mut backoff).await;
        }
        context.ring();
    }
}

/// Returns whether the database does what it is asked to, as far as can be seen.
async fn check_all(context: &Context, leases: &[Arc<Lease>]) -> bool {
    match leases {
        [lease] => check_alone(context, lease).await,
        leases => match check(context, leases).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "could not make a checkpoint; trying each by itself");
                check_each(context, leases).await
            }
        },
    }
}

async fn check(context: &Context, leases: &[Arc<Lease>]) -> Result<()> {
    let results = context.store.checkpoint(leases, HOLD).await?;
    for (lease, result) in leases.iter().zip(results) {
        report(lease, result);
        if result == Checkpointed::Overdue {
            context.overdue_bell.notify_one();
        }
        context.board().checked(lease, result);
    }
    Ok(())
}

/// One of the partitions may take the database too long: it must not hold up the others.
async fn check_each(context: &Context, leases: &[Arc<Lease>]) -> bool {
    let mut failed = 0;
    for (number, lease) in leases.iter().enumerate() {
        failed = if check_alone(context, lease).await { 0 } else { failed + 1 };
        if failed == FAILED_MAX {
            leases[number + 1..].iter().for_each(|lease| context.board().check_failed(lease, REST_MIN));
            return false;
        }
    }
    true
}

async fn check_alone(context: &Context, lease: &Arc<Lease>) -> bool {
    let started = Instant::now();
    let checked = check(context, std::slice::from_ref(lease)).await;
    if let Err(error) = &checked {
        let partition = &lease.partition;
        tracing::warn!(%partition, %error, "could not make the checkpoint of this partition; trying again");
        let rest = (started.elapsed() * REST).clamp(REST_MIN, REST_MAX);
        context.board().check_failed(lease, rest);
    }
    checked.is_ok()
}

/// Gives back partitions whose turn in being held is over.
async fn give_back(context: &Context) {
    let leavers = context.board().leavers();
    if leavers.is_empty() {
        return;
    }
    match context.store.release(&leavers).await {
        Ok(()) => tracing::debug!(partitions = leavers.len(), "given back for others to have their turn"),
        Err(error) => tracing::warn!(%error, "could not give partitions back; they will expire"),
    }
    context.board().released(&leavers);
    context.ring();
}

fn report(lease: &Lease, result: Checkpointed) {
    let partition = &lease.partition;
    match result {
        Checkpointed::Advanced(gate) => tracing::info!(%partition, gate, "advanced"),
        Checkpointed::Closed => tracing::info!(%partition, "complete"),
        Checkpointed::Failed => {
            tracing::warn!(%partition, "failed; `gatefeed why` tells the reason")
        }
        Checkpointed::Fenced => {
            tracing::warn!(%partition, "the lease is over: cancelled, rewound or taken over")
        }
        Checkpointed::Slept => tracing::debug!(%partition, "released: nothing is due"),
        Checkpointed::Due | Checkpointed::Wait(_) | Checkpointed::Overdue | Checkpointed::Busy => {}
    }
}
