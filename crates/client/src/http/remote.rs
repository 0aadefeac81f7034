//! Requests and answers.

use std::{fmt, time::Duration};

use bytes::Bytes;
use gatefeed_core::{Result, StoreError};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;
use url::Url;

use crate::client::Client;

/// For a request and its answer, beside the time that it waits by intent.
const REQUEST_MAX: Duration = Duration::from_secs(120);

/// The largest answer: a page of items with data ends sooner, unless one of them has more.
const ANSWER_BYTES_MAX: usize = 512 << 20;

const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What stays as it is in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A client over HTTP in the making ([`Client::http`]).
#[derive(Clone)]
#[must_use = "build() makes the client"]
pub struct HttpBuilder {
    url: String,
    token: Option<String>,
}

/// Without the token.
impl fmt::Debug for HttpBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBuilder").field("has_token", &self.token.is_some()).finish_non_exhaustive()
    }
}

impl HttpBuilder {
    pub(crate) fn new(url: String) -> Self {
        Self { url, token: None }
    }

    /// With a token of `gatefeed token create`.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Errs with [`StoreError::Config`] for a URL that is none of HTTP or a token that no header can hold, and where `https`
    /// finds no root certificates. Within a tokio runtime only.
    pub fn build(self) -> crate::Result<Client> {
        Ok(Client::over_http(Remote::new(&self.url, self.token.as_deref())?))
    }
}

/// An API.
pub(crate) struct Remote {
    client: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: Url,
    authorization: Option<HeaderValue>,
}

/// Without secrets.
impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("host", &self.base.host_str()).finish_non_exhaustive()
    }
}

/// A request, and what is to be read of its answer.
pub(super) struct Call<'a> {
    method: Method,
    url: String,
    query: Vec<(String, String)>,
    body: Bytes,
    wait: Duration,
    remote: &'a Remote,
}

impl Remote {
    fn new(url: &str, token: Option<&str>) -> Result<Self> {
        let expected = || StoreError::Config("expected a URL such as http://gatefeed.internal:8080".into());
        let base = Url::parse(url).map_err(|_| expected())?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(expected());
        }
        let bearer = |token: &str| HeaderValue::from_str(&format!("Bearer {token}"));
        let authorization = token.map(bearer).transpose();
        let mut authorization = authorization.map_err(|_| {
            StoreError::Config("the token has characters that no HTTP header can hold".into())
        })?;
        authorization.iter_mut().for_each(|value| value.set_sensitive(true));
        let mut plain = HttpConnector::new();
        plain.set_nodelay(true);
        plain.enforce_http(false);
        plain.set_connect_timeout(Some(CONNECT_MAX));
        let tls = HttpsConnectorBuilder::new();
        let tls = match base.scheme() {
            "https" => tls.with_native_roots().map_err(|error| {
                StoreError::Config(format!("no certificates to trust an https server by: {error}"))
            })?,
            // It is never asked.
            _ => tls.with_tls_config(no_roots()),
        };
        let connector = tls.https_or_http().enable_http1().wrap_connector(plain);
        let client = HttpClient::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client, base, authorization })
    }

    /// A request to `/v1` and these segments of a path.
    pub(super) fn call<'a>(&'a self, method: Method, segments: &[&str]) -> Call<'a> {
        // Not put together by Url, which takes a segment of dots for a step, encoded or not.
        let path = self.base.path().trim_end_matches('/');
        let mut url = format!("{}{path}/v1", self.base.origin().ascii_serialization());
        for segment in segments {
            url.push('/');
            match *segment {
                "." => url.push_str("%2E"),
                ".." => url.push_str("%2E%2E"),
                segment => url.extend(utf8_percent_encode(segment, SEGMENT)),
            }
        }
        Call { method, url, query: Vec::new(), body: Bytes::new(), wait: Duration::ZERO, remote: self }
    }

    /// GET of something below a partition.
    pub(super) fn get<'a>(&'a self, segments: &[&str]) -> Call<'a> {
        self.call(Method::GET, segments)
    }

    /// POST to something below a partition.
    pub(super) fn post<'a>(&'a self, segments: &[&str]) -> Call<'a> {
        self.call(Method::POST, segments)
    }
}

fn no_roots() -> rustls::ClientConfig {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.unwrap_or_else(|_| unreachable!("ring has the versions of TLS"));
    versions.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
}

