//! Versions as entity tags: `"7"`.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::problem::Problem;

/// A version's tag.
pub(crate) fn tag(version: i64) -> String {
    format!("\"{version}\"")
}

/// The version that a change is for, by `If-Match`; `None`: any.
pub(crate) fn expected(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or("").trim();
    if text == "*" {
        return Ok(None);
    }
    let version =
        text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
    let wrong = || Problem::bad_request("If-Match takes one ETag as the API gives it, such as \"7\", or *");
    Ok(Some(version.ok_or_else(wrong)?))
}

/// A thing with its tag, or 304 where `If-None-Match` names that.
pub(crate) fn tagged(headers: &HeaderMap, version: i64, thing: &impl Serialize) -> Response {
    let same = unchanged(headers, version);
    same.unwrap_or_else(|| json(StatusCode::OK, &[(header::ETAG, tag(version))], thing))
}

/// 304, where `If-None-Match` names this version, or any.
pub(crate) fn unchanged(headers: &HeaderMap, version: i64) -> Option<Response> {
    let tag = tag(version);
    let seen = headers.get(header::IF_NONE_MATCH)?.to_str().ok()?;
    let is_same = |seen: &str| seen == "*" || seen.trim_start_matches("W/") == tag;
    let response = || (StatusCode::NOT_MODIFIED, [(header::ETAG, &tag)]).into_response();
    seen.split(',').map(str::trim).any(is_same).then(response)
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, headers: &[(HeaderName, String)], thing: &impl Serialize) -> Response {
    let body = match serde_json::to_vec(thing) {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected_of(value: &str) -> Option<Option<i64>> {
        let headers = [(header::IF_MATCH, value.parse().unwrap())].into_iter().collect();
        expected(&headers).ok()
    }

    #[test]
    fn a_version_is_a_tag_and_back() {
        assert_eq!(expected_of(&tag(7)), Some(Some(7)));
        assert_eq!((expected_of("*"), expected(&HeaderMap::new()).ok()), (Some(None), Some(None)));
        for bad in ["7", "W/\"7\"", "\"7\", \"8\"", "\"x\"", ""] {
            assert_eq!(expected_of(bad), None, "{bad}");
        }
    }
}
