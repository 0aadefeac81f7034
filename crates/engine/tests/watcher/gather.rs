//! Gathering: in the library a stream, over HTTP a body, or a place to fetch it from.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::TryStreamExt;
use gatefeed_core::{
    answer::{Answer, Child},
    gather::{Ended, Gather},
    item::{Data, NewItem},
    partition::NewPartition,
};
use gatefeed_engine::{
    Delivery,
    dispatch::{HttpOptions, HttpProcessor, parse_target},
};
use gatefeed_testkit::{
    faults::{Call, Fault, FaultStore},
    handler::{Handler, Recorded, Reply},
};
use serde_json::{Value, json};

use crate::db::{Db, child, item, retries, watcher, within};

on_both! {
    a_processor_streams_what_came_before
    a_handler_gets_what_came_before
    what_is_too_much_is_fetched
    what_is_too_much_and_nowhere_to_be_fetched_fails
    what_takes_too_long_to_gather_gives_its_slot_away
}

const ANY: Gather = Gather { gate: 0, status: Ended::Any };

async fn push(db: &Db) {
    let image = Data { bytes: vec![0, 255].into(), content_type: "image/png".into() };
    let items = [
        item("p", "a", 0),
        NewItem::new("p", "b", image),
        NewItem { gather: Some(ANY), ..item("p", "sum", 1) },
    ];
    db.store.push(&NewPartition::new("p"), &items).await.unwrap();
}

async fn a_processor_streams_what_came_before(db: Arc<Db>) {
    push(&db).await;
    let seen: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
    let sums = seen.clone();
    let processor = move |delivery: Delivery| {
        let sums = sums.clone();
        async move {
            if let Some(gathering) = delivery.gathering {
                let items: Vec<_> = gathering.stream().try_collect().await.map_err(|e| e.to_string())?;
                sums.lock().unwrap().extend(items.into_iter().map(|i| (i.id, i.data.bytes.len())));
            }
            // What an answer adds gathers as well.
            let later = Child { gather: Some(Gather { gate: 1, status: Ended::Any }), ..child(Some(2)) };
            Ok(if &*delivery.item == "sum" { Answer::done().with_item(later) } else { Answer::done() })
        }
    };
    within("idle", watcher(db.another().await).processor(processor).run()).await.unwrap();
    db.assert_complete("p", 4).await;
    let seen = seen.lock().unwrap().clone();
    let expected = [("a", r#"{"id":"a"}"#.len()), ("b", 2), ("sum", r#"{"id":"sum"}"#.len())];
    assert_eq!(seen, expected.map(|(id, size)| (id.to_owned(), size)));
}

fn processor(handler: &Handler, change: impl FnOnce(&mut HttpOptions)) -> HttpProcessor {
    let mut options = HttpOptions::default();
    change(&mut options);
    HttpProcessor::new(vec![parse_target(&handler.url()).unwrap()], options).unwrap()
}

fn bodies(handler: &Handler, item: &str) -> Vec<(String, Value)> {
    let of = |request: &Recorded| request.header_text("gatefeed-item") == item;
    let body = |request: Recorded| {
        (request.header_text("content-type"), serde_json::from_slice(&request.body).unwrap())
    };
    handler.requests().into_iter().filter(of).map(body).collect()
}

async fn a_handler_gets_what_came_before(db: Arc<Db>) {
    push(&db).await;
    let handler = Handler::always(Reply::ok()).await;
    let run = watcher(db.another().await).processor(processor(&handler, |_| {})).run();
    within("idle", run).await.unwrap();
    let expected = json!({
        "data": {"id": "sum"},
        "gathered": [
            {"id": "a", "status": "complete", "data": {"id": "a"}},
            {"id": "b", "status": "complete", "data_base64": "AP8=", "content_type": "image/png"},
        ],
    });
    assert_eq!(bodies(&handler, "sum"), [("application/json".to_owned(), expected)]);
    db.assert_complete("p", 3).await;
}

async fn what_is_too_much_is_fetched(db: Arc<Db>) {
    push(&db).await;
    let handler = Handler::always(Reply::ok()).await;
    let options = |options: &mut HttpOptions| {
        options.gather_max = 50;
        options.public_url = Some("http://h:1/".parse().unwrap());
    };
    let run = watcher(db.another().await).processor(processor(&handler, options)).run();
    within("idle", run).await.unwrap();
    let url = "http://h:1/v1/partitions/p/gathered/0?status=any";
    let expected = json!({"data": {"id": "sum"}, "gathered_url": url});
    assert_eq!(bodies(&handler, "sum"), [("application/json".to_owned(), expected)]);
}

/// Whether it waits for the database or for the memory that others have: nobody was asked for anything, and no attempt
/// counts.
async fn what_takes_too_long_to_gather_gives_its_slot_away(db: Arc<Db>) {
    push(&db).await;
    let store = FaultStore::with(db.another().await, |call, nth, _| match (call, nth) {
        (Call::Gathered, 1) => Fault::Hang(Duration::from_secs(600)),
        _ => Fault::None,
    });
    let handler = Handler::always(Reply::ok()).await;
    let processor = processor(&handler, |options| options.request_timeout = Duration::from_millis(300));
    within("idle", watcher(store).processor(processor).run()).await.unwrap();
    db.assert_complete("p", 3).await;
    assert_eq!(bodies(&handler, "sum").len(), 1);
    let sum = db.item("p", "sum").await;
    assert_eq!(sum.retry_count, 0);
    assert!(sum.error_messages.unwrap().starts_with("could not be sent within 300ms"));
}

async fn what_is_too_much_and_nowhere_to_be_fetched_fails(db: Arc<Db>) {
    push(&db).await;
    let handler = Handler::always(Reply::ok()).await;
    let processor = processor(&handler, |options| options.gather_max = 50);
    let run = watcher(db.another().await).retry(retries(Some(0))).processor(processor).run();
    assert!(within("idle", run).await.unwrap().failed);
    let error = db.item("p", "sum").await.error_messages.unwrap();
    assert!(error.contains("more than 50 bytes (--gather-max)") && error.contains("--listen"), "{error}");
    assert_eq!(bodies(&handler, "sum"), []);
}
