//! Items that come over HTTP.

use std::{sync::Arc, time::Duration};

use gatefeed_core::partition::NewPartition;

use crate::place::Place;

on_both!(
    any_bytes_are_an_item a_key_is_one_item many_at_once_and_the_bad_ones_fail_alone what_will_not_do_is_told
    lines_are_all_added_or_none the_parts_of_a_form_are_items a_partition_is_made_with_its_items
    a_locked_partition_holds_up_no_other
);

const ITEMS: &str = "/v1/partitions/a%2Fb%20c/items";

async fn any_bytes_are_an_item(place: Arc<Place>) {
    let client = place.client();
    let picture = [0x89, b'P', b'N', b'G', 0, 255, b'\r', b'\n'];
    let posted = client
        .send("POST", &format!("{ITEMS}?gate=2&priority=-3&feed=video"), Some("image/png"), &picture)
        .await;
    assert_eq!(posted.status, 202, "{posted:?}");
    let url = &posted.headers["location"];
    assert!(url.starts_with(ITEMS), "{url}");
    let item = client.get(url).await;
    let json = item.json();
    assert_eq!((&json["partition_id"], &json["gate"]), (&"a/b c".into(), &2.into()));
    assert_eq!(
        (&json["priority"], &json["size"], &json["status"]),
        (&(-3).into(), &8.into(), &"available".into())
    );
    assert_eq!(item.headers["etag"], "\"0\"");
    let data = client.get(&format!("{url}/data")).await;
    assert_eq!((data.headers["content-type"].as_str(), &data.body[..]), ("image/png", &picture[..]));
    assert_eq!(client.get("/v1/partitions/a%2Fb%20c").await.json()["feed"], "video");
    assert_eq!(client.with("If-None-Match", "\"0\"").get(url).await.status, 304);
    // JSON is kept to the letter.
    let text = r#"{"n": 123456789012345678901234567890.10}"#;
    let posted = client.post(&format!("{ITEMS}?id=x/y&available_at=2030-01-31T08:00:00Z"), text).await;
    assert_eq!(posted.headers["location"], format!("{ITEMS}/x%2Fy"));
    assert_eq!(client.get(&format!("{ITEMS}/x%2Fy/data")).await.text(), text);
    assert_eq!(client.get(&format!("{ITEMS}/x%2Fy")).await.json()["available_at"], "2030-01-31T08:00:00Z");
    // An id that is there is left as it is.
    let again = client.post(&format!("{ITEMS}?id=x/y"), "1").await;
    assert_eq!((again.status, again.headers["gatefeed-existing"].as_str()), (202, "true"));
    assert_eq!(client.get(&format!("{ITEMS}/x%2Fy/data")).await.text(), text);
}

async fn a_key_is_one_item(place: Arc<Place>) {
    let keyed = place.client().with("Idempotency-Key", "order-7");
    let first = keyed.post(ITEMS, "{\"n\": 1}").await;
    let second = keyed.post(ITEMS, "{\"n\": 1}").await;
    assert_eq!((first.status, second.status), (202, 202));
    assert_eq!((&first.body, &first.headers["location"]), (&second.body, &second.headers["location"]));
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(keyed.post(ITEMS, "{\"n\": 2}").await.problem(), (409, "refused".into()));
    assert_eq!(keyed.post(&format!("{ITEMS}?gate=1"), "{\"n\": 1}").await.problem().0, 409);
    // Whatever has the id already was made by somebody else, and nothing is dropped in silence.
    let named = format!("{ITEMS}?id=named");
    assert_eq!(place.client().post(&named, "\"first\"").await.status, 202);
    let existing = keyed.post(&named, "\"second\"").await;
    assert_eq!((existing.status, &existing.headers["gatefeed-existing"]), (202, &"true".parse().unwrap()));
    assert!(!existing.headers.contains_key("idempotency-replayed"));
    let named = format!("{ITEMS}?id=keyed");
    assert_eq!(keyed.post(&named, "1").await.status, 202);
    assert_eq!(keyed.post(&named, "1").await.headers["idempotency-replayed"], "true");
    let other = place.client().with("Idempotency-Key", "order-8");
    assert_eq!(other.post(&named, "1").await.problem().0, 409);
    // At the same time too, and of all with other bodies one wins.
    let keyed = place.client().with("Idempotency-Key", "race");
    let posts = (0..40).map(|n| {
        let keyed = keyed.clone();
        tokio::spawn(async move { keyed.post(ITEMS, &(n % 2).to_string()).await.status })
    });
    let mut answers = [0; 2];
    for (n, post) in posts.collect::<Vec<_>>().into_iter().enumerate() {
        match post.await.unwrap() {
            202 => answers[n % 2] += 1,
            status => assert_eq!(status, 409),
        }
    }
    assert!(answers == [20, 0] || answers == [0, 20], "{answers:?}");
    assert_eq!(place.client().get(ITEMS).await.json()["items"].as_array().unwrap().len(), 4);
}

