//! Partitions that are made with a key, again and again.

use std::sync::Arc;

use gatefeed_core::partition::NewPartition;
use serde_json::json;

use crate::place::Place;

on_both!(
    a_key_makes_a_partition_once a_key_used_for_another_partition_is_refused
    a_key_adds_items_to_a_named_partition_once
);

const BODY: &str = r#"{"priority": 2, "manual_checkpoint": true,
    "items": [{"data": 1}, {"id": "a", "data": 2}, {"data": 3, "gate": 1}]}"#;

async fn a_key_makes_a_partition_once(place: Arc<Place>) {
    let keyed = place.client().with("Idempotency-Key", "k");
    let first = keyed.post("/v1/partitions", BODY).await;
    assert_eq!((first.status, &first.json()["added"]), (201, &3.into()), "{first:?}");
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let partition = first.json()["partition"].clone();
    // Neither what is done with it nor what is added changes that.
    place.store.seal(partition.as_str().unwrap()).await.unwrap();
    for _ in 0..3 {
        let again = keyed.post("/v1/partitions", BODY).await;
        assert_eq!((again.status, again.headers["idempotency-replayed"].as_str()), (201, "true"));
        assert_eq!(again.headers["location"], first.headers["location"]);
        assert_eq!(
            again.json(),
            json!({"partition": partition, "created": false, "added": 0, "existing": 3})
        );
    }
    let items = keyed.get(&format!("{}/items", first.headers["location"])).await.json();
    assert_eq!(items["items"].as_array().unwrap().len(), 3);
    // At the same time, too.
    let keyed = place.client().with("Idempotency-Key", "race");
    let posts = (0..8).map(|_| {
        let keyed = keyed.clone();
        tokio::spawn(async move { keyed.post("/v1/partitions", BODY).await })
    });
    let mut made = 0;
    for post in posts.collect::<Vec<_>>() {
        let answer = post.await.unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        made += usize::from(!answer.headers.contains_key("idempotency-replayed"));
    }
    assert_eq!(made, 1);
    let other = place.client().with("Idempotency-Key", "other").post("/v1/partitions", BODY).await;
    assert_ne!(other.json()["partition"], partition);
}

async fn a_key_used_for_another_partition_is_refused(place: Arc<Place>) {
    let keyed = place.client().with("Idempotency-Key", "k");
    let first = keyed.post("/v1/partitions", BODY).await;
    for other in [
        r#"{"priority": 3, "items": [{"data": 1}]}"#,
        r#"{"priority": 2, "feed": "x"}"#,
        r#"{"priority": 2, "items": [{"data": 1}, {"id": "a", "data": 2}, {"data": 3}, {"data": 4}]}"#,
        r#"{"priority": 2, "manual_checkpoint": true, "items": [{"id": "b", "data": 1}]}"#,
    ] {
        let answer = keyed.post("/v1/partitions", other).await;
        assert_eq!(answer.problem(), (409, "refused".into()), "{other}");
    }
    let items = keyed.get(&format!("{}/items", first.headers["location"])).await.json();
    assert_eq!(items["items"].as_array().unwrap().len(), 3);
}

async fn a_key_adds_items_to_a_named_partition_once(place: Arc<Place>) {
    place.store.push(&NewPartition::new("p"), &[]).await.unwrap();
    let keyed = place.client().with("Idempotency-Key", "k");
    let body = r#"{"id": "p", "items": [{"data": 1}, {"data": 2}]}"#;
    let first = keyed.post("/v1/partitions", body).await;
    assert_eq!((first.status, &first.json()["added"]), (200, &2.into()), "{first:?}");
    let again = keyed.post("/v1/partitions", body).await;
    assert_eq!((again.status, again.headers["idempotency-replayed"].as_str()), (200, "true"));
    assert_eq!(again.json()["existing"], 2);
    let more = r#"{"id": "p", "items": [{"data": 1}, {"data": 2}, {"data": 3}]}"#;
    assert_eq!(keyed.post("/v1/partitions", more).await.problem().0, 409);
    let other = place.client().with("Idempotency-Key", "l").post("/v1/partitions", body).await;
    assert_eq!((other.status, &other.json()["added"]), (200, &2.into()));
}
