use super::*;

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

#[test]
fn a_bound_that_is_raised_lets_more_go() {
    let mut board = board(10);
    let p = grant_to(&mut board, "p", |grant| grant.state.max_in_flight = Some(1));
    load(&mut board, &p, page(&["a", "b"]));
    assert_eq!(turns(&mut board), ["p/a"]);
    board.observed(&p, Observed::Held(PartitionState { max_in_flight: Some(2), ..state(2) }));
    assert_eq!(turns(&mut board), ["p/b"]);
}

#[test]
fn a_partition_in_another_feed_is_given_back() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&["a", "b"]));
    assert!(board.next_turn(NOW).is_some());
    board.observed(&p, Observed::Held(PartitionState { feed: "other".into(), ..state(2) }));
    assert!(turns(&mut board).is_empty() && board.pages(NOW).is_empty());
    assert!(board.leavers().is_empty(), "what is in flight goes on");
    written(&mut board, &p, "a", None);
    assert_eq!(board.leavers(), [p]);
}
