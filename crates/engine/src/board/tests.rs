//! The board's decisions, without a database and without time passing.

use gatefeed_core::{
    lease::SUSPECT_EXPIRIES,
    partition::{PartitionState, PartitionStatus},
    store::Cursor,
};
use uuid::Uuid;

use super::*;

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

#[test]
fn an_item_in_flight_or_unwritten_is_not_sent_again() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page_with_more(&["a", "b"]));
    assert_eq!(turns(&mut board), ["p/a", "p/b"]);
    load(&mut board, &p, page_with_more(&["a", "b", "c"]));
    assert_eq!(turns(&mut board), ["p/c"]);
    board.answered(&p, 1);
    load(&mut board, &p, page(&["a", "b", "c"]));
    assert_eq!(turns(&mut board), [""; 0]);
}

#[test]
fn an_outcome_written_while_a_page_is_loading_does_not_requeue_its_item() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page_with_more(&["a", "b"]));
    assert_eq!(turns(&mut board), ["p/a", "p/b"]);
    assert_eq!(board.pages(NOW).len(), 1);
    // The page was read before this was written, and shows the item as it was.
    written(&mut board, &p, "a", None);
    board.page_loaded(&p, page(&["a", "b"]));
    assert_eq!(turns(&mut board), [""; 0]);
    // The item may be due again by now: it is looked for once more, and then taken.
    load(&mut board, &p, page(&["a", "b"]));
    assert_eq!(turns(&mut board), ["p/a"]);
}

#[test]
fn a_page_that_failed_lets_go_of_what_was_written_meanwhile() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page_with_more(&["a"]));
    assert_eq!(turns(&mut board), ["p/a"]);
    assert_eq!(board.pages(NOW).len(), 1);
    written(&mut board, &p, "a", Some(0));
    board.page_failed(&p, Duration::ZERO);
    let again = board.pages(NOW);
    assert_eq!((again.len(), &again[0].after), (1, &None));
    board.page_loaded(&p, page(&["a"]));
    assert_eq!(turns(&mut board), ["p/a"]);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_partition_rests_whatever_the_hints() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    assert_eq!(board.pages(NOW).len(), 1);
    board.page_failed(&p, Duration::from_secs(5));
    assert_eq!(board.room(), Room::Spare, "others may come");
    board.freshen(true);
    assert!(board.pages(NOW).is_empty() && board.checks().is_empty() && board.next_rest_ends().is_some());
    tokio::time::advance(Duration::from_secs(5)).await;
    board.freshen(false);
    assert_eq!(board.pages(NOW).len(), 1);
}

#[test]
fn a_page_of_a_former_lease_is_dropped() {
    let mut board = board(10);
    let old = grant(&mut board, "p");
    assert_eq!(board.pages(NOW).len(), 1);
    let new = grant_to(&mut board, "p", |grant| grant.lease = lease("p", 2));
    board.page_loaded(&old, page(&["a"]));
    assert_eq!(turns(&mut board), [""; 0]);
    load(&mut board, &new, page(&["a"]));
    assert_eq!(turns(&mut board), ["p/a"]);
}

#[test]
fn what_is_given_up_is_read_again() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["a"]));
    assert_eq!(turns(&mut board), ["p/a"]);
    board.given_up(&p, "a");
    assert!(board.checks().is_empty());
    load(&mut board, &p, page(&["a"]));
    assert_eq!(turns(&mut board), ["p/a"]);
}

#[test]
fn reading_stops_while_the_buffer_is_full() {
    let mut board = board(1);
    let p = grant(&mut board, "p");
    let limit = board.pages(NOW)[0].limit;
    let ids: Vec<_> = (0..limit).map(|n| n.to_string()).collect();
    board.page_loaded(&p, page_with_more(&ids.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(board.pages(NOW).is_empty());
    for _ in 0..limit.div_ceil(2) {
        let turn = board.next_turn(NOW).unwrap();
        written(&mut board, &p, &turn.item.id, None);
    }
    assert_eq!(board.pages(NOW).len(), 1);
}

#[test]
fn a_hint_lets_a_resting_partition_be_read() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&[]));
    assert_eq!(board.checks().len(), 1);
    board.checked(&p, Checkpointed::Wait(Duration::from_secs(60)));
    board.freshen(false);
    assert!(board.pages(NOW).is_empty() && board.next_rest_ends().is_some());
    board.freshen(true);
    assert_eq!(board.pages(NOW).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_scan_starts_over_once_a_poll_interval_and_soon_after_a_hint() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["a"]));
    assert_eq!(turns(&mut board), ["p/a"]);
    board.freshen(false);
    board.freshen(true);
    assert!(board.pages(NOW).is_empty(), "just read");
    tokio::time::advance(Duration::from_millis(30)).await;
    board.freshen(false);
    assert!(board.pages(NOW).is_empty(), "not a poll interval ago");
    board.freshen(true);
    load(&mut board, &p, page(&["a"]));
    tokio::time::advance(Duration::from_millis(1100)).await;
    board.freshen(false);
    assert_eq!(board.pages(NOW).len(), 1);
}

