//! Gate by gate; loops and ways back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gatefeed_core::answer::{Answer, Next};

use crate::{
    db::{Db, watcher, within},
    record::{Log, What},
};

on_both! {
    gate_by_gate
    a_loop_at_one_gate
    retry_after_delays_the_next_delivery
    a_way_back_and_a_way_ahead
    a_late_item_is_delivered_at_once
}

const GATES: [i32; 4] = [0, 1, 7, 1_000_000];

async fn gate_by_gate(db: Arc<Db>) {
    let mut items = Vec::new();
    for partition in ["p", "q", "r"] {
        for gate in GATES {
            for n in 0..5 {
                items.push((partition.to_owned(), format!("{gate}-{n}"), gate));
            }
        }
        // In reverse, so that the order of insertion helps nobody.
        let own = items.iter().rev().filter(|(p, _, _)| p == partition);
        let own: Vec<_> = own.map(|(_, id, gate)| (id.as_str(), *gate)).collect();
        db.push(partition, &own).await;
    }
    let log = Log::new();
    let processor = log.processor(async |delivery| {
        // The last of a gate takes longest.
        let millis = if delivery.item.ends_with("-4") { 30 } else { 1 };
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok(Answer::done())
    });
    let finished = within("idle", watcher(db.another().await).processor(processor).run()).await.unwrap();
    assert!(!finished.failed);
    log.assert_once(60);
    log.assert_barrier(&items);
    for partition in ["p", "q", "r"] {
        db.assert_complete(partition, 20).await;
        assert_eq!(db.partition(partition).await.gate, 1_000_000);
    }
}

async fn a_loop_at_one_gate(db: Arc<Db>) {
    db.push("p", &[("loop", 3), ("after", 4)]).await;
    let log = Log::new();
    let processor = log.processor(async |delivery| {
        let goes_on = &*delivery.item == "loop" && delivery.pass < 20;
        let next = if goes_on { Next::Again { gate: None, after: None } } else { Next::Done };
        Ok(Answer { next, ..Answer::default() })
    });
    within("idle", watcher(db.another().await).processor(processor).run()).await.unwrap();
    let passes: Vec<_> = log
        .of(What::Began)
        .iter()
        .filter(|e| e.item == "loop")
        .map(|e| (e.gate, e.pass, e.attempt))
        .collect();
    assert_eq!(passes, (0..=20).map(|pass| (3, pass, 1)).collect::<Vec<_>>());
    assert_eq!(log.of(What::Began).last().unwrap().item, "after");
    db.assert_complete("p", 2).await;
}

async fn retry_after_delays_the_next_delivery(db: Arc<Db>) {
    let delay = Duration::from_millis(400);
    db.push("p", &[("i", 0)]).await;
    let log = Log::new();
    let processor = log.processor(move |delivery| async move {
        Ok(if delivery.pass == 0 { Answer::again_after(delay) } else { Answer::done() })
    });
    let began = Instant::now();
    within("idle", watcher(db.another().await).processor(processor).run()).await.unwrap();
    assert_eq!(log.gates("i"), [0, 0]);
    let second = log.of(What::Began)[1].at;
    // SQLite's clock has milliseconds.
    assert!(second - began >= delay - Duration::from_millis(2), "after {:?}", second - began);
    db.assert_complete("p", 1).await;
}

async fn a_way_back_and_a_way_ahead(db: Arc<Db>) {
    db.push("p", &[("back", 2), ("ahead", 2), ("last", 9)]).await;
    let log = Log::new();
    let processor = log.processor(async |delivery| {
        Ok(match (&*delivery.item, delivery.gate) {
            ("back", 2) => Answer::to_gate(0),
            ("back", 0) => Answer::to_gate(1),
            ("ahead", 2) => Answer::to_gate(9),
            _ => Answer::done(),
        })
    });
    within("idle", watcher(db.another().await).processor(processor).run()).await.unwrap();
    assert_eq!(log.gates("back"), [2, 0, 1]);
    assert_eq!(log.gates("ahead"), [2, 9]);
    let order = log.of(What::Began);
    let at = |item: &str, gate| order.iter().position(|e| e.item == item && e.gate == gate).unwrap();
    assert!(at("back", 1) < at("ahead", 9).min(at("last", 9)), "{order:?}");
    db.assert_complete("p", 3).await;
    assert_eq!(db.item("p", "back").await.gate, 1);
}

/// At a gate that is passed: while the partition is held, and when it is complete.
async fn a_late_item_is_delivered_at_once(db: Arc<Db>) {
    db.push("p", &[("one", 0), ("two", 5)]).await;
    let log = Log::new();
    let pushing = db.clone();
    let processor = log.processor(move |delivery| {
        let db = pushing.clone();
        async move {
            if &*delivery.item == "two" {
                db.push("p", &[("late", 0), ("next", 6)]).await;
            }
            Ok(Answer::done())
        }
    });
    within("idle", watcher(db.another().await).processor(processor).run()).await.unwrap();
    let order: Vec<_> = log.of(What::Began).into_iter().map(|e| e.item).collect();
    assert_eq!(order, ["one", "two", "late", "next"]);

    db.push("p", &[("later", 0)]).await;
    let processor = log.processor(async |_| Ok(Answer::done()));
    within("idle again", watcher(db.another().await).processor(processor).run()).await.unwrap();
    log.assert_once(5);
    db.assert_complete("p", 5).await;
    assert_eq!(db.partition("p").await.gate, 6);
}
