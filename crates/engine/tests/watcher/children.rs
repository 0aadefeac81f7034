//! Fan-out: what an answer adds is delivered too, and added once.

use std::sync::Arc;

use gatefeed_core::{
    answer::{Answer, Child, Verdict},
    id::child_id,
};
use gatefeed_engine::Delivery;
use gatefeed_testkit::faults::{Call, Fault, FaultStore};

use crate::{
    db::{Db, child, watcher, within},
    record::{Log, What},
};

on_both! {
    children_are_delivered_too
    a_later_pass_adds_its_own
    a_lost_reply_adds_nothing_twice
    a_death_after_the_write_adds_nothing_twice
    a_death_before_the_write_loses_nothing
}

async fn root_has_children(delivery: Delivery) -> Verdict {
    if &*delivery.item != "root" {
        return Ok(Answer::done());
    }
    let elsewhere = |id: Option<&str>| Child {
        partition: Some("elsewhere".into()),
        id: id.map(str::to_owned),
        ..child(None)
    };
    Ok(Answer::done()
        .with_item(child(None))
        .with_item(child(Some(9)))
        .with_item(elsewhere(None))
        .with_item(elsewhere(Some("named"))))
}

/// (partition, id, gate) of everything there is in the end.
fn family() -> Vec<(&'static str, String, i32)> {
    let derived = |index| child_id("p", "root", 0, index);
    vec![
        ("p", "root".into(), 4),
        ("p", "aunt".into(), 6),
        ("p", derived(0), 4),
        ("p", derived(1), 9),
        ("elsewhere", derived(2), 0),
        ("elsewhere", "named".into(), 0),
    ]
}

async fn assert_family(db: &Db) {
    let mut expected = family();
    let mut found = Vec::new();
    for (partition, count) in [("p", 4), ("elsewhere", 2)] {
        db.assert_complete(partition, count).await;
        found.extend(db.items(partition).await.into_iter().map(|row| (partition, row.id, row.gate)));
    }
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

async fn children_are_delivered_too(db: Arc<Db>) {
    db.push("p", &[("root", 4), ("aunt", 6)]).await;
    let log = Log::new();
    let run = watcher(db.another().await).processor(log.processor(root_has_children)).run();
    within("idle", run).await.unwrap();
    assert_family(&db).await;
    log.assert_once(6);
    let family = family().into_iter().map(|(partition, id, gate)| (partition.to_owned(), id, gate));
    log.assert_barrier(&family.collect::<Vec<_>>());
}

async fn a_later_pass_adds_its_own(db: Arc<Db>) {
    db.push("p", &[("root", 0)]).await;
    let log = Log::new();
    let processor = log.processor(async |d| match (&*d.item, d.gate) {
        ("root", 0) => Ok(Answer::to_gate(1).with_item(child(None))),
        ("root", _) => Ok(Answer::done().with_item(child(None))),
        _ => Ok(Answer::done()),
    });
    within("idle", watcher(db.another().await).processor(processor).run()).await.unwrap();
    let mut expected = vec![child_id("p", "root", 0, 0), child_id("p", "root", 1, 0), "root".to_owned()];
    expected.sort();
    assert_eq!(db.items("p").await.into_iter().map(|row| row.id).collect::<Vec<_>>(), expected);
    db.assert_complete("p", 3).await;
    assert_eq!(log.count(What::Accepted), 4);
}

async fn a_lost_reply_adds_nothing_twice(db: Arc<Db>) {
    db.push("p", &[("root", 4), ("aunt", 6)]).await;
    let store = FaultStore::with(db.another().await, |call, nth, _| match (call, nth) {
        (Call::Complete, 1 | 3) => Fault::Lose,
        _ => Fault::None,
    });
    let log = Log::new();
    let run = watcher(store.clone()).processor(log.processor(root_has_children)).run();
    within("idle", run).await.unwrap();
    assert!(store.count(Call::Complete) > 3);
    assert_family(&db).await;
    log.assert_once(6);
}

async fn a_death_after_the_write_adds_nothing_twice(db: Arc<Db>) {
    let log = die_at_the_first_write(&db, Fault::StopAfter).await;
    assert_eq!(log.gates("root"), [4], "its outcome was written");
    // A child may have been on its way already when the watcher died, and come again; it is the same one.
    let keys: std::collections::HashSet<_> = log.of(What::Began).iter().map(|event| event.key()).collect();
    assert_eq!(keys.len(), 6);
}

async fn a_death_before_the_write_loses_nothing(db: Arc<Db>) {
    let log = die_at_the_first_write(&db, Fault::StopBefore).await;
    assert_eq!(log.gates("root"), [4, 4]);
    assert_eq!(log.count(What::Began), 7);
}

async fn die_at_the_first_write(db: &Db, fault: Fault) -> Log {
    db.push("p", &[("root", 4), ("aunt", 6)]).await;
    let log = Log::new();
    let store = FaultStore::with(db.another().await, move |call, _, _| match call {
        Call::Complete => fault,
        _ => Fault::None,
    });
    let run = watcher(store.clone()).processor(log.processor(root_has_children)).run();
    tokio::select! {
        finished = run => panic!("survived: {finished:?}"),
        () = within("the first write", store.stopped()) => {}
    }
    store.expire().await.unwrap();
    let run = watcher(db.another().await).processor(log.processor(root_has_children)).run();
    within("idle", run).await.unwrap();
    assert_family(db).await;
    log
}
