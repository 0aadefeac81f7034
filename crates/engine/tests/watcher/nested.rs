//! Nested partitions: the item waits, and goes on as soon as they have closed.

use std::sync::{Arc, Mutex};

use gatefeed_core::{
    answer::{Answer, Verdict},
    id::nested_id,
    item::ItemStatus,
    nested::{DEPTH_MAX, Nested, Then},
    partition::PartitionStatus,
};
use gatefeed_engine::Delivery;

use crate::db::{Db, child, watcher, within};

on_both! {
    an_item_comes_again_with_what_became_of_them
    an_item_completes_with_them
    a_tree_as_deep_as_it_gets
    too_deep_is_a_failed_attempt
    an_id_that_is_taken_is_a_failed_attempt
}

fn nest(id: Option<&str>, items: usize) -> Nested {
    Nested { id: id.map(str::to_owned), feed: None, items: vec![child(None); items] }
}

async fn an_item_comes_again_with_what_became_of_them(db: Arc<Db>) {
    db.push("p", &[("i", 0), ("after", 1)]).await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    let processor = move |delivery: Delivery| {
        log.lock().unwrap().push(format!("{} {}", delivery.item, delivery.pass));
        async move {
            let answer = Answer::done();
            let verdict: Verdict = match (&*delivery.partition, &*delivery.item, delivery.pass) {
                ("p", "i", 0) => Ok(answer.with_partition(nest(None, 3)).with_partition(nest(Some("q"), 1))),
                ("q", ..) => Err(gatefeed_core::answer::Failure::final_("no")),
                _ => Ok(answer),
            };
            verdict
        }
    };
    let run = watcher(db.another().await).processor(processor).run();
    assert!(within("idle", run).await.unwrap().failed, "q has");
    db.assert_complete("p", 2).await;
    let derived = nested_id("p", "i", 0, 0);
    db.assert_complete(&derived, 3).await;
    let data = String::from_utf8(db.item("p", "i").await.data.unwrap()).unwrap();
    assert!(data.starts_with(r#"{"data":{"id":"i"},"partitions":[{"#), "{data}");
    assert!(
        data.contains(&format!(r#"{{"id":"{derived}","status":"complete","reason":null,"complete":3"#)),
        "{data}"
    );
    assert!(data.contains(r#"{"id":"q","status":"failed","reason":"an item at gate 0 is failed"#), "{data}");
    let seen = seen.lock().unwrap();
    let position = |what: &str| seen.iter().position(|seen| seen == what).unwrap();
    assert!(position("i 0") < position("i 1") && position("i 1") < position("after 0"), "{seen:?}");
    assert_eq!(seen.len(), 7);
}

async fn an_item_completes_with_them(db: Arc<Db>) {
    db.push("p", &[("i", 0)]).await;
    let processor = |delivery: Delivery| async move {
        let answer = Answer { then: Then::Complete, ..Answer::done() };
        Ok(if &*delivery.partition == "p" { answer.with_partition(nest(Some("q"), 20)) } else { answer })
    };
    let run = watcher(db.another().await).processor(processor).run();
    assert!(!within("idle", run).await.unwrap().failed);
    db.assert_complete("q", 20).await;
    db.assert_complete("p", 1).await;
    assert_eq!(db.item("p", "i").await.pass, 1, "delivered once");
}

async fn a_tree_as_deep_as_it_gets(db: Arc<Db>) {
    db.push("0", &[("i", 0)]).await;
    let run = watcher(db.another().await).processor(|delivery| dig(delivery, DEPTH_MAX)).run();
    assert!(!within("idle", run).await.unwrap().failed);
    for depth in 0..=DEPTH_MAX {
        db.assert_complete(&depth.to_string(), 1).await;
    }
}

async fn too_deep_is_a_failed_attempt(db: Arc<Db>) {
    db.push("0", &[("i", 0)]).await;
    let run = watcher(db.another().await).processor(|delivery| dig(delivery, DEPTH_MAX + 1)).run();
    assert!(within("idle", run).await.unwrap().failed);
    let deepest = db.items(&DEPTH_MAX.to_string()).await.remove(0);
    let error = deepest.error_messages.unwrap();
    assert!(error.contains("the database refused the answer") && error.contains("nested 8 deep"), "{error}");
    let item = db.item("0", "i").await;
    assert_eq!(item.status, ItemStatus::Failed, "as one under it has");
    assert!(item.error_messages.unwrap().starts_with("partition \"1\" is failed"));
}

/// Partition "3" nests "4", down to this depth.
async fn dig(delivery: Delivery, depth: i32) -> Verdict {
    let answer = Answer { then: Then::Complete, ..Answer::done() };
    let next: i32 = delivery.partition.parse::<i32>().unwrap() + 1;
    Ok(if next <= depth { answer.with_partition(nest(Some(&next.to_string()), 1)) } else { answer })
}

async fn an_id_that_is_taken_is_a_failed_attempt(db: Arc<Db>) {
    db.push("p", &[("i", 0)]).await;
    let answer = |_: Delivery| async { Ok(Answer::done().with_partition(nest(Some("p"), 1))) };
    let run = watcher(db.another().await).processor(answer).run();
    assert!(within("idle", run).await.unwrap().failed);
    let error = db.item("p", "i").await.error_messages.unwrap();
    assert!(error.contains("partition \"p\" exists already"), "{error}");
    assert_eq!(db.items("p").await.len(), 1);
    assert_eq!(db.partition("p").await.status, PartitionStatus::Failed);
}