// --- turns ---

#[test]
fn partitions_take_turns() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["1", "2", "3", "4"]));
    let q = grant(&mut board, "q");
    load(&mut board, &q, page(&["1", "2"]));
    assert_eq!(turns(&mut board), ["p/1", "q/1", "p/2", "q/2", "p/3", "p/4"]);
}

#[test]
fn a_partition_keeps_its_bound() {
    let mut board = board(10);
    let p = grant_to(&mut board, "p", |grant| grant.state.max_in_flight = Some(2));
    load(&mut board, &p, page(&["1", "2", "3", "4"]));
    assert_eq!(turns(&mut board), ["p/1", "p/2"]);
    board.answered(&p, 1);
    assert_eq!(turns(&mut board), ["p/3"]);
}

#[test]
fn half_of_the_slots_leave_some_to_others() {
    let mut board = board(20);
    let p = grant(&mut board, "p");
    let ids: Vec<_> = (0..30).map(|n| n.to_string()).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    grant(&mut board, "q");
    assert_eq!(board.pages(NOW).len(), 2);
    board.page_loaded(&p, page(&ids));
    // Two of the twenty are left to "q".
    for _ in 0..18 {
        assert!(board.next_turn(NOW).is_some());
    }
    assert!(board.next_turn(NOW).is_none());
    board.page_loaded(&lease("q", 1), page(&["1"]));
    assert_eq!(&*board.next_turn(NOW).unwrap().origin.lease.partition, "q");
    assert!(board.next_turn(NOW).is_none());
    // Two are still left to others; who waited comes back.
    board.answered(&p, 1);
    assert!(board.next_turn(NOW).is_none());
    board.answered(&p, 1);
    assert_eq!(&*board.next_turn(NOW).unwrap().origin.lease.partition, "p");
}

#[test]
fn sending_stops_while_too_much_is_unwritten() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["a", "b"]));
    board.next_turn(NOW).unwrap();
    board.answered(&p, UNWRITTEN_BYTES_MAX);
    assert!(board.next_turn(NOW).is_none());
    board.settled(&p, &"a".into(), Settled::Written, None, UNWRITTEN_BYTES_MAX);
    assert_eq!(turns(&mut board), ["p/b"]);
}

#[test]
fn a_suspect_partition_sends_one_item_and_waits_until_it_is_written() {
    let mut board = board(10);
    let p = grant_to(&mut board, "p", |grant| grant.expiries = SUSPECT_EXPIRIES);
    load(&mut board, &p, page(&["a", "b", "c"]));
    assert!(board.next_turn(NOW).unwrap().origin.suspect);
    assert!(board.next_turn(NOW).is_none());
    board.answered(&p, 1);
    assert!(board.next_turn(NOW).is_none());
    board.settled(&p, &"a".into(), Settled::Written, None, 1);
    assert!(board.progressed(&p) && !board.progressed(&p));
    let rest: Vec<_> = std::iter::from_fn(|| board.next_turn(NOW)).map(|turn| turn.origin.suspect).collect();
    assert_eq!(rest, [false, false]);
}

// --- leases ---

#[test]
fn nothing_begins_after_trust_ends_and_a_renewal_lets_it_go_on() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page_with_more(&["a", "b"]));
    let turn = board.next_turn(NOW).unwrap();
    assert!(turn.origin.trusted_until.holds(NOW) && !turn.origin.trusted_until.holds(TRUSTED));
    assert!(board.next_turn(TRUSTED).is_none());
    assert!(board.pages(TRUSTED).is_empty());
    let later = TRUSTED + Duration::from_secs(1);
    board.renewed(&p, Trust { until: later, renew_at: later });
    assert!(turn.origin.trusted_until.holds(TRUSTED), "also one that is about to begin");
    assert!(board.next_turn(TRUSTED).is_some());
}

#[test]
fn a_renewal_stays_due_until_it_is_made() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    let q = grant(&mut board, "q");
    board.renewed(&q, Trust { until: TRUSTED, renew_at: NOW });
    for _ in 0..2 {
        assert_eq!(board.renewals(NOW), std::slice::from_ref(&q));
    }
    assert_eq!(board.renewals(TRUSTED).len(), 2);
    board.renewed(&q, Trust { until: TRUSTED * 2, renew_at: TRUSTED * 2 });
    assert_eq!(board.renewals(TRUSTED), [p]);
}

