//! What operators do. Each is safe while a watcher holds the lease, and honours `If-Match` in its transaction.

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use gatefeed_core::{
    acting::{Acted, Action},
    envelope::GATE,
    partition::PartitionStatus,
    store::RetryFilter,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::{
    access::{May, Operates},
    app::App,
    body,
    etag::{expected, json},
    path::PartitionId,
    problem::{ChangeProblems, Problem, Problems},
    query::{Nothing, Params},
};

/// What an action is told is small.
const BODY_MAX: usize = 64 * 1024;

/// An action on a partition that its caller may act on, and what it is told.
pub(crate) struct Told<T> {
    partition: String,
    /// By `If-Match`.
    version: Option<i64>,
    told: T,
}

impl<T: DeserializeOwned + Default> FromRequest<App> for Told<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (mut head, body) = request.into_parts();
        let May(caller, _): May<Operates> = May::from_request_parts(&mut head, app).await?;
        let PartitionId(partition) = PartitionId::from_request_parts(&mut head, app).await?;
        Params::<Nothing>::from_request_parts(&mut head, app).await?;
        caller.check_partition(app, &partition).await?;
        let version = expected(&head.headers)?;
        let told = told(app, &head.headers, body).await?;
        Ok(Self { partition, version, told })
    }
}

impl<T> Told<T> {
    async fn act(&self, app: &App, action: &Action) -> Result<Acted, Problem> {
        Ok(app.store.act(&self.partition, self.version, action).await?)
    }
}

/// What an action is told; nothing is as good as `{}`.
async fn told<T: DeserializeOwned + Default>(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    let held = body::read(headers, body, BODY_MAX, &app.budget).await?;
    let text = held.bytes.trim_ascii();
    if text.is_empty() {
        return Ok(T::default());
    }
    // A list would be taken for the fields in their order.
    if !text.starts_with(b"{") {
        return Err(Problem::unprocessable("the body is no JSON object"));
    }
    serde_json::from_slice(&held.bytes)
        .map_err(|error| Problem::unprocessable(format!("the body will not do: {error}")))
}

/// Which failed items; without anything all of them.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryBody {
    /// Only this item.
    item: Option<String>,
    /// Only items at this gate.
    #[schema(minimum = 0, maximum = 2147483647)]
    gate: Option<i32>,
}

/// What a retry did.
#[derive(Serialize, ToSchema)]
pub(crate) struct Retried {
    /// The partition.
    partition: String,
    /// Failed items that are available again.
    retried: u64,
}

/// Retry failed items
///
/// They are available again, in a new pass with all their retries, and a partition that had failed is open again.
#[utoipa::path(
    post,
    path = "/v1/partitions/{id}/retry",
    tag = "actions",
    params(
        ("id" = String, Path, description = "The partition", min_length = 1, max_length = 512),
        ("If-Match" = Option<String>, Header, description = "Only if the partition has this ETag"),
    ),
    request_body(content = Option<RetryBody>, content_type = "application/json"),
    responses((status = 200, description = "Done", body = Retried, content_type = "application/json"), Problems, ChangeProblems),
)]
pub(crate) async fn retry(State(app): State<App>, asked: Told<RetryBody>) -> Result<Response, Problem> {
    if let Some(gate) = asked.told.gate.filter(|gate| *gate < 0) {
        return Err(Problem::unprocessable(format!("gate is {gate}, expected {GATE}")));
    }
    let filter = RetryFilter { item: asked.told.item.clone(), gate: asked.told.gate };
    let Acted { items: retried, .. } = asked.act(&app, &Action::Retry(filter)).await?;
    Ok(json(StatusCode::OK, &[], &Retried { partition: asked.partition, retried }))
}

/// Where to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RewindBody {
    /// A gate that the partition has reached.
    #[schema(required, minimum = 0, maximum = 2147483647)]
    gate: Option<i32>,
}

/// What a rewind did.
#[derive(Serialize, ToSchema)]
pub(crate) struct RewoundBody {
    /// The partition.
    partition: String,
    /// The gate at which it is now.
    gate: i32,
    /// Items that are available again.
    items: u64,
    /// Items that were removed, since answers will make them again.
    removed: u64,
}

/// Deliver again from a gate on
///
/// With the data of that time; it takes a partition with `keep_history`.
#[utoipa::path(
    post,
    path = "/v1/partitions/{id}/rewind",
    tag = "actions",
    params(
        ("id" = String, Path, description = "The partition", min_length = 1, max_length = 512),
        ("If-Match" = Option<String>, Header, description = "Only if the partition has this ETag"),
    ),
    request_body(content = RewindBody, content_type = "application/json"),
    responses((status = 200, description = "Done", body = RewoundBody, content_type = "application/json"), Problems, ChangeProblems),
)]
pub(crate) async fn rewind(State(app): State<App>, asked: Told<RewindBody>) -> Result<Response, Problem> {
    let gate = asked.told.gate.filter(|gate| *gate >= 0);
    let gate = gate.ok_or_else(|| {
        Problem::unprocessable("say where to: {\"gate\": 0}, or a higher one that was reached")
    })?;
    let Acted { items, removed, .. } = asked.act(&app, &Action::Rewind(gate)).await?;
    let done = RewoundBody { partition: asked.partition, gate, items, removed };
    Ok(json(StatusCode::OK, &[], &done))
}