impl Call<'_> {
    /// With a parameter, if it has a value.
    pub(super) fn with(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.query.push((name.to_owned(), value.to_string()));
        }
        self
    }

    /// That waits at the server for so long.
    pub(super) fn waiting(self, wait: Duration) -> Self {
        let call = self.with("wait", Some(format!("{}s", wait.as_secs())));
        Self { wait, ..call }
    }

    pub(super) fn json(self, body: Vec<u8>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// What it is answered, as JSON; errors as the store has them.
    pub(super) async fn send<T: DeserializeOwned>(self) -> Result<T> {
        let limit = REQUEST_MAX + self.wait;
        let (_, body) = timeout(limit, self.exchange()).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(format!("the API did not answer within {limit:?}")))
        })?;
        serde_json::from_slice(&body).map_err(|error| {
            StoreError::Defect(format!(
                "the API's answer is not what was expected ({error}): is it of another version?"
            ))
        })
    }

    /// As [`Call::send`]; `None`: there is no such thing.
    pub(super) async fn find<T: DeserializeOwned>(self) -> Result<Option<T>> {
        match self.send().await {
            Ok(found) => Ok(Some(found)),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes of an item's data, and of which version of the item they are; `None`: there is no such thing. `Refused` where
    /// the item is there and its data is gone.
    pub(super) async fn data(self) -> Result<Option<(i64, Vec<u8>)>> {
        let (head, body) = match timeout(REQUEST_MAX, self.exchange()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(StoreError::NotFound(_))) => return Ok(None),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(StoreError::Unavailable("the API did not answer in time".into())),
        };
        let tag = head.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
        let version = tag.and_then(|tag| tag.trim_matches('"').parse().ok());
        let version = version.ok_or_else(|| StoreError::Defect("the API's answer has no version".into()))?;
        Ok(Some((version, body.to_vec())))
    }

    async fn exchange(self) -> Result<(http::response::Parts, Bytes)> {
        let away = |what: String| StoreError::Unavailable(format!("the API cannot be reached: {what}"));
        let mut request = Request::builder().method(self.method).uri(uri(&self.url, &self.query));
        if let Some(authorization) = &self.remote.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        if !self.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, gatefeed_core::id::JSON);
        }
        let request = request.body(Full::new(self.body));
        let request = request.map_err(|error| StoreError::Config(format!("this is no request: {error}")))?;
        let response = self.remote.client.request(request).await.map_err(|error| away(causes(&error)))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| away(format!("its answer broke off ({error})")))?;
        match head.status.is_success() {
            true => Ok((head, body.to_bytes())),
            false => Err(error(head.status, &body.to_bytes())),
        }
    }
}

fn uri(url: &str, query: &[(String, String)]) -> String {
    if query.is_empty() {
        return url.to_owned();
    }
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{url}?{query}")
}

/// An error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The problem of items for a partition that is cancelled.
const CANCELLED: &str = "urn:gatefeed:cancelled";

/// Problem details.
#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<Wrong>,
}

#[derive(Deserialize)]
struct Wrong {
    line: Option<u64>,
    index: Option<u64>,
    part: Option<u64>,
    detail: String,
}

fn error(status: StatusCode, body: &[u8]) -> StoreError {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let mut detail = match problem.detail.is_empty() {
        true => format!("the API answered {status}"),
        false => problem.detail,
    };
    for wrong in problem.errors {
        let place = match (wrong.index, wrong.line.or(wrong.part)) {
            (Some(index), _) => format!("items[{index}]: "),
            (None, Some(number)) => format!("{number}: "),
            (None, None) => String::new(),
        };
        detail = format!("{detail}; {place}{}", wrong.detail);
    }
    match status.as_u16() {
        404 => StoreError::NotFound(detail),
        400 | 422 => StoreError::Data(detail),
        401 | 403 => StoreError::Config(detail),
        409 if problem.kind == CANCELLED => StoreError::Cancelled(detail),
        412 => StoreError::Changed(detail),
        409 | 410 | 413 => StoreError::Refused(detail),
        408 | 429 | 502..=504 => StoreError::Unavailable(detail),
        _ => StoreError::Defect(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ids_are_one_segment_and_a_base_may_have_a_path() {
        let of = |base: &str, segments: &[&str]| Remote::new(base, None).unwrap().get(segments).url;
        assert_eq!(of("http://h:1", &["partitions", "a/b ü?"]), "http://h:1/v1/partitions/a%2Fb%20%C3%BC%3F");
        assert_eq!(of("https://h/queue/?x=1", &["feeds"]), "https://h/queue/v1/feeds");
        assert_eq!(of("http://h", &["partitions", ".."]), "http://h/v1/partitions/%2E%2E");
    }

    #[tokio::test]
    async fn what_is_no_api_is_told_and_tokens_are_not_shown() {
        for bad in ["", "h:80", "ftp://h", "http://"] {
            assert!(matches!(Remote::new(bad, None), Err(StoreError::Config(_))), "{bad}");
        }
        assert!(Remote::new("http://h", Some("a\nb")).is_err());
        let builder = Client::http("http://h").token("gf_secret");
        assert!(!format!("{builder:?} {:?}", builder.clone().build()).contains("secret"));
    }

    #[test]
    fn problems_are_errors_of_the_store() {
        let of = |status: u16, body: &str| error(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        let gone = of(404, r#"{"type":"urn:gatefeed:not-found","detail":"partition \"p\" does not exist"}"#);
        assert!(matches!(&gone, StoreError::NotFound(why) if why == "partition \"p\" does not exist"));
        assert!(of(503, "").is_retryable() && of(429, "{}").is_retryable());
        let cancelled = of(409, r#"{"type":"urn:gatefeed:cancelled","detail":"x"}"#);
        assert!(matches!(cancelled, StoreError::Cancelled(_)), "{cancelled:?}");
        assert!(matches!(of(409, "{}"), StoreError::Refused(_)));
        assert!(matches!(of(412, "{}"), StoreError::Changed(_)));
        assert_eq!(of(502, "<html>").to_string(), "the API answered 502 Bad Gateway");
        let lines = of(422, r#"{"detail":"1 item will not do","errors":[{"line":2,"detail":"no JSON"}]}"#);
        assert!(lines.is_data() && lines.to_string().ends_with("; 2: no JSON"), "{lines}");
        let listed = of(422, r#"{"detail":"1 item will not do","errors":[{"index":0,"detail":"no JSON"}]}"#);
        assert!(listed.to_string().ends_with("; items[0]: no JSON"), "{listed}");
    }
}
