//! A database, the API over it on a free port, and a client that speaks to it.

pub(crate) mod calls;

use std::{collections::HashMap, future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use gatefeed_api::{ApiOptions, Openness};
use gatefeed_core::Store;
use gatefeed_store::{BlobOptions, Options, connect};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// No case takes longer, on however slow a machine: what does hangs.
const CASE_MAX: Duration = Duration::from_secs(120);

/// A SQLite file or a Postgres schema, migrated, with a server.
pub(crate) struct Place {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) is_postgres: bool,
    pub(crate) address: SocketAddr,
    url: String,
    options: Options,
    _dir: Option<TempDir>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// Whether it came to its end.
    pub(crate) is_whole: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The word of a problem, which has to be one.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        (self.status, problem["type"].as_str().unwrap().trim_start_matches("urn:gatefeed:").to_owned())
    }
}

/// Runs one case.
pub(crate) async fn run<F: Future<Output = ()>>(place: Place, case: impl FnOnce(Arc<Place>) -> F) {
    assert!(timeout(CASE_MAX, case(Arc::new(place))).await.is_ok(), "not over after {CASE_MAX:?}");
}

pub(crate) fn open() -> ApiOptions {
    ApiOptions { openness: Openness::Local, ..ApiOptions::default() }
}

async fn serve(store: &Arc<dyn Store>, options: ApiOptions) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let links = gatefeed_api::blobs(Arc::clone(store)).merge(gatefeed_api::gathered(Arc::clone(store)));
    let api = gatefeed_api::api(Arc::clone(store), options).merge(links);
    let router = api.fallback(gatefeed_api::not_found);
    tokio::spawn(gatefeed_api::serve(listener, router, std::future::pending()));
    address
}

impl Place {
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("gatefeed.db").display());
        Self::make(url, Options::default(), Some(dir)).await
    }

    pub(crate) async fn postgres() -> Self {
        let Ok(url) = std::env::var("GATEFEED_TEST_POSTGRES_URL") else {
            panic!(
                "GATEFEED_TEST_POSTGRES_URL is not set: run ./scripts/test, which starts a Postgres for the tests"
            )
        };
        let schema = Some(format!("api_{}", uuid::Uuid::new_v4().simple()));
        Self::make(url, Options { schema, ..Options::default() }, None).await
    }

    async fn make(url: String, options: Options, dir: Option<TempDir>) -> Self {
        let store = connect(&url, &options).await.unwrap();
        store.migrate().await.unwrap();
        let address = serve(&store, open()).await;
        Self { store, is_postgres: dir.is_none(), address, url, options, _dir: dir }
    }

    /// The same database with a blob store, and a server of that.
    pub(crate) async fn with_blobs(&self, folder: &Path, inline_max: u64) -> (Arc<dyn Store>, Client) {
        let blobs = BlobOptions { url: format!("file://{}", folder.display()), inline_max };
        let options = Options { blobs: Some(blobs), ..self.options.clone() };
        let store = connect(&self.url, &options).await.unwrap();
        let address = serve(&store, open()).await;
        (store, Client { address, headers: String::new() })
    }

    /// Another server of the same database, with other options.
    pub(crate) async fn serve(&self, options: ApiOptions) -> Client {
        Client { address: serve(&self.store, options).await, headers: String::new() }
    }

    /// A client without a token.
    pub(crate) fn client(&self) -> Client {
        Client { address: self.address, headers: String::new() }
    }
}

/// Sends requests, each on a connection of its own.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    headers: String,
}

impl Client {
    /// Of another server.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        Self { address, headers: self.headers.clone() }
    }

    /// With one header more in every request.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        Self { address: self.address, headers: format!("{}{name}: {value}\r\n", self.headers) }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None, b"").await
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, Some("application/json"), body.as_bytes()).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Answer {
        self.open(method, path, content_type, body).await.whole().await
    }

    /// Reads the events of a partition, of which the first has come.
    pub(crate) async fn follow(&self, partition: &str) -> Following {
        let path = format!("/v1/partitions/{partition}/events");
        let mut events = self.open("GET", &path, None, b"").await;
        events.until("event: progress\n").await;
        events
    }

    async fn open(&self, method: &str, path: &str, content_type: Option<&str>, body: &[u8]) -> Following {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let host = if self.headers.contains("Host: ") {
            String::new()
        } else {
            format!("Host: {}\r\n", self.address)
        };
        let content_type = content_type.map_or_else(String::new, |text| format!("Content-Type: {text}\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{host}{content_type}{}Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.headers,
            body.len()
        );
        // A server that refuses a body need not read it.
        _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
        Following { stream, read: Vec::new() }
    }
}

/// An answer that comes bit by bit.
pub(crate) struct Following {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Following {
    /// Reads until this is there.
    pub(crate) async fn until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.read).contains(text) {
            assert_ne!(self.stream.read_buf(&mut self.read).await.unwrap(), 0, "{:?}", parse(&self.read));
        }
    }

    /// Reads to the end, however that is.
    pub(crate) async fn whole(mut self) -> Answer {
        _ = self.stream.read_to_end(&mut self.read).await;
        parse(&self.read)
    }
}

fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(answer)));
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let pair =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers: HashMap<String, String> = lines.filter_map(pair).collect();
    let body = &answer[end + 4..];
    let is_chunked = headers.get("transfer-encoding").is_some_and(|value| value == "chunked");
    let (body, is_whole) = if is_chunked { unchunked(body) } else { (body.to_vec(), true) };
    Answer { status, headers, body, is_whole }
}

/// And whether the last piece was there.
fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
    (body, false)
}
