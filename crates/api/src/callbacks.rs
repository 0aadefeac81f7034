//! Answers that come later: `POST /v1/callbacks/{token}`, and `…/heartbeat` while it takes longer. The token says which
//! attempt it is for and that its bearer may answer; nothing else is asked.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::post,
};
use chrono::{DateTime, SecondsFormat, Utc};
use gatefeed_core::{
    Store, StoreError,
    answer::{Steering, Verdict, header_text, read, steered},
    callback::{Callback, CalledBack, Heartbeat, Key, Refusal, Ticket},
    item::ItemStatus,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use tokio::{
    sync::{OnceCell, Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::{
    problem::{Problem, no_method},
    router::private,
};

/// Answers that are read and written at a time; the next ones wait.
const ANSWERS_MAX: usize = 64;

/// How long one waits for that, and how long its body may take then.
const WAIT_MAX: Duration = Duration::from_secs(10);
const READ_MAX: Duration = Duration::from_secs(30);

const DONE: &str = "gatefeed-done";
const GATE: &str = "gatefeed-gate";

/// `POST /v1/callbacks/{token}`: the answer of an attempt, with the fields of a handler's answer, or, with `Gatefeed-Done` or
/// `Gatefeed-Gate`, the item's new data. 200 with `{"status", "gate"}` of the item once it is committed. Otherwise problem
/// details: 400 for what is no answer, 404 for what is no token of this database, 409 for one that is used or whose
/// partition takes nothing now, 410 for one that has expired, 408 for a body that takes too long, 413 for too much, 503 for
/// later.
///
/// `POST /v1/callbacks/{token}/heartbeat`: the item waits for its timeout from now on: 200 with `{"waiting_until"}`, which is
/// null before it is parked.
pub fn callbacks(store: Arc<dyn Store>) -> Router {
    let shared = Shared { store, key: OnceCell::new(), room: Semaphore::new(ANSWERS_MAX) };
    Router::new()
        .route("/v1/callbacks/{token}", post(call_back))
        .route("/v1/callbacks/{token}/heartbeat", post(beat))
        .method_not_allowed_fallback(no_method)
        .layer(map_response(private))
        .with_state(Arc::new(shared))
}

struct Shared {
    store: Arc<dyn Store>,
    /// Read with the first call.
    key: OnceCell<Key>,
    room: Semaphore,
}

/// The item as its answer has left it.
#[derive(Serialize)]
struct Answered {
    status: ItemStatus,
    gate: i32,
}

#[derive(Serialize)]
struct Waiting {
    waiting_until: Option<String>,
}

async fn call_back(
    State(shared): State<Arc<Shared>>,
    token: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let ticket = shared.ticket(token).await?;
    let _room = shared.enter().await?;
    let body = read_body(body, &headers, ticket.max_answer).await?;
    let verdict = verdict(&headers, body).map_err(no_answer)?;
    let callback = Callback { ticket, verdict, jitter: rand::random() };
    match shared.store.call_back(&callback).await.map_err(not_written)? {
        CalledBack::Written { status, gate } => Ok(Json(Answered { status, gate }).into_response()),
        CalledBack::Refused(refusal) => Err(refused(refusal)),
    }
}

async fn beat(
    State(shared): State<Arc<Shared>>,
    token: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let ticket = shared.ticket(token).await?;
    let _room = shared.enter().await?;
    let waiting_until = match shared.store.heartbeat(&ticket).await.map_err(not_written)? {
        Heartbeat::Extended(until) => Some(moment(until)),
        Heartbeat::InFlight => None,
        Heartbeat::Refused(refusal) => return Err(refused(refusal)),
    };
    Ok(Json(Waiting { waiting_until }).into_response())
}

fn moment(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

impl Shared {
    /// What a token says. Nothing is read of the request, or written, for one that this database has not signed.
    async fn ticket(&self, token: Result<Path<String>, PathRejection>) -> Result<Ticket, Problem> {
        let key = self.key.get_or_try_init(|| self.store.callback_key()).await.map_err(not_written)?;
        token.ok().and_then(|Path(token)| key.read(&token)).ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "callback-unknown",
                "This is no token of this database",
                "use the URL of the delivery's Gatefeed-Callback header as it is; its token is good for the database \
                 that the delivery came from only",
            )
        })
    }

    async fn enter(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let busy = || Problem::busy("too many callbacks at a time: call again");
        timeout(WAIT_MAX, self.room.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())
    }
}

async fn read_body(body: Body, headers: &HeaderMap, max: u64) -> Result<Bytes, Problem> {
    let coding = headers.get(header::CONTENT_ENCODING).map(|coding| coding.as_bytes().trim_ascii());
    if coding.is_some_and(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media-type",
            "This is not taken here",
            "send the answer without a Content-Encoding",
        ));
    }
    let limited = Limited::new(body, usize::try_from(max).unwrap_or(usize::MAX));
    match timeout(READ_MAX, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The body is too large",
            format!(
                "an answer has at most {max} bytes (--max-answer of the watcher that made the delivery); nothing was \
                 changed"
            ),
        )),
        Ok(Err(_)) => Err(no_answer("the body broke off".into())),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "too-slow",
            "The body did not come in time",
            format!("it has to be there within {READ_MAX:?}; nothing was changed"),
        )),
    }
}

/// What the request means, as the answer of a handler would.
fn verdict(headers: &HeaderMap, body: Bytes) -> Result<Verdict, String> {
    let text = |name| header_text(name, headers.get_all(name).iter().map(|value| value.as_bytes()));
    let steering =
        Steering { done: text(DONE)?, gate: text(GATE)?, content_type: text(header::CONTENT_TYPE.as_str())? };
    if steering.done.is_some() || steering.gate.is_some() {
        return steered(&steering, body).map(Ok);
    }
    read(&body)
}

fn no_answer(detail: String) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "bad-request",
        "This is no answer",
        format!("{detail}; nothing was changed by this call"),
    )
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Used => Problem::new(
            StatusCode::CONFLICT,
            "callback-used",
            "This attempt has its outcome",
            "it was answered before, or its item was retried, rewound, cancelled or removed since; nothing was changed",
        ),
        Refusal::Expired => Problem::new(
            StatusCode::GONE,
            "callback-expired",
            "This comes too late",
            "the time for it is over (--callback-timeout; heartbeats extend it) and the attempt counts as failed; \
             nothing was changed",
        ),
        Refusal::Closed(status) => Problem::new(
            StatusCode::CONFLICT,
            "callback-closed",
            "Its partition takes nothing now",
            format!(
                "the partition is {}; once somebody has opened it again the token is as good as before, until its time \
                 is over",
                status.as_str()
            ),
        ),
    }
}

fn not_written(error: StoreError) -> Problem {
    match error {
        StoreError::Data(detail) | StoreError::Cancelled(detail) => {
            no_answer(format!("the database refuses the answer: {detail}"))
        }
        StoreError::BlobStore(why) => Problem::no_blobs(&why, "call again, the token is as good as before"),
        error if error.is_retryable() => {
            tracing::debug!(%error, "a callback could not be written");
            Problem::busy("the database has no answer just now: call again, the token is as good as before")
        }
        error => {
            tracing::error!(%error, "a callback could not be written");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, "internal", "Something is wrong here", "the server's log says what")
        }
    }
}