async fn many_at_once_and_the_bad_ones_fail_alone(place: Arc<Place>) {
    place.store.push(&NewPartition::new("ended"), &[]).await.unwrap();
    place.store.cancel("ended").await.unwrap();
    let posts = (0..120).map(|n| {
        let client = place.client();
        let partition = if n % 10 == 3 { "ended".to_owned() } else { format!("p{}", n % 4) };
        tokio::spawn(async move { (n, client.post(&format!("/v1/partitions/{partition}/items"), "1").await) })
    });
    for post in posts.collect::<Vec<_>>() {
        let (n, answer) = post.await.unwrap();
        match n % 10 {
            3 => assert_eq!(answer.problem(), (409, "cancelled".into())),
            _ => assert_eq!(answer.status, 202, "{answer:?}"),
        }
    }
    let feeds = place.client().get("/v1/feeds").await.json();
    assert_eq!(feeds["feeds"][0]["items"]["available"], 108);
}

async fn what_will_not_do_is_told(place: Arc<Place>) {
    let client = place.client();
    for (path, body, expected) in [
        (ITEMS, "{\"a\":", (422, "invalid")),
        ("/v1/partitions/%FF/items", "1", (400, "bad-request")),
        ("/v1/partitions/a%00b/items", "1", (422, "invalid")),
        ("/v1/partitions/p/items?gate=-1", "1", (422, "invalid")),
        ("/v1/partitions/p/items?gate=x", "1", (400, "bad-request")),
        ("/v1/partitions/p/items?gaet=1", "1", (400, "bad-request")),
        ("/v1/partitions/p/items?id=", "1", (422, "invalid")),
        ("/v1/partitions/p/items?available_at=soon", "1", (422, "invalid")),
        ("/v1/partitions/p/items?envelope=true", "1", (400, "bad-request")),
        ("/v1/partitions/p/items?feed=", "1", (422, "invalid")),
        ("/v1/partitions/p/elsewhere", "1", (404, "not-found")),
        ("/v1/feeds", "1", (405, "method-not-allowed")),
    ] {
        let (status, kind) = client.post(path, body).await.problem();
        assert_eq!((status, kind.as_str()), expected, "{path} {body}");
    }
    let negative = client.post("/v1/partitions/p/items?gate=-1", "1").await.json();
    assert!(negative["detail"].as_str().unwrap().starts_with("gate is -1, expected a whole"), "{negative}");
    assert_eq!(client.with("Idempotency-Key", "").post(ITEMS, "1").await.problem().0, 400);
    for path in
        ["/v1/partitions/p", "/v1/partitions/p/items", "/v1/partitions/p/why", "/v1/partitions/p/events"]
    {
        assert_eq!(client.get(path).await.problem(), (404, "not-found".into()), "{path}");
    }
    assert!(place.store.status().await.unwrap().is_empty(), "something was made");
}

