//! What this watcher holds in memory. All decisions about what to claim, read, send and check next are made
//! here, synchronously; the loops around it only carry them out.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use foldhash::{HashMap, HashMapExt, HashSet};
use gatefeed_core::{
    item::DueItem,
    lease::{Grant, Lease, Observed},
    outcome::Settled,
    store::{Checkpointed, Page, PageRequest},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    held::{Held, Reading, Trust, TrustedUntil},
    lanes::Lanes,
    policy::Batch,
};

/// For how long a partition is held at least before it is handed over to a watcher that asks.
const HELD_MIN: Duration = Duration::from_millis(500);
/// The most leases a watcher holds: each costs a renewal.
const LEASES_MAX: usize = 1024;
/// The most items of one page.
const PAGE_ITEMS_MAX: usize = 1000;
/// The most partitions of one claim.
pub(crate) const CLAIM_MAX: usize = 32;
/// The most partitions read by one statement.
const PAGES_MAX: usize = 64;
/// The most partitions of one checkpoint.
const CHECKS_MAX: usize = 64;
/// A feed of which so many partitions are parked gets no more before that changes, but for one a poll interval.
const PARKED_MAX: usize = 8;
/// The most outcomes of one batch.
pub(crate) const BATCH_MAX: usize = 2000;
/// Deliveries stop while this many outcomes are unwritten: a batch that is being written, one that comes after it, and one
/// of which is being taken note …
const UNWRITTEN_MAX: usize = 3 * BATCH_MAX;
/// … or this many bytes of them.
const UNWRITTEN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A partition that others are inserting into is looked at again after this.
const BUSY_REST: Duration = Duration::from_millis(100);

/// An item to be delivered now, or the first of a batch.
pub(crate) struct Turn {
    pub(crate) origin: Origin,
    pub(crate) item: DueItem,
    /// How it is batched; `None`: it is delivered by itself.
    pub(crate) batch: Option<Batch>,
    /// The rest of its batch.
    pub(crate) more: Vec<DueItem>,
    /// The partition is still being read, and may have more for the batch soon.
    pub(crate) may_grow: bool,
    /// The partition's buffer is running low: time to read on.
    pub(crate) is_low: bool,
}

/// Where an item comes from: its partition, as this watcher holds it.
pub(crate) struct Origin {
    pub(crate) lease: Arc<Lease>,
    pub(crate) feed: Arc<str>,
    pub(crate) suspect: bool,
    /// Whether the outcome keeps what it replaces.
    pub(crate) keep_history: bool,
    /// Whether a delivery may still begin, should something come between.
    pub(crate) trusted_until: TrustedUntil,
    pub(crate) cancel: Arc<CancellationToken>,
}

/// What is going on in a feed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Figures {
    /// Partitions held.
    pub(crate) partitions: usize,
    /// Deliveries in flight, but for those of leases that were lost: they are being aborted.
    pub(crate) in_flight: usize,
    /// Outcomes written since the start.
    pub(crate) outcomes: u64,
}

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

/// The partitions and the counts over all of them.
#[derive(Debug)]
pub(crate) struct Board {
    held: HashMap<Arc<str>, Held>,
    /// Partitions with something to send, each once, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    /// Partitions with something to send that may not be sent now: their handler is down, or their feed or gate has as
    /// much in flight as it may.
    parked: Vec<Arc<str>>,
    concurrency: usize,
    poll_interval: Duration,
    buffered: usize,
    in_flight: usize,
    unwritten: usize,
    unwritten_bytes: usize,
    /// Outcomes written since the start, by feed; an entry for each that is served.
    written: BTreeMap<Arc<str>, u64>,
    /// What may be sent, by feed and gate.
    lanes: Lanes,
    is_draining: bool,
    /// Something has waited for a slot since this was last asked for.
    was_full: bool,
    /// The most that were in flight since then.
    in_flight_max: usize,
}

impl Board {
    pub(crate) fn new(concurrency: usize, poll_interval: Duration, feeds: &[String]) -> Self {
        Self {
            held: HashMap::new(),
            turns: VecDeque::new(),
            parked: Vec::new(),
            concurrency,
            poll_interval,
            buffered: 0,
            in_flight: 0,
            unwritten: 0,
            unwritten_bytes: 0,
            written: feeds.iter().map(|feed| (feed.as_str().into(), 0)).collect(),
            lanes: Lanes::default(),
            is_draining: false,
            was_full: false,
            in_flight_max: 0,
        }
    }

