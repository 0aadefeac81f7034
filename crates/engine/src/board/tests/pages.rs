use std::collections::HashSet;

use super::{super::pages::PAGES_MAX, *};

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

/// With more partitions than one statement reads, those that are through with a page at once do not take every place.
#[tokio::test(start_paused = true)]
async fn each_partition_is_read_in_its_turn() {
    let mut board = board(1000);
    let leases: Vec<_> = (0..2 * PAGES_MAX).map(|n| grant(&mut board, &format!("p{n}"))).collect();
    let mut read = HashSet::new();
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

#[tokio::test(start_paused = true)]
async fn a_partition_that_takes_no_outcome_rests_though_a_page_is_on_its_way() {
    let mut board = board(10);
    let lease = grant(&mut board, "p");
    load(&mut board, &lease, page_with_more(&["a"]));
    assert_eq!(turns(&mut board), ["p/a"]);
    board.answered(&lease, 0);
    assert_eq!(board.pages(NOW).len(), 1);
    board.refused(&lease, &"a".into(), 0, Duration::from_secs(1));
    // The page shows the item as it was, and others, which would fare no better.
    board.page_loaded(&lease, page(&["a", "b"]));
    assert!(turns(&mut board).is_empty());
    board.freshen(true);
    assert!(board.pages(NOW).is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    board.freshen(false);
    load(&mut board, &lease, page(&["a", "b"]));
    assert_eq!(turns(&mut board), ["p/a", "p/b"]);
    board.answered(&lease, 0);
    board.refused(&lease, &"a".into(), 0, Duration::from_secs(1));
    // Nor is it read because another item comes back.
    board.given_up(&lease, "b");
    assert!(board.pages(NOW).is_empty());
}
