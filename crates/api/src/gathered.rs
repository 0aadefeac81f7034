//! What an item gathers, for handlers that fetch it: `GET /v1/partitions/{id}/gathered/{gate}?status=complete`.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use gatefeed_core::{
    Store, StoreError,
    gather::{Ended, Gather, GatherRequest, GatheredPage},
};
use serde::{Deserialize, Serialize};

const NDJSON: &str = "application/x-ndjson";

/// `GET /v1/partitions/{id}/gathered/{gate}`: the items that ended at this gate, one a line: `{"id", "status", "data"}`, as
/// in `gathered`. `?status=` is `complete` (default), `failed`, `cancelled` or `any`. A body without its end means that
/// the database went away meanwhile.
pub fn gathered(store: Arc<dyn Store>) -> Router {
    Router::new().route("/v1/partitions/{id}/gathered/{gate}", get(stream_items)).with_state(store)
}

#[derive(Deserialize)]
struct Asked {
    status: Option<String>,
}

#[derive(Serialize)]
struct Problem {
    error: String,
}

async fn stream_items(
    State(store): State<Arc<dyn Store>>,
    Path((partition, gate)): Path<(String, i32)>,
    Query(asked): Query<Asked>,
) -> Response {
    let status = asked.status.as_deref().map_or(Ok(Ended::Complete), str::parse);
    match first(&store, partition, gate, status).await {
        Ok((request, page)) => body(store, request, page),
        Err(error) => problem(&error),
    }
}

async fn first(
    store: &Arc<dyn Store>,
    partition: String,
    gate: i32,
    status: Result<Ended, StoreError>,
) -> Result<(GatherRequest, GatheredPage), StoreError> {
    let request = GatherRequest { partition, gather: Gather { gate, status: status? }, after: None };
    let page = store.gathered(&request).await?;
    Ok((request, page))
}

/// The first page is there, so that what is wrong is said with a status; the rest is read as it is sent.
fn body(store: Arc<dyn Store>, request: GatherRequest, first: GatheredPage) -> Response {
    let next = first.next.clone().map(|after| GatherRequest { after: Some(after), ..request });
    let rest = stream::try_unfold(next, move |request| {
        let store = Arc::clone(&store);
        async move {
            let Some(request) = request else { return Ok::<_, StoreError>(None) };
            let page = store.gathered(&request).await?;
            let next = page.next.clone().map(|after| GatherRequest { after: Some(after), ..request });
            Ok(Some((lines(&page), next)))
        }
    });
    let all = stream::iter([Ok(lines(&first))]).chain(rest.inspect_err(|error| {
        tracing::warn!(%error, "what is gathered could not be read to its end");
    }));
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(all)).into_response()
}

fn lines(page: &GatheredPage) -> Bytes {
    let mut text = String::new();
    for item in &page.items {
        text.push_str(&item.to_json());
        text.push('\n');
    }
    text.into()
}

fn problem(error: &StoreError) -> Response {
    let status = match error {
        StoreError::NotFound(_) => StatusCode::NOT_FOUND,
        StoreError::Data(_) => StatusCode::BAD_REQUEST,
        error if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, Json(Problem { error: error.to_string() })).into_response()
}