/// A renewal may be refused because this watcher's checkpoint has just ended the lease: that is no loss to tell of.
#[test]
fn a_lease_that_ends_at_its_own_checkpoint_is_not_lost() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&[]));
    assert_eq!(board.checks(), std::slice::from_ref(&p));
    assert!(!board.lost(&p) && board.leases().is_empty());
}

#[test]
fn a_lost_lease_aborts_and_forgets() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["a", "b"]));
    let turn = board.next_turn(NOW).unwrap();
    assert!(!board.lost(&lease("p", 2)), "another one");
    assert!(!turn.origin.cancel.is_cancelled());
    assert!(board.lost(&p));
    assert!(turn.origin.cancel.is_cancelled() && board.leases().is_empty());
    assert!(board.next_turn(NOW).is_none() && !turn.origin.trusted_until.holds(NOW) && !board.is_empty());
    board.given_up(&p, "a");
    assert!(board.is_empty());
    assert_eq!((board.in_flight, board.buffered, board.room()), (0, 0, Room::Spare));
}

#[test]
fn a_fenced_outcome_drops_the_partition() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["a", "b", "c"]));
    let turns: Vec<_> = (0..2).map(|_| board.next_turn(NOW).unwrap()).collect();
    board.answered(&p, 1);
    assert!(board.settled(&p, &"a".into(), Settled::Fenced, Some(0), 1));
    assert!(turns[1].origin.cancel.is_cancelled() && board.leases().is_empty());
    assert!(board.next_turn(NOW).is_none());
    board.answered(&p, 1);
    assert!(!board.settled(&p, &"b".into(), Settled::Fenced, None, 1), "reported once");
    assert!(board.is_empty());
}

#[test]
fn a_fenced_outcome_of_a_former_lease_leaves_the_new_one_alone() {
    let mut board = board(10);
    let old = grant(&mut board, "p");
    load(&mut board, &old, page(&["a"]));
    let turn = board.next_turn(NOW).unwrap();
    board.answered(&old, 1);
    let new = grant_to(&mut board, "p", |grant| grant.lease = lease("p", 2));
    assert!(turn.origin.cancel.is_cancelled());
    assert!(!board.settled(&old, &"a".into(), Settled::Fenced, None, 1));
    assert_eq!(board.leases(), [new]);
}

#[test]
fn a_stale_outcome_lets_the_item_be_read_as_it_is() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["a"]));
    board.next_turn(NOW).unwrap();
    board.answered(&p, 1);
    assert!(!board.settled(&p, &"a".into(), Settled::Stale, None, 1));
    assert!(board.checks().is_empty());
    load(&mut board, &p, page(&["a"]));
    assert_eq!(turns(&mut board), ["p/a"]);
}

#[test]
fn what_operators_do_is_seen_unless_it_is_older() {
    let mut board = board(10);
    let p = grant_to(&mut board, "p", |grant| grant.state = state(5));
    load(&mut board, &p, page(&["a", "b"]));
    let turn = board.next_turn(NOW).unwrap();
    let paused =
        |version| Observed::Held(PartitionState { status: PartitionStatus::Paused, ..state(version) });
    board.observed(&p, paused(4));
    assert!(board.held["p"].is_available(), "older than the grant");
    board.observed(&p, paused(5));
    assert!(board.next_turn(NOW).is_none() && board.pages(NOW).is_empty());
    assert!(!turn.origin.cancel.is_cancelled() && board.checks().is_empty(), "what is in flight goes on");
    written(&mut board, &p, "a", None);
    assert_eq!(board.checks().len(), 1);
    board.checked(&p, Checkpointed::Slept);
    assert!(board.is_empty());
    assert_eq!(board.buffered, 0);
}

// --- gates ---

#[test]
fn a_checkpoint_comes_only_when_nothing_is_known_of() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    assert!(board.checks().is_empty(), "unread");
    load(&mut board, &p, page_with_more(&["a"]));
    assert!(board.checks().is_empty(), "not at the end");
    load(&mut board, &p, page(&[]));
    assert!(board.checks().is_empty(), "buffered");
    board.next_turn(NOW).unwrap();
    assert!(board.checks().is_empty(), "in flight");
    board.answered(&p, 1);
    assert!(board.checks().is_empty(), "unwritten");
    board.settled(&p, &"a".into(), Settled::Written, None, 1);
    assert_eq!(board.checks().len(), 1);
    assert!(board.checks().is_empty(), "one at a time");
    board.checked(&p, Checkpointed::Advanced(7));
    assert_eq!(board.held["p"].state.gate, 7);
    assert_eq!(board.pages(NOW).len(), 1);
}

#[test]
fn what_an_outcome_makes_due_is_read_before_the_checkpoint() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["a", "b"]));
    assert_eq!(turns(&mut board).len(), 2);
    written(&mut board, &p, "a", Some(3));
    assert!(board.pages(NOW).is_empty(), "above the gate");
    written(&mut board, &p, "b", Some(0));
    assert!(board.checks().is_empty());
    assert_eq!(board.pages(NOW).len(), 1);
}

