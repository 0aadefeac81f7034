//! Feeds, watchers, gates, and why a partition is where it is.

use axum::{extract::State, http::StatusCode, response::Response};
use gatefeed_core::{
    inspect::{FeedStatus, GateCounts, WatcherStatus},
    why::{Why, explain},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    access::{Caller, Looks, May},
    app::App,
    etag::json,
    path::PartitionId,
    problem::{Problem, Problems},
    query::{Nothing, Params},
};

/// The feeds.
#[derive(Serialize, ToSchema)]
pub(crate) struct Feeds {
    /// In order of name.
    feeds: Vec<FeedStatus>,
}

/// List the feeds
///
/// With their partitions and items by status, and the watchers that serve them.
#[utoipa::path(
    get,
    path = "/v1/feeds",
    tag = "feeds",
    responses((status = 200, description = "The feeds", body = Feeds, content_type = "application/json"), Problems),
)]
pub(crate) async fn feeds(
    State(app): State<App>,
    May(caller, _): May<Looks>,
    _: Params<Nothing>,
) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &[], &Feeds { feeds: seen(&app, &caller).await? }))
}

async fn seen(app: &App, caller: &Caller) -> Result<Vec<FeedStatus>, Problem> {
    let mut feeds = app.store.status().await?;
    feeds.retain(|feed| caller.feed.as_ref().is_none_or(|own| *own == feed.feed));
    Ok(feeds)
}

/// A watcher in one of its feeds.
#[derive(Serialize, ToSchema)]
pub(crate) struct WatcherOfFeed {
    /// The feed.
    feed: String,
    /// The watcher.
    #[serde(flatten)]
    watcher: WatcherStatus,
}

/// The watchers.
#[derive(Serialize, ToSchema)]
pub(crate) struct Watchers {
    /// In order of feed and id; one that serves several feeds is there for each.
    watchers: Vec<WatcherOfFeed>,
}

/// List the watchers
///
/// Those that have reported within the last twenty seconds.
#[utoipa::path(
    get,
    path = "/v1/watchers",
    tag = "feeds",
    responses((status = 200, description = "The watchers", body = Watchers, content_type = "application/json"), Problems),
)]
pub(crate) async fn watchers(
    State(app): State<App>,
    May(caller, _): May<Looks>,
    _: Params<Nothing>,
) -> Result<Response, Problem> {
    let of_feed = |FeedStatus { feed, watchers, .. }: FeedStatus| {
        watchers.into_iter().map(move |watcher| WatcherOfFeed { feed: feed.clone(), watcher })
    };
    let watchers = seen(&app, &caller).await?.into_iter().flat_map(of_feed).collect();
    Ok(json(StatusCode::OK, &[], &Watchers { watchers }))
}

/// The gates of a partition.
#[derive(Serialize, ToSchema)]
pub(crate) struct Gates {
    /// Those that have items, in order, with their items by status.
    gates: Vec<GateCounts>,
}

/// Count the items at each gate
///
/// All of them, finished ones too: on a large partition that takes a moment.
#[utoipa::path(
    get,
    path = "/v1/partitions/{id}/gates",
    tag = "partitions",
    params(("id" = String, Path, description = "The partition", min_length = 1, max_length = 512)),
    responses(
        (status = 200, description = "The gates", body = Gates, content_type = "application/json"),
        (status = 422, description = "The id will not do", body = Problem, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn gates(
    State(app): State<App>,
    May(caller, _): May<Looks>,
    PartitionId(partition): PartitionId,
    _: Params<Nothing>,
) -> Result<Response, Problem> {
    caller.check_partition(&app, &partition).await?;
    Ok(json(StatusCode::OK, &[], &Gates { gates: app.store.gates(&partition).await? }))
}

/// Of what.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WhyParams {
    /// One of its items.
    item: Option<String>,
}

/// Tell why a partition or item is where it is, and what to do
#[utoipa::path(
    get,
    path = "/v1/partitions/{id}/why",
    tag = "partitions",
    params(("id" = String, Path, description = "The partition", min_length = 1, max_length = 512), WhyParams),
    responses(
        (status = 200, description = "Why", body = Why, content_type = "application/json"),
        (status = 422, description = "The id will not do", body = Problem, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn why(
    State(app): State<App>,
    May(caller, _): May<Looks>,
    PartitionId(partition): PartitionId,
    Params(asked): Params<WhyParams>,
) -> Result<Response, Problem> {
    caller.check_partition(&app, &partition).await?;
    if let Some(item) = &asked.item {
        gatefeed_core::id::check_id("item", item)
            .map_err(|error| Problem::unprocessable(error.to_string()))?;
    }
    let facts = app.store.why(&partition, asked.item.as_deref()).await?;
    Ok(json(StatusCode::OK, &[], &explain(facts)))
}
