use super::*;

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

#[tokio::test(start_paused = true)]
async fn a_partition_whose_checkpoint_failed_is_read_meanwhile_and_checked_later() {
    let mut board = board(10);
    let p = grant(&mut board, "p");
    load(&mut board, &p, page(&[]));
    assert_eq!(board.checks(), std::slice::from_ref(&p));
    board.check_failed(&p, Duration::from_secs(60));
    assert!(board.checks().is_empty());
    let later = Instant::now() + Duration::from_secs(60);
    assert_eq!(board.next_rest_ends(), Some(later));
    tokio::time::advance(Duration::from_secs(1)).await;
    board.freshen(false);
    load(&mut board, &p, page(&["a"]));
    assert_eq!(turns(&mut board), ["p/a"]);
    written(&mut board, &p, "a", None);
    assert!(board.checks().is_empty());
    tokio::time::advance(Duration::from_secs(59)).await;
    board.freshen(false);
    assert_eq!(board.next_rest_ends(), None, "nothing is waited for twice");
    load(&mut board, &p, page(&[]));
    assert_eq!(board.checks(), [p]);
}
