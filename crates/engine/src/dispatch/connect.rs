//! The HTTP client, and how it makes connections.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use ::http::Uri;
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{net::TcpStream, time::timeout};
use tower::Service;

/// How long an unused connection is kept, unless the handler closes it sooner.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends requests over kept connections.
pub(super) type HttpClient = Client<Connector, Full<Bytes>>;

/// HTTP/1.1 only, no proxies, no redirects; as many idle connections as the in-flight budget made. A request
/// that a closed connection never took is sent again by the client itself. With `tls` the machine's root
/// certificates are read, which errs where there are none.
pub(super) fn client(connect_timeout: Duration, tls: bool) -> io::Result<HttpClient> {
    let connector = Connector::new(connect_timeout, tls)?;
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(usize::MAX)
        .build(connector))
}

/// Makes connections; name lookup, TCP and TLS together have one time limit, so that whatever errs here errs
/// before a byte of the request was sent.
#[derive(Clone)]
pub(super) struct Connector {
    plain: HttpConnector,
    tls: Option<HttpsConnector<HttpConnector>>,
    limit: Duration,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Connecting = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

impl Connector {
    fn new(limit: Duration, tls: bool) -> io::Result<Self> {
        let mut plain = HttpConnector::new();
        plain.set_nodelay(true);
        plain.enforce_http(false);
        plain.set_keepalive(Some(IDLE_TIMEOUT));
        let tls = if tls { Some(https(plain.clone())?) } else { None };
        Ok(Self { plain, tls, limit })
    }

    fn connect(&mut self, uri: Uri) -> Connecting {
        match &mut self.tls {
            Some(tls) => tls.call(uri),
            None => {
                let connecting = self.plain.call(uri);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
        }
    }
}

fn https(plain: HttpConnector) -> io::Result<HttpsConnector<HttpConnector>> {
    Ok(HttpsConnectorBuilder::new().with_native_roots()?.https_or_http().enable_http1().wrap_connector(plain))
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.plain.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let (connecting, limit) = (self.connect(uri), self.limit);
        Box::pin(async move {
            timeout(limit, connecting)
                .await
                .unwrap_or_else(|_| Err(format!("no connection within {limit:?}").into()))
        })
    }
}
