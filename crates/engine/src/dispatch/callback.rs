//! Where a handler calls back if its answer comes later.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use gatefeed_core::callback::Key;
use url::Url;

use super::http::HttpOptions;
use crate::processor::Delivery;

/// Makes the URLs of callbacks, once the key is known.
pub(super) struct Callbacks {
    key: Arc<OnceLock<Key>>,
    /// Everything before the token; `None`: nobody knows how handlers reach gatefeed.
    prefix: Option<String>,
    timeout: Duration,
    max_answer: u64,
}

impl Callbacks {
    pub(super) fn new(key: Arc<OnceLock<Key>>, options: &HttpOptions) -> Self {
        let max_answer = u64::try_from(options.max_answer).unwrap_or(u64::MAX);
        let prefix = options.public_url.as_ref().map(prefix);
        Self { key, prefix, timeout: options.callback_timeout, max_answer }
    }

    /// Where this attempt is answered, if it may be answered later.
    pub(super) fn url(&self, delivery: &Delivery) -> Option<String> {
        let (key, prefix) = (self.key.get()?, self.prefix.as_ref()?);
        let token = key.sign(&delivery.ticket(self.timeout, self.max_answer));
        Some([prefix, token.as_str()].concat())
    }

    /// How long an item waits whose delivery said where to call.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}

fn prefix(base: &Url) -> String {
    let mut base = base.clone();
    base.set_query(None);
    if let Ok(mut path) = base.path_segments_mut() {
        path.pop_if_empty().extend(["v1", "callbacks", ""]);
    }
    base.into()
}
