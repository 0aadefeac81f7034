//! TLS for whoever listens on an address that others reach and has no proxy in front.

use std::{fmt::Display, io, path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A certificate and its key, ready to serve with.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

/// The key is not shown.
impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Why a certificate or key cannot be used; says which file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

impl Tls {
    /// Reads PEM files: the certificate with those that vouch for it, and its key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let (chain, secret) = (read_chain(certificate)?, read_key(key)?);
        let provider = Arc::new(default_provider());
        let config =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let config = config.map_err(|error| TlsError(error.to_string()))?.with_no_client_auth();
        let certified = CertifiedKey::from_der(chain, secret, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                named(key, format!("it is the key of another certificate than {}", certificate.display()))
            }
            rustls::Error::InvalidCertificate(error) => {
                named(certificate, format!("it is not a certificate: {error:?}"))
            }
            error => named(key, error),
        })?;
        let config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Agrees on keys with a client.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.0.accept(stream).await
    }
}

fn named(path: &Path, error: impl Display) -> TlsError {
    TlsError(format!("{}: {error}", path.display()))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(named(path, "there is no certificate in it, expected PEM")),
        Err(error) => Err(named(path, plain(error))),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        PemError::NoItemsFound => named(path, "there is no private key in it, expected PEM"),
        error => named(path, plain(error)),
    })
}

/// What the system says of a file, without what the library puts around it.
fn plain(error: PemError) -> String {
    match error {
        PemError::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}