#[test]
fn a_partition_that_ended_or_was_fenced_at_its_checkpoint_is_let_go() {
    for end in [Checkpointed::Slept, Checkpointed::Closed, Checkpointed::Failed, Checkpointed::Fenced] {
        let mut board = board(10);
        let p = grant(&mut board, "p");
        load(&mut board, &p, page(&[]));
        assert_eq!(board.checks().len(), 1);
        board.checked(&p, end);
        assert!(board.is_empty(), "{end:?}");
    }
}

// --- the end ---

#[test]
fn draining_sends_and_reads_nothing_and_keeps_what_is_in_flight() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page_with_more(&["a", "b"]));
    let turn = board.next_turn(NOW).unwrap();
    assert_eq!(board.pages(NOW).len(), 1);
    board.drain();
    board.page_loaded(&p, page(&["c"]));
    assert!(board.next_turn(NOW).is_none() && board.pages(NOW).is_empty() && board.checks().is_empty());
    assert_eq!((board.room(), board.buffered), (Room::None, 0));
    assert!(!turn.origin.cancel.is_cancelled());
    written(&mut board, &p, "a", Some(0));
    assert!(board.next_turn(NOW).is_none() && board.pages(NOW).is_empty() && board.checks().is_empty());
    // A claim that was on its way comes in, and is given back with the others.
    grant(&mut board, "q");
    assert!(board.pages(NOW).is_empty());
    assert_eq!(board.leases().len(), 2);
}

#[test]
fn after_the_grace_what_is_in_flight_is_aborted() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["a"]));
    let turn = board.next_turn(NOW).unwrap();
    board.drain();
    board.cancel_deliveries();
    assert!(turn.origin.cancel.is_cancelled());
    board.given_up(&p, "a");
    assert_eq!((board.in_flight(), board.leases().len()), (0, 1));
}

// --- room ---

#[test]
fn there_is_room_while_deliveries_could_be_under_way() {
    let mut board = board(2);
    assert_eq!(board.room(), Room::Spare);
    let p = grant(&mut board, "p");
    assert_eq!(board.room(), Room::None, "what it has is not known yet");
    load(&mut board, &p, page(&["1", "2", "3"]));
    assert_eq!(board.room(), Room::Turns, "but others should get their turns");
    let q = grant(&mut board, "q");
    load(&mut board, &q, page(&["1"]));
    assert_eq!(board.room(), Room::Turns);
    board.lost(&p);
    assert_eq!(board.room(), Room::Spare);
}

