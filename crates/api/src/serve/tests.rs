//! Connections of all kinds, over real sockets.

mod tls;

use std::net::SocketAddr;

use axum::{body::Body, extract::State, routing::get};
use bytes::Bytes;
use futures_util::stream;
use tokio::{sync::oneshot, time::timeout};

use super::*;

/// What takes longer hangs, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(60);

const REQUEST: &[u8] = b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n";

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn router() -> Router {
    Router::new().route("/hello", get("hello")).route("/livez", get("alive"))
}

async fn exchange(stream: &mut TcpStream) -> String {
    ask(stream, REQUEST).await
}

async fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn it_answers_and_ends_although_a_client_lingers() {
    let (listener, address) = listen().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, router(), async {
        let _ = stopped.await;
    }));
    let mut client = TcpStream::connect(address).await.unwrap();
    assert!(exchange(&mut client).await.ends_with("hello"));
    client.write_all(b"GET /hel").await.unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(20), server).await.expect("ends in time").unwrap();
}

#[tokio::test]
async fn clients_over_the_limit_hear_of_it_and_health_is_told() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(serve(listener, router(), std::future::pending()));
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut client = TcpStream::connect(address).await.unwrap();
        assert!(exchange(&mut client).await.ends_with("hello"));
        held.push(client);
    }
    let late = async |request: &[u8]| {
        let mut client = TcpStream::connect(address).await.unwrap();
        ask(&mut client, request).await
    };
    let refused = late(REQUEST).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after"), "{refused}");
    let alive = late(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(alive.starts_with("HTTP/1.1 200") && alive.contains("connection: close"), "{alive}");
    held.pop();
    let room = async { while !late(REQUEST).await.ends_with("hello") {} };
    tokio::time::timeout(Duration::from_secs(20), room).await.expect("room was made");
    server.abort();
}

/// Times that a test can wait for.
fn short() -> Times {
    Times { stall_max: Duration::from_millis(300), handshake_max: Duration::from_millis(300) }
}

/// Resolves when it has been dropped.
type Dropped = oneshot::Receiver<()>;

/// A route whose answer never ends, and what tells that it was given up.
fn endless() -> (Router, Dropped) {
    let (held, dropped) = oneshot::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(Some(held)));
    let answer = |State(held): State<Arc<std::sync::Mutex<Option<oneshot::Sender<()>>>>>| async move {
        let held = held.lock().unwrap().take();
        let pieces = stream::unfold(held, |held| async move {
            // As a database's rows do, they let others go on.
            tokio::task::yield_now().await;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 16 << 10])), held))
        });
        Body::from_stream(pieces)
    };
    (Router::new().route("/endless", get(answer)).with_state(held), dropped)
}

/// Asks, and reads nothing.
async fn stalled(address: SocketAddr, path: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await.unwrap();
    client
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_given_up() {
    let (listener, address) = listen().await;
    let (router, dropped) = endless();
    let server = tokio::spawn(serve_within(short(), listener, router, None, std::future::pending()));
    let mut client = stalled(address, "/endless").await;
    assert!(timeout(PATIENCE, dropped).await.expect("it is given up").is_err());
    // What was sent before can be read, and then it is over.
    let read = timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await.expect("it is over");
    drop(read);
    server.abort();
}

/// A plain answer that is larger than what the kernel takes.
#[tokio::test]
async fn an_answer_that_nobody_reads_holds_no_place() {
    let (listener, address) = listen().await;
    let (held, mut dropped) = tokio::sync::mpsc::channel::<()>(1);
    let bytes = Bytes::from(vec![b'x'; 64 << 20]);
    let large = move || {
        let (held, bytes) = (held.clone(), bytes.clone());
        async move {
            let held = stream::once(async move {
                drop(held);
                Ok::<_, std::convert::Infallible>(Bytes::new())
            });
            let large = stream::iter([Ok(bytes)]);
            Body::from_stream(futures_util::StreamExt::chain(large, held))
        }
    };
    let router = router().route("/large", get(large));
    let server = tokio::spawn(serve_within(short(), listener, router, None, std::future::pending()));
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        clients.push(stalled(address, "/large").await);
    }
    let late = async {
        loop {
            let mut client = TcpStream::connect(address).await.unwrap();
            if exchange(&mut client).await.ends_with("hello") {
                return;
            }
        }
    };
    timeout(PATIENCE, late).await.expect("places are free again");
    assert!(dropped.try_recv().is_err());
    server.abort();
}

/// Whoever reads slowly, but reads, gets all of it.
#[tokio::test]
async fn a_slow_reader_is_put_up_with() {
    let (listener, address) = listen().await;
    let router = Router::new().route("/large", get(|| async { vec![b'x'; 8 << 20] }));
    let times = Times { stall_max: Duration::from_secs(20), ..short() };
    let server = tokio::spawn(serve_within(times, listener, router, None, std::future::pending()));
    let mut client = stalled(address, "/large").await;
    let (mut read, mut piece) = (0, vec![0; 256 << 10]);
    while read < 8 << 20 {
        read += client.read(&mut piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.abort();
}

#[tokio::test]
async fn who_waits_is_answered_at_the_end() {
    let (listener, address) = listen().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let (waiting, waits) = oneshot::channel::<()>();
    let waiting = Arc::new(std::sync::Mutex::new(Some(waiting)));
    let wait = move |stopping: Stopping| async move {
        waiting.lock().unwrap().take().unwrap().send(()).unwrap();
        stopping.wait().await;
        "so far"
    };
    let router = Router::new().route("/wait", get(wait));
    let server = tokio::spawn(serve(listener, router, async {
        let _ = stopped.await;
    }));
    let mut client = stalled(address, "/wait").await;
    waits.await.unwrap();
    stop.send(()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("so far"), "{answer}");
    timeout(PATIENCE, server).await.expect("ends in time").unwrap();
}
