//! What of a limit is one watcher's: limits hold for all watchers of a feed together, and each keeps its part.

use std::{num::NonZeroU32, time::Duration};

/// Other watchers that are alive, by which of a watcher's feeds they serve. Each is counted once.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Peers(Vec<PeerGroup>);

/// Other watchers that serve the same of a watcher's feeds.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PeerGroup {
    /// Those that they have in common with it, at least one.
    pub feeds: Vec<String>,
    /// How many they are.
    pub watchers: usize,
    /// How many of them have names that come before its own.
    pub before: usize,
}

/// A watcher's part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share {
    /// Over how many it is split, this one included.
    watchers: usize,
    /// How many of them come before this one: they get what does not come out even.
    before: usize,
}

impl Peers {
    /// Of these groups; no watcher is in two of them.
    pub fn new(mut groups: Vec<PeerGroup>) -> Self {
        // So that the same ones are equal.
        groups.sort_unstable();
        Self(groups)
    }

    /// Whether any of them serves a feed.
    pub fn serve(&self, feed: &str) -> bool {
        self.0.iter().any(|group| group.watchers > 0 && group.feeds.iter().any(|served| served == feed))
    }

    /// The part in a limit that holds for these feeds together: it is split over all who serve any of them.
    pub fn share(&self, is_limited: impl Fn(&str) -> bool) -> Share {
        let concerned = self.0.iter().filter(|group| group.feeds.iter().any(|feed| is_limited(feed)));
        concerned.fold(Share::WHOLE, |share, group| Share {
            watchers: share.watchers.saturating_add(group.watchers),
            before: share.before.saturating_add(group.before),
        })
    }
}

impl Share {
    /// Of one who is alone.
    pub const WHOLE: Self = Self { watchers: 1, before: 0 };

    /// Over how many it is split.
    pub fn watchers(self) -> usize {
        self.watchers
    }

    /// Its part in a number: those of all are that number together, or one each if they are more than that.
    pub fn of(self, number: usize) -> usize {
        let more = usize::from(self.before < number % self.watchers);
        (number / self.watchers + more).max(1)
    }

    /// Its part in a burst, as [`Self::of`].
    pub fn of_burst(self, burst: NonZeroU32) -> NonZeroU32 {
        let part = self.of(usize::try_from(burst.get()).unwrap_or(usize::MAX));
        u32::try_from(part).ok().and_then(NonZeroU32::new).unwrap_or(burst)
    }

    /// How far its own are apart, where those of all are so far.
    pub fn of_period(self, every: Duration) -> Duration {
        every.saturating_mul(u32::try_from(self.watchers).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(feeds: &[&str], watchers: usize, before: usize) -> PeerGroup {
        PeerGroup { feeds: feeds.iter().map(|feed| (*feed).to_owned()).collect(), watchers, before }
    }

    #[test]
    fn a_limit_is_split_over_those_who_serve_any_of_its_feeds() {
        let peers = Peers::new(vec![group(&["a"], 3, 1), group(&["a", "b"], 2, 2), group(&["c"], 50, 7)]);
        let share = |feeds: &[&str]| peers.share(|feed| feeds.contains(&feed));
        assert_eq!(share(&["a"]), Share { watchers: 6, before: 3 });
        assert_eq!(share(&["b"]), Share { watchers: 3, before: 2 });
        assert_eq!(share(&["a", "b"]), Share { watchers: 6, before: 3 }, "each once");
        assert_eq!(share(&["d"]), Share::WHOLE);
        assert_eq!(Peers::default().share(|_| true), Share::WHOLE);
    }

    #[test]
    fn rates_are_split_whatever_they_are() {
        let share = Share { watchers: 3, before: 0 };
        assert_eq!(share.of_period(Duration::from_secs(2)), Duration::from_secs(6));
        assert_eq!(share.of_burst(NonZeroU32::MIN), NonZeroU32::MIN);
        assert_eq!(Share::WHOLE.of_burst(NonZeroU32::MAX), NonZeroU32::MAX);
    }

    proptest! {
        /// Nobody gets nothing, and all together get what there is.
        #[test]
        fn parts_are_the_whole(watchers in 1usize..50, number in 1usize..500) {
            let parts: Vec<usize> = (0..watchers).map(|before| Share { watchers, before }.of(number)).collect();
            prop_assert!(parts.iter().all(|part| *part >= 1));
            prop_assert_eq!(parts.iter().sum::<usize>(), number.max(watchers));
            let (least, most) = (parts.iter().min().unwrap(), parts.iter().max().unwrap());
            prop_assert!(most - least <= 1);
        }
    }
}