/// A tenth of the slots is not for a partition that has its share.
#[test]
fn kept_slots_are_room_for_those_that_come_along() {
    let mut board = board(20);
    let p = grant(&mut board, "p");
    let ids: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    load(&mut board, &p, page(&ids.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(board.room(), Room::Turns, "most of it can be sent");
    turns(&mut board);
    assert_eq!((board.in_flight(), board.room()), (18, Room::Kept));
    let q = grant(&mut board, "q");
    assert_eq!(board.room(), Room::None);
    load(&mut board, &q, page(&["1", "2", "3"]));
    assert_eq!(board.room(), Room::Turns, "they are for this one");
    turns(&mut board);
    assert_eq!((board.in_flight(), board.room()), (20, Room::Turns));
}

/// Ten is the first number of slots of which one is kept, and nine is none.
#[test]
fn one_slot_of_ten_is_kept() {
    for (slots, in_flight, room) in [(10, 9, Room::Kept), (9, 9, Room::Turns)] {
        let mut board = board(slots);
        let p = grant(&mut board, "p");
        let ids: Vec<String> = (0..60).map(|n| n.to_string()).collect();
        load(&mut board, &p, page(&ids.iter().map(String::as_str).collect::<Vec<_>>()));
        turns(&mut board);
        assert_eq!((board.in_flight(), board.room()), (in_flight, room), "{slots}");
    }
}

/// A full watcher holds a few partitions; the one that has been held for longest makes room for another.
#[test]
fn partitions_take_turns_in_being_held() {
    let mut board = board(2);
    let first = grant(&mut board, "first");
    load(&mut board, &first, page(&["1", "2"]));
    let turn = board.next_turn(NOW).unwrap();
    for other in ["second", "third"] {
        let lease = grant(&mut board, other);
        load(&mut board, &lease, page(&["1"]));
    }
    board.rotate();
    assert!(board.leavers().is_empty(), "one of its deliveries is under way");
    assert_eq!(
        board.next_turn(NOW).unwrap().origin.lease.partition.as_ref(),
        "second",
        "it is sent from no more"
    );
    assert!(board.pages(NOW).iter().all(|page| page.lease != first), "nor read");
    assert_eq!(&*turn.item.id, "1");
    board.answered(&first, 1);
    board.settled(&first, &"1".into(), Settled::Written, None, 1);
    assert!(!board.checks().contains(&first));
    assert_eq!(board.leavers(), std::slice::from_ref(&first));
    board.released(std::slice::from_ref(&first));
    assert_eq!(board.leases().len(), 2);
    board.rotate();
    assert!(board.leavers().is_empty(), "two may stay");
}

/// A partition whose row somebody has locked fills up with unwritten outcomes; the others go on.
#[test]
fn unwritten_outcomes_of_one_partition_stop_it_alone() {
    let mut board = board(2000);
    let p = grant(&mut board, "p");
    let ids: Vec<String> = (0..600).map(|n| format!("i{n:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    load(&mut board, &p, page(&ids));
    for _ in 0..500 {
        board.next_turn(NOW).unwrap();
        board.answered(&p, 1);
    }
    board.next_turn(NOW).expect("as long as it is not known to be locked");
    board.answered(&p, 1);
    board.locked(&p);
    assert!(board.next_turn(NOW).is_none());
    let q = grant(&mut board, "q");
    load(&mut board, &q, page(&["1"]));
    assert_eq!(board.next_turn(NOW).unwrap().origin.lease, q);
    board.settled(&p, &"i000".into(), Settled::Written, None, 1);
    assert_eq!(board.next_turn(NOW).unwrap().origin.lease, p);
}

#[test]
fn a_paused_partition_is_given_back_wherever_its_reading_stands() {
    for reading in [Reading::End, Reading::At(None), Reading::Resting(Instant::now())] {
        let mut board = board(10);
        let p = grant_to(&mut board, "p", |grant| grant.state = state(5));
        load(&mut board, &p, page(&["a", "b"]));
        board.next_turn(NOW).unwrap();
        board.observed(&p, Observed::Held(PartitionState { status: PartitionStatus::Paused, ..state(5) }));
        board.held.get_mut("p").unwrap().reading = reading.clone();
        assert!(board.next_turn(NOW).is_none());
        assert!(board.checks().is_empty(), "one is in flight");
        board.answered(&p, 1);
        board.settled(&p, &"a".into(), Settled::Written, None, 1);
        assert_eq!(board.checks(), std::slice::from_ref(&p), "{reading:?}");
    }
}

// --- figures ---

#[test]
fn figures_tell_what_is_held_and_in_flight_in_each_feed() {
    let mut board = board(10);
    let default = |board: &Board| board.figures()["default"];
    let other = |board: &Board| board.figures()["other"];
    assert_eq!(
        (board.figures().len(), other(&board)),
        (2, Figures::default()),
        "every feed, before any work"
    );
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["a", "b", "c"]));
    grant(&mut board, "q");
    let r = grant_to(&mut board, "r", |grant| grant.state.feed = "other".into());
    board.next_turn(NOW).unwrap();
    board.next_turn(NOW).unwrap();
    assert_eq!(default(&board), Figures { partitions: 2, in_flight: 2, outcomes: 0 });
    assert_eq!(other(&board), Figures { partitions: 1, in_flight: 0, outcomes: 0 });
    board.answered(&p, 1);
    assert_eq!(default(&board).in_flight, 1, "unwritten is not in flight");
    board.given_up(&p, "b");
    assert_eq!(default(&board).in_flight, 0);
    board.lost(&r);
    assert_eq!(other(&board), Figures::default());
}

#[test]
fn outcomes_are_counted_by_feed_whether_their_lease_is_held_or_not() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    board.count_written("default");
    board.lost(&p);
    board.count_written("default");
    board.count_written("other");
    let outcomes: Vec<_> = board.figures().into_values().map(|figures| figures.outcomes).collect();
    assert_eq!(outcomes, [2, 1]);
}

#[test]
fn a_feed_that_is_named_twice_is_one() {
    let feeds = ["a".to_owned(), "a".to_owned()];
    assert_eq!(Board::new(1, Duration::from_secs(1), &feeds).figures().len(), 1);
}

// --- full watchers ---

#[test]
fn a_full_watcher_takes_a_quarter_more_at_a_time() {
    let mut board = board(100);
    assert_eq!(board.untaken_max(), 1);
    for n in 0..20 {
        grant(&mut board, &format!("p{n}"));
    }
    assert_eq!(board.untaken_max(), 5);
    for n in 20..200 {
        grant(&mut board, &format!("p{n}"));
    }
    assert_eq!(board.untaken_max(), board.turns_max().div_ceil(2), "it could not serve more");
}

/// Partitions p0, p1, … with so many items each, granted some time ago.
fn busy(board: &mut Board, partitions: usize, items: usize) -> Vec<Arc<Lease>> {
    let ids: Vec<String> = (0..items).map(|n| format!("i{n:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut leases = Vec::new();
    for n in 0..partitions {
        let lease = grant(board, &format!("p{n}"));
        load(board, &lease, page(&ids));
        board.held.get_mut(&lease.partition).unwrap().granted_at -= Duration::from_secs(5);
        leases.push(lease);
    }
    leases
}

fn handed_off(board: &Board) -> usize {
    board.held.values().filter(|held| held.is_leaving).count()
}

#[test]
fn one_partition_goes_to_each_watcher_that_asks() {
    let mut board = board(10);
    busy(&mut board, 8, 10);
    board.hand_off(&[("default".into(), 2)]);
    assert_eq!(handed_off(&board), 2);
    board.hand_off(&[("default".into(), 2)]);
    assert_eq!(handed_off(&board), 2, "they are on their way already");
    board.hand_off(&[("default".into(), 100)]);
    assert_eq!(handed_off(&board), 5, "the greater part of what is left stays");
    board.hand_off(&[("other".into(), 1)]);
    assert_eq!(handed_off(&board), 5, "none is of that feed");
    assert_eq!(board.leavers().len(), 5, "nothing of them is in flight");
}

#[test]
fn what_ends_soonest_is_handed_off() {
    let mut board = board(10);
    let leases = busy(&mut board, 3, 20);
    for _ in 0..8 {
        board.next_turn(NOW).unwrap();
    }
    let least = leases.iter().min_by_key(|l| board.held[&l.partition].in_flight).unwrap().clone();
    board.hand_off(&[("default".into(), 1)]);
    assert!(board.held[&least.partition].is_leaving);
    assert_eq!(board.leavers(), [], "its deliveries end first");
}

#[test]
fn nothing_is_handed_off_that_is_needed_or_has_just_come() {
    let mut one = board(10);
    busy(&mut one, 1, 100);
    one.hand_off(&[("default".into(), 1)]);
    assert_eq!(handed_off(&one), 0, "the only one");
    let mut idle = board(100);
    busy(&mut idle, 4, 5);
    idle.hand_off(&[("default".into(), 1)]);
    assert_eq!(handed_off(&idle), 0, "it can send all of it by itself");
    let mut new = board(10);
    for lease in busy(&mut new, 4, 10) {
        new.held.get_mut(&lease.partition).unwrap().granted_at = Instant::now();
    }
    new.hand_off(&[("default".into(), 1)]);
    assert_eq!(handed_off(&new), 0, "it would go to and fro");
}

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

#[test]
fn a_feed_and_a_gate_have_no_more_in_flight_than_they_may() {
    let mut board = with_lanes(100, |_, _| true);
    let p = of_feed(&mut board, "p", "other", &[("a", 1), ("b", 1), ("c", 2), ("d", 2)]);
    assert_eq!(turns(&mut board), ["p/a", "p/c"], "one of gate 1, and no more than two");
    of_feed(&mut board, "q", "default", &[("x", 1), ("y", 1)]);
    assert_eq!(turns(&mut board), ["q/x", "q/y"], "others have no such bound");
    assert!(board.left_lane("other", 1), "somebody waits for that");
    board.answered(&p, 1);
    assert_eq!(turns(&mut board), ["p/b"]);
    assert!(board.left_lane("other", 2));
    board.given_up(&p, "c");
    assert_eq!(turns(&mut board), ["p/d"]);
}

#[test]
fn what_is_down_waits_and_holds_up_nobody() {
    let is_up = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let now_up = is_up.clone();
    let is_ready = move |feed: &str, gate| {
        feed != "default" || gate != 0 || now_up.load(std::sync::atomic::Ordering::Relaxed)
    };
    let mut board = with_lanes(10, is_ready);
    let many: Vec<String> = (0..20).map(|n| format!("d{n}")).collect();
    let many: Vec<(&str, i32)> = many.iter().map(|id| (id.as_str(), 0)).collect();
    of_feed(&mut board, "down", "default", &many);
    of_feed(&mut board, "late", "default", &[("l", 0), ("m", 1)]);
    of_feed(&mut board, "up", "other", &[("x", 0)]);
    assert_eq!(board.room(), Room::Turns, "until it is seen that most of it is down");
    assert_eq!(turns(&mut board), ["late/m", "up/x"], "the gate that is up, too");
    assert_eq!(board.room(), Room::Spare, "others have all the room");
    assert_eq!(board.satisfied(&["default".into(), "other".into()]), ["default"]);
    is_up.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(turns(&mut board), [""; 0], "it is asked again when it is told to be");
    board.unpark();
    assert_eq!(turns(&mut board).len(), 7, "a tenth is kept for others, which have nothing more");
}

/// As if it had been parked a while ago.
fn long_ago(board: &mut Board) {
    let then = Instant::now() - Duration::from_secs(5);
    for held in board.held.values_mut() {
        held.granted_at = then;
        held.parked_since = held.parked_since.map(|_| then);
    }
}

#[test]
fn what_waits_for_a_handler_that_is_down_from_here_is_handed_off_to_the_last() {
    let mut board = with_lanes(100, |feed, _| feed != "default");
    for partition in ["p", "q", "r"] {
        of_feed(&mut board, partition, "default", &[("a", 0), ("b", 0)]);
    }
    of_feed(&mut board, "s", "other", &[("x", 0)]);
    assert_eq!(turns(&mut board), ["s/x"]);
    assert_eq!(board.unhindered(&["default".into(), "other".into()]), ["other"], "what is asked for itself");
    board.hand_off(&[("default".into(), 1)]);
    assert_eq!(handed_off(&board), 0, "it may come back at once");
    long_ago(&mut board);
    for left in [1, 2, 3] {
        let one_more = board.held.values().filter(|held| held.is_leaving).count() + 1;
        board.hand_off(&[("default".into(), one_more)]);
        assert_eq!((handed_off(&board), board.leavers().len()), (left, left));
    }
}

#[test]
fn half_of_what_waits_for_a_bound_is_handed_off_though_there_is_room() {
    let mut board = with_lanes(100, |_, _| true);
    for partition in ["p", "q", "r", "s"] {
        of_feed(&mut board, partition, "other", &[("a", 0), ("b", 0)]);
    }
    of_feed(&mut board, "t", "default", &[("x", 0)]);
    assert_eq!(turns(&mut board).len(), 3, "two of the feed with the bound");
    for held in board.held.values_mut() {
        held.granted_at = Instant::now() - Duration::from_secs(5);
    }
    board.hand_off(&[("other".into(), 9), ("default".into(), 9)]);
    assert_eq!(handed_off(&board), 2, "the bound lets nothing through here that would not do as well there");
}

// --- batches ---

/// Batches of so many items and 1,000 bytes, each item having so many.
fn batching(concurrency: usize, size: usize) -> Board {
    let mut policies = crate::policy::Policies::default();
    let batch = Some(Batch { size, linger: Duration::from_secs(1) });
    policies.set_feed("default", crate::policy::Policy { batch, ..Default::default() });
    board(concurrency).with_lanes(Lanes::new(&policies, 1000, Arc::new(|_, _| true)))
}

fn numbered(count: usize) -> Vec<DueItem> {
    (0..count).map(|n| item(&n.to_string(), 0)).collect()
}

fn taken(board: &mut Board) -> Vec<usize> {
    std::iter::from_fn(|| board.next_turn(NOW)).map(|turn| 1 + turn.more.len()).collect()
}

#[test]
fn a_batch_is_as_large_as_the_items_the_budget_and_the_bytes_allow() {
    let mut board = batching(100, 10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, Page { items: numbered(25), next: None });
    assert_eq!((taken(&mut board), board.in_flight()), (vec![10, 10, 5], 25));

    let mut board = batching(100, 60);
    let p = grant(&mut board, "p");
    load(&mut board, &p, Page { items: numbered(200), next: None });
    assert_eq!(taken(&mut board), [60, 30], "a tenth of the budget is kept for others");
    for id in ["0", "1", "2", "3", "4"] {
        board.given_up(&p, id);
    }
    assert_eq!(taken(&mut board), [0; 0], "five are too few: others will follow");
    for id in ["5", "6", "7", "8", "9"] {
        board.given_up(&p, id);
    }
    assert_eq!(taken(&mut board), [10]);

    let mut board = batching(100, 60);
    let p = grant(&mut board, "p");
    let items = numbered(6).into_iter().map(|item| DueItem { size: 400, ..item }).collect();
    load(&mut board, &p, Page { items, next: None });
    assert_eq!(taken(&mut board), [2, 2, 2]);
}

#[test]
fn a_batch_is_of_one_gate_and_without_what_gathers() {
    let mut board = batching(100, 10);
    let p = grant(&mut board, "p");
    let gather = Some(gatefeed_core::gather::Gather { gate: 0, status: gatefeed_core::gather::Ended::Any });
    let mut items = numbered(6);
    (items[3].gather, items[5].gate) = (gather, 1);
    load(&mut board, &p, Page { items, next: None });
    assert_eq!(taken(&mut board), [3, 1, 1, 1]);
    let mut board = batching(100, 10);
    let p = grant_to(&mut board, "p", |grant| grant.expiries = SUSPECT_EXPIRIES);
    load(&mut board, &p, Page { items: numbered(6), next: None });
    assert_eq!(taken(&mut board), [1], "in suspect mode one at a time");
}

#[test]
fn a_batch_grows_while_its_partition_is_being_read() {
    let mut board = batching(100, 10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page_with_more(&["a", "b"]));
    let mut turn = board.next_turn(NOW).unwrap();
    assert!(turn.may_grow && turn.is_low);
    board.grow(&mut turn);
    assert!(turn.may_grow, "nothing has come yet");
    load(&mut board, &p, page_with_more(&["c", "d"]));
    board.grow(&mut turn);
    assert!(turn.may_grow && turn.more.len() == 3 && board.in_flight() == 4);
    load(&mut board, &p, page(&["e"]));
    board.grow(&mut turn);
    assert!(!turn.may_grow && turn.more.len() == 4, "that was all");
    load_nothing_more(&mut board);
}

fn load_nothing_more(board: &mut Board) {
    assert!(board.pages(NOW).is_empty() && board.next_turn(NOW).is_none());
}

#[test]
fn the_budget_changes_and_tells_how_it_was_used() {
    let mut board = board(4);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["a", "b", "c", "d", "e", "f", "g", "h"]));
    assert_eq!(turns(&mut board).len(), 4);
    assert_eq!(board.take_usage(), (true, 4), "others have waited");
    assert_eq!(board.set_concurrency(2), 4);
    for _ in 0..2 {
        board.answered(&p, 1);
        assert!(board.next_turn(NOW).is_none(), "none begins before enough have ended");
    }
    board.take_usage();
    board.answered(&p, 1);
    assert_eq!(turns(&mut board).len(), 1);
    assert_eq!(board.take_usage(), (true, 2));
    board.set_concurrency(10);
    assert_eq!(turns(&mut board).len(), 3);
    assert_eq!(board.take_usage(), (false, 5), "nothing is left that could wait");
}

#[test]
fn a_partition_that_is_alone_waits_for_slots_too() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    let ids: Vec<String> = (0..12).map(|n| format!("i{n:02}")).collect();
    load(&mut board, &p, page(&ids.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(turns(&mut board).len(), 9);
    assert_eq!(board.take_usage(), (true, 9), "the tenth is kept for others");
}

#[test]
fn what_cannot_be_reserved_waits_and_is_not_lost() {
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(2));
    let (shared, relaxed) = (left.clone(), std::sync::atomic::Ordering::Relaxed);
    let reserve = move |_: &str, _| shared.fetch_update(relaxed, relaxed, |left| left.checked_sub(1)).is_ok();
    let lanes = Lanes::new(&Default::default(), 1000, Arc::new(|_, _| true)).with_reserve(Arc::new(reserve));
    let mut board = board(100).with_lanes(lanes);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["a", "b", "c"]));
    assert_eq!(turns(&mut board), ["p/a", "p/b"]);
    assert_eq!((board.in_flight(), turns(&mut board).len()), (2, 0), "it is parked");
    left.store(5, relaxed);
    assert!(board.unpark());
    assert_eq!(turns(&mut board), ["p/c"]);
    assert_eq!(left.load(relaxed), 4, "no more is reserved than is taken");
}

