//! Observing: sees within half a second what operators did to the partitions that are held, and whether another watcher
//! asks for some of them.

use std::{sync::Arc, time::Duration};

use gatefeed_core::lease::Observed;

use crate::context::{Context, jittered};

const INTERVAL: Duration = Duration::from_millis(400);

/// Looks until dropped.
pub(crate) async fn run(context: Arc<Context>) {
    loop {
        tokio::time::sleep(jittered(INTERVAL)).await;
        let leases = context.board().leases();
        if leases.is_empty() {
            continue;
        }
        match context.store.observe(&leases).await {
            Ok(observations) => {
                for (lease, observed) in leases.iter().zip(observations) {
                    if observed == Observed::Lost {
                        // Released by this watcher meanwhile, or taken over; the board knows which.
                        tracing::debug!(partition = %lease.partition, "not held any more");
                    }
                    context.board().observed(lease, observed);
                }
                context.ring();
            }
            Err(error) => tracing::debug!(%error, "could not look at the partitions held"),
        }
        hand_off(&context).await;
    }
}

/// A watcher that is busy hands partitions over to those that have nothing to do.
async fn hand_off(context: &Context) {
    if !context.board().could_spare() {
        return;
    }
    match context.store.asked(&context.settings.owner, &context.settings.feeds).await {
        Ok(asked) if asked.is_empty() => {}
        Ok(asked) => {
            context.board().hand_off(&asked);
            context.ring();
        }
        Err(error) => tracing::debug!(%error, "could not see whether others have nothing to do"),
    }
}
