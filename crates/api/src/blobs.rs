//! Large data, for handlers that were sent a link to it: `GET /v1/blobs/{path}?expires=…&signature=…`.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use gatefeed_core::{Store, StoreError, blob::Blobs};
use serde::Deserialize;

use crate::problem::{Problem, no_method};

/// Read and sent at a time.
const PART_BYTES: u64 = 1 << 20;

/// `GET /v1/blobs/{space}/{part}/{name}?expires=&signature=`: the bytes, for whoever has a link that gatefeed has signed.
/// 403 for any other, 404 where the blob is gone. A body without its end means that the blob store went away meanwhile.
pub fn blobs(store: Arc<dyn Store>) -> Router {
    Router::new()
        .route("/v1/blobs/{space}/{part}/{name}", get(fetch))
        .method_not_allowed_fallback(no_method)
        .with_state(store)
}

#[derive(Deserialize)]
struct Signed {
    expires: u64,
    signature: String,
}

async fn fetch(
    State(store): State<Arc<dyn Store>>,
    path: Result<Path<(String, String, String)>, PathRejection>,
    signed: Result<Query<Signed>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path((space, part, name)) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let Query(signed) = signed.map_err(|error| Problem::bad_request(error.body_text()))?;
    first(store, format!("{space}/{part}/{name}"), &signed).await.map_err(problem)
}

async fn first(store: Arc<dyn Store>, path: String, signed: &Signed) -> Result<Response, StoreError> {
    let none = || StoreError::NotFound("there is no blob store here (--blob-store)".into());
    let blobs = store.blobs().ok_or_else(none)?;
    let size = blobs.linked(&path, signed.expires, &signed.signature).await?;
    let begin = blobs.read(&path, 0, PART_BYTES).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::CACHE_CONTROL, "private, no-store".to_owned()),
    ];
    Ok((headers, body(blobs, path, size, begin)).into_response())
}

/// In words, for whoever reads the handler's log.
fn problem(error: StoreError) -> Problem {
    match error {
        StoreError::Refused(detail) => Problem::forbidden(detail),
        StoreError::BlobStore(why) => Problem::no_blobs(&why, "ask again"),
        error if error.is_retryable() => Problem::busy(error.to_string()),
        error => error.into(),
    }
}

/// The beginning is there, so that what is wrong is said with a status; the rest is read as it is sent.
fn body(blobs: Arc<dyn Blobs>, path: String, size: u64, begin: Bytes) -> Body {
    let rest = stream::try_unfold(begin.len() as u64, move |start| {
        let (blobs, path) = (Arc::clone(&blobs), path.clone());
        async move {
            if start >= size {
                return Ok(None);
            }
            let part = blobs.read(&path, start, PART_BYTES).await?;
            match part.len() as u64 {
                0 => Err(StoreError::NotFound(format!("the blob {path} ends before its end"))),
                length => Ok(Some((part, start + length))),
            }
        }
    });
    Body::from_stream(stream::iter([Ok(begin)]).chain(rest.inspect_err(|error| {
        tracing::warn!(%error, "a blob could not be read to its end");
    })))
}
