//! Dependencies: delivered in their order, without waiting for a poll or for what stands beside them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gatefeed_core::{
    answer::{Answer, Child},
    dependency::{Dependencies, Input},
    item::{Data, NewItem},
    partition::NewPartition,
};
use gatefeed_engine::Delivery;
use tokio::sync::Notify;

use crate::db::{Db, child, item, watcher, within};

on_both! {
    a_tree_of_next_jobs
    a_chain_goes_on_beside_a_slow_item
    a_bad_dependency_is_a_failed_attempt
}

/// Nothing here may wait for that.
const NEVER: Duration = Duration::from_secs(3600);

fn next(id: &str, on: &str) -> Child {
    let dependencies = Dependencies { input: Input::Parent, ..Dependencies::on([on]) };
    Child { id: Some(id.into()), dependencies, ..child(None) }
}

async fn a_tree_of_next_jobs(db: Arc<Db>) {
    db.push("p", &[("pre", 0), ("last", 1)]).await;
    let order: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = order.clone();
    let processor = move |delivery: Delivery| {
        let text = String::from_utf8(delivery.data.to_vec()).unwrap();
        seen.lock().unwrap().push(delivery.item.to_string());
        async move {
            let output = Data::json(format!("[{text},\"{}\"]", delivery.item));
            let answer = Answer::done().with_data(output);
            Ok(match &*delivery.item {
                "pre" => ["compute", "upload"]
                    .into_iter()
                    .zip(["pre", "compute"])
                    .fold(answer, |answer, (id, on)| answer.with_item(next(id, on))),
                "upload" => ["clean", "mail"]
                    .into_iter()
                    .fold(answer, |answer, id| answer.with_item(next(id, "upload"))),
                _ => answer,
            })
        }
    };
    let run = watcher(db.another().await).poll_interval(NEVER).processor(processor).run();
    within("idle", run).await.unwrap();
    db.assert_complete("p", 6).await;
    let order = order.lock().unwrap().clone();
    assert_eq!(
        (&order[..3], &order[5]),
        (&["pre", "compute", "upload"].map(String::from)[..], &"last".to_owned())
    );
    let mail = db.item("p", "mail").await.data.unwrap();
    assert_eq!(String::from_utf8(mail).unwrap(), r#"[[[[{"id":"pre"},"pre"],"compute"],"upload"],"mail"]"#);
}

async fn a_chain_goes_on_beside_a_slow_item(db: Arc<Db>) {
    let ids: Vec<_> = (0..20).map(|n| format!("i{n:02}")).collect();
    let after = |on: &str, id: &str| NewItem { dependencies: Dependencies::on([on]), ..item("p", id, 0) };
    let mut items: Vec<_> = ids.windows(2).map(|pair| after(&pair[0], &pair[1])).collect();
    items.extend([item("p", "i00", 0), item("p", "slow", 0)]);
    db.store.push(&NewPartition::new("p"), &items).await.unwrap();
    let over = Arc::new(Notify::new());
    let processor = move |delivery: Delivery| {
        let over = over.clone();
        async move {
            match &*delivery.item {
                "slow" => over.notified().await,
                "i19" => over.notify_one(),
                _ => {}
            }
            Ok(Answer::done())
        }
    };
    let run = watcher(db.another().await).poll_interval(NEVER).processor(processor).run();
    within("idle", run).await.unwrap();
    db.assert_complete("p", 21).await;
}

async fn a_bad_dependency_is_a_failed_attempt(db: Arc<Db>) {
    db.push("p", &[("i", 0), ("other", 0)]).await;
    let processor = |delivery: Delivery| async move {
        let answer = Answer::done();
        Ok(if &*delivery.item == "i" { answer.with_item(next("c", "nobody")) } else { answer })
    };
    let run = watcher(db.another().await).processor(processor).run();
    assert!(within("idle", run).await.unwrap().failed);
    let failed = db.item("p", "i").await;
    let error = failed.error_messages.unwrap();
    assert!(error.contains("the database refused the answer") && error.contains("nobody"), "{error}");
    assert_eq!(db.items("p").await.len(), 2);
}
