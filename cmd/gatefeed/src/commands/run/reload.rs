//! SIGHUP: the file is read again, and how many deliveries may be in flight is as it says from then on.

use std::convert::Infallible;

use gatefeed_engine::Concurrency;
use tokio::signal::unix::{SignalKind, signal};

use super::RunArgs;
use crate::database::DatabaseArgs;

/// Reads the file of `--config` again at each SIGHUP; without one, the signal ends the process as ever. A file that is
/// wrong changes nothing.
pub(super) async fn on_hangup(
    args: &RunArgs,
    database: &DatabaseArgs,
    concurrency: &Concurrency,
) -> Infallible {
    if args.config.is_none() {
        return std::future::pending().await;
    }
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            tracing::warn!(%error, "cannot receive SIGHUP");
            return std::future::pending().await;
        }
    };
    loop {
        match hangups.recv().await {
            Some(()) => reload(args, database, concurrency),
            None => std::future::pending().await,
        }
    }
}

fn reload(args: &RunArgs, database: &DatabaseArgs, concurrency: &Concurrency) {
    let bounds = match args.plan(database.blobs.options().as_ref()) {
        Ok(plan) => plan.concurrency(),
        Err(error) => return tracing::warn!("the configuration was not read again: {error:#}"),
    };
    match concurrency.set_between(bounds.min, bounds.max) {
        Ok(()) => {
            let (min, max) = (bounds.min, bounds.max);
            tracing::info!(
                min,
                max,
                "read the configuration again, for the concurrency; all else needs a restart"
            );
        }
        Err(error) => tracing::warn!("the configuration was not read again: {error}"),
    }
}
