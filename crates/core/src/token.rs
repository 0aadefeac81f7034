//! Who may use the API: tokens with a role, for one feed or all.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::StoreError;

/// The most tokens that hold at a time.
pub const HOLDING_MAX: usize = 5_000;

/// How many are kept that were revoked or have expired: the newest.
pub const ENDED_MAX: usize = 5_000;

/// The most tokens that are looked at.
pub const TOKENS_MAX: usize = HOLDING_MAX + ENDED_MAX;

/// Why no more tokens are made.
pub fn too_many() -> StoreError {
    StoreError::Refused(format!("there are {HOLDING_MAX} tokens that hold already: revoke some first"))
}

/// What a token allows. Each role allows what those before it do.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// Looking.
    Read,
    /// Looking, and pushing partitions and items.
    Push,
    /// Everything: also retrying, pausing, cancelling and the like.
    Operate,
}

impl Role {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Push => "push",
            Self::Operate => "operate",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self, StoreError> {
        [Self::Read, Self::Push, Self::Operate]
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| StoreError::data(format!("unknown role {word:?}: expected read, push or operate")))
    }
}

/// A token to be added. The secret itself is never stored.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Names it in lists; part of the token.
    pub id: String,
    /// For people.
    pub name: Option<String>,
    /// What it allows.
    pub role: Role,
    /// Where; `None`: in every feed.
    pub feed: Option<String>,
    /// The SHA-256 of the whole token.
    pub hash: [u8; 32],
    /// Until when; `None`: for ever.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A token as it is kept.
#[derive(Clone, Debug, Serialize)]
pub struct Token {
    /// Names it in lists; part of the token.
    pub id: String,
    /// For people.
    pub name: Option<String>,
    /// What it allows.
    pub role: Role,
    /// Where; none: in every feed.
    pub feed: Option<String>,
    /// The SHA-256 of the whole token.
    #[serde(skip)]
    pub hash: Vec<u8>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Until when it holds; none: for ever.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Token {
    /// Whether it holds at this time.
    pub fn holds(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}
