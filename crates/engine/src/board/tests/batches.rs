use super::*;

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
