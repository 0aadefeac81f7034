//! What the loops of a watcher share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gatefeed_core::{Store, share::Peers};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    board::{Board, Turn},
    budget::{Concurrency, Gauge},
    clock,
    lanes::Lanes,
    policy::Policies,
};

/// How a watcher behaves.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) owner: Arc<str>,
    pub(crate) feeds: Vec<String>,
    pub(crate) concurrency: Concurrency,
    pub(crate) policies: Policies,
    pub(crate) lease_duration: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) grace: Duration,
    pub(crate) max_payload: u64,
    pub(crate) until_idle: bool,
}

/// The store, the settings, the board, and the bells that say that the board has changed.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) settings: Settings,
    board: Mutex<Board>,
    /// Who else there is, while that is of interest and known.
    others: Mutex<Option<Peers>>,
    /// How long deliveries take.
    pub(crate) gauge: Gauge,
    /// Something may be sent.
    pub(crate) send_bell: Notify,
    /// Something may have come for a batch that waits for more.
    pub(crate) grow_bell: Notify,
    /// Something may be read.
    pub(crate) page_bell: Notify,
    /// What is to be written should not wait for more.
    pub(crate) write_bell: Notify,
    /// A partition may be at a checkpoint.
    pub(crate) check_bell: Notify,
    /// An item has waited for its callback for too long.
    pub(crate) overdue_bell: Notify,
    /// There may be room for partitions.
    pub(crate) room_bell: Notify,
    /// Stop claiming, reading and sending.
    pub(crate) stop: CancellationToken,
    /// The leases are released: nothing is left but to say so.
    pub(crate) left: CancellationToken,
    /// Drop everything: the parent of every delivery's token.
    pub(crate) abort: CancellationToken,
}

impl Context {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        settings: Settings,
        lanes: Lanes,
        stop: CancellationToken,
    ) -> Self {
        let concurrency = settings.concurrency.bounds().min;
        let board = Board::new(concurrency, settings.poll_interval, &settings.feeds);
        let board = Mutex::new(board.with_lanes(lanes));
        Self {
            store,
            settings,
            board,
            others: Mutex::default(),
            gauge: Gauge::new(),
            send_bell: Notify::new(),
            grow_bell: Notify::new(),
            page_bell: Notify::new(),
            write_bell: Notify::new(),
            check_bell: Notify::new(),
            overdue_bell: Notify::new(),
            room_bell: Notify::new(),
            stop,
            left: CancellationToken::new(),
            abort: CancellationToken::new(),
        }
    }

    /// The board. Held for moments only, never over an await.
    pub(crate) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of the other watchers; `None`: it is not known, or of no interest.
    pub(crate) fn note_others(&self, peers: Option<Peers>) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = peers;
    }

    /// Whether it is known who else there is.
    pub(crate) fn knows_others(&self) -> bool {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether nobody else serves a feed, for sure.
    pub(crate) fn is_alone(&self, feed: &str) -> bool {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.as_ref().is_some_and(|others| !others.serve(feed))
    }

    /// The next item to deliver, of those too that were parked.
    pub(crate) fn next_turn_of_all(&self) -> Option<Turn> {
        let mut board = self.board();
        // Else they would be asked, and parked again, at every bell.
        if board.in_flight() < board.concurrency() {
            board.unpark();
        }
        board.next_turn(clock::now())
    }

    /// Waits before another try, or until the watcher stops.
    pub(crate) async fn pause(&self, backoff: &mut Backoff) {
        tokio::select! {
            () = backoff.pause() => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// After anything that frees or fills: whoever waits looks again.
    pub(crate) fn ring(&self) {
        self.send_bell.notify_one();
        self.grow_bell.notify_waiters();
        self.page_bell.notify_one();
        self.check_bell.notify_one();
        self.room_bell.notify_one();
    }
}

/// Nearly this long: everything that repeats is jittered, so that watchers do not move in step.
pub(crate) fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.8..1.0))
}

/// Growing pauses between tries, with jitter.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first, next: first, max }
    }

    /// It worked: the next pause is as short as the first.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// Waits, twice as long each time.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(jittered(self.next)).await;
        self.next = (self.next * 2).min(self.max);
    }
}
