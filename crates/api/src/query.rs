//! Parameters, from the query: an unknown one is an error, since a typing error must not lose a value.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Query},
    http::{HeaderMap, request::Parts},
};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, de::DeserializeOwned};

use crate::problem::Problem;

/// The longest that one request waits.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(120);

/// What an operation without parameters takes, and one without a body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// The parameters of a request. Every operation has them, be it [`Nothing`].
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = parts.uri.query().unwrap_or("");
        if text.is_empty() {
            return Ok(Self(T::default()));
        }
        check_text(text)?;
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(params)| Self(params)).map_err(|error| Problem::bad_request(error.body_text()))
    }
}

/// Errs for what is no text, or none that a database can hold: replaced or cut off, it would be another value.
fn check_text(query: &str) -> Result<(), Problem> {
    let text = percent_decode_str(query).decode_utf8();
    let text = text.map_err(|_| Problem::bad_request("the parameters are not UTF-8"))?;
    if text.contains('\0') {
        return Err(Problem::bad_request("a parameter has a NUL character"));
    }
    Ok(())
}

/// How long to wait, by `?wait=30s` or `Prefer: wait=30`; `None`: not at all.
pub(crate) fn wait(asked: Option<&str>, headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let wait = match asked {
        Some(text) => Some(duration("wait", text)?),
        None => preferred(headers).map(Duration::from_secs),
    };
    Ok(wait.map(|wait| wait.min(WAIT_MAX)))
}

/// A duration as the command line takes it, or whole seconds.
pub(crate) fn duration(name: &str, text: &str) -> Result<Duration, Problem> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    let duration = seconds.or_else(|| humantime::parse_duration(text).ok());
    duration.ok_or_else(|| {
        Problem::bad_request(format!("{name} is {text:?}, expected a duration such as 30s, 500ms or 30"))
    })
}

/// RFC 7240. What cannot be read is no preference.
fn preferred(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences = values.flat_map(|value| value.split([',', ';']));
    preferences
        .filter_map(|preference| preference.trim().strip_prefix("wait="))
        .find_map(|wait| wait.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_of(asked: Option<&str>, prefer: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        if let Some(prefer) = prefer {
            headers.insert("prefer", prefer.parse().unwrap());
        }
        wait(asked, &headers).ok().flatten().map(|wait| wait.as_secs())
    }

    #[test]
    fn one_waits_by_parameter_or_preference() {
        assert_eq!(wait_of(Some("30s"), Some("wait=5")), Some(30));
        assert_eq!((wait_of(Some("7"), None), wait_of(Some("1h"), None)), (Some(7), Some(120)));
        assert_eq!(wait_of(None, Some("respond-async, wait=10")), Some(10));
        assert_eq!((wait_of(None, None), wait_of(None, Some("wait=soon"))), (None, None));
        assert!(wait(Some("soon"), &HeaderMap::new()).is_err());
    }
}
