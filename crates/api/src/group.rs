//! Group commit: items of requests that are here at the same time share one transaction. There is no linger: what has
//! queued while one batch was written is the next one. One that the database refuses fails alone.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    Store, StoreError,
    ingest::{ARRIVALS_MAX, Arrival, Arrived},
};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, sleep},
};

use crate::{budget::Taken, problem::Problem};

/// Bytes of one batch, unless a single item has more.
const BYTES_MAX: usize = 8 << 20;

/// For how long a batch is repeated that met other writers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries, about.
const PAUSE: Duration = Duration::from_millis(20);

type Outcome = Result<Arrived, Problem>;

/// An item that waits for its batch.
struct Waiting {
    arrival: Arrival,
    /// Given back when the item is written.
    _taken: Taken,
    answer: oneshot::Sender<Outcome>,
}

type Queue = Arc<Mutex<mpsc::UnboundedReceiver<Waiting>>>;

/// Where items queue. The queue itself has no bound: the budget of bytes, of which every item takes some, is one.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    queue: mpsc::UnboundedSender<Waiting>,
}

impl Group {
    /// Starts tasks, so many, that write; they end when nobody can queue any more.
    pub(crate) fn start(store: &Arc<dyn Store>, writers: usize) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..writers {
            tokio::spawn(write_all(Arc::clone(store), Arc::clone(&waiting)));
        }
        Self { queue }
    }

    /// Resolves when the item is committed, or was refused. Dropped, the item is written all the same.
    pub(crate) async fn add(&self, arrival: Arrival, taken: Taken) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let ending = || Problem::busy("this server is about to end: ask again");
        self.queue.send(Waiting { arrival, _taken: taken, answer }).map_err(|_| ending())?;
        answered.await.map_err(|_| ending())?
    }
}

async fn write_all(store: Arc<dyn Store>, queue: Queue) {
    let mut batch = Vec::new();
    while queue.lock().await.recv_many(&mut batch, ARRIVALS_MAX).await > 0 {
        while !batch.is_empty() {
            let size = fitting(batch.iter().map(|waiting| waiting.arrival.item.data.bytes.len()));
            let rest = batch.split_off(size);
            write(&*store, std::mem::replace(&mut batch, rest)).await;
        }
    }
}

/// How many items of these sizes make a batch: one at least.
fn fitting(sizes: impl Iterator<Item = usize>) -> usize {
    let sums = sizes.scan(0, |sum: &mut usize, size| {
        *sum = sum.saturating_add(size);
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= BYTES_MAX).count().max(1)
}

/// Writes a batch; where an item is refused, its halves, until that one stands alone.
async fn write(store: &dyn Store, batch: Vec<Waiting>) {
    let mut batches = vec![batch];
    while let Some(mut batch) = batches.pop() {
        let (arrivals, waiting): (Vec<Arrival>, Vec<_>) =
            batch.drain(..).map(|w| (w.arrival, (w._taken, w.answer))).unzip();
        match patiently(store, &arrivals).await {
            Ok(arrived) => {
                for ((_taken, answer), arrived) in waiting.into_iter().zip(arrived) {
                    _ = answer.send(Ok(arrived));
                }
            }
            Err(error) if error.is_data() && arrivals.len() > 1 => {
                let mut all: Vec<Waiting> = arrivals
                    .into_iter()
                    .zip(waiting)
                    .map(|(arrival, (_taken, answer))| Waiting { arrival, _taken, answer })
                    .collect();
                let half = all.split_off(all.len() / 2);
                batches.extend([half, all]);
            }
            Err(error) => fail(error, waiting),
        }
    }
}

fn fail(error: StoreError, waiting: Vec<(Taken, oneshot::Sender<Outcome>)>) {
    let text = error.to_string();
    let mut first = Some(error);
    for (_taken, answer) in waiting {
        let error = first.take().unwrap_or_else(|| StoreError::Unavailable(text.clone()));
        _ = answer.send(Err(error.into()));
    }
}

async fn patiently(store: &dyn Store, arrivals: &[Arrival]) -> gatefeed_core::Result<Vec<Arrived>> {
    let started = Instant::now();
    loop {
        match store.ingest(arrivals).await {
            // Nothing was written. Where that is unknown, its caller has to decide.
            Err(StoreError::Conflict(_) | StoreError::Locked(_)) if started.elapsed() < PATIENCE => {
                sleep(PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
            }
            arrived => return arrived,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_so_many_bytes_or_one_item() {
        let mib = 1 << 20;
        assert_eq!(fitting([3 * mib, 5 * mib, 1].into_iter()), 2);
        assert_eq!(fitting([9 * mib, 1].into_iter()), 1);
        assert_eq!(fitting([0; 5].into_iter()), 5);
    }
}
