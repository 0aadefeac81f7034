//! Tokens: `gf_`, the token's id, `_` and a secret. Only a hash of the whole is kept.

use chrono::{DateTime, Utc};
use gatefeed_core::token::{NewToken, Role, Token};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// So that a token that was published is found by scanners.
const PREFIX: &str = "gf_";

/// Bytes of an id that are shown.
const ID_CHARS: usize = 12;

/// A new token: the text that its owner gets, once, and what is kept of it.
pub fn new_token(
    role: Role,
    feed: Option<String>,
    name: Option<String>,
    expires_at: Option<DateTime<Utc>>,
) -> (String, NewToken) {
    let mut id = Uuid::new_v4().simple().to_string();
    id.truncate(ID_CHARS);
    // 244 random bits, from the operating system.
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let text = format!("{PREFIX}{id}_{secret}");
    let hash = hash(&text);
    (text, NewToken { id, name, role, feed, hash, expires_at })
}

/// The id within a token; `None`: it is none of ours.
pub(crate) fn id_of(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    (id.len() == ID_CHARS && !secret.is_empty()).then_some(id)
}

/// Whether a text is this token, in a time that does not tell how much of it is right.
pub(crate) fn is(token: &Token, text: &str) -> bool {
    hash(text).as_slice().ct_eq(&token.hash).into()
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let (text, new) = new_token(Role::Read, None, None, None);
        let created_at = Utc::now();
        let kept = Token {
            id: new.id.clone(),
            name: None,
            role: Role::Read,
            feed: None,
            hash: new.hash.to_vec(),
            created_at,
            expires_at: None,
            revoked_at: None,
        };
        assert_eq!(id_of(&text), Some(new.id.as_str()));
        assert!(is(&kept, &text) && !is(&kept, &text[..text.len() - 1]) && !is(&kept, ""));
        for bad in ["", "gf_", "gf_short_x", "xx_123456789012_y", "gf_123456789012_"] {
            assert_eq!(id_of(bad), None, "{bad}");
        }
        assert_ne!(new_token(Role::Read, None, None, None).0, text);
    }
}
