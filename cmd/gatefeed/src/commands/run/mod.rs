//! `gatefeed run`: one watcher.

/// Enters flags in the place of the keys of the same names.
macro_rules! enter {
    ($flags:expr => $keys:expr, $origins:expr; $($key:ident),+) => {
        $(
            if $flags.$key.is_some() {
                $keys.$key.clone_from(&$flags.$key);
                $origins.set_flag(stringify!($key));
            }
        )+
    };
}

mod args;
mod reload;
mod spread_args;

use std::sync::Arc;

use anyhow::Result;
use gatefeed_api::{TargetHealth, Targets, Tls};
use gatefeed_core::{Store, StoreError};
use gatefeed_engine::{
    Watcher,
    dispatch::{HttpRoutes, Route},
};
use tokio::{net::TcpListener, signal::unix::Signal, task::JoinHandle};
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
    let plan = args.plan(database.blobs.options().as_ref())?;
    let shutdown = signals::clean_stop()?;
    let hangups = reload::hangups(&args)?;
    let door = match plan.listen() {
        Some(address) => Some(Door { listener: listen(address).await?, tls: args.api.tls()? }),
        None => None,
    };
    let listening = door.as_ref().and_then(|door| door.listener.local_addr().ok());
    let routes = plan.routes(listening);
    tell(&routes);
    let takes_callbacks = routes.iter().any(|route| route.options.public_url.is_some());
    let mut processor = HttpRoutes::new(routes).map_err(|error| StoreError::Config(error.to_string()))?;
    let Some(store) = shutdown.run_until_cancelled(open(database, args.no_migrate)).await else {
        return Ok(exit::OK);
    };
    let store = store?;
    if takes_callbacks {
        processor = processor.with_callbacks(store.callback_key().await?);
    }
    let processor = Arc::new(processor);
    let health = match door {
        Some(door) => Some(Health::start(door, &store, &processor, &args).await?),
        None => None,
    };
    let _collector = args.collect.start(&*store);
    let watched = watch(store, database, &args, &plan, processor, Signals { shutdown, hangups }).await;
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

/// What is heard of from outside.
struct Signals {
    shutdown: CancellationToken,
    hangups: Option<Signal>,
}

async fn watch(
    store: Arc<dyn Store>,
    database: &DatabaseArgs,
    args: &RunArgs,
    plan: &Plan,
    processor: Arc<HttpRoutes>,
    Signals { shutdown, hangups }: Signals,
) -> Result<u8> {
    let owner = plan.name().map_or_else(default_owner, str::to_owned);
    tracing::info!(owner, feeds = ?plan.feeds, "watching");
    let watcher = plan.apply(Watcher::builder(store).owner(owner));
    let watcher = watcher.until_idle(args.until_idle).shutdown(shutdown).shared_processor(processor);
    let concurrency = watcher.concurrency();
    let finished = tokio::select! {
        finished = watcher.run() => finished?,
        never = reload::on_hangup(hangups, args, database, &concurrency) => match never {},
    };
    if finished.failed {
        tracing::warn!("a partition has failed: `gatefeed partitions --status failed` shows which");
        return Ok(exit::PARTITION_FAILED);
    }
    Ok(exit::OK)
}

/// Where it listens, ready before anything is done to the database.
struct Door {
    listener: TcpListener,
    tls: Option<Tls>,
}

/// The server of `/livez`, `/readyz`, what items gather, callbacks, blobs, and the API; it answers until the watcher has
/// stopped.
struct Health {
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Health {
    async fn start(
        Door { listener, tls }: Door,
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
        let server = gatefeed_api::serve_with(listener, router, tls, stop.clone().cancelled_owned());
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
