//! `gatefeed run`: one watcher.

mod args;
mod blobs;

use std::sync::Arc;

use anyhow::{Result, bail};
use gatefeed_api::{TargetHealth, Targets};
use gatefeed_core::Store;
use gatefeed_engine::{Watcher, dispatch::HttpProcessor};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub(crate) use self::args::RunArgs;
use super::listen::listen;
use crate::{database::DatabaseArgs, exit, signals};

pub(crate) async fn run(database: &DatabaseArgs, args: RunArgs) -> Result<u8> {
    let shutdown = signals::clean_stop()?;
    let listener = match &args.listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let listening = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let processor = Arc::new(HttpProcessor::new(args.targets.clone(), args.http_options(listening))?);
    let Some(store) = shutdown.run_until_cancelled(open(database, args.no_migrate)).await else {
        return Ok(exit::OK);
    };
    let store = store?;
    let health = match listener {
        Some(listener) => Some(Health::start(listener, &store, &processor, database, &args).await?),
        None => None,
    };
    check_links(&*store, &args)?;
    let _collector = blobs::collect(&*store, args.blob_grace);
    let watched = watch(store, args, processor, shutdown).await;
    if let Some(health) = health {
        health.stop().await;
    }
    watched
}

/// Opens the database, with its tables up to date.
pub(crate) async fn open(database: &DatabaseArgs, no_migrate: bool) -> Result<Arc<dyn Store>> {
    if no_migrate {
        return database.open_migrated().await;
    }
    let store = database.open().await?;
    let migrated = store.migrate().await?;
    if migrated.from != migrated.to {
        tracing::info!(from = migrated.from, to = migrated.to, "migrated the schema");
    }
    Ok(store)
}

/// A link that leads nowhere would fail every delivery.
fn check_links(store: &dyn Store, args: &RunArgs) -> Result<()> {
    match args.blob_links
        && args.listen.is_none()
        && store.blobs().is_some_and(|blobs| blobs.links_lead_here())
    {
        true => bail!("--blob-links with a folder needs --listen, where handlers fetch the data"),
        false => Ok(()),
    }
}

async fn watch(
    store: Arc<dyn Store>,
    args: RunArgs,
    processor: Arc<HttpProcessor>,
    shutdown: CancellationToken,
) -> Result<u8> {
    let owner = args.owner();
    tracing::info!(owner, feeds = ?args.feeds, targets = ?args.shown_targets(), "watching");
    let watcher = Watcher::builder(store)
        .owner(owner)
        .retry(args.retry_policy())
        .feeds(args.feeds)
        .concurrency(args.concurrency)
        .lease_duration(args.lease_duration)
        .poll_interval(args.poll_interval)
        .grace(args.grace)
        .max_payload(args.max_payload)
        .until_idle(args.until_idle)
        .blob_links(args.blob_links)
        .shutdown(shutdown)
        .shared_processor(processor);
    let finished = watcher.run().await?;
    if finished.failed {
        tracing::warn!("a partition has failed: `gatefeed partitions --status failed` shows which");
        return Ok(exit::PARTITION_FAILED);
    }
    Ok(exit::OK)
}

/// The server of `/livez`, `/readyz`, what items gather, blobs, and the API; it answers until the watcher has stopped.
struct Health {
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Health {
    async fn start(
        listener: TcpListener,
        store: &Arc<dyn Store>,
        processor: &Arc<HttpProcessor>,
        database: &DatabaseArgs,
        args: &RunArgs,
    ) -> Result<Self> {
        let address = listener.local_addr()?;
        tracing::info!("listening on http://{address}");
        args.api.tell(address, store).await;
        let router = gatefeed_api::health(Arc::clone(store), targets(Arc::clone(processor)))
            .merge(gatefeed_api::gathered(Arc::clone(store)))
            .merge(gatefeed_api::blobs(Arc::clone(store)))
            .merge(gatefeed_api::api(Arc::clone(store), args.api.options(address, database)?))
            .fallback(gatefeed_api::not_found);
        let stop = CancellationToken::new();
        let server = tokio::spawn(gatefeed_api::serve(listener, router, stop.clone().cancelled_owned()));
        Ok(Self { stop, server })
    }

    async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.server.await {
            tracing::warn!(%error, "the health server ended badly");
        }
    }
}

fn targets(processor: Arc<HttpProcessor>) -> Targets {
    Box::new(move || {
        let processor = Arc::clone(&processor);
        Box::pin(async move {
            let targets = processor.health().await.into_iter();
            targets.map(|t| TargetHealth { target: t.target, ok: t.ok, detail: t.detail }).collect()
        })
    })
}
