//! Claiming: asks for partitions when there is room, when there is a hint, and once a poll interval.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{Result, lease::Claim, store::Wakeups};
use tokio::time::Instant;

use crate::{
    board::{CLAIM_MAX, Room},
    clock,
    context::{Backoff, Context, jittered},
    held::Trust,
};

/// A watcher that is full claims only what has been due for this many poll intervals: what nobody with room took.
const OVERDUE_POLLS: u32 = 2;
/// One that is full but for the slots that it keeps for partitions which come along claims, so often, what has been due for
/// this long: those with more room are faster.
const KEPT: Duration = Duration::from_millis(250);
/// Claims that follow each other faster than this double, others halve: a watcher that a few partitions keep
/// busy leaves the rest to the others, one that goes through many small ones takes them by the dozen.
const OFTEN: Duration = Duration::from_millis(100);
/// How often a watcher with nothing to do asks the others: on SQLite each asking is a commit, and so a hint to all.
const ASK_INTERVAL: Duration = Duration::from_millis(700);

/// Whether the handlers of a feed cannot be reached from here.
pub(crate) type Down = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// Claims until told to stop.
pub(crate) async fn run(context: Arc<Context>, is_down: Down) {
    let mut wakeups = context.store.wakeups(&context.settings.feeds).await;
    let mut claimer = Claimer::new(context.clone(), is_down);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    while !context.stop.is_cancelled() {
        match claimer.claim().await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::warn!(%error, "could not claim partitions; trying again");
                context.pause(&mut backoff).await;
                claimer.has_more = true;
                continue;
            }
        }
        claimer.wait(wakeups.as_mut()).await;
    }
}

/// Whether a claim may have left something that is due. One of a full watcher asked only for what is overdue: that there
/// was none says nothing of the rest, which is to be asked for as soon as there is room.
fn may_have_left(granted: usize, limit: usize, is_full: bool) -> bool {
    is_full || granted >= limit
}

struct Claimer {
    context: Arc<Context>,
    is_down: Down,
    limit: usize,
    claimed_at: Instant,
    asked_at: Instant,
    /// The last claim may have left something that is due.
    has_more: bool,
    /// The feeds that the last claim left out ([`Self::hindered`]).
    left_out: Vec<String>,
    /// When those feeds were last asked for what is overdue.
    left_out_at: Instant,
}

impl Claimer {
    fn new(context: Arc<Context>, is_down: Down) -> Self {
        let now = Instant::now();
        let (limit, has_more, left_out) = (1, true, Vec::new());
        Self { context, is_down, limit, claimed_at: now, asked_at: now, has_more, left_out, left_out_at: now }
    }

    /// Of these feeds, those of which others shall have what becomes due: there is enough of them here for their bounds or for
    /// handlers that are down, or nothing of them can be sent from here, and somebody else may serve them. A watcher whose
    /// handler is down has nothing to do, and would be the first to claim.
    fn hindered(&self, feeds: &[String]) -> Vec<String> {
        let satisfied = self.context.board().satisfied(feeds);
        let is_left = |feed: &String| (self.is_down)(feed) && !self.context.is_alone(feed);
        let is_hindered = |feed: &&String| satisfied.contains(feed) || is_left(feed);
        feeds.iter().filter(is_hindered).cloned().collect()
    }

    async fn claim(&mut self) -> Result<()> {
        let context = self.context.clone();
        let room = context.board().room();
        let is_full = room.is_full();
        let mut feeds = context.settings.feeds.clone();
        self.left_out.clear();
        if !is_full {
            self.left_out = self.hindered(&feeds);
            feeds.retain(|feed| !self.left_out.contains(feed));
        }
        self.has_more &= !feeds.is_empty();
        if !feeds.is_empty() {
            let limit = if is_full { context.board().overdue_max() } else { self.limit };
            let granted = self.claim_of(feeds.clone(), limit, self.overdue(room)).await?;
            self.has_more = may_have_left(granted, limit, is_full);
            match granted {
                0 if is_full => {}
                0 => self.ask(&feeds).await,
                _ => self.adapt(),
            }
            if granted > 0 && is_full {
                // Others wait for a turn: those that have had theirs for longest go to the back of the queue.
                context.board().rotate();
            }
        }
        self.claim_left_out().await
    }

    /// Of feeds that were left out now and then one partition that nobody else took, which then has its turn.
    async fn claim_left_out(&mut self) -> Result<()> {
        if self.left_out.is_empty() || self.left_out_at.elapsed() < self.context.settings.poll_interval {
            return Ok(());
        }
        self.left_out_at = Instant::now();
        for feed in self.left_out.clone() {
            if self.claim_of(vec![feed.clone()], 1, self.overdue(Room::Turns)).await? > 0 {
                self.context.board().rotate_feed(&feed);
            }
        }
        Ok(())
    }

