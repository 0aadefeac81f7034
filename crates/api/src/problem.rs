//! Errors as the API tells them: problem details (RFC 9457), for every one.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use gatefeed_core::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

/// The content type of a problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// Seconds after which what is busy now is worth another try.
const SOON: u64 = 1;

/// Lines or parts of a body that are named; more are counted.
pub(crate) const ERRORS_MAX: usize = 20;

/// What went wrong, and what to do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Which kind it is: `urn:gatefeed:` and a word that does not change.
    #[serde(rename = "type")]
    #[schema(example = "urn:gatefeed:not-found")]
    kind: String,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What is wrong in this case, and what to do.
    detail: String,
    /// The lines or parts of the body that will not do, the first twenty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Wrong>,
    /// For `Retry-After`.
    #[serde(skip)]
    retry_after: Option<u64>,
    /// For `WWW-Authenticate`.
    #[serde(skip)]
    challenge: bool,
}

/// A line, part or item of a body that will not do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Wrong {
    /// The number of the line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u64>,
    /// The place in the list `items`, from 0: `items[0]` is the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<u64>,
    /// The number of the form's part, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) part: Option<u64>,
    /// The part's name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// What is wrong with it.
    pub(crate) detail: String,
}

impl Wrong {
    /// Of a line.
    pub(crate) fn line(line: u64, detail: String) -> Self {
        Self { line: Some(line), index: None, part: None, name: None, detail }
    }

    /// Of an item of a list.
    pub(crate) fn index(index: u64, detail: String) -> Self {
        Self { line: None, index: Some(index), part: None, name: None, detail }
    }

    /// Of a part.
    pub(crate) fn part(part: u64, name: Option<String>, detail: String) -> Self {
        Self { line: None, index: None, part: Some(part), name, detail }
    }
}

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        kind: &str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: format!("urn:gatefeed:{kind}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            challenge: false,
        }
    }

    /// The request cannot be read.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request cannot be read", detail)
    }

    /// Nobody says who asks.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is needed", detail);
        Self { challenge: true, ..problem }
    }

    /// Whoever asks may not.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "This is not allowed", detail)
    }

    /// There is no such thing.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
    }

    /// The thing is there, and knows no such method.
    pub(crate) fn method(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "It has no such method", detail)
    }

    /// It does not fit the state of what it was asked of.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "refused", "It does not fit the state of things", detail)
    }

    /// It takes nothing more.
    pub(crate) fn cancelled(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "cancelled", "It is cancelled and takes nothing more", detail)
    }

    /// It has changed since.
    pub(crate) fn changed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "changed", "It has changed since", detail)
    }

    /// There is more of it than is taken.
    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
    }

    /// It comes too slowly.
    pub(crate) fn too_slow(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The body did not come in time", detail)
    }

    /// The media type is not one that is taken here.
    pub(crate) fn media_type(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media-type",
            "This media type is not taken here",
            detail,
        )
    }

    /// It can be read, and will not do.
    pub(crate) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "This will not do", detail)
    }

    /// Whoever asks should ask less for a while.
    pub(crate) fn backlog(detail: impl Into<String>, seconds: u64) -> Self {
        let problem =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "backlog", "There is too much work already", detail);
        Self { retry_after: Some(seconds), ..problem }
    }

    /// There is no room just now.
    pub(crate) fn busy(detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "There is no room just now", detail);
        Self { retry_after: Some(SOON), ..problem }
    }

    /// The blob store does nothing just now. Why, with folders and hosts, is for whoever runs this; whoever asks hears what to
    /// do.
    pub(crate) fn no_blobs(why: &str, advice: &str) -> Self {
        tracing::warn!(error = why, "the blob store has no answer");
        Self::busy(format!(
            "the blob store, where large data lies, does nothing just now, and the server's log says why: {advice}"
        ))
    }

    /// The row is there, and its data is in a blob store that this process was started without.
    pub(crate) fn no_blob_store(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-blob-store",
            "The item's data is in a blob store",
            detail,
        )
    }

    /// The row is there and its data is not.
    pub(crate) fn data_gone(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "data-gone", "The item's data is gone", detail)
    }

    /// Whether a feed has too much work, or it is too much.
    pub(crate) fn is_too_much(&self) -> bool {
        let status = self.status;
        status == StatusCode::TOO_MANY_REQUESTS.as_u16() || status == StatusCode::PAYLOAD_TOO_LARGE.as_u16()
    }

    /// Whether there may be room in a moment.
    pub(crate) fn is_busy(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE.as_u16()
    }

    /// With what is wrong in detail.
    pub(crate) fn with(self, errors: Vec<Wrong>) -> Self {
        Self { errors, ..self }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(detail) => Self::not_found(detail),
            StoreError::Data(detail) => Self::unprocessable(detail),
            StoreError::Refused(detail) => Self::conflict(detail),
            StoreError::Cancelled(detail) => Self::cancelled(detail),
            StoreError::Changed(detail) => Self::changed(detail),
            StoreError::Damaged(detail) => Self::data_gone(detail),
            StoreError::BlobStore(why) => Self::no_blobs(&why, "ask again"),
            error if error.is_retryable() => {
                tell(&error);
                Self::busy("the database has no answer just now: ask again")
            }
            error => {
                // What it says is for whoever runs this, not for whoever asks.
                tracing::error!(%error, "a request could not be answered");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Self::new(status, "internal", "Something is wrong here", "the server's log says what")
            }
        }
    }
}

/// Once a second: every request may meet it.
fn tell(error: &StoreError) {
    const INTERVAL: Duration = Duration::from_secs(1);
    static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.is_none_or(|told| told.elapsed() >= INTERVAL) {
        *told = Some(Instant::now());
        tracing::warn!(%error, "the database has no answer; requests are answered 503");
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let headers = [
            (header::CONTENT_TYPE, PROBLEM_JSON),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        let mut response = (status, headers, body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What answers where there is something, but not for this method.
pub(crate) async fn no_method(method: Method, uri: Uri) -> Problem {
    Problem::method(format!("{method} is nothing that {} knows", uri.path()))
}

/// What any operation may answer beside what it is for.
#[derive(utoipa::IntoResponses)]
#[allow(dead_code, reason = "only described")]
pub(crate) enum Problems {
    /// The request cannot be read.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(Problem),
    /// A token is needed.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// The token does not allow this.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// There is no such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// The request's head is larger than is read.
    #[response(status = 431)]
    HeadTooLarge,
    /// Something is wrong here.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(Problem),
    /// There is no room just now; `Retry-After` says when to ask again.
    #[response(status = 503, content_type = "application/problem+json")]
    Busy(Problem),
}

/// What an operation with a body, or one that changes something, may answer besides.
#[derive(utoipa::IntoResponses)]
#[allow(dead_code, reason = "only described")]
pub(crate) enum ChangeProblems {
    /// The body did not come in time.
    #[response(status = 408, content_type = "application/problem+json")]
    TooSlow(Problem),
    /// It does not fit the state of things.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// It has changed since: `If-Match` names another version.
    #[response(status = 412, content_type = "application/problem+json")]
    Changed(Problem),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// This media type is not taken here.
    #[response(status = 415, content_type = "application/problem+json")]
    MediaType(Problem),
    /// It can be read, and will not do.
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(Problem),
    /// There is too much work already; `Retry-After` says when to ask again.
    #[response(status = 429, content_type = "application/problem+json")]
    Backlog(Problem),
}
