//! Where a handler calls back if its answer comes later.

use std::time::Duration;

use gatefeed_core::callback::Key;
use url::Url;

use crate::processor::Delivery;

/// Makes the URLs of callbacks.
pub(super) struct Callbacks {
    key: Key,
    /// Everything before the token.
    prefix: String,
    timeout: Duration,
    max_answer: u64,
}

impl Callbacks {
    /// Below a base that handlers reach; tokens last for `timeout` and answers have `max_answer` bytes at the most.
    pub(super) fn new(key: Key, base: &Url, timeout: Duration, max_answer: usize) -> Self {
        let mut base = base.clone();
        base.set_query(None);
        if let Ok(mut path) = base.path_segments_mut() {
            path.pop_if_empty().extend(["v1", "callbacks", ""]);
        }
        let max_answer = u64::try_from(max_answer).unwrap_or(u64::MAX);
        Self { key, prefix: base.into(), timeout, max_answer }
    }

    /// Where this attempt is answered.
    pub(super) fn url(&self, delivery: &Delivery) -> String {
        let token = self.key.sign(&delivery.ticket(self.timeout, self.max_answer));
        [self.prefix.as_str(), &token].concat()
    }

    /// How long its item waits.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}
