//! Clean stop: nothing new, what is in flight ends or is given back, leases are free at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gatefeed_core::{answer::Answer, item::ItemStatus, partition::PartitionStatus};
use gatefeed_engine::Finished;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    db::{Db, watcher, within},
    record::{Log, What},
};

on_both! {
    what_is_in_flight_ends_and_nothing_begins
    under_load_nothing_is_delivered_twice
    hanging_deliveries_are_given_back_after_the_grace
    the_lease_is_kept_while_draining
    stopped_before_it_began
    no_task_is_left_after_a_run_and_an_item_is_none
}

const PARTITIONS: [&str; 3] = ["p", "q", "r"];

async fn what_is_in_flight_ends_and_nothing_begins(db: Arc<Db>) {
    for partition in PARTITIONS {
        db.push_many(partition, 20).await;
    }
    let log = Log::new();
    let (processor, released) = log.held();
    let shutdown = CancellationToken::new();
    let first = watcher(db.another().await).until_idle(false).concurrency(8).shutdown(shutdown.clone());
    let run = tokio::spawn(first.processor(processor).run());
    log.until_in_flight(8).await;
    shutdown.cancel();
    released.add_permits(1000);
    assert_eq!(within("stop", run).await.unwrap().unwrap(), Finished::default());

    assert_eq!((log.count(What::Began), log.count(What::Accepted)), (8, 8), "none began after the stop");
    let mut written = 0;
    for partition in PARTITIONS {
        written += db.items(partition).await.iter().filter(|row| row.status == ItemStatus::Complete).count();
    }
    assert_eq!(written, 8);
    assert_eq!(db.free_now().await, PARTITIONS.map(|partition| (partition.to_owned(), 0)));

    let second = watcher(db.another().await).processor(log.processor(async |_| Ok(Answer::done())));
    within("idle", second.run()).await.unwrap();
    log.assert_once(60);
}

async fn under_load_nothing_is_delivered_twice(db: Arc<Db>) {
    for partition in PARTITIONS {
        db.push_many(partition, 200).await;
    }
    let log = Log::new();
    let work = async |_| {
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..4))).await;
        Ok(Answer::done())
    };
    for stop_at in [50, 150, 250] {
        let shutdown = CancellationToken::new();
        let builder = watcher(db.another().await).until_idle(false).shutdown(shutdown.clone());
        let run = tokio::spawn(builder.processor(log.processor(work)).run());
        log.until("some deliveries", |events| events.len() > 2 * stop_at).await;
        shutdown.cancel();
        within("stop", run).await.unwrap().unwrap();
        let mut open = Vec::new();
        for partition in PARTITIONS {
            let row = db.partition(partition).await;
            assert_eq!(row.owner, None, "{partition}");
            open.extend((row.status == PartitionStatus::Available).then(|| (partition.to_owned(), 0)));
        }
        assert_eq!(db.free_now().await, open);
    }
    within("idle", watcher(db.another().await).processor(log.processor(work)).run()).await.unwrap();
    log.assert_once(600);
    for partition in PARTITIONS {
        db.assert_complete(partition, 200).await;
    }
}

async fn hanging_deliveries_are_given_back_after_the_grace(db: Arc<Db>) {
    let grace = Duration::from_millis(300);
    db.push_many("p", 5).await;
    let log = Log::new();
    let processor = log.processor(async |delivery| match &*delivery.item {
        "i000" => Ok(Answer::done()),
        _ => std::future::pending().await,
    });
    let shutdown = CancellationToken::new();
    let builder = watcher(db.another().await).until_idle(false).grace(grace).shutdown(shutdown.clone());
    let run = tokio::spawn(builder.processor(processor).run());
    log.until("all but one hang", |events| events.len() == 6).await;
    let stopped = Instant::now();
    shutdown.cancel();
    within("stop", run).await.unwrap().unwrap();
    assert!(stopped.elapsed() >= grace);
    assert_eq!((log.count(What::Accepted), log.count(What::Dropped)), (1, 4));
    assert_eq!(db.free_now().await, [("p".to_owned(), 0)]);
    for row in &db.items("p").await[1..] {
        let seen = (row.status, row.pass, row.retry_count, row.error_messages.as_deref());
        assert_eq!(seen, (ItemStatus::Available, 0, 0, None));
    }

    let log = Log::new();
    let second = watcher(db.another().await).processor(log.processor(async |_| Ok(Answer::done())));
    within("idle", second.run()).await.unwrap();
    log.assert_once(4);
    db.assert_complete("p", 5).await;
}

async fn the_lease_is_kept_while_draining(db: Arc<Db>) {
    let lease = Duration::from_secs(1);
    db.push("p", &[("i", 0)]).await;
    let [log_a, log_b] = [Log::new(), Log::new()];
    let long = log_a.processor(move |_| async move {
        tokio::time::sleep(lease * 5 / 2).await;
        Ok(Answer::done())
    });
    let shutdown = CancellationToken::new();
    let a = watcher(db.another().await).until_idle(false).lease_duration(lease).shutdown(shutdown.clone());
    let a = tokio::spawn(a.processor(long).run());
    log_a.until_in_flight(1).await;
    shutdown.cancel();
    let b = watcher(db.another().await).processor(log_b.processor(async |_| Ok(Answer::done())));
    within("B is idle", b.run()).await.unwrap();
    within("A has stopped", a).await.unwrap().unwrap();
    log_a.assert_once(1);
    log_b.assert_once(0);
    db.assert_complete("p", 1).await;
}

async fn stopped_before_it_began(db: Arc<Db>) {
    db.push_many("p", 5).await;
    let log = Log::new();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let builder = watcher(db.another().await).shutdown(shutdown);
    let run = builder.processor(log.processor(async |_| Ok(Answer::done()))).run();
    within("stop", run).await.unwrap();
    log.assert_once(0);
    assert_eq!(db.free_now().await, [("p".to_owned(), 0)]);
}

/// However many items are due and however often it runs: a task for each that is in flight, and none when it has ended.
async fn no_task_is_left_after_a_run_and_an_item_is_none(db: Arc<Db>) {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let store = db.another().await;
    // The store's own come with its first calls.
    let idle = async || {
        let (log, idle) = (Log::new(), watcher(store.clone()));
        within("idle", idle.processor(log.processor(async |_| Ok(Answer::done()))).run()).await.unwrap();
    };
    idle().await;
    let at_rest = async |most: usize| {
        let met = async {
            while tasks() > most {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(10), met).await.is_ok(),
            "{} tasks of {most}",
            tasks()
        );
    };
    idle().await;
    let before = tasks();
    for partition in PARTITIONS {
        db.push_many(partition, 400).await;
        let log = Log::new();
        let (processor, released) = log.held();
        let run = tokio::spawn(watcher(store.clone()).concurrency(8).processor(processor).run());
        log.until_in_flight(8).await;
        assert!(
            tasks() <= before + 8 + 30,
            "{} tasks, {before} before, with 400 items and 8 in flight",
            tasks()
        );
        released.add_permits(1000);
        within("idle", run).await.unwrap().unwrap();
        at_rest(before).await;
    }
}
