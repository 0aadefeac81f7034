//! Signatures by the Standard Webhooks specification: HMAC-SHA256 over `id.timestamp.body`, by which a handler knows who
//! sent a delivery, and that nothing of it was changed or is old.

use std::{fmt, time::SystemTime};

use ::http::{HeaderMap, HeaderName, HeaderValue};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use ring::hmac;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How a secret is written, before its base64.
const PREFIX: &str = "whsec_";
/// How many bytes a secret has, by the specification.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs deliveries with one secret, or with several while they are being changed: every handler finds the one that it has.
#[derive(Clone)]
pub struct Signer {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    bytes: Vec<u8>,
    key: hmac::Key,
}

/// Why secrets were refused; never with any part of one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSecret(String);

impl Signer {
    /// Reads secrets, each `whsec_` and base64 of 24 to 64 bytes, with spaces, commas or line ends between them.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let secrets: Vec<&str> =
            text.split(|c: char| c.is_whitespace() || c == ',').filter(|s| !s.is_empty()).collect();
        if secrets.is_empty() {
            return Err(InvalidSecret(format!("there is no secret; {EXPECTED}")));
        }
        let count = secrets.len();
        let key = |(index, secret): (usize, &&str)| {
            Key::parse(secret).ok_or_else(|| {
                InvalidSecret(format!("signing secret {} of {count} will not do; {EXPECTED}", index + 1))
            })
        };
        Ok(Self { keys: secrets.iter().enumerate().map(key).collect::<Result<_, _>>()? })
    }

    /// Adds the three headers. `id` is the same for every attempt of the same work, and has no dot.
    pub(super) fn sign(&self, headers: &mut HeaderMap, id: HeaderValue, body: &[u8]) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let timestamp = HeaderValue::from(now);
        let signatures = self.signatures(&[id.as_bytes(), timestamp.as_bytes(), body]);
        headers.insert(ID, id);
        headers.insert(TIMESTAMP, timestamp);
        // Base64 and spaces are no problem of any header.
        if let Ok(signatures) = HeaderValue::from_str(&signatures) {
            headers.insert(SIGNATURE, signatures);
        }
    }

    /// Of each secret one, in their order, with spaces between.
    fn signatures(&self, parts: &[&[u8]]) -> String {
        let signature = |key: &Key| {
            let mut context = hmac::Context::with_key(&key.key);
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    context.update(b".");
                }
                context.update(part);
            }
            format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
        };
        self.keys.iter().map(signature).collect::<Vec<_>>().join(" ")
    }
}

const EXPECTED: &str = "expected whsec_ and base64 of 24 to 64 random bytes, such as `echo whsec_$(openssl rand -base64 32)` makes";

impl Key {
    fn parse(secret: &str) -> Option<Self> {
        let text = secret.strip_prefix(PREFIX)?.trim_end_matches('=');
        let bytes = BASE64_STANDARD_NO_PAD.decode(text).ok()?;
        BYTES.contains(&bytes.len()).then(|| Self { key: hmac::Key::new(hmac::HMAC_SHA256, &bytes), bytes })
    }
}

impl PartialEq for Signer {
    fn eq(&self, other: &Self) -> bool {
        self.keys.iter().map(|key| &key.bytes).eq(other.keys.iter().map(|key| &key.bytes))
    }
}

impl Eq for Signer {}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} secrets)", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published with the specification's libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn signatures(secrets: &str) -> String {
        let signer = Signer::parse(secrets).unwrap();
        let parts: [&[u8]; 3] = [b"msg_p5jXN8AQM9LWM0D4loKWxJek", b"1614265330", br#"{"test": 2432232314}"#];
        signer.signatures(&parts)
    }

    #[test]
    fn the_published_example_is_signed_as_published() {
        assert_eq!(signatures(SECRET), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_secrets_change_each_signs() {
        let both = format!("{}  {}", signatures(OTHER), signatures(SECRET)).replace("  ", " ");
        for separator in [",", " ", "\n", ", ", "\r\n"] {
            assert_eq!(signatures(&format!("{OTHER}{separator}{SECRET}\n")), both);
        }
    }

    #[test]
    fn bad_secrets_are_refused_and_never_shown() {
        let short = format!("whsec_{}", BASE64_STANDARD.encode([7; 23]));
        let long = format!("whsec_{}", BASE64_STANDARD.encode([7; 65]));
        for bad in ["", " ,\n", "hunter2hunter2", "whsec_", "whsec_hunter2!", short.as_str(), long.as_str()] {
            let error = Signer::parse(bad).unwrap_err().to_string();
            assert!(error.contains("whsec_ and base64 of 24 to 64"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("BwcH"), "{error}");
        }
        let second = Signer::parse(&format!("{SECRET} nonsense")).unwrap_err().to_string();
        assert!(second.contains("secret 2 of 2") && !second.contains("nonsense"), "{second}");
        let shown = format!("{:?}", Signer::parse(SECRET).unwrap());
        assert_eq!(shown, "Signer(1 secrets)");
    }
}
