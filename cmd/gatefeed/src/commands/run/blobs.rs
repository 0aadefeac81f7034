//! Removing garbage from the blob store, now and then.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    Store,
    blob::{Blobs, Collected},
};
use tokio::task::JoinSet;

/// No more often, however short the grace is.
const PAUSE_MIN: Duration = Duration::from_secs(60);

/// Collects while the result is alive, if there is a blob store and a grace.
pub(super) fn collect(store: &dyn Store, grace: Duration) -> JoinSet<()> {
    let mut collector = JoinSet::new();
    if let Some(blobs) = store.blobs().filter(|_| !grace.is_zero()) {
        collector.spawn(collect_for_ever(blobs, grace));
    }
    collector
}

/// A listing of all blobs costs something: four times within the grace, at moments that differ from watcher to watcher.
async fn collect_for_ever(blobs: Arc<dyn Blobs>, grace: Duration) {
    loop {
        let pause = (grace / 4).max(PAUSE_MIN).mul_f64(rand::random_range(0.8..1.2));
        tokio::time::sleep(pause).await;
        match blobs.collect(grace).await {
            Ok(Collected { blobs: 0, .. }) => {}
            Ok(Collected { blobs, bytes, .. }) => tracing::info!(blobs, bytes, "removed unused blobs"),
            Err(error) => tracing::warn!(%error, "could not remove unused blobs; trying again later"),
        }
    }
}
