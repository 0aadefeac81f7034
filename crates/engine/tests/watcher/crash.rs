//! Killed at every step: right before and right after each call that a watcher makes, another takes over.

use std::{sync::Arc, time::Duration};

use futures_util::{TryStreamExt, future::join_all};
use gatefeed_core::{
    Store,
    answer::{Answer, Child, Verdict},
    dependency::{Dependencies, Input},
    gather::{Ended, Gather},
    id::child_id,
    partition::NewPartition,
};
use gatefeed_engine::Delivery;
use gatefeed_testkit::faults::{Fault, FaultStore};

use crate::{
    db::{Db, child, watcher, within},
    record::Log,
};

on_both! { killed_at_every_step }

/// As many die at the same time, each in a feed of its own.
const TOGETHER: u64 = 8;
/// No run of this little work makes more calls.
const STEPS_MAX: u64 = 400;

async fn killed_at_every_step(db: Arc<Db>) {
    let stores = [db.another().await, db.another().await];
    let mut killed = 0;
    for first in (1..STEPS_MAX).step_by(TOGETHER as usize) {
        let deaths = (first..first + TOGETHER).flat_map(|n| [(n, Fault::StopBefore), (n, Fault::StopAfter)]);
        let deaths = deaths.map(|(n, fault)| die_and_recover(&db, &stores, n, fault));
        let dead = join_all(deaths).await.into_iter().filter(|was_killed| *was_killed).count();
        killed += dead;
        if dead == 0 {
            assert!(killed > 30, "too few steps to prove anything");
            return;
        }
    }
    panic!("never finished before its {STEPS_MAX}th call");
}

/// True if the watcher died; false if it was done before.
async fn die_and_recover(db: &Db, stores: &[Arc<dyn Store>; 2], n: u64, fault: Fault) -> bool {
    let feed = format!("{n:03}-{fault:?}");
    push(db, &feed).await;
    let log = Log::new();
    let store =
        FaultStore::with(stores[0].clone(), move |_, _, total| if total == n { fault } else { Fault::None });
    // A claim that was under way beside the fatal call may be granted unseen: that lease has to expire.
    let mortal = watcher(store.clone()).feeds(vec![feed.clone()]).lease_duration(Duration::from_secs(1));
    let was_killed = tokio::select! {
        finished = mortal.processor(log.processor(work)).run() => { finished.unwrap(); false }
        () = within("the end of the first watcher", store.stopped()) => true,
    };
    store.expire().await.unwrap();
    let heir = watcher(stores[1].clone()).feeds(vec![feed.clone()]).processor(log.processor(work));
    assert!(!within(&feed, heir.run()).await.unwrap().failed);
    assert_whole(db, &feed, &log).await;
    was_killed
}

async fn push(db: &Db, feed: &str) {
    let [a, b] = ["a", "b"]
        .map(|name| NewPartition { feed: feed.into(), ..NewPartition::new(format!("{feed}-{name}")) });
    db.push_to(&a, &[("x", 0), ("y", 0), ("z", 3)]).await;
    db.push_to(&b, &[("mover", 0), ("next", 1)]).await;
}

/// `x` has children at a higher gate and in another partition; `y` has one that takes its data, and one that waits for
/// that and gathers it; `mover` fails once and changes its gate.
async fn work(delivery: Delivery) -> Verdict {
    let elsewhere = || Child { partition: Some(delivery.partition.replace("-a", "-c")), ..child(None) };
    match (&*delivery.item, delivery.gate, delivery.attempt) {
        ("x", ..) => Ok(Answer::done().with_item(child(Some(3))).with_item(elsewhere())),
        ("y", ..) => Ok(Answer::done().with_item(tail()).with_item(last())),
        ("last", ..) => gathers_tail(delivery).await,
        ("mover", 0, 1) => Err("once".into()),
        ("mover", 0, _) => Ok(Answer::to_gate(1)),
        _ => Ok(Answer::done()),
    }
}

fn tail() -> Child {
    let dependencies = Dependencies { input: Input::Parent, ..Dependencies::default() };
    Child { id: Some("tail".into()), dependencies, ..child(None) }
}

fn last() -> Child {
    let gather = Some(Gather { gate: 0, status: Ended::Complete });
    Child { id: Some("last".into()), dependencies: Dependencies::on(["tail"]), gather, ..child(None) }
}

async fn gathers_tail(delivery: Delivery) -> Verdict {
    let gathering = delivery.gathering.ok_or("nothing is gathered")?;
    let items: Vec<_> = gathering.stream().try_collect().await.map_err(|error| error.to_string())?;
    let tail = items.iter().find(|item| item.id == "tail").ok_or("delivered before what it depends on")?;
    if tail.data.bytes == r#"{"id":"y"}"# {
        Ok(Answer::done())
    } else {
        Err("the data is not its parent's".into())
    }
}

async fn assert_whole(db: &Db, feed: &str, log: &Log) {
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{feed}-{name}"));
    // Complete means delivered; the counts mean that no child came twice.
    db.assert_complete(&a, 6).await;
    db.assert_complete(&b, 2).await;
    db.assert_complete(&c, 1).await;
    let children = [child_id(&a, "x", 0, 0), child_id(&a, "x", 0, 1)];
    assert_eq!(db.items(&c).await[0].id, children[1]);
    let item = |partition: &str, id: &str, gate| (partition.to_owned(), id.to_owned(), gate);
    let items = [
        item(&a, "x", 0),
        item(&a, "y", 0),
        item(&a, "tail", 0),
        item(&a, "last", 0),
        item(&a, "z", 3),
        item(&a, &children[0], 3),
        item(&b, "mover", 0),
        item(&b, "next", 1),
    ];
    log.assert_barrier(&items);
}
