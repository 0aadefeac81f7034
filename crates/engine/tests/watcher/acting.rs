//! What operators do while items are in flight.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    answer::{Answer, Verdict},
    item::{Data, ItemStatus},
    partition::{NewPartition, PartitionStatus},
};
use gatefeed_engine::Delivery;
use gatefeed_testkit::faults::{Call, Fault, FaultStore};

use crate::{
    db::{Db, watcher, within},
    record::{Log, What},
};

on_both! {
    paused_it_sends_nothing_more_and_lets_go
    cancelled_its_deliveries_are_aborted
    an_answer_after_a_cancellation_changes_nothing
    rewound_it_is_delivered_again_as_it_was
    a_gate_that_takes_too_long_stops
}

/// Waits until something in the database is so.
async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, met).await;
}

async fn paused_it_sends_nothing_more_and_lets_go(db: Arc<Db>) {
    let narrow = NewPartition { max_in_flight: Some(2), ..NewPartition::new("p") };
    db.push_to(&narrow, &[("a", 0), ("b", 0), ("c", 0), ("d", 0)]).await;
    let store = FaultStore::new(db.another().await);
    let log = Log::new();
    let (processor, released) = log.held();
    let run = tokio::spawn(watcher(store.clone()).processor(processor).run());
    log.until_in_flight(2).await;
    db.store.pause("p").await.unwrap();
    // The second look from now on began after the pause.
    let looks = store.returned(Call::Observe);
    until("it has looked", async || store.returned(Call::Observe) > looks + 1).await;
    assert_eq!(db.partition("p").await.epoch, 1, "it keeps the lease while something is in flight");
    released.add_permits(100);
    until("it has let go", async || db.partition("p").await.owner.is_none()).await;
    assert_eq!((log.count(What::Began), log.count(What::Accepted)), (2, 2));
    within("idle", run).await.unwrap().unwrap();

    db.store.resume("p").await.unwrap();
    let rest = watcher(db.another().await).processor(log.processor(async |_| Ok(Answer::done())));
    within("idle again", rest.run()).await.unwrap();
    log.assert_once(4);
    db.assert_complete("p", 4).await;
}

async fn cancelled_its_deliveries_are_aborted(db: Arc<Db>) {
    db.push("p", &[("a", 0), ("b", 0), ("c", 1)]).await;
    db.push("other", &[("i", 0)]).await;
    let log = Log::new();
    let hanging = log.processor(async |delivery| match &*delivery.partition {
        "p" => std::future::pending().await,
        _ => Ok(Answer::done()),
    });
    let run = tokio::spawn(watcher(db.another().await).processor(hanging).run());
    log.until("both hang", |events| events.iter().filter(|e| e.is(What::Began, "p")).count() == 2).await;
    assert_eq!(db.store.cancel("p").await.unwrap(), 3);
    log.until("both are aborted", |events| events.iter().filter(|e| e.is(What::Dropped, "p")).count() == 2)
        .await;
    assert!(!within("idle", run).await.unwrap().unwrap().failed);
    let items = db.items("p").await;
    assert!(items.iter().all(|row| row.status == ItemStatus::Cancelled && row.version == 1), "{items:?}");
    assert_eq!(db.partition("p").await.status, PartitionStatus::Cancelled);
    assert_eq!(log.count(What::Began), 3, "nothing of it is sent again");
    db.assert_complete("other", 1).await;
}

/// The owner has not looked yet: only the fence tells it.
async fn an_answer_after_a_cancellation_changes_nothing(db: Arc<Db>) {
    db.push("p", &[("a", 0), ("b", 1)]).await;
    let store = FaultStore::with(db.another().await, |call, _, _| match call {
        Call::Renew | Call::Observe => Fault::Hang(Duration::from_secs(3600)),
        _ => Fault::None,
    });
    let log = Log::new();
    let (processor, released) = log.held();
    let run = tokio::spawn(watcher(store.clone()).processor(processor).run());
    log.until_in_flight(1).await;
    db.store.cancel("p").await.unwrap();
    released.add_permits(100);
    within("idle", run).await.unwrap().unwrap();
    assert_eq!((log.count(What::Began), log.count(What::Accepted), store.count(Call::Complete)), (1, 1, 1));
    let statuses: Vec<_> = db.items("p").await.iter().map(|row| (row.status, row.pass)).collect();
    assert_eq!(statuses, [(ItemStatus::Cancelled, 0); 2]);
}

async fn rewound_it_is_delivered_again_as_it_was(db: Arc<Db>) {
    let keeping = NewPartition { keep_history: true, ..NewPartition::new("p") };
    db.push_to(&keeping, &[("a", 0), ("b", 0)]).await;
    let log = Log::new();
    // Under the first lease what comes to gate 1 hangs.
    let work = async |delivery: Delivery| -> Verdict {
        let original = format!("{{\"id\":\"{}\"}}", delivery.item);
        match (delivery.gate, delivery.epoch) {
            (0, _) if delivery.data == original => {
                Ok(Answer::to_gate(1).with_data(Data::json(format!("\"from pass {}\"", delivery.pass))))
            }
            (0, _) => Err("it is not as it came".into()),
            (_, 1) => std::future::pending().await,
            _ => Ok(Answer::done()),
        }
    };
    let run = tokio::spawn(watcher(db.another().await).processor(log.processor(work)).run());
    log.until("both hang", |events| {
        events.iter().filter(|e| e.what == What::Began && e.gate == 1).count() == 2
    })
    .await;
    let rewound = db.store.rewind("p", 0).await.unwrap();
    assert_eq!((rewound.items, rewound.removed), (2, 0));
    within("idle", run).await.unwrap().unwrap();
    assert_eq!((log.count(What::Dropped), log.count(What::Failed)), (2, 0));
    db.assert_complete("p", 2).await;
    assert_eq!((log.gates("a"), log.gates("b")), (vec![0, 1, 0, 1], vec![0, 1, 0, 1]));
    for row in db.items("p").await {
        // Accepted at gate 0, rewound, accepted twice.
        assert_eq!((row.pass, row.data.as_deref()), (4, Some(&b"\"from pass 2\""[..])), "{}", row.id);
    }
}

/// Its items come again for ever, and never are all of them at rest, so that only the clock ends it.
async fn a_gate_that_takes_too_long_stops(db: Arc<Db>) {
    let limited = NewPartition { gate_deadline: Some(Duration::from_secs(1)), ..NewPartition::new("p") };
    let busy = [("a3", 0), ("a5", 0), ("a7", 0), ("a11", 0), ("a13", 0)];
    db.push_to(&limited, &[&busy[..], &[("b", 1)]].concat()).await;
    let log = Log::new();
    let looping = log.processor(async |delivery: Delivery| {
        let time: u64 = delivery.item[1..].parse().unwrap();
        tokio::time::sleep(Duration::from_millis(10 * time)).await;
        Ok(Answer::to_gate(0))
    });
    let run = watcher(db.another().await).processor(looping).run();
    assert!(within("idle", run).await.unwrap().failed);
    let row = db.partition("p").await;
    assert_eq!((row.status, row.gate), (PartitionStatus::Failed, 0));
    assert!(row.reason.unwrap().contains("deadline of 1 s"));
    assert!(log.count(What::Began) > 10 && log.gates("b").is_empty());
    let run = watcher(db.another().await).processor(log.processor(async |_| Ok(Answer::done())));
    db.store.resume("p").await.unwrap();
    assert!(!within("idle again", run.run()).await.unwrap().failed);
    db.assert_complete("p", 6).await;
}
