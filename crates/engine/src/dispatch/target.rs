//! Targets: which URLs will do.

use ::http::{HeaderValue, Uri};
use url::Url;

/// Why a target or the options for it were refused. The text never holds a password or a query.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTarget(pub(super) String);

/// Reads a target: an absolute `http` or `https` URL with a host, without user, password or fragment.
pub fn parse_target(text: &str) -> Result<Url, InvalidTarget> {
    let url = Url::parse(text).map_err(|error| {
        InvalidTarget(format!(
            "the target is not a URL ({error}); expected one such as http://127.0.0.1:8000/path"
        ))
    })?;
    Target::new(url.clone())?;
    Ok(url)
}

/// One target, in the forms in which it is needed.
pub(super) struct Target {
    /// As it was given.
    pub(super) url: Url,
    /// As requests need it.
    pub(super) uri: Uri,
    /// The `Host` header.
    pub(super) host: HeaderValue,
    /// As people may see it: without its query.
    pub(super) shown: String,
}

impl Target {
    pub(super) fn new(url: Url) -> Result<Self, InvalidTarget> {
        check(&url)?;
        let shown = format!("{}://{}{}", url.scheme(), host_and_port(&url), url.path());
        let invalid =
            |_| InvalidTarget(format!("the target {shown} has characters that HTTP does not allow"));
        let uri = url.as_str().parse().map_err(|_| invalid(()))?;
        let host = HeaderValue::from_str(&host_and_port(&url)).map_err(|_| invalid(()))?;
        Ok(Self { uri, host, shown, url })
    }

    /// Whether its host is an address that is not of the public internet; of a name it says nothing.
    pub(super) fn is_private(&self) -> bool {
        self.url.host_str().is_some_and(super::resolve::is_denied)
    }
}

/// Refuses what could not be sent to, and what would send something that nobody expects.
fn check(url: &Url) -> Result<(), InvalidTarget> {
    let host = host_and_port(url);
    let problem = if !matches!(url.scheme(), "http" | "https") {
        format!("the target's scheme is {:?}, expected http or https", url.scheme())
    } else if host.is_empty() {
        "the target has no host".to_owned()
    } else if !url.username().is_empty() || url.password().is_some() {
        format!("the target at {host} has a user or password in its URL, which gatefeed does not send")
    } else if url.fragment().is_some() {
        format!("the target at {host} has a fragment (#…), which HTTP does not send")
    } else {
        return Ok(());
    };
    Err(InvalidTarget(problem))
}

/// `host`, or `host:port` where the port is not the scheme's own; the way a `Host` header has it.
pub(super) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_http_url_with_a_host() {
        for good in [
            "http://localhost",
            "https://example.com:8443/a/b?c=d",
            "http://[::1]:8000/",
            "http://bücher.example",
        ] {
            assert!(parse_target(good).is_ok(), "{good}");
        }
        for (bad, expected) in [
            ("", "not a URL"),
            ("localhost:8000", "scheme is \"localhost\""),
            ("127.0.0.1:8000", "not a URL"),
            ("/path", "not a URL"),
            ("ftp://example.com/", "scheme is \"ftp\", expected http or https"),
            ("unix:/run/x.sock", "scheme is \"unix\""),
            ("http://", "not a URL"),
            ("http://a:b@example.com/", "user or password"),
            ("http://a@example.com/", "user or password"),
            ("http://example.com/#x", "fragment"),
        ] {
            let error = parse_target(bad).expect_err(bad).to_string();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let target = Target::new(Url::parse("http://example.com:80/a?token=secret").unwrap()).unwrap();
        assert_eq!(
            (target.shown.as_str(), target.host.as_bytes()),
            ("http://example.com/a", &b"example.com"[..])
        );
        assert_eq!(target.uri.query(), Some("token=secret"));
        let refused = parse_target("http://user:secret@example.com/?token=secret").unwrap_err().to_string();
        assert!(!refused.contains("secret"), "{refused}");
    }
}
