//! Checkpoints: partitions with nothing left to do take their next step, several at a time.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{lease::Lease, store::Checkpointed};

use crate::context::{Backoff, Context};

/// For how long an owner would rather wait for a delayed item than release and claim again.
const HOLD: Duration = Duration::from_secs(2);

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
        match context.store.checkpoint(&leases, HOLD).await {
            Ok(results) => {
                backoff.reset();
                for (lease, result) in leases.iter().zip(results) {
                    report(lease, result);
                    if result == Checkpointed::Overdue {
                        context.overdue_bell.notify_one();
                    }
                    context.board().checked(lease, result);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not make a checkpoint; trying again");
                leases.iter().for_each(|lease| context.board().check_failed(lease));
                context.pause(&mut backoff).await;
            }
        }
        context.ring();
    }
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
