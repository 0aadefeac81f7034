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
