//! The board's decisions, without a database and without time passing.

mod batches;
mod checks;
mod leases;
mod outcomes;
mod pages;
mod room;
mod turns;

use gatefeed_core::{
    item::DueItem,
    lease::{Grant, Observed, SUSPECT_EXPIRIES},
    outcome::Settled,
    partition::{PartitionState, PartitionStatus},
    store::{Checkpointed, Cursor, Page},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::{
    held::{Reading, Trust},
    policy::Batch,
};

const NOW: Duration = Duration::from_secs(1000);
const TRUSTED: Duration = Duration::from_secs(1010);

fn board(concurrency: usize) -> Board {
    Board::new(concurrency, Duration::from_secs(1), &["default".to_owned(), "other".to_owned()])
}

fn lease(partition: &str, epoch: i64) -> Arc<Lease> {
    let lease = Lease { partition: partition.into(), owner: "w".into(), lease_id: Uuid::nil(), epoch };
    Arc::new(lease)
}

fn state(version: i64) -> PartitionState {
    PartitionState {
        feed: "default".into(),
        status: PartitionStatus::Available,
        gate: 0,
        manual_checkpoint: false,
        auto_close: true,
        max_in_flight: None,
        failure_policy: gatefeed_core::partition::FailurePolicy::Stop,
        gate_deadline: None,
        is_past_deadline: false,
        keep_history: false,
        version,
        has_dependencies: false,
    }
}

fn grant_to(board: &mut Board, partition: &str, change: impl FnOnce(&mut Grant)) -> Arc<Lease> {
    let mut grant = Grant { lease: lease(partition, 1), state: state(1), expiries: 0 };
    change(&mut grant);
    let lease = grant.lease.clone();
    board.granted(grant, Trust { until: TRUSTED, renew_at: TRUSTED }, CancellationToken::new());
    lease
}

fn grant(board: &mut Board, partition: &str) -> Arc<Lease> {
    grant_to(board, partition, |_| {})
}

fn item(id: &str, version: i64) -> DueItem {
    DueItem {
        id: id.into(),
        gate: 0,
        pass: 0,
        retry_count: 0,
        suspect_count: 0,
        version,
        content_type: gatefeed_core::id::JSON.into(),
        size: 0,
        data: Some(bytes::Bytes::new()),
        error_messages: None,
        gather: None,
        born: 0,
        reference: None,
    }
}

/// The last page.
fn page(ids: &[&str]) -> Page {
    Page { items: ids.iter().map(|id| item(id, 0)).collect(), next: None }
}

/// One that has more after it.
fn page_with_more(ids: &[&str]) -> Page {
    let id = ids.last().copied().unwrap_or_default().to_owned();
    Page { next: Some(Cursor { gate: 0, priority: 0, available_at: String::new(), id }), ..page(ids) }
}

/// Reads a page of the only partition that wants to be read.
fn load(board: &mut Board, lease: &Lease, page: Page) {
    assert_eq!(board.pages(NOW).len(), 1);
    board.page_loaded(lease, page);
}

/// The ids of everything that may be sent now, each with its partition.
fn turns(board: &mut Board) -> Vec<String> {
    let mut turns = Vec::new();
    while let Some(turn) = board.next_turn(NOW) {
        turns.push(format!("{}/{}", turn.origin.lease.partition, turn.item.id));
    }
    turns
}

fn written(board: &mut Board, lease: &Lease, item: &str, due_gate: Option<i32>) {
    board.answered(lease, 1);
    assert!(!board.settled(lease, &item.into(), Settled::Written, due_gate, 1));
}

// --- items come in and go out ---

// --- turns ---

// --- leases ---

// --- gates ---

// --- the end ---

// --- room ---

// --- figures ---

// --- full watchers ---

// --- feeds and gates with bounds, and handlers that are down ---

fn policy(concurrency: usize) -> crate::policy::Policy {
    crate::policy::Policy { concurrency: Some(concurrency), ..Default::default() }
}

/// At most two deliveries of feed `other`, one of its gate 1; what `is_ready` refuses is down.
fn with_lanes(concurrency: usize, is_ready: impl Fn(&str, i32) -> bool + Send + Sync + 'static) -> Board {
    let mut policies = crate::policy::Policies::default();
    policies.set_feed("other", policy(2));
    policies.set_gate("other", 1, policy(1));
    board(concurrency).with_lanes(Lanes::new(&policies, 1000, Arc::new(is_ready)))
}

fn of_feed(board: &mut Board, partition: &str, feed: &str, items: &[(&str, i32)]) -> Arc<Lease> {
    let lease = grant_to(board, partition, |grant| grant.state.feed = feed.into());
    let items = items.iter().map(|(id, gate)| DueItem { gate: *gate, ..item(id, 0) }).collect();
    load(board, &lease, Page { items, next: None });
    lease
}

// --- batches ---

fn load_nothing_more(board: &mut Board) {
    assert!(board.pages(NOW).is_empty() && board.next_turn(NOW).is_none());
}
