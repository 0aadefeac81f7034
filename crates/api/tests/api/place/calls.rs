//! Which calls are made to a store, by what it traces. Of this thread only: for tests whose runtime has no other.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::{DefaultGuard, set_default},
};

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Calls {
    counts: Arc<Mutex<HashMap<String, usize>>>,
    _guard: DefaultGuard,
    /// Were there one subscriber only, it would be taken for every thread's, and what another test's thread comes to first
    /// would be counted by nobody.
    _second: Dispatch,
}

impl Calls {
    pub(crate) fn count() -> Self {
        let counts = Arc::<Mutex<HashMap<String, usize>>>::default();
        let _second = Dispatch::new(Counting(Arc::default()));
        let _guard = set_default(Counting(Arc::clone(&counts)));
        Self { counts, _guard, _second }
    }

    pub(crate) fn of(&self, name: &str) -> usize {
        self.counts.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// Waits until there are so many; panics if that takes longer than any test should.
    pub(crate) async fn until(&self, name: &str, count: usize) {
        let made = async {
            while self.of(name) < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(PATIENCE, made).await.is_ok(), "{count} of {name:?}: {self:?}");
    }

    pub(crate) fn all(&self) -> usize {
        self.counts.lock().unwrap().values().sum()
    }
}

struct Counting(Arc<Mutex<HashMap<String, usize>>>);

impl Subscriber for Counting {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "gatefeed::store"
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut Name(&self.0));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Name<'a>(&'a Mutex<HashMap<String, usize>>);

impl Visit for Name<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            *self.0.lock().unwrap().entry(value.to_owned()).or_default() += 1;
        }
    }
    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}
