//! Whether there is room for more partitions, and which are left to others.

use std::{sync::Arc, time::Duration};

use foldhash::HashSet;
use tokio::time::Instant;

use super::{Board, CLAIM_MAX};
use crate::held::Held;

/// For how long a partition is held at least before it is handed over to a watcher that asks.
const HELD_MIN: Duration = Duration::from_millis(500);
/// The most leases a watcher holds: each costs a renewal.
const LEASES_MAX: usize = 1024;
/// A feed of which so many partitions are parked gets no more before that changes, but for one a poll interval.
const PARKED_MAX: usize = 8;

/// Whether there is room for more partitions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Room {
    /// Deliveries could be under way that are not.
    Spare,
    /// For those that come along: what is here has as much in flight as it may.
    Kept,
    /// Everything is busy, but other partitions should get their turns too.
    Turns,
    /// No.
    None,
}

impl Room {
    /// Whether what is here keeps everything busy that it may.
    pub(crate) fn is_full(self) -> bool {
        matches!(self, Self::Kept | Self::Turns)
    }
}

impl Board {
    pub(crate) fn room(&self) -> Room {
        if self.is_draining || self.held.len() >= LEASES_MAX || self.has_unread() {
            Room::None
        } else if self.usable() < enough(self.concurrency) {
            Room::Spare
        } else if self.has_kept_slots() {
            Room::Kept
        } else {
            Room::Turns
        }
    }

    /// Whether it is not known yet how much the last claim came to. What is not going to be read says nothing of that: its
    /// checkpoint may have to wait for somebody.
    fn has_unread(&self) -> bool {
        self.held.values().any(|held| held.is_unread && held.is_workable())
    }

    /// Whether slots are free that none of the partitions may take which have something to send ([`Self::kept_back`]).
    fn has_kept_slots(&self) -> bool {
        let (kept, share) = self.kept_back();
        let has_its_share = |id: &Arc<str>| self.held.get(id).is_none_or(|held| held.in_flight >= share);
        // With fewer than ten, one partition alone may take them all.
        let keeps_always = kept > 0 && self.concurrency >= 10;
        keeps_always && self.in_flight < self.concurrency && self.turns.iter().all(has_its_share)
    }

    /// What keeps deliveries busy now or soon: not what is parked, since that leaves other feeds their room.
    fn usable(&self) -> usize {
        self.in_flight + self.buffered - self.parked_items(|_| true)
    }

    fn parked_items(&self, is_wanted: impl Fn(&Held) -> bool) -> usize {
        let parked = self.parked.iter().filter_map(|id| self.held.get(id));
        parked.filter(|held| is_wanted(held)).map(|held| held.buffer.len()).sum()
    }

    /// Feeds that have enough waiting here for a bound or for a handler that is down: the rest of their partitions is
    /// left to others.
    pub(crate) fn satisfied(&self, feeds: &[String]) -> Vec<String> {
        if self.parked.is_empty() {
            return Vec::new();
        }
        let is_satisfied = |feed: &&String| {
            let is_own = |held: &Held| *held.feed == ***feed;
            let partitions =
                self.parked.iter().filter_map(|id| self.held.get(id)).filter(|held| is_own(held));
            partitions.count() >= PARKED_MAX || self.parked_items(is_own) >= enough(self.concurrency)
        };
        feeds.iter().filter(is_satisfied).cloned().collect()
    }

    /// How many partitions a full watcher keeps going; with more, they take turns in being held, so that it
    /// leaves what it cannot serve to others.
    pub(crate) fn turns_max(&self) -> usize {
        turns_max(self.concurrency)
    }

    /// How many more a full watcher takes at a time of what nobody with room took: few, since that may be about to have
    /// room. Several watchers that are full took all at once, and left those with nothing that were through first.
    pub(crate) fn untaken_max(&self) -> usize {
        (self.held.len() / 4).clamp(1, self.turns_max().div_ceil(2))
    }

    /// Whether partitions could be spared for watchers that ask: everything is busy, or something waits for a bound or for
    /// a handler that is down, perhaps only from here.
    pub(crate) fn could_spare(&self) -> bool {
        !self.is_draining && (!self.parked.is_empty() || (self.room().is_full() && self.held.len() > 1))
    }

    /// Of these feeds, those of which nothing waits for a bound or a handler here: more of them could be sent.
    pub(crate) fn unhindered(&self, feeds: &[String]) -> Vec<String> {
        let hindered: HashSet<&str> =
            self.parked.iter().filter_map(|id| self.held.get(id)).map(|held| &*held.feed).collect();
        feeds.iter().filter(|feed| !hindered.contains(feed.as_str())).cloned().collect()
    }

    /// Lets partitions go for others that ask for some, by feed: one for each that asks, those of which least is in flight,
    /// since it has to end first. The greater part stays, but not of what is stuck; and so does what has come just now, or a
    /// partition would go to and fro. Where there is room, only what waits for something else is spared.
    pub(crate) fn hand_off(&mut self, asked: &[(String, usize)]) {
        if !self.could_spare() {
            return;
        }
        let now = Instant::now();
        let is_full = self.room().is_full();
        let parked: HashSet<Arc<str>> = self.parked.iter().cloned().collect();
        for (feed, watchers) in asked {
            let of_feed = |held: &&mut Held| *held.feed == **feed;
            let leaving = self.held.values().filter(|h| h.is_leaving && *h.feed == **feed).count();
            let mut busy: Vec<&mut Held> =
                self.held.values_mut().filter(of_feed).filter(|h| h.is_busy()).collect();
            let stuck = busy.iter().filter(|held| held.is_stuck(now)).count();
            let most = stuck.max(busy.len() / 2);
            busy.retain(|held| {
                held.granted_at + HELD_MIN <= now && (is_full || parked.contains(&held.lease.partition))
            });
            busy.sort_by_key(|held| (!held.is_stuck(now), held.in_flight, held.granted_at));
            for held in busy.into_iter().take(watchers.saturating_sub(leaving).min(most)) {
                held.is_leaving = true;
                self.buffered -= held.forget_buffer();
            }
        }
    }

    /// Lets partitions go that have been held for longest, beyond [`Self::turns_max`].
    pub(crate) fn rotate(&mut self) {
        let keep = self.turns_max();
        let staying = self.held.values_mut().filter(|held| !held.is_leaving);
        self.buffered -= let_go(staying, keep);
    }

    /// The same among the partitions of a feed that has a bound of its own.
    pub(crate) fn rotate_feed(&mut self, feed: &str) {
        let keep = turns_max(self.lanes.max(feed).unwrap_or(self.concurrency));
        let staying = self.held.values_mut().filter(|held| !held.is_leaving && *held.feed == *feed);
        self.buffered -= let_go(staying, keep);
    }
}

/// How much in flight and buffered keeps so many deliveries busy.
fn enough(concurrency: usize) -> usize {
    concurrency + concurrency / 2
}

/// How many partitions take turns in so many deliveries.
fn turns_max(concurrency: usize) -> usize {
    (concurrency / 4).clamp(2, CLAIM_MAX)
}

/// Lets all but those go that came last; returns how many buffered items that were.
fn let_go<'a>(held: impl Iterator<Item = &'a mut Held>, keep: usize) -> usize {
    let mut staying: Vec<&mut Held> = held.collect();
    staying.sort_by_key(|held| std::cmp::Reverse(held.granted_at));
    let leave = |held: &mut Held| {
        held.is_leaving = true;
        held.forget_buffer()
    };
    staying.into_iter().skip(keep).map(leave).sum()
}
