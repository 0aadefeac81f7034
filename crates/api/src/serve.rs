//! Serving a router: `axum::serve` with bounds, since whoever can reach the port must not be able to use up the
//! watcher's file descriptors.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::Router;
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

use crate::tls::Tls;

/// The most connections at a time; the next ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;

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
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers must not wait for more data to fill a packet.
                let _ = stream.set_nodelay(true);
                match tls {
                    None => start(stream, router.clone(), connections.watcher(), permit),
                    Some(tls) => {
                        start_tls(stream, tls.clone(), router.clone(), connections.watcher(), permit)
                    }
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

/// Agrees on keys beside the next connections.
fn start_tls(stream: TcpStream, tls: Tls, router: Router, watcher: Watcher, permit: OwnedSemaphorePermit) {
    tokio::spawn(async move {
        match tls.accept(stream).await {
            Ok(stream) => start(stream, router, watcher, permit),
            Err(error) => tracing::debug!(%error, "a client speaks no TLS that is spoken here"),
        }
    });
}

fn start<S>(stream: S, router: Router, watcher: Watcher, permit: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_MAX)
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
        Router::new().route("/hello", get("hello"))
    }

    async fn exchange(stream: &mut TcpStream) -> String {
        stream.write_all(REQUEST).await.unwrap();
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
    async fn clients_over_the_limit_wait_for_room() {
        let (listener, address) = listen().await;
        let server = tokio::spawn(serve(listener, router(), std::future::pending()));
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut client = TcpStream::connect(address).await.unwrap();
            assert!(exchange(&mut client).await.ends_with("hello"));
            held.push(client);
        }
        let mut late = TcpStream::connect(address).await.unwrap();
        let mut answer = Box::pin(exchange(&mut late));
        let early = tokio::time::timeout(Duration::from_millis(200), &mut answer).await;
        assert!(early.is_err(), "answered over the limit");
        held.pop();
        let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("room was made");
        assert!(answer.ends_with("hello"));
        server.abort();
    }
}
