//! `gatefeed run`: one watcher.

mod args;
mod blobs;
mod reload;
mod spread_args;

use std::sync::Arc;

use anyhow::{Result, bail};
use gatefeed_api::{TargetHealth, Targets};
use gatefeed_core::{Store, StoreError};
use gatefeed_engine::{
    Watcher,
    dispatch::{HttpRoutes, Route},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub(crate) use self::args::RunArgs;
use self::args::default_owner;
use super::listen::listen;
use crate::{
    config::{Plan, shown},
    database::DatabaseArgs,
    exit, signals,
};

pub(crate) async fn run(database: &DatabaseArgs, args: RunArgs) -> Result<u8> {
    let plan = args.plan()?;
    let shutdown = signals::clean_stop()?;
    let listener = match plan.listen() {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let listening = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let routes = plan.routes(listening)?;
    tell(&routes);
    let takes_callbacks = routes.iter().any(|route| route.options.gather_url.is_some());
    let mut processor = HttpRoutes::new(routes).map_err(|error| StoreError::Config(error.to_string()))?;
    let Some(store) = shutdown.run_until_cancelled(open(database, args.no_migrate)).await else {
        return Ok(exit::OK);
    };
    let store = store?;
    if takes_callbacks {
        processor = processor.with_callbacks(store.callback_key().await?);
    }
    let processor = Arc::new(processor);
    let health = match listener {
        Some(listener) => Some(Health::start(listener, &store, &processor, &args).await?),
        None => None,
    };
    check_links(&*store, &plan)?;
    let _collector = blobs::collect(&*store, args.blob_grace);
    let watched = watch(store, &args, &plan, processor, shutdown).await;
    if let Some(health) = health {
        health.stop().await;
    }
    watched
}

/// The targets, without their queries, which may hold secrets.
fn tell(routes: &[Route]) {
    for Route { feed, gate, targets, .. } in routes {
        let targets: Vec<String> = targets.iter().map(shown).collect();
        tracing::info!(feed, gate, ?targets, "route");
    }
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
fn check_links(store: &dyn Store, plan: &Plan) -> Result<()> {
    if !plan.has_blob_links() {
        return Ok(());
    }
    match store.blobs() {
        None => bail!("blob_links needs --blob-store, where the data lies that is linked to"),
        Some(blobs) if blobs.links_lead_here() && !plan.is_reached() => {
            bail!("--blob-links with a folder needs --listen, where handlers fetch the data")
        }
        Some(_) => Ok(()),
    }
}

async fn watch(
    store: Arc<dyn Store>,
    args: &RunArgs,
    plan: &Plan,
    processor: Arc<HttpRoutes>,
    shutdown: CancellationToken,
) -> Result<u8> {
    let owner = plan.name().map_or_else(default_owner, str::to_owned);
    tracing::info!(owner, feeds = ?plan.feeds, "watching");
    let watcher = plan.apply(Watcher::builder(store).owner(owner));
    let watcher = watcher.until_idle(args.until_idle).shutdown(shutdown).shared_processor(processor);
    let concurrency = watcher.concurrency();
    let finished = tokio::select! {
        finished = watcher.run() => finished?,
        never = reload::on_hangup(args, &concurrency) => match never {},
    };
    if finished.failed {
        tracing::warn!("a partition has failed: `gatefeed partitions --status failed` shows which");
        return Ok(exit::PARTITION_FAILED);
    }
    Ok(exit::OK)
}

/// The server of `/livez`, `/readyz`, what items gather, callbacks, blobs, and the API; it answers until the watcher has
/// stopped.
struct Health {
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Health {
    async fn start(
        listener: TcpListener,
        store: &Arc<dyn Store>,
        processor: &Arc<HttpRoutes>,
        args: &RunArgs,
    ) -> Result<Self> {
        let address = listener.local_addr()?;
        args.api.tell(address, store).await;
        let router = gatefeed_api::health(Arc::clone(store), targets(Arc::clone(processor)))
            .merge(gatefeed_api::gathered(Arc::clone(store)))
            .merge(gatefeed_api::callbacks(Arc::clone(store)))
            .merge(gatefeed_api::blobs(Arc::clone(store)))
            .merge(gatefeed_api::api(Arc::clone(store), args.api.options(address)))
            .fallback(gatefeed_api::not_found);
        let stop = CancellationToken::new();
        let server =
            gatefeed_api::serve_with(listener, router, args.api.tls()?, stop.clone().cancelled_owned());
        let server = tokio::spawn(server);
        Ok(Self { stop, server })
    }

    async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.server.await {
            tracing::warn!(%error, "the health server ended badly");
        }
    }
}

fn targets(processor: Arc<HttpRoutes>) -> Targets {
    Box::new(move || {
        let processor = Arc::clone(&processor);
        Box::pin(async move {
            let targets = processor.health().await.into_iter();
            targets.map(|t| TargetHealth { target: t.target, ok: t.ok, detail: t.detail }).collect()
        })
    })
}