    /// With bounds for feeds and gates, and with who says which are ready.
    pub(crate) fn with_lanes(self, lanes: Lanes) -> Self {
        Self { lanes, ..self }
    }

    /// How many deliveries may be in flight.
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Changes how many may be in flight, and says how many it was. With fewer, none begins before enough have ended.
    pub(crate) fn set_concurrency(&mut self, concurrency: usize) -> usize {
        std::mem::replace(&mut self.concurrency, concurrency)
    }

    /// Whether something has waited for a slot since this was last asked, and the most that were in flight.
    pub(crate) fn take_usage(&mut self) -> (bool, usize) {
        let was_full = std::mem::take(&mut self.was_full);
        (was_full, std::mem::replace(&mut self.in_flight_max, self.in_flight))
    }

    /// Nothing is held, nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.in_flight == 0 && self.unwritten == 0
    }

    /// Outcomes that are not written yet.
    pub(crate) fn unwritten(&self) -> usize {
        self.unwritten
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// What is going on, by feed: each that is served, once.
    pub(crate) fn figures(&self) -> BTreeMap<Arc<str>, Figures> {
        let of =
            |(feed, &outcomes): (&Arc<str>, &u64)| (feed.clone(), Figures { outcomes, ..Figures::default() });
        let mut figures: BTreeMap<_, _> = self.written.iter().map(of).collect();
        for held in self.held.values() {
            if let Some(figures) = figures.get_mut(&held.feed) {
                figures.partitions += 1;
                figures.in_flight += held.in_flight;
            }
        }
        figures
    }

    /// The leases held now.
    pub(crate) fn leases(&self) -> Vec<Arc<Lease>> {
        self.held.values().map(|held| held.lease.clone()).collect()
    }

    /// Stops sending and reading; what is in flight goes on.
    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
        self.turns.clear();
        self.parked.clear();
        for held in self.held.values_mut() {
            held.has_turn = false;
            held.forget_buffer();
        }
        self.buffered = 0;
    }

    /// Ends what is in flight: it stays as it is in the database.
    pub(crate) fn cancel_deliveries(&self) {
        self.held.values().for_each(|held| held.cancel.cancel());
    }

    // --- partitions come and go ---

    pub(crate) fn room(&self) -> Room {
        if self.is_draining || self.held.len() >= LEASES_MAX || self.held.values().any(|h| h.is_unread) {
            Room::None
        } else if self.usable() < enough(self.concurrency) {
            Room::Spare
        } else if self.has_kept_slots() {
            Room::Kept
        } else {
            Room::Turns
        }
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

    /// What waited for a bound or a handler, and need not wait any more, has its turn again. True if there was any.
    pub(crate) fn unpark(&mut self) -> bool {
        let parked = self.parked.len();
        let (lanes, turns, held) = (&self.lanes, &mut self.turns, &mut self.held);
        self.parked.retain(|id| {
            let Some(held) = held.get_mut(id) else { return false };
            let may_send = |gate| lanes.may_send(&held.feed, gate);
            let stays = !held.buffer.is_empty() && held.next_item(may_send).is_none();
            if !stays {
                held.has_turn = false;
                queue(turns, held);
            }
            stays
        });
        self.parked.len() < parked
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

    /// Partitions that are to be given back, and have nothing under way.
    pub(crate) fn leavers(&self) -> Vec<Arc<Lease>> {
        let left = |held: &&Held| {
            held.is_leaving
                && held.known.is_empty()
                && !matches!(held.reading, Reading::Loading | Reading::Checking)
        };
        self.held.values().filter(left).map(|held| held.lease.clone()).collect()
    }

    /// They were given back.
    pub(crate) fn released(&mut self, leases: &[Arc<Lease>]) {
        for lease in leases {
            if self.current(lease).is_some() {
                self.remove(&lease.partition);
            }
        }
    }

    /// Takes a granted partition. A partition that was held already comes with a new lease: the old one ran
    /// out and was claimed again, by this very watcher.
    pub(crate) fn granted(&mut self, grant: Grant, trust: Trust, cancel: CancellationToken) {
        self.remove(&grant.lease.partition.clone());
        self.held.insert(grant.lease.partition.clone(), Held::new(grant, trust, cancel));
    }

    /// Leases whose renewal is due.
    pub(crate) fn renewals(&self, now: Duration) -> Vec<Arc<Lease>> {
        self.held.values().filter(|held| held.renew_at <= now).map(|held| held.lease.clone()).collect()
    }

    pub(crate) fn renewed(&mut self, lease: &Lease, trust: Trust) {
        if let Some(held) = current(&mut self.held, lease) {
            held.trusted_until.set(trust.until);
            held.renew_at = trust.renew_at;
            queue(&mut self.turns, held);
        }
    }

    /// The lease is not ours any more: its deliveries are aborted, its buffer is dropped. True if it was held and had anything
    /// left to do: else this watcher's own checkpoint or release may have ended it, whose result is on its way.
    pub(crate) fn lost(&mut self, lease: &Lease) -> bool {
        let Some(held) = self.current(lease) else { return false };
        let was_at_work = !held.known.is_empty();
        self.remove(&lease.partition);
        was_at_work
    }

    fn remove(&mut self, partition: &Arc<str>) {
        let Some(mut held) = self.held.remove(partition) else { return };
        held.cancel.cancel();
        held.trusted_until.end();
        self.buffered -= held.forget_buffer();
        self.turns.retain(|id| id != partition);
        self.parked.retain(|id| id != partition);
    }

    /// What the database says of a partition now.
    pub(crate) fn observed(&mut self, lease: &Lease, observed: Observed) {
        let Observed::Held(state) = observed else {
            self.lost(lease);
            return;
        };
        let Some(held) = self.current(lease) else { return };
        // A look that began before this watcher's own last step shows an older row.
        if state.version < held.state.version || state == held.state {
            return;
        }
        held.state = state;
        held.restart();
        if !held.is_available() {
            // What is in flight goes on; then the checkpoint releases the partition.
            let dropped = held.forget_buffer();
            held.is_unread = false;
            self.buffered -= dropped;
        }
    }

    fn current(&mut self, lease: &Lease) -> Option<&mut Held> {
        current(&mut self.held, lease)
    }

    // --- items come in ---

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
    fn buffer_max(&self) -> usize {
        (4 * self.concurrency).clamp(2 * PAGE_ITEMS_MAX, 8 * PAGE_ITEMS_MAX)
    }

    fn page_items(&self) -> usize {
        let share = self.buffer_max() / self.held.len().max(1);
        share.clamp(16, (4 * self.concurrency).clamp(100, PAGE_ITEMS_MAX))
    }

    /// Takes a page. Items that are known are in flight or unwritten: they are not sent twice.
    pub(crate) fn page_loaded(&mut self, lease: &Lease, page: Page) {
        let is_draining = self.is_draining;
        let Some(held) = current(&mut self.held, lease) else { return };
        held.is_unread = false;
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
            held.reading =
                if rest.is_zero() { Reading::At(None) } else { Reading::Unreadable(Instant::now() + rest) };
        }
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
                Reading::End => is_old && !held.known.is_empty(),
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
            _ => None,
        });
        ends.min()
    }

    // --- items go out ---

    /// The next item to deliver: partitions take turns, one item each.
    pub(crate) fn next_turn(&mut self, now: Duration) -> Option<Turn> {
        if self.unwritten >= UNWRITTEN_MAX || self.unwritten_bytes >= UNWRITTEN_BYTES_MAX {
            return None;
        }
        if self.in_flight >= self.concurrency {
            // With fewer slots than there were, and with batches, which can take all of it.
            self.was_full |= !self.turns.is_empty();
            return None;
        }
        let page_items = self.page_items();
        let has_room = self.buffered <= self.buffer_max();
        // Twice around: one that gave way to others is asked again when none of them could send.
        for _ in 0..2 * self.turns.len() {
            let id = self.turns.pop_front()?;
            let spare = self.concurrency.saturating_sub(self.in_flight);
            let (kept, share) = self.kept_back();
            let Some(held) = self.held.get_mut(&id) else { continue };
            held.has_turn = false;
            if !held.may_send(now) {
                // Comes back by `queue` when that changes.
                continue;
            }
            if spare <= kept && held.in_flight >= share {
                // What is kept for others is not its own: more slots would be of use.
                self.was_full = true;
                queue(&mut self.turns, held);
                continue;
            }
            let lanes = &self.lanes;
            let Some(first) = held.next_item(|gate| lanes.may_send(&held.feed, gate)) else {
                // It keeps what it has, and takes nobody's time until that changes.
                held.park();
                self.parked.push(id);
                continue;
            };
            let budget = spare.saturating_sub(kept).max(spare.min(share.saturating_sub(held.in_flight)));
            let batch = lanes.batch(&held.feed, held.buffer[first].gate);
            let count = match batch {
                Some(batch) => batch_count(lanes, held, first, batch, budget, self.concurrency / 10),
                None => Some(1),
            };
            let Some(count) = count else {
                queue(&mut self.turns, held);
                continue;
            };
            if !lanes.reserve(&held.feed, held.buffer[first].gate) {
                held.park();
                self.parked.push(id);
                continue;
            }
            let mut items = held.buffer.drain(first..first + count);
            let Some(item) = items.next() else { continue };
            let more: Vec<DueItem> = items.collect();
            let taken = 1 + more.len();
            held.in_flight += taken;
            held.parked_since = None;
            self.lanes.sent(&held.feed, item.gate, taken);
            self.buffered -= taken;
            self.in_flight += taken;
            self.in_flight_max = self.in_flight_max.max(self.in_flight);
            queue(&mut self.turns, held);
            let origin = Origin {
                lease: held.lease.clone(),
                feed: held.feed.clone(),
                suspect: held.is_suspect(),
                keep_history: held.state.keep_history,
                trusted_until: held.trusted_until.clone(),
                cancel: held.cancel.clone(),
            };
            let is_single = item.gather.is_some() || origin.suspect;
            let may_grow =
                !is_single && batch.is_some_and(|batch| taken < batch.size) && held.is_all_taken_for_now();
            let is_low = held.is_low(page_items, has_room);
            return Some(Turn { origin, item, batch, more, may_grow, is_low });
        }
        None
    }

    /// Adds to a batch what has come for it since.
    pub(crate) fn grow(&mut self, turn: &mut Turn) {
        let Some(batch) = turn.batch else { return };
        let (kept, share) = self.kept_back();
        let spare = self.concurrency.saturating_sub(self.in_flight);
        let Some(held) = current(&mut self.held, &turn.origin.lease) else {
            turn.may_grow = false;
            return;
        };
        let budget = spare.saturating_sub(kept).max(spare.min(share.saturating_sub(held.in_flight)));
        let bytes: u64 = turn.item.size + turn.more.iter().map(|item| item.size).sum::<u64>();
        let left = Batch { size: batch.size.saturating_sub(1 + turn.more.len()), ..batch };
        let bytes_left = self.lanes.batch_bytes_max.saturating_sub(bytes);
        let supply = held.supply(0, turn.item.gate, left.size, bytes_left);
        let room = self.lanes.room(&held.feed, turn.item.gate).0.min(held.room());
        let count = if held.is_workable() { supply.min(budget).min(room) } else { 0 };
        turn.more.extend(held.buffer.drain(..count));
        turn.may_grow =
            count == supply && count < left.size && held.is_workable() && held.is_all_taken_for_now();
        held.in_flight += count;
        self.lanes.sent(&held.feed, turn.item.gate, count);
        self.buffered -= count;
        self.in_flight += count;
    }

    /// How many slots are kept for partitions that have fewer than a share of them: else one that comes along
    /// would wait for deliveries of others, which may hang. A tenth; of fewer than ten slots, one, and only
    /// while another partition is waiting for its turn.
    fn kept_back(&self) -> (usize, usize) {
        match self.concurrency {
            0..=1 => (0, 0),
            slots @ 2..=9 => (usize::from(!self.turns.is_empty()), slots.div_ceil(2)),
            slots => (slots / 10, slots / 10),
        }
    }

    /// A delivery of this feed and gate has ended, whatever came of it. True if others waited for that.
    pub(crate) fn left_lane(&mut self, feed: &str, gate: i32) -> bool {
        self.lanes.landed(feed, gate) && self.unpark()
    }

    /// The delivery ended; its outcome, of this many bytes, is to be written. True if there is no reason to wait for
    /// others before that: nothing else is under way, or they are enough for a batch.
    pub(crate) fn answered(&mut self, lease: &Lease, bytes: usize) -> bool {
        self.landed(lease, 1);
        self.unwritten += 1;
        self.unwritten_bytes += bytes;
        self.in_flight == 0 || self.unwritten == BATCH_MAX
    }

    /// The leases of partitions that are worked on and take outcomes, as far as is known, with their feeds. What somebody has
    /// locked, or the database takes no outcome of, must not take the place of others.
    pub(crate) fn writable(&self) -> Vec<(Arc<Lease>, Arc<str>)> {
        if self.is_draining {
            return Vec::new();
        }
        let now = Instant::now();
        let is_resting = |held: &Held| matches!(held.reading, Reading::Unreadable(until) if until > now);
        let is_writable = |held: &&Held| held.is_workable() && !held.is_locked && !is_resting(held);
        let all = self.held.values().filter(is_writable);
        all.map(|held| (held.lease.clone(), held.feed.clone())).collect()
    }

    /// An item that waits has waited for too long: whether its outcome, of this many bytes, is to be written now. Not while the
    /// item is known: then the last of it is not written yet.
    pub(crate) fn overdue(&mut self, lease: &Lease, item: &Arc<str>, bytes: usize) -> bool {
        let is_full = self.unwritten >= UNWRITTEN_MAX;
        let Some(held) = current(&mut self.held, lease).filter(|held| held.is_workable()) else {
            return false;
        };
        if is_full || self.is_draining || !held.known.insert(item.clone()) {
            return false;
        }
        held.unwritten += 1;
        self.unwritten += 1;
        self.unwritten_bytes += bytes;
        true
    }

    /// The delivery ended without an outcome: the item stays as it is in the database.
    pub(crate) fn given_up(&mut self, lease: &Lease, item: &str) {
        self.landed(lease, 0);
        if let Some(held) = self.current(lease) {
            held.known.remove(item);
            held.restart();
        }
    }

    /// The database has the item but did not hand it out: the partition rests.
    pub(crate) fn put_back(&mut self, lease: &Lease, item: &str, rest: Duration) {
        self.given_up(lease, item);
        self.rest(lease, rest);
    }

    /// The database takes no outcome of the item, which stays as it is: the partition rests.
    pub(crate) fn refused(&mut self, lease: &Lease, item: &Arc<str>, bytes: usize, rest: Duration) {
        self.settled(lease, item, Settled::Stale, None, bytes);
        self.rest(lease, rest);
    }

    fn rest(&mut self, lease: &Lease, rest: Duration) {
        let Some(held) = self.current(lease) else { return };
        let dropped = held.forget_buffer();
        if held.reading != Reading::Loading {
            held.reading = Reading::Unreadable(Instant::now() + rest);
        }
        self.buffered -= dropped;
    }

    fn landed(&mut self, lease: &Lease, unwritten: usize) {
        self.in_flight -= 1;
        if let Some(held) = current(&mut self.held, lease) {
            held.in_flight -= 1;
            held.unwritten += unwritten;
            queue(&mut self.turns, held);
        }
    }

    /// An outcome was written, or turned out to be nobody's. `due_gate`: the lowest gate of this partition at
    /// which it may have made something due. True if the lease is fenced off and was held until now.
    pub(crate) fn settled(
        &mut self,
        lease: &Lease,
        item: &Arc<str>,
        settled: Settled,
        due_gate: Option<i32>,
        bytes: usize,
    ) -> bool {
        self.unwritten -= 1;
        self.unwritten_bytes -= bytes;
        if settled == Settled::Fenced {
            return self.lost(lease);
        }
        if let Some(held) = current(&mut self.held, lease) {
            held.unwritten -= 1;
            held.is_locked = false;
            held.forget(item);
            // With dependencies, others may have come free.
            let is_due = due_gate.is_some_and(|gate| gate <= held.state.gate)
                || settled == Settled::Stale
                || held.state.has_dependencies;
            if is_due && held.reading == Reading::End {
                held.reading = Reading::At(None);
            }
            queue(&mut self.turns, held);
        }
        false
    }

    /// An outcome could not be written: somebody has the partition's row locked.
    pub(crate) fn locked(&mut self, lease: &Lease) {
        if let Some(held) = self.current(lease) {
            held.is_locked = true;
        }
    }

    /// Counts an outcome that was written, whether its lease is still held or not.
    pub(crate) fn count_written(&mut self, feed: &str) {
        if let Some(written) = self.written.get_mut(feed) {
            *written += 1;
        }
    }

    /// Leases whose count of expiries is to be cleared, since an item got through.
    pub(crate) fn progressed(&mut self, lease: &Lease) -> bool {
        self.current(lease).is_some_and(|held| std::mem::take(&mut held.expiries) > 0)
    }

    // --- gates ---

    /// Partitions with nothing left to do at their gate, as far as their owner knows.
    pub(crate) fn checks(&mut self) -> Vec<Arc<Lease>> {
        if self.is_draining {
            return Vec::new();
        }
        let now = Instant::now();
        let done = self.held.values_mut().filter(|held| held.is_through(now));
        let check = |held: &mut Held| {
            held.reading = Reading::Checking;
            held.lease.clone()
        };
        done.take(CHECKS_MAX).map(check).collect()
    }

    /// Takes the result of a checkpoint.
    pub(crate) fn checked(&mut self, lease: &Lease, result: Checkpointed) {
        let Some(held) = self.current(lease) else { return };
        // Else it had been failed or released: its gate's time is not over, or not any more.
        held.state.is_past_deadline &= result == Checkpointed::Busy;
        match result {
            Checkpointed::Due => held.reading = Reading::At(None),
            Checkpointed::Wait(time) => held.reading = Reading::Resting(Instant::now() + time),
            Checkpointed::Overdue | Checkpointed::Busy => {
                held.reading = Reading::Resting(Instant::now() + BUSY_REST)
            }
            Checkpointed::Advanced(gate) => {
                held.state.gate = gate;
                held.state.version += 1;
                held.reading = Reading::At(None);
            }
            Checkpointed::Slept | Checkpointed::Closed | Checkpointed::Failed | Checkpointed::Fenced => {
                self.remove(&lease.partition);
            }
        }
    }

    /// The checkpoint could not be made: again later.
    pub(crate) fn check_failed(&mut self, lease: &Lease) {
        if let Some(held) = self.current(lease) {
            held.reading = Reading::Resting(Instant::now() + BUSY_REST);
        }
    }
}

