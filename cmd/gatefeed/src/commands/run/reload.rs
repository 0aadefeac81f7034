//! SIGHUP: the file is read again, and how many deliveries may be in flight is as it says from then on.

use std::convert::Infallible;

use anyhow::{Context, Result};
use gatefeed_engine::Concurrency;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::RunArgs;
use crate::database::DatabaseArgs;

/// From now on SIGHUP does not end the process; without a file of `--config` it does as ever.
pub(super) fn hangups(args: &RunArgs) -> Result<Option<Signal>> {
    let hangups = args.config.is_some().then(|| signal(SignalKind::hangup())).transpose();
    hangups.context("cannot receive SIGHUP")
}

/// Reads the file of `--config` again at each SIGHUP. A file that is wrong changes nothing.
pub(super) async fn on_hangup(
    hangups: Option<Signal>,
    args: &RunArgs,
    database: &DatabaseArgs,
    concurrency: &Concurrency,
) -> Infallible {
    let Some(mut hangups) = hangups else { return std::future::pending().await };
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
