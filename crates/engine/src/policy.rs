//! How a watcher treats a feed, or one of its gates.

use std::time::Duration;

use foldhash::HashMap;
use gatefeed_core::retry::RetryPolicy;

/// What a feed has of its own, or one of its gates.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// At most this many deliveries in flight, beside the bound of the whole watcher: of the feed with all its gates, or
    /// of the gate. More than zero; `None`: no bound of its own.
    pub concurrency: Option<usize>,
    /// Items are handed over in batches; `None`: one by one.
    pub batch: Option<Batch>,
    /// Data that lies in the blob store is handed over as a link to it, but in batches.
    pub blob_links: bool,
}

/// How items are gathered into one delivery. They are of one partition and gate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Batch {
    /// At most so many items; more than zero. Together they have no more bytes than one item may have.
    pub size: usize,
    /// How long a batch that is not full waits for more, while its partition is still being read. Not at all for
    /// what nobody knows of. At most [`gatefeed_core::duration::DURATION_MAX`].
    pub linger: Duration,
}

/// The policies of a watcher.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    /// Of feeds without one.
    pub(crate) others: Policy,
    feeds: HashMap<String, OfFeed>,
}

#[derive(Clone, Debug)]
struct OfFeed {
    own: Policy,
    gates: Vec<(i32, Policy)>,
}

impl Policies {
    /// Gives a feed a policy; its gates keep theirs.
    pub(crate) fn set_feed(&mut self, feed: &str, policy: Policy) {
        self.feed(feed).own = policy;
    }

    /// Gives a gate of a feed a policy.
    pub(crate) fn set_gate(&mut self, feed: &str, gate: i32, policy: Policy) {
        let gates = &mut self.feed(feed).gates;
        gates.retain(|(other, _)| *other != gate);
        gates.push((gate, policy));
    }

    fn feed(&mut self, feed: &str) -> &mut OfFeed {
        let own = self.others.clone();
        self.feeds.entry(feed.to_owned()).or_insert_with(|| OfFeed { own, gates: Vec::new() })
    }

    /// How failed attempts at this gate of this feed are repeated.
    pub(crate) fn retry(&self, feed: &str, gate: i32) -> &RetryPolicy {
        &self.of(feed, gate).retry
    }

    /// Whether large data is handed over as a link.
    pub(crate) fn blob_links(&self, feed: &str, gate: i32) -> bool {
        self.of(feed, gate).blob_links
    }

    fn of(&self, feed: &str, gate: i32) -> &Policy {
        if self.feeds.is_empty() {
            return &self.others;
        }
        let Some(of_feed) = self.feeds.get(feed) else { return &self.others };
        let own = of_feed.gates.iter().find(|(own, _)| *own == gate);
        own.map_or(&of_feed.own, |(_, policy)| policy)
    }

    /// How the items of feeds and gates that have a policy are batched.
    pub(crate) fn batches(&self) -> impl Iterator<Item = (&str, Option<i32>, Option<Batch>)> {
        self.feeds.iter().flat_map(|(feed, of_feed)| {
            let of_gates = of_feed.gates.iter();
            let of_gates = of_gates.map(|(gate, policy)| (feed.as_str(), Some(*gate), policy.batch));
            of_gates.chain([(feed.as_str(), None, of_feed.own.batch)])
        })
    }

    /// Every bound of a feed's own (without a gate) or of one of its gates.
    pub(crate) fn bounds(&self) -> impl Iterator<Item = (&str, Option<i32>, usize)> {
        self.feeds.iter().flat_map(|(feed, of_feed)| {
            let own = of_feed.own.concurrency.map(|max| (feed.as_str(), None, max));
            let gates = of_feed.gates.iter();
            let of_gates =
                gates.filter_map(|(gate, policy)| Some((feed.as_str(), Some(*gate), policy.concurrency?)));
            own.into_iter().chain(of_gates)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(max_retries: u32) -> Policy {
        Policy {
            retry: RetryPolicy { max_retries: Some(max_retries), ..RetryPolicy::default() },
            ..Policy::default()
        }
    }

    #[test]
    fn a_gate_goes_before_its_feed_and_a_feed_before_the_others() {
        let mut policies = Policies { others: policy(1), ..Policies::default() };
        policies.set_feed("f", policy(2));
        policies.set_gate("f", 7, policy(3));
        let retries = |feed, gate| policies.retry(feed, gate).max_retries;
        assert_eq!([retries("f", 7), retries("f", 0), retries("g", 7)], [Some(3), Some(2), Some(1)]);
    }
}