async fn lines_are_all_added_or_none(place: Arc<Place>) {
    let client = place.client();
    let ndjson = Some("application/x-ndjson");
    for (parameter, expected) in
        [("id=x", 400), ("priority=1", 400), ("available_at=2030-01-31T08:00:00Z", 400), ("gate=-1", 422)]
    {
        let answer = client.send("POST", &format!("{ITEMS}?{parameter}"), ndjson, b"1\n").await;
        assert_eq!(answer.problem().0, expected, "{parameter}");
    }
    let wrong = client.send("POST", ITEMS, ndjson, b"1\n\n{\n2\n").await;
    assert_eq!(wrong.problem(), (422, "invalid".into()));
    assert_eq!(wrong.json()["errors"][0]["line"], 3);
    assert_eq!(client.get("/v1/partitions/a%2Fb%20c").await.status, 404);
    let plain = client.send("POST", ITEMS, ndjson, b"1\r\n\n{\"a\":1}").await;
    let added = serde_json::json!({"partition": "a/b c", "created": true, "added": 2, "existing": 0});
    assert_eq!((plain.status, plain.json()), (202, added));
    let lines = b"{\"id\":\"a\",\"data\":1}\n{\"id\":\"b\",\"depends_on\":[\"a\"],\"data\":2,\"gate\":0}\n";
    let envelopes = client.send("POST", &format!("{ITEMS}?envelope=true"), ndjson, lines).await;
    assert_eq!(envelopes.json()["added"], 2);
    assert_eq!(client.get(&format!("{ITEMS}/b")).await.json()["status"], "blocked");
    let again = client.send("POST", &format!("{ITEMS}?envelope=true"), ndjson, lines).await;
    assert_eq!((&again.json()["added"], &again.json()["existing"]), (&0.into(), &2.into()));
}

async fn the_parts_of_a_form_are_items(place: Arc<Place>) {
    let client = place.client();
    let part = |disposition: &str, rest: &str| {
        format!("--x\r\nContent-Disposition: form-data; {disposition}\r\n{rest}\r\n")
    };
    let form = |parts: &[String]| format!("{}--x--\r\n", parts.concat());
    let kind = Some("multipart/form-data; boundary=x");
    let parts = [
        part("name=\"f\"; filename=\"a b.png\"", "Content-Type: image/png\r\n\r\nPNG"),
        part("name=\"note\"", "\r\nhi"),
    ];
    let posted = client.send("POST", ITEMS, kind, form(&parts).as_bytes()).await;
    assert_eq!((posted.status, &posted.json()["added"]), (202, &2.into()), "{posted:?}");
    let data = client.get(&format!("{ITEMS}/a%20b.png/data")).await;
    assert_eq!((data.headers["content-type"].as_str(), data.text().as_str()), ("image/png", "PNG"));
    assert_eq!(client.get(&format!("{ITEMS}/note/data")).await.text(), "hi");
    let large = form(&[part("name=\"f\"; filename=\"large\"", &format!("\r\n{}", "x".repeat(5 << 20)))]);
    assert_eq!(client.send("POST", ITEMS, kind, large.as_bytes()).await.status, 202);
    // What will not do is named, and nothing of it is added.
    let bad = form(&[
        part("name=\"fine\"", "\r\n1"),
        part("name=\"f\"; filename=\"bad.json\"", "Content-Type: application/json\r\n\r\n{"),
        part("name=\"note\"", "\r\n1"),
        part("name=\"note\"", "\r\n2"),
        part("name=\"a\tb\"", "\r\n2"),
    ]);
    let refused = client.send("POST", ITEMS, kind, bad.as_bytes()).await;
    assert_eq!(refused.problem(), (422, "invalid".into()));
    let errors = refused.json()["errors"].clone();
    let named = |index: usize| (errors[index]["part"].clone(), errors[index]["name"].clone());
    assert_eq!(named(0), (2.into(), "bad.json".into()), "{errors}");
    assert_eq!(named(1), (4.into(), "note".into()), "{errors}");
    assert_eq!(named(2), (5.into(), "a\tb".into()), "{errors}");
    assert!(errors[0]["detail"].as_str().unwrap().starts_with("not JSON"), "{errors}");
    assert!(errors[0].get("line").is_none() && errors.as_array().unwrap().len() == 3, "{errors}");
    assert_eq!(client.get(&format!("{ITEMS}/fine")).await.status, 404);
    let cut = client.send("POST", ITEMS, kind, b"--x\r\nnonsense").await;
    assert_eq!(cut.problem().0, 400);
    assert!(cut.json()["detail"].as_str().unwrap().starts_with("part 1 "), "{cut:?}");
}