/// A partition's status.
#[derive(Serialize, ToSchema)]
pub(crate) struct Changed {
    /// The partition.
    partition: String,
    /// Its status now.
    status: PartitionStatus,
}

/// Set a partition aside
///
/// Nothing more of it is delivered until it is resumed; what is in flight ends.
#[utoipa::path(
    post,
    path = "/v1/partitions/{id}/pause",
    tag = "actions",
    params(
        ("id" = String, Path, description = "The partition", min_length = 1, max_length = 512),
        ("If-Match" = Option<String>, Header, description = "Only if the partition has this ETag"),
    ),
    responses((status = 200, description = "Done", body = Changed, content_type = "application/json"), Problems, ChangeProblems),
)]
pub(crate) async fn pause(State(app): State<App>, asked: Told<Nothing>) -> Result<Response, Problem> {
    asked.act(&app, &Action::Pause).await?;
    Ok(json(StatusCode::OK, &[], &Changed { partition: asked.partition, status: PartitionStatus::Paused }))
}

/// Let a paused partition go on
///
/// Also one whose gate has taken longer than its deadline.
#[utoipa::path(
    post,
    path = "/v1/partitions/{id}/resume",
    tag = "actions",
    params(
        ("id" = String, Path, description = "The partition", min_length = 1, max_length = 512),
        ("If-Match" = Option<String>, Header, description = "Only if the partition has this ETag"),
    ),
    responses((status = 200, description = "Done", body = Changed, content_type = "application/json"), Problems, ChangeProblems),
)]
pub(crate) async fn resume(State(app): State<App>, asked: Told<Nothing>) -> Result<Response, Problem> {
    asked.act(&app, &Action::Resume).await?;
    Ok(json(StatusCode::OK, &[], &Changed { partition: asked.partition, status: PartitionStatus::Available }))
}

/// What a cancellation did.
#[derive(Serialize, ToSchema)]
pub(crate) struct Cancelled {
    /// The partition.
    partition: String,
    /// Open items that were cancelled.
    cancelled: u64,
}

/// End a partition for good
///
/// Its open items are cancelled, what is in flight is aborted, and it takes no more items.
#[utoipa::path(
    post,
    path = "/v1/partitions/{id}/cancel",
    tag = "actions",
    params(
        ("id" = String, Path, description = "The partition", min_length = 1, max_length = 512),
        ("If-Match" = Option<String>, Header, description = "Only if the partition has this ETag"),
    ),
    responses((status = 200, description = "Done", body = Cancelled, content_type = "application/json"), Problems, ChangeProblems),
)]
pub(crate) async fn cancel(State(app): State<App>, asked: Told<Nothing>) -> Result<Response, Problem> {
    let Acted { items: cancelled, .. } = asked.act(&app, &Action::Cancel).await?;
    Ok(json(StatusCode::OK, &[], &Cancelled { partition: asked.partition, cancelled }))
}

/// What sealing did.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sealed {
    /// The partition.
    partition: String,
    /// True.
    sealed: bool,
}

/// Let a held partition advance and complete by itself
#[utoipa::path(
    post,
    path = "/v1/partitions/{id}/seal",
    tag = "actions",
    params(
        ("id" = String, Path, description = "The partition", min_length = 1, max_length = 512),
        ("If-Match" = Option<String>, Header, description = "Only if the partition has this ETag"),
    ),
    responses((status = 200, description = "Done", body = Sealed, content_type = "application/json"), Problems, ChangeProblems),
)]
pub(crate) async fn seal(State(app): State<App>, asked: Told<Nothing>) -> Result<Response, Problem> {
    asked.act(&app, &Action::Seal).await?;
    Ok(json(StatusCode::OK, &[], &Sealed { partition: asked.partition, sealed: true }))
}

/// Where a partition is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Advanced {
    /// The partition.
    partition: String,
    /// The gate at which it is now.
    gate: i32,
}

/// Raise the gate by hand
///
/// To the lowest one that has open items.
#[utoipa::path(
    post,
    path = "/v1/partitions/{id}/advance",
    tag = "actions",
    params(
        ("id" = String, Path, description = "The partition", min_length = 1, max_length = 512),
        ("If-Match" = Option<String>, Header, description = "Only if the partition has this ETag"),
    ),
    responses((status = 200, description = "Done", body = Advanced, content_type = "application/json"), Problems, ChangeProblems),
)]
pub(crate) async fn advance(State(app): State<App>, asked: Told<Nothing>) -> Result<Response, Problem> {
    let Acted { gate, .. } = asked.act(&app, &Action::Advance).await?;
    Ok(json(StatusCode::OK, &[], &Advanced { partition: asked.partition, gate }))
}
