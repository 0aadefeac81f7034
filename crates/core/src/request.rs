//! Requests that add many items at once and have an idempotency key: what is kept of them, so that one which comes again
//! is answered as it was.

use std::time::Duration;

use crate::store::Pushed;

/// For how long a request is kept at least, unless its partition is deleted. Whoever repeats one does so within minutes;
/// a week is for those that stood still over a weekend.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// So many that are older go with each one that comes, so that their number falls when fewer come.
pub const FORGOTTEN_MAX: u32 = 10;

/// A request, in its partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// Its idempotency key.
    pub key: String,
    /// What it asks for, as a SHA-256.
    pub digest: [u8; 32],
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answered {
    /// It was done.
    Now(Pushed),
    /// It had been done before; this is what it came to then.
    Before(Pushed),
    /// Its key had been used for another request. Nothing was done.
    Conflict,
}

impl Answered {
    /// How a request is answered whose key was there already, of a request with this digest that came to this.
    pub fn found(request: &Request, digest: &[u8], pushed: Pushed) -> Self {
        if request.digest == digest { Self::Before(pushed) } else { Self::Conflict }
    }
}
