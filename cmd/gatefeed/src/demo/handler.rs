//! The demo's handler: an HTTP service such as one writes in any language. Items at gate 0 are documents, to be
//! counted one by one; the item at gate 1 asks for the ranking, which needs all of them: gatefeed delivers it
//! once every document is through.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use gatefeed_api::axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    corpus::FILE_BYTES_MAX,
    rank::{self, Document, Ranked},
};

/// The gate of the documents.
pub(crate) const GATE_READ: i32 = 0;
/// The gate of the ranking.
pub(crate) const GATE_RANK: i32 = 1;
const GATES: usize = 2;

/// The data of the ranking item, as it is pushed.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Query {
    pub(crate) query: String,
}

/// The data of the ranking item, as the handler answers it.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Ranking {
    pub(crate) ranking: Vec<Ranked>,
    pub(crate) documents: usize,
}

/// What the handler knows.
pub(crate) struct Handler {
    terms: BTreeSet<String>,
    top: usize,
    /// By item id, so that a document that is delivered twice counts once.
    documents: Mutex<BTreeMap<String, Document>>,
    /// How long it pretends to work on each item.
    work: Duration,
    /// Requests begun and not ended, by gate.
    in_flight: [AtomicI64; GATES],
}

impl Handler {
    /// A handler that counts these words, ranks the best `top` documents, and pretends to `work` on each item.
    pub(crate) fn new(terms: BTreeSet<String>, top: usize, work: Duration) -> Self {
        Self { terms, top, documents: Mutex::default(), work, in_flight: Default::default() }
    }

    /// Requests that it is at work on.
    pub(crate) fn in_flight(&self, gate: i32) -> Option<i64> {
        Some(self.counter(gate)?.load(Ordering::Relaxed))
    }

    fn counter(&self, gate: i32) -> Option<&AtomicI64> {
        self.in_flight.get(usize::try_from(gate).ok()?)
    }

    fn documents(&self) -> MutexGuard<'_, BTreeMap<String, Document>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, item: String, body: &[u8]) -> Document {
        let document = rank::read(body, &self.terms);
        self.documents().insert(item, document.clone());
        document
    }

    fn rank(&self, query: &Query) -> Ranking {
        let documents = self.documents();
        let ranking = rank::rank(&documents, &rank::terms(&query.query), self.top);
        Ranking { ranking, documents: documents.len() }
    }
}

/// A handler that serves until it is dropped.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    _stop: DropGuard,
}

/// Serves the handler on a free port of this machine.
pub(crate) async fn serve(handler: Arc<Handler>) -> Result<Serving> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    tokio::spawn(gatefeed_api::serve(listener, router(handler), stop.clone().cancelled_owned()));
    Ok(Serving { address, _stop: stop.drop_guard() })
}

fn router(handler: Arc<Handler>) -> Router {
    let limit = DefaultBodyLimit::max(FILE_BYTES_MAX as usize);
    Router::new().route("/", post(receive)).layer(limit).with_state(handler)
}

async fn receive(State(handler): State<Arc<Handler>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let gate = header("Gatefeed-Gate").and_then(|gate| gate.parse().ok());
    let (Some(item), Some(gate)) = (header("Gatefeed-Item"), gate) else {
        return refused("the headers Gatefeed-Item and Gatefeed-Gate are missing");
    };
    let _counted = Counted::new(Arc::clone(&handler), gate);
    tokio::time::sleep(handler.work).await;
    // Counting the words of a large file takes a while, in which this thread has others to serve.
    let work = tokio::task::spawn_blocking(move || answer(&handler, gate, item, &body));
    work.await.unwrap_or_else(|_| refused("the handler broke down"))
}

/// A request in flight, which may also end because nobody waits for its answer any more.
struct Counted {
    handler: Arc<Handler>,
    gate: i32,
}

impl Counted {
    fn new(handler: Arc<Handler>, gate: i32) -> Self {
        let counted = Self { handler, gate };
        counted.add(1);
        counted
    }

    fn add(&self, number: i64) {
        if let Some(counter) = self.handler.counter(self.gate) {
            counter.fetch_add(number, Ordering::Relaxed);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.add(-1);
    }
}

fn answer(handler: &Handler, gate: i32, item: String, body: &[u8]) -> Response {
    if gate == GATE_READ {
        return Json(json!({"data": handler.read(item, body)})).into_response();
    }
    match serde_json::from_slice(body) {
        Ok(query) => Json(json!({"data": handler.rank(&query)})).into_response(),
        Err(error) => refused(&format!("expected a query: {error}")),
    }
}

fn refused(message: &str) -> Response {
    let error = json!({"error": {"message": message, "no_retry": true}});
    (StatusCode::BAD_REQUEST, Json(error)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler() -> Handler {
        Handler::new(rank::terms("rust"), 10, Duration::ZERO)
    }

    #[test]
    fn a_document_that_comes_twice_counts_once() {
        let handler = handler();
        for _ in 0..2 {
            assert_eq!(handler.read("a".into(), b"rust rust").terms["rust"], 2);
        }
        handler.read("b".into(), b"");
        let ranking = handler.rank(&Query { query: "rust".into() });
        assert_eq!((ranking.documents, ranking.ranking.len()), (2, 1));
        assert_eq!(ranking.ranking[0].matches["rust"], 2);
    }

    #[test]
    fn requests_in_flight_are_counted_by_gate_until_they_end() {
        let handler = Arc::new(handler());
        let counted = [0, 1, 0, 7].map(|gate| Counted::new(Arc::clone(&handler), gate));
        let in_flight = || [0, 1, 7].map(|gate| handler.in_flight(gate));
        assert_eq!(in_flight(), [Some(2), Some(1), None]);
        drop(counted);
        assert_eq!(in_flight(), [Some(0), Some(0), None]);
    }
}
