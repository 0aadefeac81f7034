//! Removing garbage from the blob store, now and then.

use std::{sync::Arc, time::Duration};

use clap::Args;
use gatefeed_core::{
    Store,
    blob::{Blobs, Collected},
};
use tokio::task::JoinSet;

use crate::parse;

/// No more often, however short the grace is.
const PAUSE_MIN: Duration = Duration::from_secs(5);

/// The flag of processes that stay: watchers, and servers of the API, which may be all there is where handlers answer
/// later.
#[derive(Args, Debug)]
pub(crate) struct CollectArgs {
    /// Remove blobs that no item refers to from --blob-store once they are so old, longer than any push takes; 0s: never
    #[arg(
        long,
        env = "GATEFEED_BLOB_GRACE",
        value_name = "DURATION",
        default_value = "1d",
        help_heading = "Process",
        value_parser = parse::duration
    )]
    blob_grace: Duration,
}

impl CollectArgs {
    /// Collects while the result is alive, if there is a blob store and a grace.
    pub(super) fn start(&self, store: &dyn Store) -> JoinSet<()> {
        let mut collector = JoinSet::new();
        let grace = self.blob_grace;
        if let Some(blobs) = store.blobs().filter(|_| !grace.is_zero()) {
            collector.spawn(collect_for_ever(blobs, grace));
        }
        collector
    }
}

/// A listing of all blobs costs something: four times within the grace, at moments that differ from process to process.
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
