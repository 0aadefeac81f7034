//! Items come in.

use std::time::Duration;

use gatefeed_core::{
    lease::Lease,
    store::{Page, PageRequest},
};
use tokio::time::Instant;

use super::{Board, current, queue};
use crate::held::{Held, Reading};

/// The most items of one page.
const PAGE_ITEMS_MAX: usize = 1000;
/// The most partitions read by one statement.
pub(super) const PAGES_MAX: usize = 64;

impl Board {
    /// Partitions that should be read now: first those that have waited for it for longest, since more may want to be read
    /// than one statement reads, again and again.
    pub(crate) fn pages(&mut self, now: Duration) -> Vec<PageRequest> {
        if self.is_draining {
            return Vec::new();
        }
        let limit = self.page_items();
        let has_room = self.buffered < self.buffer_max();
        let is_wanted = |held: &&mut Held| {
            let may_read = held.is_workable() && held.trusted_until.holds(now);
            may_read && matches!(held.reading, Reading::At(_)) && held.is_low(limit, has_room)
        };
        let mut wanted: Vec<&mut Held> = self.held.values_mut().filter(is_wanted).collect();
        if wanted.len() > PAGES_MAX {
            wanted.sort_by_key(|held| held.read_at);
        }
        wanted.into_iter().take(PAGES_MAX).filter_map(|held| held.read_on(limit)).collect()
    }

    /// Enough to keep every delivery slot busy for a while, and bounded however many partitions are held.
    pub(super) fn buffer_max(&self) -> usize {
        (4 * self.concurrency).clamp(2 * PAGE_ITEMS_MAX, 8 * PAGE_ITEMS_MAX)
    }

    pub(super) fn page_items(&self) -> usize {
        let share = self.buffer_max() / self.held.len().max(1);
        share.clamp(16, (4 * self.concurrency).clamp(100, PAGE_ITEMS_MAX))
    }

    /// Takes a page. Items that are known are in flight or unwritten: they are not sent twice.
    pub(crate) fn page_loaded(&mut self, lease: &Lease, page: Page) {
        let is_draining = self.is_draining;
        let Some(held) = current(&mut self.held, lease) else { return };
        held.is_unread = false;
        if let Some(until) = held.rests_until.take() {
            held.let_leave();
            held.reading = Reading::Unreadable(until);
            return;
        }
        held.reading = page.next.map_or(Reading::End, |next| Reading::At(Some(next)));
        if held.is_workable() && !is_draining {
            for item in page.items {
                if held.known.insert(item.id.clone()) {
                    held.buffer.push_back(item);
                    self.buffered += 1;
                }
            }
        }
        if held.let_leave() > 0 && held.reading == Reading::End {
            // One of them may be due again.
            held.reading = Reading::At(None);
        }
        queue(&mut self.turns, held);
    }

    /// The page could not be read: from the beginning, after a rest.
    pub(crate) fn page_failed(&mut self, lease: &Lease, rest: Duration) {
        if let Some(held) = self.current(lease) {
            held.is_unread = false;
            held.let_leave();
            let until = (!rest.is_zero()).then(|| Instant::now() + rest).max(held.rests_until.take());
            held.reading = until.map_or(Reading::At(None), Reading::Unreadable);
        }
    }

    /// Forgets what is buffered, and reads from the beginning after a rest.
    pub(super) fn rest(&mut self, lease: &Lease, rest: Duration) {
        let Some(held) = self.current(lease) else { return };
        let dropped = held.forget_buffer();
        let until = Instant::now() + rest;
        match held.reading {
            Reading::Loading => held.rests_until = Some(until),
            _ => held.reading = Reading::Unreadable(until),
        }
        self.buffered -= dropped;
    }

    /// Lets partitions be read again from the beginning: once a poll interval, since items with a higher
    /// priority, of late commits and retried ones lie behind the cursor, and soon after a hint.
    pub(crate) fn freshen(&mut self, is_hint: bool) {
        self.unpark();
        let now = Instant::now();
        let interval =
            if is_hint { self.poll_interval.min(Duration::from_millis(20)) } else { self.poll_interval };
        for held in self.held.values_mut() {
            let is_old = now.duration_since(held.scan_started) >= interval;
            let again = match &held.reading {
                Reading::Resting(until) => is_hint || *until <= now,
                Reading::Unreadable(until) => *until <= now,
                Reading::End => {
                    held.check_after.take_if(|at| *at <= now).is_some()
                        || (is_old && (!held.known.is_empty() || held.check_after.is_some()))
                }
                Reading::At(Some(_)) => now.duration_since(held.scan_started) >= self.poll_interval,
                Reading::At(None) | Reading::Loading | Reading::Checking => false,
            };
            if again {
                held.reading = Reading::At(None);
            }
        }
    }

    /// When the first resting partition wants to be read again.
    pub(crate) fn next_rest_ends(&self) -> Option<Instant> {
        let ends = self.held.values().filter_map(|held| match held.reading {
            Reading::Resting(until) | Reading::Unreadable(until) => Some(until),
            Reading::End => held.check_after,
            _ => None,
        });
        ends.min()
    }
}
