//! Serving a router: `axum::serve` with bounds, since whoever can reach the port must not be able to use up the
//! watcher's file descriptors.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Extension, Router, extract::Request, middleware::map_request, response::IntoResponse, routing::any,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use crate::{
    drain::drained,
    problem::{PROBLEM_JSON, Problem},
    stopping::Stopping,
    tls::Tls,
};

/// The most connections at a time.
pub const CONNECTIONS_MAX: usize = 512;

/// Beyond those, connections for one request each: who asks for health is answered, so that no supervisor takes a full
/// process for a dead one, and everybody else hears 503. The next ones wait in the kernel's queue.
const CROWDED_MAX: usize = 32;

/// How long one of those may take for the head of its request.
const CROWDED_READ_MAX: Duration = Duration::from_secs(2);

/// How long a client may take for the head of a request; idle connections are closed after it too.
const HEAD_READ_MAX: Duration = Duration::from_secs(30);

/// How long a client may read nothing of an answer. What is sent is then given up, and with it what it takes here: the rows
/// of a listing, the place of one that waits.
const STALL_MAX: Duration = Duration::from_secs(30);

/// How long a client may take to agree on keys.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// So much is read of a request in plain HTTP where TLS is spoken.
const UNREAD_MAX: usize = 64 * 1024;

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
    let times = Times { stall_max: STALL_MAX, handshake_max: HANDSHAKE_MAX };
    serve_within(times, listener, router, tls, shutdown).await;
}

/// How long clients may take.
#[derive(Clone, Copy)]
struct Times {
    stall_max: Duration,
    handshake_max: Duration,
}

async fn serve_within(
    times: Times,
    listener: TcpListener,
    router: Router,
    tls: Option<Tls>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let connections = GracefulShutdown::new();
    let stopping = Stopping::default();
    let router = router.layer(Extension(stopping.clone()));
    tokio::select! {
        () = shutdown => {}
        () = accept_all(times, &listener, &router, tls.as_ref(), &connections) => {}
    }
    drop(listener);
    // Those that wait get an answer, rather than a connection that is cut.
    stopping.begin();
    if tokio::time::timeout(DRAIN_MAX, connections.shutdown()).await.is_err() {
        tracing::debug!("connections were still open at the end and are cut off");
    }
}

/// Never ends by itself.
async fn accept_all(
    times: Times,
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
                    None => start(patient(stream, times), seat, connections.watcher()),
                    Some(tls) => start_tls(stream, times, tls.clone(), seat, connections.watcher()),
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
            router: router.clone().layer(map_request(drained)),
            crowded: Arc::new(Semaphore::new(CROWDED_MAX)),
            for_the_crowd: for_the_crowd(router).layer(map_request(drained)),
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

/// A connection that breaks when its client reads nothing for too long.
fn patient(stream: TcpStream, times: Times) -> Pin<Box<TimeoutStream<TcpStream>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(times.stall_max));
    Box::pin(stream)
}

/// Agrees on keys beside the next connections.
fn start_tls(stream: TcpStream, times: Times, tls: Tls, seat: Seat, watcher: Watcher) {
    tokio::spawn(async move {
        match tokio::time::timeout(times.handshake_max, agree(stream, times, &tls)).await {
            Ok(Ok(Some(stream))) => start(stream, seat, watcher),
            Ok(Ok(None)) => tracing::debug!("a client speaks plain HTTP where TLS is spoken"),
            Ok(Err(error)) => tracing::debug!(%error, "a client speaks no TLS that is spoken here"),
            Err(_) => tracing::debug!("a client took too long to agree on keys"),
        }
    });
}

type TlsStream = tokio_rustls::server::TlsStream<Pin<Box<TimeoutStream<TcpStream>>>>;

/// Agrees on keys. `None`: the client has not tried to, and was told so.
async fn agree(mut stream: TcpStream, times: Times, tls: &Tls) -> io::Result<Option<TlsStream>> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    // What a request in plain HTTP begins with; TLS does with the byte 22.
    if first[0].is_ascii_uppercase() {
        tell_of_tls(&mut stream).await?;
        return Ok(None);
    }
    tls.accept(patient(stream, times)).await.map(Some)
}

/// Reads what is there of the request, since a connection that is closed with something unread is cut.
async fn tell_of_tls(stream: &mut TcpStream) -> io::Result<()> {
    let problem = Problem::bad_request("this port speaks TLS: ask with https://").into_response();
    let body = axum::body::to_bytes(problem.into_body(), usize::MAX).await.unwrap_or_default();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: {PROBLEM_JSON}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    stream.shutdown().await?;
    let mut unread = [0; 4096];
    let mut left = UNREAD_MAX;
    while left > 0 {
        match stream.read(&mut unread).await? {
            0 => break,
            length => left = left.saturating_sub(length),
        }
    }
    Ok(())
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
mod tests;
