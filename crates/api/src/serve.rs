//! Serving a router: `axum::serve` with bounds, since whoever can reach the port must not be able to use up the
//! watcher's file descriptors.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{Router, extract::Request, routing::any};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::ServiceExt;

use crate::{problem::Problem, tls::Tls};

/// The most connections at a time.
const CONNECTIONS_MAX: usize = 512;

/// Beyond those, connections for one request each: who asks for health is answered, so that no supervisor takes a full
/// process for a dead one, and everybody else hears 503. The next ones wait in the kernel's queue.
const CROWDED_MAX: usize = 32;

/// How long one of those may take for the head of its request.
const CROWDED_READ_MAX: Duration = Duration::from_secs(2);

/// How long a client may take for the head of a request; idle connections are closed after it too.
const HEAD_READ_MAX: Duration = Duration::from_secs(30);

/// For how long open connections may hold up the end.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// The pause after a connection could not be accepted, as when no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves `router` on `listener` until `shutdown` resolves, then lets running requests finish for at most two
/// seconds: a client that never ends its request cannot keep the process.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()> + Send) {
    serve_with(listener, router, None, shutdown).await;
}

/// As [`serve`], over TLS if there is some.
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    tls: Option<Tls>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let connections = GracefulShutdown::new();
    tokio::select! {
        () = shutdown => {}
        () = accept_all(&listener, &router, tls.as_ref(), &connections) => {}
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_MAX, connections.shutdown()).await.is_err() {
        tracing::debug!("connections were still open at the end and are cut off");
    }
}

/// Never ends by itself.
async fn accept_all(
    listener: &TcpListener,
    router: &Router,
    tls: Option<&Tls>,
    connections: &GracefulShutdown,
) {
    let rooms = Rooms::new(router);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers must not wait for more data to fill a packet.
                let _ = stream.set_nodelay(true);
                let Some(seat) = rooms.seat().await else { return };
                match tls {
                    None => start(stream, seat, connections.watcher()),
                    Some(tls) => start_tls(stream, tls.clone(), seat, connections.watcher()),
                }
            }
            Err(error) if is_clients_fault(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Where connections have their places.
struct Rooms {
    large: Arc<Semaphore>,
    router: Router,
    crowded: Arc<Semaphore>,
    for_the_crowd: Router,
}

/// What a connection gets.
struct Seat {
    router: Router,
    head_read_max: Duration,
    keep_alive: bool,
    permit: OwnedSemaphorePermit,
}

impl Rooms {
    fn new(router: &Router) -> Self {
        Self {
            large: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            router: router.clone(),
            crowded: Arc::new(Semaphore::new(CROWDED_MAX)),
            for_the_crowd: for_the_crowd(router),
        }
    }

    /// The next place; `None`: never.
    async fn seat(&self) -> Option<Seat> {
        tokio::select! {
            biased;
            permit = Arc::clone(&self.large).acquire_owned() => {
                let (router, head_read_max) = (self.router.clone(), HEAD_READ_MAX);
                Some(Seat { router, head_read_max, keep_alive: true, permit: permit.ok()? })
            }
            permit = Arc::clone(&self.crowded).acquire_owned() => {
                let (router, head_read_max) = (self.for_the_crowd.clone(), CROWDED_READ_MAX);
                Some(Seat { router, head_read_max, keep_alive: false, permit: permit.ok()? })
            }
        }
    }
}

/// Health as `router` tells it, and 503 for all else.
fn for_the_crowd(router: &Router) -> Router {
    let router = router.clone();
    let health = any(move |request: Request| router.clone().oneshot(request));
    let full = || async { Problem::busy("there are too many connections just now: ask again") };
    Router::new().route("/livez", health.clone()).route("/readyz", health).fallback(full)
}

/// Agrees on keys beside the next connections.
fn start_tls(stream: TcpStream, tls: Tls, seat: Seat, watcher: Watcher) {
    tokio::spawn(async move {
        match tls.accept(stream).await {
            Ok(stream) => start(stream, seat, watcher),
            Err(error) => tracing::debug!(%error, "a client speaks no TLS that is spoken here"),
        }
    });
}

fn start<S>(stream: S, seat: Seat, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Seat { router, head_read_max, keep_alive, permit } = seat;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_read_max)
        .keep_alive(keep_alive)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let connection = watcher.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended badly");
        }
        drop(permit);
    });
}

fn is_clients_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const REQUEST: &[u8] = b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n";

    async fn listen() -> (TcpListener, std::net::SocketAddr) {
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
}
