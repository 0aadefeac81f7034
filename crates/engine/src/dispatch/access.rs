//! What a target wants to see with each request: a credential, and headers of its own.

use std::fmt;

use ::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::target::InvalidTarget;

/// Headers that go with every delivery to a target. Credentials among them are never shown.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Access(HeaderMap);

impl Access {
    /// With `Authorization: Bearer TOKEN`.
    pub fn bearer(mut self, token: &str) -> Result<Self, InvalidTarget> {
        let token = token.trim();
        let is_token = |c: char| c.is_ascii_graphic();
        if token.is_empty() || !token.chars().all(is_token) {
            return Err(refused("the bearer token is empty, or has characters that a header cannot have"));
        }
        self.authorize(format!("Bearer {token}"))?;
        Ok(self)
    }

    /// With the `Authorization: Basic …` of `user:password`.
    pub fn basic(mut self, user_and_password: &str) -> Result<Self, InvalidTarget> {
        let text = user_and_password.trim_end_matches(['\r', '\n']);
        if !text.contains(':') {
            return Err(refused("the basic credential has to be user:password"));
        }
        self.authorize(format!("Basic {}", BASE64_STANDARD.encode(text)))?;
        Ok(self)
    }

    fn authorize(&mut self, value: String) -> Result<(), InvalidTarget> {
        let value = HeaderValue::try_from(value);
        let mut value = value.map_err(|_| refused("the credential cannot be sent as a header"))?;
        value.set_sensitive(true);
        match self.0.insert(header::AUTHORIZATION, value) {
            None => Ok(()),
            Some(_) => Err(refused("there are two credentials; a target has one")),
        }
    }

    /// With one more header. Errs for those that deliveries have already, and for those that are the connection's.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, InvalidTarget> {
        let parsed =
            HeaderName::try_from(name).map_err(|_| refused(&format!("{name:?} is no header's name")))?;
        if is_ours(&parsed) {
            return Err(refused(&format!(
                "the header {name} is not free: gatefeed, or HTTP itself, sets it"
            )));
        }
        // Not the value: it may be a secret.
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| refused(&format!("the value of the header {name} cannot be sent")))?;
        value.set_sensitive(true);
        self.0.append(parsed, value);
        Ok(self)
    }

    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.append(name.clone(), value.clone());
        }
    }
}

fn refused(why: &str) -> InvalidTarget {
    InvalidTarget(why.to_owned())
}

/// What a delivery has anyway, and what is a matter of the connection.
fn is_ours(name: &HeaderName) -> bool {
    const OURS: [&str; 15] = [
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "keep-alive",
        "te",
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "accept-encoding",
    ];
    let name = name.as_str();
    OURS.contains(&name) || name.starts_with("gatefeed-") || name.starts_with("webhook-")
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_headers_that_nobody_sees() {
        let mut headers = HeaderMap::new();
        let access = Access::default().bearer(" hunter2\n").unwrap().header("X-Team", "blue").unwrap();
        access.add_to(&mut headers);
        assert_eq!(headers["authorization"], "Bearer hunter2");
        assert_eq!(headers["x-team"], "blue");
        let shown = format!("{access:?} {headers:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("blue"), "{shown}");
        let mut headers = HeaderMap::new();
        Access::default().basic("me:pass word\n").unwrap().add_to(&mut headers);
        assert_eq!(headers["authorization"], "Basic bWU6cGFzcyB3b3Jk");
    }

    #[test]
    fn what_would_not_do_is_refused_without_being_shown() {
        let refused = |access: Result<Access, InvalidTarget>| access.unwrap_err().to_string();
        assert!(refused(Access::default().bearer("")).contains("empty"));
        assert!(!refused(Access::default().bearer("two words")).contains("words"));
        assert!(refused(Access::default().basic("hunter2")).contains("user:password"));
        let both = Access::default().bearer("a").unwrap().basic("b:c");
        assert!(refused(both).contains("two credentials"));
        for name in
            ["Host", "content-length", "Gatefeed-Item", "webhook-id", "Authorization", "Transfer-Encoding"]
        {
            assert!(refused(Access::default().header(name, "x")).contains("not free"), "{name}");
        }
        assert!(refused(Access::default().header("a b", "x")).contains("no header's name"));
        assert!(refused(Access::default().header("a", "x\ny")).contains("cannot be sent"));
    }
}
