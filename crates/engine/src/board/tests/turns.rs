use super::*;

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