async fn a_partition_is_made_with_its_items(place: Arc<Place>) {
    let client = place.client();
    let body = r#"{"id": "p/1", "feed": "video", "priority": 3, "manual_checkpoint": true, "max_in_flight": 2,
        "failure_policy": "5%", "gate_deadline_seconds": 60, "keep_history": true,
        "items": [{"id": "a", "data": {"n": 1.0}}, {"gate": 4, "data": "text", "content_type": "text/plain"}]}"#;
    let made = client.post("/v1/partitions", body).await;
    assert_eq!((made.status, made.headers["location"].as_str()), (201, "/v1/partitions/p%2F1"), "{made:?}");
    assert_eq!(
        made.json(),
        serde_json::json!({"partition": "p/1", "created": true, "added": 2, "existing": 0})
    );
    let row = client.get("/v1/partitions/p%2F1").await.json();
    for (field, value) in [
        ("feed", serde_json::json!("video")),
        ("priority", 3.into()),
        ("manual_checkpoint", true.into()),
        ("max_in_flight", 2.into()),
        ("failure_policy", "5%".into()),
        ("gate_deadline_seconds", 60.into()),
        ("keep_history", true.into()),
    ] {
        assert_eq!(row[field], value, "{field}");
    }
    assert_eq!(client.get("/v1/partitions/p%2F1/items/a/data").await.text(), "{\"n\": 1.0}");
    let again = client.post("/v1/partitions", r#"{"id": "p/1", "items": [{"id": "a", "data": 2}]}"#).await;
    assert_eq!((again.status, &again.json()["existing"]), (200, &1.into()));
    // One bad item, and there is nothing.
    let wrong = client.post("/v1/partitions", r#"{"id": "q", "items": [{"data": 1}, {"dat": 2}]}"#).await;
    let error = wrong.json()["errors"][0].clone();
    assert_eq!((wrong.problem().0, &error["index"]), (422, &1.into()));
    assert!(error.get("line").is_none(), "{error}");
    assert_eq!(client.get("/v1/partitions/q").await.status, 404);
    for bad in
        ["", "[]", "{\"idd\": 1}", "{\"id\": \"\"}", "{\"failure_policy\": \"x\"}", "{\"max_in_flight\": 0}"]
    {
        assert_eq!(client.post("/v1/partitions", bad).await.problem().0, 422, "{bad}");
    }
    assert_eq!(client.send("POST", "/v1/partitions", Some("text/plain"), b"{}").await.problem().0, 415);
    // A key is one partition.
    let keyed = client.with("Idempotency-Key", "k");
    let ids: Vec<_> =
        [keyed.post("/v1/partitions", "{}").await, keyed.post("/v1/partitions", "{}").await].into();
    assert_eq!(ids[0].json()["partition"], ids[1].json()["partition"]);
}

/// Somebody makes a partition and does not commit: who posts into it waits, all others do not. Only on Postgres: SQLite
/// has one writer at a time.
async fn a_locked_partition_holds_up_no_other(place: Arc<Place>) {
    if !place.is_postgres {
        return;
    }
    let open = place.store.begin_push(&NewPartition::new("locked")).await.unwrap();
    let client = place.client();
    let waiting = tokio::spawn(async move { client.post("/v1/partitions/locked/items", "1").await });
    for _ in 0..20 {
        let other = place.client();
        let other = other.post("/v1/partitions/other/items", "1");
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), other).await.expect("it waits").status, 202);
    }
    assert!(!waiting.is_finished());
    open.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap().status, 202);
}
