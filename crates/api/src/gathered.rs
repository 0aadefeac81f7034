//! What an item gathers, for handlers that fetch it by the `gathered_url` of their delivery:
//! `GET /v1/partitions/{id}/gathered/{gate}?status=complete&token=…`.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::header,
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use gatefeed_core::{
    Store, StoreError,
    gather::{Ended, Gather, GatherRequest, GatheredPage},
};
use serde::Deserialize;

use crate::{
    problem::{Problem, no_method},
    router::private,
};

const NDJSON: &str = "application/x-ndjson";

/// `GET /v1/partitions/{id}/gathered/{gate}`: the items that ended at this gate, one a line: `{"id", "status", "data"}`, as
/// in `gathered`. `?status=` is `complete` (default), `failed`, `cancelled` or `any`; `?token=` is the watcher's signature of
/// all that. 410 where the data of one is gone from the blob store, 503 where
/// this process knows none. A body without its end means that the database went away
/// meanwhile, or that this is found further on.
pub fn gathered(store: Arc<dyn Store>) -> Router {
    Router::new()
        .route("/v1/partitions/{id}/gathered/{gate}", get(stream_items))
        .method_not_allowed_fallback(no_method)
        .layer(map_response(private))
        .with_state(store)
}

#[derive(Deserialize)]
struct Asked {
    status: Option<String>,
    #[serde(default)]
    token: String,
}

async fn stream_items(
    State(store): State<Arc<dyn Store>>,
    path: Result<Path<(String, i32)>, PathRejection>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path((partition, gate)) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let Query(asked) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let status = asked.status.as_deref().map_or(Ok(Ended::Complete), str::parse);
    let status = status.map_err(|error: StoreError| Problem::bad_request(error.to_string()))?;
    let gather = Gather { gate, status };
    if !store.callback_key().await?.admits_gathered(&asked.token, &partition, gather) {
        return Err(Problem::forbidden("the token is not that of a gathered_url for these items"));
    }
    let request = GatherRequest { partition, gather, after: None };
    match store.gathered(&request).await {
        Ok(page) => Ok(body(store, request, page)),
        Err(StoreError::Config(why)) if store.blobs().is_none() => Err(Problem::no_blob_store(why)),
        Err(error) => Err(error.into()),
    }
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
