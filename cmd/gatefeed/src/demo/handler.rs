//! The demo's handler: an HTTP service such as one writes in any language. Items at gate 0 are documents, to be
//! counted one by one; the item at gate 1 asks for the ranking and gathers them: gatefeed delivers it once every document
//! is through, with what became of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
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

use super::rank::{self, Document, Ranked};

/// The gate of the documents.
pub(crate) const GATE_READ: i32 = 0;
/// The gate of the ranking.
pub(crate) const GATE_RANK: i32 = 1;
/// The most that the ranking gathers: some 100 bytes a document.
pub(crate) const GATHER_BYTES_MAX: usize = 256 << 20;
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

/// The body of the ranking item: its data, and the documents that it gathers.
#[derive(Debug, Deserialize)]
struct Delivered {
    data: Query,
    gathered: Vec<Gathered>,
}

/// What became of a document.
#[derive(Debug, Deserialize)]
struct Gathered {
    id: String,
    data: Document,
}

/// What the handler knows: nothing of the items that it has seen.
pub(crate) struct Handler {
    terms: BTreeSet<String>,
    top: usize,
    /// How long it pretends to work on each item.
    work: Duration,
    /// Requests begun and not ended, by gate.
    in_flight: [AtomicI64; GATES],
}

impl Handler {
    /// A handler that counts these words, ranks the best `top` documents, and pretends to `work` on each item.
    pub(crate) fn new(terms: BTreeSet<String>, top: usize, work: Duration) -> Self {
        Self { terms, top, work, in_flight: Default::default() }
    }

    /// Requests that it is at work on.
    pub(crate) fn in_flight(&self, gate: i32) -> Option<i64> {
        Some(self.counter(gate)?.load(Ordering::Relaxed))
    }

    fn counter(&self, gate: i32) -> Option<&AtomicI64> {
        self.in_flight.get(usize::try_from(gate).ok()?)
    }

    fn rank(&self, delivered: Delivered) -> Ranking {
        let documents: BTreeMap<_, _> = delivered.gathered.into_iter().map(|g| (g.id, g.data)).collect();
        let ranking = rank::rank(&documents, &rank::terms(&delivered.data.query), self.top);
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
    let limit = DefaultBodyLimit::max(GATHER_BYTES_MAX);
    Router::new().route("/", post(receive)).layer(limit).with_state(handler)
}

async fn receive(State(handler): State<Arc<Handler>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let gate = header("Gatefeed-Gate").and_then(|gate| gate.parse().ok());
    let Some(gate) = gate else {
        return refused("the header Gatefeed-Gate is missing");
    };
    let _counted = Counted::new(Arc::clone(&handler), gate);
    tokio::time::sleep(handler.work).await;
    // Counting the words of a large file takes a while, in which this thread has others to serve.
    let work = tokio::task::spawn_blocking(move || answer(&handler, gate, &body));
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

fn answer(handler: &Handler, gate: i32, body: &[u8]) -> Response {
    if gate == GATE_READ {
        return Json(json!({"data": rank::read(body, &handler.terms)})).into_response();
    }
    match serde_json::from_slice(body) {
        Ok(delivered) => Json(json!({"data": handler.rank(delivered)})).into_response(),
        Err(error) => refused(&format!("expected a query and what it gathers: {error}")),
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
    fn the_ranking_is_of_what_it_gathers() {
        let handler = handler();
        let body = json!({"data": {"query": "rust"}, "gathered": [
            {"id": "a", "status": "complete", "data": rank::read(b"rust rust", &handler.terms)},
            {"id": "b", "status": "complete", "data": rank::read(b"", &handler.terms)},
        ]});
        let ranking = handler.rank(serde_json::from_value(body).unwrap());
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
