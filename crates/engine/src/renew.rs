//! Renewing: a task and a connection of its own, so that no handler and no queue can delay it.

use std::{sync::Arc, time::Duration};

use gatefeed_core::lease::{Lease, Renewal, renew_interval, trusted_until};

use crate::{
    clock,
    context::{Context, jittered},
};

/// Rows locked by one statement: few, so that none is locked for long.
const BATCH_MAX: usize = 64;
/// After a skipped row or an error, a try this soon (or sooner, with short leases).
const AGAIN: Duration = Duration::from_millis(500);

/// Renews until dropped: also while the watcher drains.
pub(crate) async fn run(context: Arc<Context>) {
    let interval = renew_interval(context.settings.lease_duration);
    loop {
        tokio::time::sleep(jittered(interval)).await;
        let mut leases = context.board().leases();
        while !leases.is_empty() {
            leases = renew_all(&context, leases).await;
            if !leases.is_empty() {
                tokio::time::sleep(jittered(AGAIN.min(interval / 8))).await;
            }
        }
    }
}

/// Returns those to be tried again: skipped is unknown, not lost, and so is an error.
async fn renew_all(context: &Context, leases: Vec<Arc<Lease>>) -> Vec<Arc<Lease>> {
    let mut again = Vec::new();
    for batch in leases.chunks(BATCH_MAX) {
        let started = clock::now();
        let duration = context.settings.lease_duration;
        match context.store.renew(batch, duration).await {
            Ok(renewals) => {
                let trusted = trusted_until(started, duration);
                for (lease, renewal) in batch.iter().zip(renewals) {
                    match renewal {
                        Renewal::Renewed => context.board().renewed(lease, trusted),
                        Renewal::Skipped => again.push(lease.clone()),
                        Renewal::Lost => lose(context, lease),
                    }
                }
            }
            Err(error) => {
                tracing::warn!(leases = batch.len(), %error, "could not renew leases; trying again");
                again.extend_from_slice(batch);
            }
        }
    }
    context.ring();
    // Some may have been released meanwhile.
    let held: std::collections::HashSet<Arc<Lease>> = context.board().leases().into_iter().collect();
    again.retain(|lease| held.contains(lease));
    again
}

fn lose(context: &Context, lease: &Lease) {
    if context.board().lost(lease) {
        tracing::warn!(partition = %lease.partition, "the lease was taken over; deliveries stopped");
    }
}
