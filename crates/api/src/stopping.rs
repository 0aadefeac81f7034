//! The end of the server, as requests see it that would take longer.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};
use tokio_util::sync::CancellationToken;

/// Whether the server that has taken a request is about to end. Of another server than [`crate::serve`] that is unknown,
/// and it never is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopping(CancellationToken);

impl Stopping {
    /// From now on.
    pub(crate) fn begin(&self) {
        self.0.cancel();
    }

    /// Until then.
    pub(crate) async fn wait(&self) {
        self.0.cancelled().await;
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Stopping {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}
