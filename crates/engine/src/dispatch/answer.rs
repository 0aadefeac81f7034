//! What a handler's HTTP answer means.

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, StatusCode, header, response::Parts};
use bytes::Bytes;
use gatefeed_core::answer::{self, Answer, Failure, Steering, Verdict};
use url::Url;

/// Headers of this prefix in a 2xx answer say: the body is the new data.
const PREFIX: &str = "gatefeed-";
const ASYNC: &str = "gatefeed-async";
const DONE: &str = "gatefeed-done";
const GATE: &str = "gatefeed-gate";

/// How many characters of an answer's text are kept with a failure.
const EXCERPT_CHARS: usize = 200;

/// A delivery that does not count as an attempt is repeated no sooner than this: a handler that says
/// `Retry-After: 0` would otherwise be asked in a tight loop.
const UNCOUNTED_DELAY_MIN: Duration = Duration::from_millis(100);

/// Reads an answer; `body` is its bytes, or why they could not be had. `callback`: how long a callback is waited for, if the
/// handler was told where to call.
pub(super) fn read(
    target: &Url,
    head: &Parts,
    body: Result<Bytes, String>,
    callback: Option<Duration>,
) -> Verdict {
    if !head.status.is_success() {
        return Err(failed(target, head, body));
    }
    if is_later(head)? {
        if head.status != StatusCode::ACCEPTED {
            return Err(not_accepted(head.status));
        }
        // Frameworks send bodies of their own with a 202; what counts comes with the callback.
        return later(callback);
    }
    let body = body.map_err(Failure::new)?;
    if head.headers.keys().any(|name| name.as_str().starts_with(PREFIX) && name != ASYNC) {
        return Ok(steered(&head.headers, body)?);
    }
    answer::parse(&body)
}

/// Whether the handler says that its answer comes later.
pub(super) fn is_later(head: &Parts) -> Result<bool, String> {
    Ok(flag(&head.headers, ASYNC)?.unwrap_or(false))
}

/// 202 alone says so: behind any other 2xx may be somebody who never calls.
fn not_accepted(status: StatusCode) -> Failure {
    Failure::new(format!(
        "the handler answered Gatefeed-Async: true with {}: an answer that comes later is told by 202",
        status_line(status)
    ))
}

fn later(callback: Option<Duration>) -> Verdict {
    callback.map(Answer::by_callback).ok_or_else(|| {
        Failure::new(
            "the handler answered Gatefeed-Async: true, but was not told where to call back: start `gatefeed run` with \
             --listen, or with --public-url where another process takes the calls; or answer when the work is done",
        )
    })
}

/// Bytes in, bytes out.
fn steered(headers: &HeaderMap, body: Bytes) -> Result<Answer, String> {
    let steering = Steering {
        done: single(headers, DONE)?,
        gate: single(headers, GATE)?,
        content_type: single(headers, header::CONTENT_TYPE.as_str())?,
    };
    answer::steered(&steering, body)
}

fn flag(headers: &HeaderMap, name: &str) -> Result<Option<bool>, String> {
    single(headers, name)?.map(|value| answer::header_flag(name, value)).transpose()
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, String> {
    answer::header_text(name, headers.get_all(name).iter().map(|value| value.as_bytes()))
}

/// An answer that is not 2xx is a failed attempt; its body may still say more.
pub(super) fn failed(target: &Url, head: &Parts, body: Result<Bytes, String>) -> Failure {
    let details =
        body.as_ref().ok().and_then(|body| answer::parse_error(body)).unwrap_or_else(|| Failure::new(""));
    let reason = if let Some(location) = redirect(target, head) {
        Some(format!("redirects are not followed (to {location})"))
    } else if !details.message.is_empty() {
        Some(details.message.clone())
    } else {
        body.map_or_else(Some, |body| excerpt(&body))
    };
    let message = match reason {
        Some(reason) => format!("{}: {reason}", status_line(head.status)),
        None => status_line(head.status),
    };
    match asked_to_wait(head) {
        Some(delay) if !details.no_retry => Failure::delayed(message, Some(delay.max(UNCOUNTED_DELAY_MIN))),
        _ => Failure { message, ..details },
    }
}

/// `HTTP 500 Internal Server Error`
fn status_line(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("HTTP {} {reason}", status.as_str()),
        None => format!("HTTP {}", status.as_str()),
    }
}

/// Where a redirect leads: host and path, since the rest may hold secrets.
fn redirect(target: &Url, head: &Parts) -> Option<String> {
    if !matches!(head.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = head.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    let location = location.and_then(|location| target.join(location).ok());
    Some(location.map_or_else(
        || "an unknown place".to_owned(),
        |url| format!("{}{}", super::target::host_and_port(&url), url.path()),
    ))
}

/// The start of a body that is text.
fn excerpt(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_text = !text.chars().any(|c| c.is_control() && !c.is_whitespace());
    let mut excerpt: String = text.chars().take(EXCERPT_CHARS).collect();
    if excerpt.len() < text.len() {
        excerpt.push('…');
    }
    (is_text && !excerpt.is_empty()).then_some(excerpt)
}

/// The delay that a 429 or 503 asks for by `Retry-After`, in seconds or as a date.
fn asked_to_wait(head: &Parts) -> Option<Duration> {
    if !matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let value = head.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return answer::delay_from_secs(value.parse().ok()?);
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let delay = until.duration_since(their_now(&head.headers)).unwrap_or_default();
    answer::delay_from_secs(delay.as_secs_f64())
}

/// The handler's clock, which the date it gave was made by; without a `Date` header, ours.
fn their_now(headers: &HeaderMap) -> SystemTime {
    let date = headers.get(header::DATE).and_then(|date| date.to_str().ok());
    date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now)
}
