//! Waiting for the end of a partition or item.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    item::{Data, NewItem},
    partition::NewPartition,
};

use crate::place::Place;

on_both!(a_wait_ends_with_the_partition a_wait_ends_with_its_time events_tell_until_the_end);

async fn push(place: &Place) {
    place.store.push(&NewPartition::new("p"), &[NewItem::new("p", "i", Data::json("1"))]).await.unwrap();
}

async fn a_wait_ends_with_the_partition(place: Arc<Place>) {
    push(&place).await;
    let (client, other) = (place.client(), place.client().with("Prefer", "wait=100"));
    let partition = tokio::spawn(async move { client.get("/v1/partitions/p?wait=100s").await });
    let item = tokio::spawn(async move { other.get("/v1/partitions/p/items/i").await });
    // Both wait before it ends, unless the machine is slow; then there is nothing to wait for, which is fine too.
    tokio::time::sleep(Duration::from_millis(100)).await;
    place.store.cancel("p").await.unwrap();
    assert_eq!(partition.await.unwrap().json()["status"], "cancelled");
    assert_eq!(item.await.unwrap().json()["status"], "cancelled");
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
    let client = place.client();
    let events = tokio::spawn(async move { client.get("/v1/partitions/p/events").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    place.store.cancel("p").await.unwrap();
    let events = events.await.unwrap();
    assert_eq!(events.headers["content-type"], "text/event-stream");
    let text = events.text();
    let last = text.trim().rsplit("\n\n").next().unwrap();
    let (name, data) = last.split_once('\n').unwrap();
    let data: serde_json::Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((name, &data["status"]), ("event: end", &"cancelled".into()), "{text}");
    assert_eq!(data["gates"][0]["cancelled"], 1);
}
