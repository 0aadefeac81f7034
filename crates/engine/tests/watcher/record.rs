//! A processor that keeps a log of what it was given and what became of it.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex},
    time::Instant,
};

use gatefeed_core::answer::{Answer, Verdict};
use gatefeed_engine::{Delivery, Processor};
use tokio::sync::{Notify, Semaphore};

use crate::db::within;

/// What happened to a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum What {
    Began,
    Accepted,
    Failed,
    /// The watcher dropped it, or it panicked.
    Dropped,
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) what: What,
    pub(crate) at: Instant,
    pub(crate) partition: String,
    pub(crate) item: String,
    pub(crate) gate: i32,
    pub(crate) pass: i32,
    pub(crate) attempt: u32,
    pub(crate) epoch: i64,
}

impl Event {
    pub(crate) fn is(&self, what: What, partition: &str) -> bool {
        self.what == what && self.partition == partition
    }

    pub(crate) fn key(&self) -> (String, String) {
        (self.partition.clone(), self.item.clone())
    }
}

/// A log that several processors may share.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Inner>);

#[derive(Default)]
struct Inner {
    events: Mutex<Vec<Event>>,
    changed: Notify,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A processor that logs and behaves like this.
    pub(crate) fn processor<F, Fut>(&self, behaviour: F) -> Recording<F>
    where
        F: Fn(Delivery) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Verdict> + Send,
    {
        Recording { log: self.clone(), behaviour }
    }

    /// A processor whose deliveries each wait for a permit, and where to give those.
    pub(crate) fn held(&self) -> (impl Processor, Arc<Semaphore>) {
        let released = Arc::new(Semaphore::new(0));
        let permits = released.clone();
        let processor = self.processor(move |_| {
            let permits = permits.clone();
            async move {
                permits.acquire().await.unwrap().forget();
                Ok(Answer::done())
            }
        });
        (processor, released)
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.events.lock().unwrap().clone()
    }

    pub(crate) fn of(&self, what: What) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.what == what).collect()
    }

    pub(crate) fn count(&self, what: What) -> usize {
        self.of(what).len()
    }

    /// The gates at which an item was delivered, in order.
    pub(crate) fn gates(&self, item: &str) -> Vec<i32> {
        self.of(What::Began).iter().filter(|event| event.item == item).map(|event| event.gate).collect()
    }

    /// The numbers of its attempts, in order.
    pub(crate) fn attempts(&self, item: &str) -> Vec<u32> {
        self.of(What::Began).iter().filter(|event| event.item == item).map(|event| event.attempt).collect()
    }

    /// Waits until the log meets a condition.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&[Event]) -> bool) {
        let met = async {
            loop {
                let changed = self.0.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if condition(&self.0.events.lock().unwrap()) {
                    return;
                }
                changed.await;
            }
        };
        within(what, met).await;
    }

    /// Waits until so many deliveries are in flight.
    pub(crate) async fn until_in_flight(&self, count: usize) {
        self.until(&format!("{count} in flight"), |events| in_flight(events) == count).await;
    }

    /// Asserts that each of these was delivered, and accepted, exactly once.
    pub(crate) fn assert_once(&self, count: usize) {
        let mut seen = HashSet::new();
        for event in self.of(What::Began) {
            assert!(seen.insert(event.key()), "delivered twice: {event:?}");
        }
        assert_eq!((seen.len(), self.count(What::Accepted)), (count, count));
    }

    /// Asserts that no item was delivered for the first time before all items of lower gates, given as
    /// (partition, item, gate), had been accepted.
    pub(crate) fn assert_barrier(&self, items: &[(String, String, i32)]) {
        let mut accepted = HashSet::new();
        let mut begun = HashSet::new();
        for event in self.events() {
            if event.what == What::Accepted {
                accepted.insert(event.key());
            }
            if event.what != What::Began || !begun.insert(event.key()) {
                continue;
            }
            for (partition, item, gate) in items {
                let is_before = *partition == event.partition && *gate < event.gate;
                let is_through = accepted.contains(&(partition.clone(), item.clone()));
                assert!(!is_before || is_through, "{event:?} before {item} of gate {gate}");
            }
        }
    }

    fn add(&self, what: What, delivery: &Delivery) {
        let event = Event {
            what,
            at: Instant::now(),
            partition: delivery.partition.to_string(),
            item: delivery.item.to_string(),
            gate: delivery.gate,
            pass: delivery.pass,
            attempt: delivery.attempt,
            epoch: delivery.epoch,
        };
        self.0.events.lock().unwrap().push(event);
        self.0.changed.notify_waiters();
    }
}

/// Deliveries that have begun and not ended.
pub(crate) fn in_flight(events: &[Event]) -> usize {
    let begun = events.iter().filter(|event| event.what == What::Began).count();
    begun - (events.len() - begun)
}

/// The most deliveries at a time: (overall, by partition).
pub(crate) fn in_flight_max(events: &[Event]) -> (usize, HashMap<String, usize>) {
    let (mut now, mut max) = (HashMap::<&str, usize>::new(), HashMap::new());
    let mut max_overall = 0;
    for event in events {
        let count = now.entry(&event.partition).or_default();
        match event.what {
            What::Began => *count += 1,
            _ => *count -= 1,
        }
        let max = max.entry(event.partition.clone()).or_insert(0);
        *max = (*max).max(*count);
        max_overall = max_overall.max(now.values().sum());
    }
    (max_overall, max)
}

/// See [`Log::processor`].
pub(crate) struct Recording<F> {
    log: Log,
    behaviour: F,
}

impl<F, Fut> Processor for Recording<F>
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Verdict> + Send,
{
    async fn process(&self, delivery: Delivery) -> Verdict {
        let mut running = Running { log: &self.log, delivery: delivery.clone(), end: What::Dropped };
        self.log.add(What::Began, &delivery);
        let verdict = (self.behaviour)(delivery).await;
        running.end = if verdict.is_ok() { What::Accepted } else { What::Failed };
        verdict
    }
}

/// Logs the end when dropped.
struct Running<'a> {
    log: &'a Log,
    delivery: Delivery,
    end: What,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.log.add(self.end, &self.delivery);
    }
}
