//! Partitions whose outcomes find their row locked again and again. SKIP LOCKED never waits, and so meets somebody each
//! time where many lock a row in turn, as callbacks do: then it takes a place in the queue for the lock to get it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A partition stalls that has been locked for so long.
const STALLED: Duration = Duration::from_millis(200);

/// Between two times of waiting, for whichever partition: the outcomes of all others wait meanwhile.
const PAUSE: Duration = Duration::from_millis(500);

/// When each was first found locked, and has not been written since.
#[derive(Debug, Default)]
pub(super) struct Stalled(Mutex<Locked>);

#[derive(Debug, Default)]
struct Locked {
    since: HashMap<String, Instant>,
    waited_at: Option<Instant>,
}

impl Stalled {
    /// The one of these partitions that is to be waited for now, if any: the one that has been locked for longest.
    pub(super) fn next<'a>(&self, partitions: &'a [String], now: Instant) -> Option<&'a str> {
        let mut locked = self.locked();
        let is_over = |since: Instant, time| now.saturating_duration_since(since) >= time;
        if locked.waited_at.is_some_and(|at| !is_over(at, PAUSE)) {
            return None;
        }
        let since = |partition: &'a String| Some((*locked.since.get(partition)?, partition.as_str()));
        let (since, partition) = partitions.iter().filter_map(since).min()?;
        if !is_over(since, STALLED) {
            return None;
        }
        locked.waited_at = Some(now);
        Some(partition)
    }

    /// Takes note of a batch: its partitions, and those of which something found the row locked.
    pub(super) fn note(&self, partitions: &[String], busy: &[&str], now: Instant) {
        let mut locked = self.locked();
        if locked.since.is_empty() && busy.is_empty() {
            return;
        }
        for partition in partitions {
            match busy.contains(&partition.as_str()) {
                true => _ = locked.since.entry(partition.clone()).or_insert(now),
                false => _ = locked.since.remove(partition),
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Locked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_locked_for_longest_is_waited_for_now_and_then() {
        let stalled = Stalled::default();
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let all = ["a", "b", "c"].map(str::to_owned);
        stalled.note(&all, &["b"], start);
        stalled.note(&all, &["a", "b"], after(50));
        assert_eq!(stalled.next(&all, after(100)), None);
        assert_eq!(stalled.next(&all, after(200)), Some("b"));
        assert_eq!(stalled.next(&all, after(600)), None, "the others have their time");
        stalled.note(&all, &["a"], after(600));
        assert_eq!(stalled.next(&all, after(700)), Some("a"));
        stalled.note(&all, &[], after(700));
        assert_eq!(stalled.next(&all, after(9_000)), None);
        assert!(stalled.locked().since.is_empty());
    }
}
