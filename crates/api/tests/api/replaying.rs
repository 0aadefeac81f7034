//! Requests with a key that come again and again.

use std::{collections::HashSet, sync::Arc};

use gatefeed_core::{
    id::{posted_id, posted_item_id},
    partition::NewPartition,
};

use crate::place::{Answer, Client, Place};

on_both!(
    a_key_makes_a_partition_once a_key_used_for_another_partition_is_refused
    a_key_adds_items_to_a_named_partition_once a_key_adds_lines_once a_key_adds_the_parts_of_a_form_once
    a_key_counts_in_its_partition a_key_is_for_one_item_or_for_many
);

const BODY: &str = r#"{"priority": 2, "manual_checkpoint": true,
    "items": [{"data": 1}, {"id": "a", "data": 2}, {"data": 3, "gate": 1}]}"#;

const ITEMS: &str = "/v1/partitions/p/items";

/// The same answer, but for the header that says so.
fn assert_replayed(first: &Answer, again: &Answer) {
    assert!(!first.headers.contains_key("idempotency-replayed"), "{first:?}");
    assert_eq!(again.headers["idempotency-replayed"], "true", "{again:?}");
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(first.headers["location"], again.headers["location"]);
}

/// Ids, in order.
async fn ids(client: &Client, url: &str) -> Vec<String> {
    let page = client.get(url).await.json();
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

async fn lines(client: &Client, query: &str, body: &str) -> Answer {
    client.send("POST", &format!("{ITEMS}{query}"), Some("application/x-ndjson"), body.as_bytes()).await
}

/// With a boundary of its own, as a client's library chooses it.
async fn form(client: &Client, boundary: &str, parts: &[(&str, &str, &str)]) -> Answer {
    let part = |(name, content_type, data): &(&str, &str, &str)| {
        let name = format!("Content-Disposition: form-data; name=\"files\"; filename=\"{name}\"");
        format!("--{boundary}\r\n{name}\r\nContent-Type: {content_type}\r\n\r\n{data}\r\n")
    };
    let body = parts.iter().map(part).collect::<String>() + &format!("--{boundary}--\r\n");
    let content_type = format!("multipart/form-data; boundary={boundary}");
    client.send("POST", ITEMS, Some(&content_type), body.as_bytes()).await
}

async fn a_key_makes_a_partition_once(place: Arc<Place>) {
    let keyed = place.client().with("Idempotency-Key", "k");
    let first = keyed.post("/v1/partitions", BODY).await;
    assert_eq!((first.status, &first.json()["added"]), (201, &3.into()), "{first:?}");
    let partition = first.json()["partition"].clone();
    let (id, items) = (posted_id("", "k"), format!("{}/items", first.headers["location"]));
    assert_eq!(partition, id.as_str());
    let named = HashSet::from(["a".to_owned(), posted_item_id(&id, "k", 0), posted_item_id(&id, "k", 2)]);
    assert_eq!(HashSet::from_iter(ids(&keyed, &items).await), named);
    // Whatever is done with it, and in another server too.
    place.store.cancel(partition.as_str().unwrap()).await.unwrap();
    let another = place.serve(crate::place::open()).await.with("Idempotency-Key", "k");
    for client in [&keyed, &keyed, &another] {
        assert_replayed(&first, &client.post("/v1/partitions", BODY).await);
    }
    assert_eq!(ids(&keyed, &format!("{}/items", first.headers["location"])).await.len(), 3);
    // At the same time, too.
    let keyed = place.client().with("Idempotency-Key", "race");
    let posts = (0..8).map(|_| {
        let keyed = keyed.clone();
        tokio::spawn(async move { keyed.post("/v1/partitions", BODY).await })
    });
    let (mut made, mut bodies) = (0, Vec::new());
    for post in posts.collect::<Vec<_>>() {
        let answer = post.await.unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        made += usize::from(!answer.headers.contains_key("idempotency-replayed"));
        bodies.push(answer.json());
    }
    assert_eq!(made, 1);
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    let other = place.client().with("Idempotency-Key", "other").post("/v1/partitions", BODY).await;
    assert_ne!(other.json()["partition"], partition);
}

async fn a_key_used_for_another_partition_is_refused(place: Arc<Place>) {
    let keyed = place.client().with("Idempotency-Key", "k");
    let first = keyed.post("/v1/partitions", BODY).await;
    for other in [
        r#"{"priority": 3, "items": [{"data": 1}]}"#.to_owned(),
        // Other data under the same ids, fewer items, and more.
        BODY.replace("{\"data\": 1}", "{\"data\": 7}"),
        BODY.replace("{\"data\": 1}, ", ""),
        BODY.replace("]}", ", {\"data\": 4}]}"),
    ] {
        let answer = keyed.post("/v1/partitions", &other).await;
        assert_eq!(answer.problem(), (409, "refused".into()), "{other}");
    }
    assert_eq!(ids(&keyed, &format!("{}/items", first.headers["location"])).await.len(), 3);
    assert_replayed(&first, &keyed.post("/v1/partitions", BODY).await);
}

async fn a_key_adds_items_to_a_named_partition_once(place: Arc<Place>) {
    place.store.push(&NewPartition::new("p"), &[]).await.unwrap();
    let keyed = place.client().with("Idempotency-Key", "k");
    let body = r#"{"id": "p", "items": [{"data": 1}, {"data": 2}]}"#;
    let first = keyed.post("/v1/partitions", body).await;
    assert_eq!((first.status, &first.json()["added"]), (200, &2.into()), "{first:?}");
    assert_replayed(&first, &keyed.post("/v1/partitions", body).await);
    let more = r#"{"id": "p", "items": [{"data": 1}, {"data": 2}, {"data": 3}]}"#;
    assert_eq!(keyed.post("/v1/partitions", more).await.problem().0, 409);
    let other = place.client().with("Idempotency-Key", "l").post("/v1/partitions", body).await;
    assert_eq!((other.status, &other.json()["added"]), (200, &2.into()));
}

async fn a_key_adds_lines_once(place: Arc<Place>) {
    let keyed = place.client().with("Idempotency-Key", "k");
    let first = lines(&keyed, "", "1\n\n2\n").await;
    assert_eq!((first.status, &first.json()["added"]), (202, &2.into()), "{first:?}");
    let added = ids(&keyed, ITEMS).await;
    // Their names are derived from the key, so that none is added twice even when the request is forgotten.
    assert_eq!(HashSet::from_iter(added.clone()), HashSet::from([0, 1].map(|n| posted_item_id("p", "k", n))));
    assert_replayed(&first, &lines(&keyed, "", "1\n\n2\n").await);
    let another = place.serve(crate::place::open()).await.with("Idempotency-Key", "k");
    assert_replayed(&first, &lines(&another, "", "1\n\n2\n").await);
    for (query, body) in
        [("", "1\n3\n"), ("", "1\n"), ("", "1\n2\n3\n"), ("?gate=1", "1\n\n2\n"), ("?feed=x", "1\n\n2\n")]
    {
        assert_eq!(lines(&keyed, query, body).await.problem(), (409, "refused".into()), "{query} {body}");
    }
    assert_eq!(ids(&keyed, ITEMS).await, added);
    // Only what has no id of its own gets one that is derived from the key.
    let envelopes = "{\"data\": 1}\n{\"id\": \"own\", \"data\": 2}\n";
    let keyed = place.client().with("Idempotency-Key", "l");
    assert_eq!(lines(&keyed, "?envelope=true", envelopes).await.json()["added"], 2);
    assert_eq!(ids(&keyed, ITEMS).await.len(), 4);
    assert!(ids(&keyed, ITEMS).await.contains(&"own".to_owned()));
    // A request that fails does not take its key.
    let keyed = place.client().with("Idempotency-Key", "m");
    assert_eq!(lines(&keyed, "", "1\n{\n").await.problem().0, 422);
    assert_eq!(lines(&keyed, "", "1\n").await.json()["added"], 1);
    // At the same time, too, and of those with another body none.
    let keyed = place.client().with("Idempotency-Key", "race");
    let posts = (0..12).map(|n| {
        let keyed = keyed.clone();
        tokio::spawn(async move { (n % 2, lines(&keyed, "", &format!("{}\n", n % 2)).await) })
    });
    let (mut answers, mut made) = ([0; 2], 0);
    for post in posts.collect::<Vec<_>>() {
        match post.await.unwrap() {
            (body, answer) if answer.status == 202 => {
                answers[body] += 1;
                made += usize::from(!answer.headers.contains_key("idempotency-replayed"));
            }
            (_, answer) => assert_eq!(answer.problem().0, 409),
        }
    }
    assert!((answers == [6, 0] || answers == [0, 6]) && made == 1, "{answers:?} {made}");
    assert_eq!(ids(&keyed, ITEMS).await.len(), 6);
}

async fn a_key_adds_the_parts_of_a_form_once(place: Arc<Place>) {
    let keyed = place.client().with("Idempotency-Key", "k");
    let parts = [("a.txt", "text/plain", "1"), ("b.txt", "text/plain", "2")];
    let first = form(&keyed, "one", &parts).await;
    assert_eq!((first.status, &first.json()["added"]), (202, &2.into()), "{first:?}");
    assert_replayed(&first, &form(&keyed, "two", &parts).await);
    for other in [
        &[("a.txt", "text/plain", "1"), ("b.txt", "text/plain", "3")][..],
        &[("a.txt", "text/plain", "1"), ("c.txt", "text/plain", "2")],
        &[("a.txt", "text/plain", "1"), ("b.txt", "text/html", "2")],
        &[("a.txt", "text/plain", "1")],
    ] {
        assert_eq!(form(&keyed, "one", other).await.problem(), (409, "refused".into()), "{other:?}");
    }
    assert_eq!(ids(&keyed, ITEMS).await, ["a.txt", "b.txt"]);
    // Nor is the key one for lines.
    assert_eq!(lines(&keyed, "", "1\n").await.problem().0, 409);
}

async fn a_key_counts_in_its_partition(place: Arc<Place>) {
    let keyed = place.client().with("Idempotency-Key", "k");
    assert_eq!(lines(&keyed, "", "1\n").await.json()["added"], 1);
    let ndjson = Some("application/x-ndjson");
    let other = keyed.send("POST", "/v1/partitions/q/items", ndjson, b"2\n").await;
    assert_eq!((other.status, &other.json()["added"]), (202, &1.into()));
}

/// Whichever came first.
async fn a_key_is_for_one_item_or_for_many(place: Arc<Place>) {
    let keyed = place.client().with("Idempotency-Key", "many");
    let many = lines(&keyed, "", "1\n").await;
    for query in ["", "?id=named"] {
        let one = keyed.post(&format!("{ITEMS}{query}"), "1").await;
        assert_eq!(one.problem(), (409, "refused".into()), "{query}");
    }
    assert_replayed(&many, &lines(&keyed, "", "1\n").await);
    let keyed = place.client().with("Idempotency-Key", "one");
    let one = keyed.post(ITEMS, "1").await;
    assert_eq!(one.status, 202, "{one:?}");
    for many in [
        lines(&keyed, "", "1\n").await,
        form(&keyed, "b", &[("a.txt", "text/plain", "1")]).await,
        keyed.post("/v1/partitions", r#"{"id": "p", "items": [{"data": 1}]}"#).await,
    ] {
        assert_eq!(many.problem(), (409, "refused".into()));
    }
    assert_replayed(&one, &keyed.post(ITEMS, "1").await);
    assert_eq!(ids(&keyed, ITEMS).await.len(), 2);
}