/// With more partitions than one statement reads, those that are through with a page at once do not take every place.
#[tokio::test(start_paused = true)]
async fn each_partition_is_read_in_its_turn() {
    let mut board = board(1000);
    let leases: Vec<_> = (0..2 * PAGES_MAX).map(|n| grant(&mut board, &format!("p{n}"))).collect();
    let mut read = HashSet::default();
    for _ in 0..2 {
        tokio::time::advance(Duration::from_millis(1)).await;
        let requests = board.pages(NOW);
        assert_eq!(requests.len(), PAGES_MAX);
        for request in requests {
            board.page_loaded(&request.lease, page_with_more(&[]));
            read.insert(request.lease.partition.clone());
        }
    }
    assert_eq!(read.len(), leases.len());
}

/// What cannot be written now does not take the place of what can.
#[tokio::test(start_paused = true)]
async fn time_outs_are_looked_for_where_they_can_be_written() {
    let mut board = board(10);
    let [locked, refusing, well] = ["locked", "refusing", "well"].map(|id| grant(&mut board, id));
    for lease in board.pages(NOW).into_iter().map(|request| request.lease) {
        board.page_loaded(&lease, page(&["1"]));
    }
    let names = |board: &Board| {
        let mut names: Vec<_> =
            board.writable().iter().map(|(lease, _)| lease.partition.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&board).len(), 3);
    board.locked(&locked);
    let item: Arc<str> = "0".into();
    assert!(board.overdue(&refusing, &item, 1));
    board.refused(&refusing, &item, 1, Duration::from_secs(1));
    assert_eq!(names(&board), [&*well.partition]);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(names(&board), ["refusing", "well"]);
}
