use super::*;

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
