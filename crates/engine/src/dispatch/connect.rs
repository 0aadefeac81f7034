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
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};
use tower::Service;

use super::resolve::{self, Resolver};

/// How long an unused connection is kept, unless the handler closes it sooner.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends requests over kept connections.
pub(super) type HttpClient = Client<Connector, Full<Bytes>>;

/// HTTP/1.1 only, no proxies, no redirects; as many idle connections as the in-flight budget made. A request
/// that a closed connection never took is sent again by the client itself. With `tls` the machine's root
/// certificates are read, which errs where there are none.
pub(super) fn client(options: &ConnectOptions<'_>) -> io::Result<HttpClient> {
    let connector = Connector::new(options)?;
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(usize::MAX)
        .build(connector))
}

/// How connections are made.
pub(super) struct ConnectOptions<'a> {
    /// For name lookup, TCP and TLS.
    pub(super) limit: Duration,
    /// Some target wants it.
    pub(super) tls: bool,
    /// The only authorities that are trusted, as PEM; `None`: those of this machine.
    pub(super) ca: Option<&'a [u8]>,
    /// Only to addresses of the public internet.
    pub(super) deny_private: bool,
}

/// Makes connections; name lookup, TCP and TLS together have one time limit, so that whatever errs here errs
/// before a byte of the request was sent.
#[derive(Clone)]
pub(super) struct Connector {
    plain: Plain,
    tls: Option<HttpsConnector<Plain>>,
    limit: Duration,
    deny_private: bool,
}

type Plain = HttpConnector<Resolver>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Connecting = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

impl Connector {
    fn new(options: &ConnectOptions<'_>) -> io::Result<Self> {
        let mut plain = HttpConnector::new_with_resolver(Resolver::new(options.deny_private));
        plain.set_nodelay(true);
        plain.enforce_http(false);
        plain.set_keepalive(Some(IDLE_TIMEOUT));
        let tls = if options.tls { Some(https(plain.clone(), options.ca)?) } else { None };
        Ok(Self { plain, tls, limit: options.limit, deny_private: options.deny_private })
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

fn https(plain: Plain, ca: Option<&[u8]>) -> io::Result<HttpsConnector<Plain>> {
    let builder = HttpsConnectorBuilder::new();
    let builder = match ca {
        None => builder.with_native_roots()?,
        Some(pem) => {
            let config = ClientConfig::builder().with_root_certificates(roots(pem)?);
            builder.with_tls_config(config.with_no_client_auth())
        }
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(plain))
}

/// Refuses what has no certificates; also where no target needs them yet, since a mistake is better known early.
pub(super) fn check_authorities(pem: &[u8]) -> Result<(), String> {
    roots(pem).map(drop).map_err(|error| error.to_string())
}

/// The certificates of a PEM file.
fn roots(pem: &[u8]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| io::Error::other(format!("the CA file is no PEM: {error}")))?;
        roots.add(certificate).map_err(|error| {
            io::Error::other(format!("the CA file has a certificate that will not do: {error}"))
        })?;
    }
    match roots.is_empty() {
        true => Err(io::Error::other("the CA file has no certificate; expected PEM")),
        false => Ok(roots),
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.plain.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        if self.deny_private && uri.host().is_some_and(resolve::is_denied) {
            return Box::pin(async { Err(resolve::DENIED.into()) });
        }
        let (connecting, limit) = (self.connect(uri), self.limit);
        Box::pin(async move {
            timeout(limit, connecting)
                .await
                .unwrap_or_else(|_| Err(format!("no connection within {limit:?}").into()))
        })
    }
}
