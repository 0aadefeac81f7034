//! What several requests follow is looked at once for all of them, by one task that runs while anybody does.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// What is followed, and what was seen of it last; `None`: nothing yet.
#[derive(Debug)]
pub(crate) struct Watched<K, V>(Mutex<Table<K, V>>);

#[derive(Debug)]
struct Table<K, V> {
    followed: HashMap<K, watch::Sender<Option<V>>>,
    is_looking: bool,
}

impl<K, V> Default for Watched<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Table { followed: HashMap::new(), is_looking: false }))
    }
}

impl<K: Clone + Eq + Hash, V: PartialEq> Watched<K, V> {
    /// Follows something. True: nobody looks, and whoever called this has to see to it.
    pub(crate) fn follow(&self, key: K) -> (watch::Receiver<Option<V>>, bool) {
        let mut table = self.table();
        let sender = table.followed.entry(key).or_insert_with(|| watch::Sender::new(None));
        // What was seen when it was followed before may have passed.
        if sender.receiver_count() == 0 {
            sender.send_replace(None);
        }
        let mut receiver = sender.subscribe();
        receiver.mark_changed();
        (receiver, !std::mem::replace(&mut table.is_looking, true))
    }

    /// All that somebody follows. When that is nothing, whoever looks is done.
    pub(crate) fn followed(&self) -> Vec<K> {
        let mut table = self.table();
        table.followed.retain(|_, sender| sender.receiver_count() > 0);
        table.is_looking = !table.followed.is_empty();
        table.followed.keys().cloned().collect()
    }

    /// Tells what was seen, if it is something else than before.
    pub(crate) fn tell(&self, key: &K, seen: V) {
        if let Some(sender) = self.table().followed.get(key) {
            sender.send_if_modified(|before| {
                let is_new = before.as_ref() != Some(&seen);
                *before = Some(seen);
                is_new
            });
        }
    }

    fn table(&self) -> MutexGuard<'_, Table<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_looks_for_all_until_nobody_follows() {
        let watched = Watched::<&str, u8>::default();
        let ((one, first), (other, second)) = (watched.follow("a"), watched.follow("a"));
        assert!(first && !second);
        watched.tell(&"a", 1);
        assert_eq!((*one.borrow(), *other.borrow()), (Some(1), Some(1)));
        drop((one, other));
        let (again, _) = watched.follow("a");
        assert_eq!(*again.borrow(), None, "that was long ago");
        assert_eq!(watched.followed(), ["a"]);
        drop(again);
        assert!(watched.followed().is_empty());
        assert!(watched.follow("a").1, "somebody has to look again");
    }
}
