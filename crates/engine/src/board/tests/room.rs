use super::*;

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
fn a_partition_past_its_deadline_keeps_no_room_while_its_checkpoint_waits() {
    let mut board = board(10);
    let late = grant_to(&mut board, "late", |grant| grant.state.is_past_deadline = true);
    assert!(board.pages(NOW).is_empty());
    assert_eq!(board.room(), Room::Spare);
    assert_eq!(board.checks(), std::slice::from_ref(&late));
    board.checked(&late, Checkpointed::Busy);
    assert_eq!(board.room(), Room::Spare);
    grant(&mut board, "p");
    assert_eq!(board.room(), Room::None, "one claim at a time");
}

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