/// How many items the batch has that begins with this one. `None`: few, although there are more, since other deliveries
/// take the room; it is worth waiting for one of them to end. A tenth of the budget is enough, so that what hangs holds up
/// nobody.
fn batch_count(
    lanes: &Lanes,
    held: &Held,
    first: usize,
    batch: Batch,
    budget: usize,
    tenth: usize,
) -> Option<usize> {
    let item = &held.buffer[first];
    if held.is_suspect() || item.gather.is_some() {
        return Some(1);
    }
    let bytes_left = lanes.batch_bytes_max.saturating_sub(item.size);
    let supply = 1 + held.supply(first + 1, item.gate, batch.size.saturating_sub(1), bytes_left);
    let (room, max) = lanes.room(&held.feed, item.gate);
    let allowed = budget.min(room).min(held.room());
    let max = held.state.max_in_flight.map_or(max, |own| max.min(own as usize));
    let is_worth_it = allowed >= supply.min(tenth.max(1)).min(max);
    is_worth_it.then_some(supply.min(allowed).max(1))
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

/// The partition under exactly this lease.
fn current<'a>(held: &'a mut HashMap<Arc<str>, Held>, lease: &Lease) -> Option<&'a mut Held> {
    held.get_mut(&lease.partition).filter(|held| *held.lease == *lease)
}

/// Gives a partition a place in the turns if it can send and has none.
fn queue(turns: &mut VecDeque<Arc<str>>, held: &mut Held) {
    if !held.has_turn && !held.buffer.is_empty() {
        held.has_turn = true;
        turns.push_back(held.lease.partition.clone());
    }
}

#[cfg(test)]
mod tests;
