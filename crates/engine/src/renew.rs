//! Renewing: a task and a connection of its own, so that no handler and no queue can delay it.

use std::{sync::Arc, time::Duration};

use gatefeed_core::lease::{Lease, Renewal, renew_interval};

use crate::{
    clock,
    context::{Context, jittered},
    held::Trust,
};

/// Rows locked by one statement: few, so that none is locked for long.
const BATCH_MAX: usize = 64;
/// How often it looks whose renewal is due, at the least: a row that was skipped is tried again this soon, and
/// with short leases sooner.
const TICK_MAX: Duration = Duration::from_millis(500);

/// Renews until dropped: also while the watcher drains.
pub(crate) async fn run(context: Arc<Context>) {
    let tick = TICK_MAX.min(renew_interval(context.settings.lease_duration) / 8);
    loop {
        tokio::time::sleep(jittered(tick)).await;
        let due = context.board().renewals(clock::now());
        for batch in due.chunks(BATCH_MAX) {
            renew(&context, batch).await;
        }
    }
}

/// What is skipped stays due, and so does everything after an error: unknown is not lost.
async fn renew(context: &Context, leases: &[Arc<Lease>]) {
    let started = clock::now();
    let duration = context.settings.lease_duration;
    match context.store.renew(leases, duration).await {
        Ok(renewals) => {
            for (lease, renewal) in leases.iter().zip(renewals) {
                match renewal {
                    Renewal::Renewed => {
                        context.board().renewed(lease, Trust::new(started, duration, rand::random()));
                    }
                    Renewal::Skipped => {}
                    Renewal::Lost => lose(context, lease),
                }
            }
            context.ring();
        }
        Err(error) => tracing::warn!(leases = leases.len(), %error, "could not renew leases; trying again"),
    }
}

fn lose(context: &Context, lease: &Lease) {
    let partition = &lease.partition;
    match context.board().lost(lease) {
        true => {
            tracing::warn!(%partition, "the lease is over: cancelled, rewound or taken over; deliveries stopped")
        }
        false => tracing::debug!(%partition, "not held any more"),
    }
}
