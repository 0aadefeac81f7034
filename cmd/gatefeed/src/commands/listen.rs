//! Where `run` and `serve` listen, and what the API is told by flags.

use std::{io::ErrorKind, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Result, anyhow};
use clap::Args;
use gatefeed_api::{ApiOptions, Openness, Tls};
use gatefeed_core::{Store, StoreError};
use tokio::net::TcpListener;

use crate::parse;

/// The flags of the API.
#[derive(Args, Debug)]
#[command(next_help_heading = "API")]
pub(crate) struct ApiArgs {
    /// Without any token, let everybody who can connect use the API, also on an address that others reach
    #[arg(long, env = "GATEFEED_INSECURE")]
    insecure: bool,
    /// Serve over TLS: a PEM file with the certificate, and those that vouch for it
    #[arg(long, env = "GATEFEED_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// A PEM file with the certificate's key
    #[arg(long, env = "GATEFEED_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// An item posted over HTTP may have this many bytes of data
    #[arg(
        long,
        env = "GATEFEED_MAX_POST",
        value_name = "BYTES",
        default_value = "16MiB",
        hide_short_help = true,
        value_parser = parse::bytes
    )]
    max_post: u64,
    /// A request with many items may have this many bytes
    #[arg(
        long,
        env = "GATEFEED_MAX_BULK",
        value_name = "BYTES",
        default_value = "64MiB",
        hide_short_help = true,
        value_parser = parse::bytes
    )]
    max_bulk: u64,
    /// Bodies that are not committed yet may have this many bytes together; with more, requests are answered with 503
    #[arg(
        long,
        env = "GATEFEED_MAX_UNCOMMITTED",
        value_name = "BYTES",
        default_value = "256MiB",
        hide_short_help = true,
        value_parser = parse::bytes
    )]
    max_uncommitted: u64,
    /// A feed may have this many items that wait for a watcher; with more, requests are answered with 429 [default: as
    /// many as come]
    #[arg(long, env = "GATEFEED_MAX_BACKLOG", value_name = "ITEMS", value_parser = parse::amount)]
    max_backlog: Option<usize>,
}

impl ApiArgs {
    /// What the API is told, on this address.
    pub(crate) fn options(&self, address: SocketAddr) -> ApiOptions {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        ApiOptions {
            payload_max: size(self.max_post),
            bulk_max: size(self.max_bulk),
            in_flight_max: size(self.max_uncommitted),
            answers_max: ApiOptions::default().answers_max,
            backlog_max: self.max_backlog.map(|items| items as u64),
            openness: self.openness(address),
        }
    }

    /// The certificate, if one is named. Read before anything is done to the database.
    pub(crate) fn tls(&self) -> Result<Option<Tls>> {
        let Some((certificate, key)) = self.tls_cert.as_ref().zip(self.tls_key.as_ref()) else {
            return Ok(None);
        };
        let tls = Tls::load(certificate, key)
            .map_err(|error| StoreError::Config(format!("cannot serve over TLS: {error}")))?;
        Ok(Some(tls))
    }

    fn openness(&self, address: SocketAddr) -> Openness {
        match (self.insecure, address.ip().is_loopback()) {
            (true, _) => Openness::Anybody,
            (false, true) => Openness::Local,
            (false, false) => Openness::Closed,
        }
    }

    /// Errs on an address that others reach, unless there is a token, or it is asked for.
    pub(crate) async fn check(&self, address: SocketAddr, store: &Arc<dyn Store>) -> Result<()> {
        if self.openness(address) != Openness::Closed || !store.tokens().await?.is_empty() {
            return Ok(());
        }
        Err(StoreError::Config(format!(
            "others can reach {address}, and there is no token: make one with `gatefeed token create --role operate`, listen \
             on 127.0.0.1, or say --insecure"
        ))
        .into())
    }

    /// Tells where it is, and who may use it.
    pub(crate) async fn tell(&self, address: SocketAddr, store: &Arc<dyn Store>) {
        let scheme = if self.tls_cert.is_some() { "https" } else { "http" };
        tracing::info!("listening on {scheme}://{address}");
        if store.tokens().await.is_ok_and(|tokens| !tokens.is_empty()) {
            return tracing::info!("the API takes the tokens of `gatefeed token`");
        }
        match self.openness(address) {
            Openness::Anybody => {
                tracing::warn!("the API is open to everybody who can connect (--insecure, and no token)")
            }
            Openness::Local => {
                tracing::info!("the API is open to everybody on this machine: there is no token")
            }
            Openness::Closed => {
                tracing::info!("the API is closed: there is no token; `gatefeed token create` makes one");
            }
        }
    }
}

/// Binds before anything is done to the database, so that a port in use is known at once.
pub(crate) async fn listen(address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => ": something else does; choose another port for --listen",
            ErrorKind::AddrNotAvailable => ": this machine has no such address; :PORT listens on all it has",
            ErrorKind::PermissionDenied => ": ports below 1024 are not for every user; choose a higher one",
            _ => "",
        };
        anyhow!("cannot listen on {address}: {error}{advice}")
    })
}
