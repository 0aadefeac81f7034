//! Why a delivery came to nothing, as the layers of a route pass it on.

use gatefeed_core::answer::Failure;
use tower::{BoxError, timeout::error::Elapsed};

/// How far it came, which layers above decide by.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Missed {
    /// No byte of the request can have reached the handler: the text says why.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time. The handler may be at work on it.
    #[error("no answer in time")]
    TimedOut,
    /// The handler answered that it failed, or in a way that means so.
    #[error("{}", .0.message)]
    Failed(Failure),
}

impl Missed {
    /// The error of tower's timeout, or the one under it, in our own terms.
    pub(super) fn unbox(error: BoxError) -> Self {
        if error.is::<Elapsed>() {
            return Self::TimedOut;
        }
        match error.downcast::<Self>() {
            Ok(missed) => *missed,
            Err(other) => Self::Failed(Failure::new(other.to_string())),
        }
    }
}

impl From<Failure> for Missed {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
