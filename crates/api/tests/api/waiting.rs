//! Waiting for the end of a partition or item.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gatefeed_core::{
    item::{Data, NewItem},
    partition::NewPartition,
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use crate::place::{Place, calls::Calls, open};

on_both!(
    a_wait_ends_with_its_time events_tell_until_the_end events_are_told_to_everybody there_is_room_for_so_many
    ; on one thread: a_wait_ends_with_the_partition waits_end_with_the_server
);

async fn push(place: &Place) {
    place.store.push(&NewPartition::new("p"), &[NewItem::new("p", "i", Data::json("1"))]).await.unwrap();
}

async fn a_wait_ends_with_the_partition(place: Arc<Place>) {
    push(&place).await;
    let calls = Calls::count();
    let (client, other) = (place.client(), place.client().with("Prefer", "wait=100"));
    let partition = tokio::spawn(async move { client.get("/v1/partitions/p?wait=100s").await });
    let item = tokio::spawn(async move { other.get("/v1/partitions/p/items/i").await });
    until_both_wait(&calls).await;
    place.store.cancel("p").await.unwrap();
    assert_eq!(partition.await.unwrap().json()["status"], "cancelled");
    assert_eq!(item.await.unwrap().json()["status"], "cancelled");
}

/// Each has looked by itself, and has gone on to wait in the same breath.
async fn until_both_wait(calls: &Calls) {
    calls.until("glance", 1).await;
    calls.until("items", 1).await;
}

async fn a_wait_ends_with_its_time(place: Arc<Place>) {
    push(&place).await;
    let client = place.client();
    assert_eq!(client.get("/v1/partitions/p?wait=50ms").await.json()["status"], "available");
    assert_eq!(client.get("/v1/partitions/p/items/i?wait=0").await.json()["status"], "available");
    assert_eq!(client.get("/v1/partitions/p?wait=soon").await.problem().0, 400);
    assert_eq!(client.get("/v1/partitions/q?wait=10").await.problem().0, 404);
}

async fn events_tell_until_the_end(place: Arc<Place>) {
    push(&place).await;
    let events = place.client().follow("p").await;
    place.store.cancel("p").await.unwrap();
    let events = events.whole().await;
    assert_eq!(events.headers["content-type"], "text/event-stream");
    let text = events.text();
    let last = text.trim().rsplit("\n\n").next().unwrap();
    let (name, data) = last.split_once('\n').unwrap();
    let data: serde_json::Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((name, &data["status"]), ("event: end", &"cancelled".into()), "{text}");
    assert_eq!(data["gates"][0]["cancelled"], 1);
}

/// Those that come later are told where it is, although nothing has changed.
async fn events_are_told_to_everybody(place: Arc<Place>) {
    push(&place).await;
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(place.client().follow("p").await);
    }
    place.store.cancel("p").await.unwrap();
    for events in all {
        let text = events.whole().await.text();
        assert!(text.starts_with("event: progress\n"), "{text}");
        assert_eq!(text.matches("event: end\n").count(), 1, "{text}");
    }
}

/// With the state of things, not with a connection that is cut.
async fn waits_end_with_the_server(place: Arc<Place>) {
    push(&place).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = place.client().at(listener.local_addr().unwrap());
    let router = gatefeed_api::api(Arc::clone(&place.store), open());
    let server = tokio::spawn(gatefeed_api::serve(listener, router, async {
        _ = stopped.await;
    }));
    let calls = Calls::count();
    let waits = ["/v1/partitions/p?wait=100s", "/v1/partitions/p/items/i?wait=100s"].map(|path| {
        let client = client.clone();
        tokio::spawn(async move { client.get(path).await })
    });
    until_both_wait(&calls).await;
    let events = client.follow("p").await;
    stop.send(()).unwrap();
    for wait in waits {
        let answer = wait.await.unwrap();
        assert_eq!((answer.status, &answer.json()["status"]), (200, &"available".into()), "{answer:?}");
    }
    let events = events.whole().await;
    assert!(events.status == 200 && events.is_whole && !events.text().contains("event: end"), "{events:?}");
    tokio::time::timeout(Duration::from_secs(20), server).await.expect("ends in time").unwrap();
}

/// Waits and events together; whoever comes beyond is told when to come again, and room is made by those that go.
async fn there_is_room_for_so_many(place: Arc<Place>) {
    push(&place).await;
    let mut waiting = Vec::new();
    // Some more, since the requests below may take the last rooms before they come.
    for number in 0..264 {
        let mut stream = TcpStream::connect(place.address).await.unwrap();
        let what = if number % 2 == 0 { "?wait=100s" } else { "/events" };
        let request = format!("GET /v1/partitions/p{what} HTTP/1.1\r\nHost: {}\r\n\r\n", place.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    let client = place.client();
    let full = loop {
        let answer = client.get("/v1/partitions/p?wait=1ms").await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!((full.problem(), full.headers["retry-after"].as_str()), ((503, "busy".into()), "1"));
    assert_eq!(client.get("/v1/partitions/p/events").await.problem().0, 503);
    assert_eq!(client.get("/v1/partitions/p").await.status, 200, "others are served");
    waiting.truncate(200);
    while client.get("/v1/partitions/p?wait=1ms").await.status != 200 {}
}

/// However many wait, and for however many partitions and items.
#[tokio::test(flavor = "current_thread")]
async fn all_that_is_waited_for_is_looked_at_together() {
    let calls = Calls::count();
    let place = Place::sqlite().await;
    let items: Vec<_> = (0..200).map(|n| NewItem::new("p", format!("i{n}"), Data::json("1"))).collect();
    place.store.push(&NewPartition::new("p"), &items).await.unwrap();
    let waits: Vec<_> = (0..200)
        .map(|n| {
            let client = place.client();
            tokio::spawn(async move { client.get(&format!("/v1/partitions/p/items/i{n}?wait=100s")).await })
        })
        .collect();
    // Each looks once by itself.
    calls.until("items", 200).await;
    let (before, looks, started) = (calls.all(), calls.of("ended"), Instant::now());
    calls.until("ended", looks + 5).await;
    let made = calls.all() - before;
    assert!((5..=30).contains(&made), "{made} calls for five looks");
    assert!(started.elapsed() >= Duration::from_millis(800), "five looks within {:?}", started.elapsed());
    place.store.cancel("p").await.unwrap();
    for wait in waits {
        assert_eq!(wait.await.unwrap().json()["status"], "cancelled");
    }
}
