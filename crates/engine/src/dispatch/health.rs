//! Whether targets are well, for those who ask; deliveries do not depend on it.

use std::time::Duration;

use ::http::Uri;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::{net::TcpStream, time::timeout};
use url::Url;

use super::{HttpProcessor, exchange::causes, request, resolve, target::Target};

/// A target that takes longer is not well.
const LIMIT: Duration = Duration::from_secs(2);

/// What a health check found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TargetHealth {
    /// The target, without its query.
    pub target: String,
    /// Whether it answered 2xx; without a health path, whether it took a connection.
    pub ok: bool,
    /// What it answered, or why there is no answer.
    pub detail: String,
}

impl HttpProcessor {
    /// Asks every target at the same time, for up to two seconds.
    pub async fn health(&self) -> Vec<TargetHealth> {
        let circuits = self.rotation.circuits();
        join_all(circuits.map(|(target, open_for)| self.health_of(target, open_for))).await
    }

    async fn health_of(&self, target: &Target, open_for: Option<Duration>) -> TargetHealth {
        let checked = timeout(LIMIT, self.check(target)).await;
        let checked = checked.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}")));
        let (ok, detail) = match checked {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        // It may answer this and fail at everything else.
        let (ok, detail) = match open_for {
            Some(time) => (false, format!("{detail}; its circuit has been open for {} s", time.as_secs())),
            None => (ok, detail),
        };
        TargetHealth { target: target.shown.clone(), ok, detail }
    }

    /// `Ok` if all is well; the text says what was found either way.
    async fn check(&self, target: &Target) -> Result<String, String> {
        let Some(path) = &self.options.health_path else {
            return connect(&target.url, self.options.deny_private)
                .await
                .map(|()| "accepts connections".to_owned());
        };
        let uri = resolve(&target.url, path)?;
        let mut probe = request::probe(uri);
        self.options.access.add_to(probe.headers_mut());
        let response = self.client.request(probe).await.map_err(|error| causes(&error))?;
        let status = response.status();
        let detail = format!("HTTP {status}");
        if status.is_success() { Ok(detail) } else { Err(detail) }
    }
}

async fn connect(url: &Url, deny_private: bool) -> Result<(), String> {
    // An IPv6 address stands in brackets in a URL, and nowhere else.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or_default();
    let found = tokio::net::lookup_host((host, port)).await.map_err(|error| error.to_string())?;
    let found: Vec<_> = found.filter(|address| !deny_private || resolve::is_public(address.ip())).collect();
    if found.is_empty() && deny_private {
        return Err(resolve::DENIED.to_owned());
    }
    TcpStream::connect(&*found).await.map(drop).map_err(|error| error.to_string())
}

/// Refuses a health path that does not lead to each target's own host.
pub(super) fn check_path(targets: &[Url], path: Option<&str>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    targets.iter().try_for_each(|target| resolve(target, path).map(drop))
}

fn resolve(target: &Url, path: &str) -> Result<Uri, String> {
    let url = target.join(path).ok().filter(|url| path.starts_with('/') && url.origin() == target.origin());
    let uri = url.and_then(|url| url.as_str().parse().ok());
    uri.ok_or_else(|| format!("the health path {path:?} will not do; expected one such as /healthz"))
}
