//! `gatefeed serve`: the API, without a watcher.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use gatefeed_api::{Targets, axum::Router};
use gatefeed_core::Store;

use super::{
    collect::CollectArgs,
    listen::{ApiArgs, listen},
    run::open,
};
use crate::{database::DatabaseArgs, exit, parse, signals};

/// Serve the REST API: push over HTTP, look and act.
///
/// Its description is at /openapi.json, and pages that try it out are at /docs. An item is answered with 202 once it is
/// committed; requests that are here at the same time share a transaction. /livez and /readyz are there too.
///
/// Without any token it listens on this machine only, and is open to everybody there. `gatefeed token create` makes a
/// token, and from then on every request takes one.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed serve
  gatefeed serve --listen :8080                         (needs a token: gatefeed token create --role push)
  curl --data-binary @photo.png -H 'Content-Type: image/png' http://127.0.0.1:8080/v1/partitions/album/items")]
pub(crate) struct ServeArgs {
    /// Where
    #[arg(
        long,
        env = "GATEFEED_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        help_heading = "Process",
        value_parser = parse::address
    )]
    listen: String,
    /// Leave the tables as they are, and exit unless they are up to date
    #[arg(long, env = "GATEFEED_NO_MIGRATE", help_heading = "Process")]
    no_migrate: bool,
    #[command(flatten)]
    collect: CollectArgs,
    #[command(flatten)]
    api: ApiArgs,
}

pub(crate) async fn serve(database: &DatabaseArgs, args: ServeArgs) -> Result<u8> {
    let shutdown = signals::clean_stop()?;
    let listener = listen(&args.listen).await?;
    let (address, tls) = (listener.local_addr()?, args.api.tls()?);
    let Some(store) = shutdown.run_until_cancelled(open(database, args.no_migrate)).await else {
        return Ok(exit::OK);
    };
    let store = store?;
    args.api.check(address, &store).await?;
    let router = router(&store, gatefeed_api::api(Arc::clone(&store), args.api.options(address)));
    let _collector = args.collect.start(&*store);
    args.api.tell(address, &store).await;
    gatefeed_api::serve_with(listener, router, tls, shutdown.cancelled_owned()).await;
    Ok(exit::OK)
}

/// Health and what handlers ask for beside the API; there are no targets.
fn router(store: &Arc<dyn Store>, api: Router) -> Router {
    let targets: Targets = Box::new(|| Box::pin(std::future::ready(Vec::new())));
    gatefeed_api::health(Arc::clone(store), targets)
        .merge(gatefeed_api::callbacks(Arc::clone(store)))
        .merge(gatefeed_api::gathered(Arc::clone(store)))
        .merge(gatefeed_api::blobs(Arc::clone(store)))
        .merge(api)
        .fallback(gatefeed_api::not_found)
}