    /// For how long nobody with more room has to have taken a partition.
    fn overdue(&self, room: Room) -> Duration {
        let long = OVERDUE_POLLS * self.context.settings.poll_interval;
        match room {
            Room::Spare => Duration::ZERO,
            Room::Kept => KEPT.min(long),
            Room::Turns | Room::None => long,
        }
    }

    /// Takes up to so many partitions that have been due for this long. Returns how many there were.
    async fn claim_of(&self, feeds: Vec<String>, limit: usize, overdue: Duration) -> Result<usize> {
        let context = &self.context;
        let settings = &context.settings;
        let claim =
            Claim { owner: settings.owner.clone(), feeds, duration: settings.lease_duration, limit, overdue };
        let started = clock::now();
        let grants = context.store.claim(&claim).await?;
        let granted = grants.len();
        if granted == 0 {
            return Ok(0);
        }
        tracing::debug!(partitions = granted, "claimed");
        for grant in grants {
            if grant.expiries > 0 {
                let (partition, expiries) = (&grant.lease.partition, grant.expiries);
                tracing::warn!(%partition, expiries, "took over a partition whose lease had expired");
            }
            let trust = Trust::new(started, settings.lease_duration, rand::random());
            context.board().granted(grant, trust, context.abort.child_token());
        }
        context.ring();
        Ok(granted)
    }

    /// Whether a feed that was left out may be asked for again.
    fn is_wanted_again(&self) -> bool {
        !self.left_out.is_empty() && self.hindered(&self.left_out).len() < self.left_out.len()
    }

    /// Asks the others for some of theirs: they may have more than they can send.
    async fn ask(&mut self, feeds: &[String]) {
        let context = &self.context;
        if context.board().room() != Room::Spare || self.asked_at.elapsed() < ASK_INTERVAL {
            return;
        }
        // Of what waits here for a bound or a handler, more would wait too.
        let feeds = context.board().unhindered(feeds);
        if feeds.is_empty() {
            return;
        }
        self.asked_at = Instant::now();
        if let Err(error) = context.store.ask(&context.settings.owner, &feeds).await {
            tracing::debug!(%error, "could not ask others for partitions");
        }
    }

    fn adapt(&mut self) {
        let is_often = self.claimed_at.elapsed() < OFTEN;
        self.limit = if is_often { (self.limit * 2).min(CLAIM_MAX) } else { (self.limit / 2).max(1) };
        self.claimed_at = Instant::now();
    }

    /// Waits until a claim makes sense.
    async fn wait(&mut self, wakeups: &mut dyn Wakeups) {
        let poll_at = Instant::now() + jittered(self.context.settings.poll_interval);
        let kept_until = Instant::now() + jittered(KEPT);
        loop {
            let may_be_more = self.has_more || self.is_wanted_again();
            let room = self.context.board().room();
            if may_be_more && room == Room::Spare {
                return;
            }
            let is_kept = self.has_more && room == Room::Kept;
            tokio::select! {
                () = self.context.stop.cancelled() => return,
                () = wakeups.next() => {
                    self.has_more = true;
                    self.freshen(true);
                }
                () = tokio::time::sleep_until(kept_until), if is_kept => return,
                () = self.context.room_bell.notified(), if self.has_more || !self.left_out.is_empty() => {}
                () = tokio::time::sleep_until(poll_at) => {
                    self.freshen(false);
                    if self.context.board().room() != Room::None {
                        return;
                    }
                    self.has_more = true;
                    return self.wait_for_room().await;
                }
            }
        }
    }

    /// Everything is full: another poll interval.
    async fn wait_for_room(&self) {
        let mut poll = tokio::time::interval(jittered(self.context.settings.poll_interval));
        poll.tick().await;
        while self.context.board().room() == Room::None {
            tokio::select! {
                () = self.context.stop.cancelled() => return,
                () = self.context.room_bell.notified() => {}
                _ = poll.tick() => self.freshen(false),
            }
        }
    }

    fn freshen(&self, is_hint: bool) {
        self.context.board().freshen(is_hint);
        self.context.page_bell.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_claim_that_asked_for_all_and_got_less_has_left_nothing() {
        assert!(may_have_left(4, 4, false));
        assert!(!may_have_left(3, 4, false));
        assert!(may_have_left(0, 4, true), "else what is due would wait for the next poll");
    }
}
