//! The demo's handler: an HTTP service such as one writes in any language. Items at gate 0 are documents, to be
//! counted one by one; the item at gate 1 asks for the ranking, which needs all of them: gatefeed delivers it
//! once every document is through.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
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
    has_ranked: AtomicBool,
}

impl Handler {
    /// A handler that counts these words and ranks the best `top` documents.
    pub(crate) fn new(terms: BTreeSet<String>, top: usize) -> Self {
        Self { terms, top, documents: Mutex::default(), has_ranked: AtomicBool::new(false) }
    }

    /// How many documents it has counted.
    pub(crate) fn documents_read(&self) -> usize {
        self.documents().len()
    }

    /// Whether it has ranked them.
    pub(crate) fn has_ranked(&self) -> bool {
        self.has_ranked.load(Ordering::Relaxed)
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
        self.has_ranked.store(true, Ordering::Relaxed);
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
    let (Some(item), Some(gate)) = (header("Gatefeed-Item"), header("Gatefeed-Gate")) else {
        return refused("the headers Gatefeed-Item and Gatefeed-Gate are missing");
    };
    // Counting the words of a large file takes a while, in which this thread has others to serve.
    let work = tokio::task::spawn_blocking(move || answer(&handler, &gate, item, &body));
    work.await.unwrap_or_else(|_| refused("the handler broke down"))
}

fn answer(handler: &Handler, gate: &str, item: String, body: &[u8]) -> Response {
    if gate == GATE_READ.to_string() {
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

    #[test]
    fn a_document_that_comes_twice_counts_once() {
        let handler = Handler::new(rank::terms("rust"), 10);
        for _ in 0..2 {
            assert_eq!(handler.read("a".into(), b"rust rust").terms["rust"], 2);
        }
        handler.read("b".into(), b"");
        let ranking = handler.rank(&Query { query: "rust".into() });
        assert_eq!((ranking.documents, ranking.ranking.len()), (2, 1));
        assert_eq!(ranking.ranking[0].matches["rust"], 2);
        assert!(handler.has_ranked());
    }
}
