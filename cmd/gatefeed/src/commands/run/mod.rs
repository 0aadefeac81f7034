//! `gatefeed run`: one watcher.

mod args;

use std::{io::ErrorKind, sync::Arc};

use anyhow::{Result, anyhow};
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
    let health = listener.map(|listener| Health::start(listener, &store, &processor)).transpose()?;
    let watched = watch(store, &plan, args.until_idle, processor, shutdown).await;
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

async fn open(database: &DatabaseArgs, no_migrate: bool) -> Result<Arc<dyn Store>> {
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

async fn watch(
    store: Arc<dyn Store>,
    plan: &Plan,
    until_idle: bool,
    processor: Arc<HttpRoutes>,
    shutdown: CancellationToken,
) -> Result<u8> {
    let owner = plan.name().map_or_else(default_owner, str::to_owned);
    tracing::info!(owner, feeds = ?plan.feeds, "watching");
    let watcher = plan.apply(Watcher::builder(store).owner(owner));
    let watcher = watcher.until_idle(until_idle).shutdown(shutdown).shared_processor(processor);
    let finished = watcher.run().await?;
    if finished.failed {
        tracing::warn!("a partition has failed: `gatefeed partitions --status failed` shows which");
        return Ok(exit::PARTITION_FAILED);
    }
    Ok(exit::OK)
}

/// Binds before anything is done to the database, so that a port in use is known at once.
async fn listen(address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => ": something else does; choose another port for --listen",
            ErrorKind::AddrNotAvailable => ": this machine has no such address; :PORT listens on all it has",
            ErrorKind::PermissionDenied => ": ports below 1024 are not for every user; choose a higher one",
            _ => "",
        };
        anyhow!("cannot listen on {address}: {error}{advice}")
    })
}

/// The server of `/livez`, `/readyz`, callbacks and what items gather; it answers until the watcher has stopped.
struct Health {
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Health {
    fn start(listener: TcpListener, store: &Arc<dyn Store>, processor: &Arc<HttpRoutes>) -> Result<Self> {
        tracing::info!("listening on http://{}", listener.local_addr()?);
        let router = gatefeed_api::health(Arc::clone(store), targets(Arc::clone(processor)))
            .merge(gatefeed_api::gathered(Arc::clone(store)))
            .merge(gatefeed_api::callbacks(Arc::clone(store)));
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

fn targets(processor: Arc<HttpRoutes>) -> Targets {
    Box::new(move || {
        let processor = Arc::clone(&processor);
        Box::pin(async move {
            let targets = processor.health().await.into_iter();
            targets.map(|t| TargetHealth { target: t.target, ok: t.ok, detail: t.detail }).collect()
        })
    })
}
