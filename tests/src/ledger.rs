//! A handler that keeps a ledger of what it was handed, and checks the promises on it.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use gatefeed_testkit::handler::{Handler, Recorded, Reply};

/// One delivery, from its headers.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `Gatefeed-Partition`.
    pub partition: String,
    /// `Gatefeed-Item`.
    pub item: String,
    /// `Gatefeed-Gate`.
    pub gate: i64,
    /// `Gatefeed-Epoch`.
    pub epoch: i64,
    /// `Idempotency-Key`.
    pub key: String,
    /// When it came.
    pub at: Instant,
}

impl Entry {
    fn of(request: &Recorded) -> Self {
        let number = |name| request.header_text(name).parse().unwrap();
        Self {
            partition: request.header_text("gatefeed-partition"),
            item: request.header_text("gatefeed-item"),
            gate: number("gatefeed-gate"),
            epoch: number("gatefeed-epoch"),
            key: request.header_text("idempotency-key"),
            at: request.at,
        }
    }
}

/// The handler: after a delay, every item goes through the gates in `path` in turn and is done at the last.
pub struct Ledger {
    handler: Handler,
}

impl Ledger {
    /// Starts it.
    pub async fn start(path: &'static [i64], delay: Duration) -> Self {
        let answer = move |request: Recorded| async move {
            let gate: i64 = request.header_text("gatefeed-gate").parse().unwrap();
            let next = path.iter().find(|next| **next > gate);
            let body = next.map_or_else(|| "{}".to_owned(), |next| format!("{{\"gate\": {next}}}"));
            Reply::json(body).after(delay)
        };
        Self { handler: Handler::start(answer).await }
    }

    /// For `--target`.
    pub fn url(&self) -> String {
        self.handler.url()
    }

    /// How many deliveries there were.
    pub fn len(&self) -> usize {
        self.handler.requests().len()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All deliveries, in order.
    pub fn entries(&self) -> Vec<Entry> {
        self.handler.requests().iter().map(Entry::of).collect()
    }

    /// Deliveries beyond the first of each (partition, item, gate).
    pub fn duplicates(&self) -> usize {
        let entries = self.entries();
        let distinct: std::collections::HashSet<_> =
            entries.iter().map(|e| (&e.partition, &e.item, e.gate)).collect();
        entries.len() - distinct.len()
    }

    /// The barrier, seen from outside: within a partition, no item's first delivery at a gate comes before
    /// another item's first delivery at a lower gate. (Repeated deliveries after a crash may come later.)
    pub fn assert_barrier(&self) {
        let mut firsts: HashMap<(String, String, i64), Instant> = HashMap::new();
        for entry in self.entries() {
            firsts.entry((entry.partition, entry.item, entry.gate)).or_insert(entry.at);
        }
        let mut spans: BTreeMap<(String, i64), (Instant, Instant)> = BTreeMap::new();
        for ((partition, _, gate), at) in firsts {
            let span = spans.entry((partition, gate)).or_insert((at, at));
            *span = (span.0.min(at), span.1.max(at));
        }
        for (((partition, gate), (_, last)), ((other, next), (first, _))) in
            spans.iter().zip(spans.iter().skip(1))
        {
            assert!(
                partition != other || last <= first,
                "partition {partition}: gate {next} began before gate {gate} was through"
            );
        }
    }

    /// Epochs never fall within a partition's ledger by first deliveries of different gates.
    pub fn epochs(&self, partition: &str) -> Vec<i64> {
        let mut epochs: Vec<i64> =
            self.entries().into_iter().filter(|e| e.partition == partition).map(|e| e.epoch).collect();
        epochs.dedup();
        epochs
    }
}
