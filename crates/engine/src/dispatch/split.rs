//! What is limited for all watchers together, and for which feeds: each keeps its share of it.

use std::{collections::BTreeSet, sync::Arc};

use gatefeed_core::share::Peers;

use super::{limit::RateLimit, place::Place};

/// The limits of some routes, each once.
#[derive(Default)]
pub(super) struct Splits(Vec<Split>);

struct Split {
    limit: Limit,
    /// The feeds whose items it limits; `None`: of all.
    feeds: Option<BTreeSet<String>>,
}

/// A limit that holds for all watchers together.
#[derive(Clone)]
pub(super) enum Limit {
    /// Of a route, and of others that share it.
    Rate(RateLimit),
    /// Those of a target.
    Place(Arc<Place>),
}

impl Limit {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rate(one), Self::Rate(other)) => one == other,
            (Self::Place(one), Self::Place(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Splits {
    /// Limits that items of this feed meet; `None`: of all feeds.
    pub(super) fn add(&mut self, feed: Option<&str>, limits: impl Iterator<Item = Limit>) {
        for limit in limits {
            let known = self.0.iter_mut().find(|split| split.limit.is(&limit));
            match (known, feed) {
                (Some(split), Some(feed)) => {
                    _ = split.feeds.as_mut().map(|feeds| feeds.insert(feed.to_owned()))
                }
                (Some(split), None) => split.feeds = None,
                (None, _) => self.0.push(Split { limit, feeds: feed.map(|feed| [feed.to_owned()].into()) }),
            }
        }
    }

    /// Whether there is any.
    pub(super) fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Keeps the share beside these watchers from now on. True if that is another for any limit.
    pub(super) fn split(&self, peers: &Peers) -> bool {
        let mut is_another = false;
        for Split { limit, feeds } in &self.0 {
            let share = peers.share(|feed| feeds.as_ref().is_none_or(|feeds| feeds.contains(feed)));
            is_another |= match limit {
                Limit::Rate(rate) => rate.split(share),
                Limit::Place(place) => place.split(share),
            };
        }
        is_another
    }
}
