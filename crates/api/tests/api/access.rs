//! Who may do what.

use std::{sync::Arc, time::Duration};

use gatefeed_api::{ApiOptions, new_token};
use gatefeed_core::{
    item::{Data, NewItem},
    partition::NewPartition,
    token::Role,
};

use crate::place::{Client, Place, calls::Calls, open};

on_both!(
    without_tokens_only_this_machine_may_use_it nothing_is_answered_without_a_token a_role_allows_what_it_says
    each_operation_takes_its_role each_operation_is_of_its_feed a_token_of_a_feed_sees_no_other a_revoked_token_ends
    a_new_partition_is_of_one_feed
    a_key_counts_in_its_feed
    ; on one thread: a_revoked_token_waits_no_longer
);

async fn token(place: &Place, role: Role, feed: Option<&str>) -> (String, String) {
    let (text, token) = new_token(role, feed.map(str::to_owned), None, None);
    place.store.add_token(&token).await.unwrap();
    (token.id, format!("Bearer {text}"))
}

async fn without_tokens_only_this_machine_may_use_it(place: Arc<Place>) {
    let client = place.client();
    assert_eq!(client.get("/v1/feeds").await.status, 200);
    assert_eq!(
        client.with("Host", "evil.example").get("/v1/feeds").await.problem(),
        (403, "forbidden".into())
    );
    assert_eq!(
        client.with("Origin", "http://evil.example").post("/v1/partitions", "{}").await.problem().0,
        403
    );
    let closed = place.serve(ApiOptions::default()).await;
    assert_eq!(closed.get("/v1/feeds").await.problem(), (401, "unauthorized".into()));
    assert!(place.store.status().await.unwrap().is_empty());
}

/// Every operation of the description, word by word.
async fn nothing_is_answered_without_a_token(place: Arc<Place>) {
    place.store.push(&NewPartition::new("p"), &[NewItem::new("p", "i", Data::json("1"))]).await.unwrap();
    let (_, bearer) = token(&place, Role::Operate, None).await;
    // The id of a token is shown in lists: with another secret it is worth nothing.
    let (known, secret) = bearer.rsplit_once('_').unwrap();
    let forged = [format!("{known}_{}", secret.replace(['0', '1', '2', '3'], "f")), format!("{known}_x")];
    let client = place.serve(open()).await;
    let description = client.get("/openapi.json").await.json();
    let mut operations = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "p").replace("{item}", "i");
        for method in methods.as_object().unwrap().keys() {
            operations += 1;
            let unknown = ["Bearer gf_000000000000_x", &forged[0], &forged[1], "Basic Zjpm", "Bearer"];
            let strangers = unknown.map(|bearer| client.with("Authorization", bearer));
            for client in strangers.into_iter().chain([client.clone()]) {
                let answer =
                    client.send(&method.to_uppercase(), &path, Some("application/json"), b"{}").await;
                assert_eq!(answer.problem(), (401, "unauthorized".into()), "{method} {path}");
                assert_eq!(answer.headers["www-authenticate"], "Bearer");
            }
        }
    }
    assert!(operations >= 17, "{operations}");
    assert_eq!(place.store.partition("p").await.unwrap().unwrap().version, 0);
}

async fn a_role_allows_what_it_says(place: Arc<Place>) {
    place.store.push(&NewPartition::new("p"), &[]).await.unwrap();
    for (role, expected) in
        [(Role::Read, [200, 403, 403]), (Role::Push, [200, 202, 403]), (Role::Operate, [200, 202, 200])]
    {
        let (_, bearer) = token(&place, role, None).await;
        let client = place.serve(open()).await.with("Authorization", &bearer);
        let answers = [
            client.get("/v1/partitions/p").await,
            client.post("/v1/partitions/p/items", "1").await,
            client.post("/v1/partitions/p/pause", "").await,
        ];
        assert_eq!(answers.map(|answer| answer.status), expected, "{role}");
    }
}

/// Method and path of every operation of the description, of an item of this partition.
async fn operations(client: &Client, partition: &str) -> Vec<(String, String)> {
    let description = client.get("/openapi.json").await.json();
    let mut operations = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        let path = path.replace("{id}", partition).replace("{item}", "i");
        operations.extend(methods.as_object().unwrap().keys().map(|m| (m.to_uppercase(), path.clone())));
    }
    operations
}

async fn each_operation_takes_its_role(place: Arc<Place>) {
    let item = NewItem::new("p", "i", Data::json("1"));
    place.store.push(&NewPartition::new("p"), &[item]).await.unwrap();
    place.store.cancel("p").await.unwrap();
    let before = place.store.partition("p").await.unwrap().unwrap().version;
    for role in [Role::Read, Role::Push] {
        let (_, bearer) = token(&place, role, None).await;
        let client = place.serve(open()).await.with("Authorization", &bearer);
        for (method, path) in operations(&client, "p").await {
            let needed = match (method.as_str(), path.as_str()) {
                ("GET", _) => Role::Read,
                ("POST", "/v1/partitions" | "/v1/partitions/p/items") => Role::Push,
                _ => Role::Operate,
            };
            let answer = client.send(&method, &path, Some("application/json"), b"{}").await;
            match role < needed {
                true => assert_eq!(answer.problem(), (403, "forbidden".into()), "{role}: {method} {path}"),
                false => assert!(![401, 403].contains(&answer.status), "{role}: {method} {path}: {answer:?}"),
            }
        }
    }
    assert_eq!(place.store.partition("p").await.unwrap().unwrap().version, before);
}

/// What is of another feed is not there.
async fn each_operation_is_of_its_feed(place: Arc<Place>) {
    let theirs = NewPartition { feed: "theirs".into(), keep_history: true, ..NewPartition::new("theirs") };
    place.store.push(&theirs, &[NewItem::new("theirs", "i", Data::json("1"))]).await.unwrap();
    let (_, bearer) = token(&place, Role::Operate, Some("mine")).await;
    let client = place.serve(open()).await.with("Authorization", &bearer);
    let mut seen = 0;
    for (method, path) in operations(&client, "theirs").await {
        if path.contains("/theirs") {
            seen += 1;
            let answer = client.send(&method, &path, Some("application/json"), b"{\"gate\": 0}").await;
            assert_eq!(answer.problem(), (404, "not-found".into()), "{method} {path}");
        }
    }
    assert!(seen >= 14, "{seen}");
    assert_eq!(place.store.partition("theirs").await.unwrap().unwrap().version, 0);
}

async fn a_token_of_a_feed_sees_no_other(place: Arc<Place>) {
    for feed in ["mine", "theirs"] {
        place.store.push(&NewPartition { feed: feed.into(), ..NewPartition::new(feed) }, &[]).await.unwrap();
    }
    let (_, bearer) = token(&place, Role::Operate, Some("mine")).await;
    let client = place.serve(open()).await.with("Authorization", &bearer);
    assert_eq!(client.get("/v1/partitions/mine").await.status, 200);
    for (path, is_post) in [
        ("/v1/partitions/theirs", false),
        ("/v1/partitions/theirs/items", false),
        ("/v1/partitions/theirs/events", false),
        ("/v1/partitions/theirs/items", true),
        ("/v1/partitions/theirs/cancel", true),
    ] {
        let answer = if is_post { client.post(path, "1").await } else { client.get(path).await };
        assert_eq!(answer.problem(), (404, "not-found".into()), "{path}");
    }
    assert_eq!(
        client.post("/v1/partitions", "{\"id\": \"theirs\", \"items\": [{\"data\": 1}]}").await.problem().0,
        404
    );
    assert_eq!(client.post("/v1/partitions/new/items?feed=theirs", "1").await.problem().0, 403);
    assert_eq!(client.get("/v1/partitions?feed=theirs").await.problem().0, 403);
    assert_eq!(client.get("/v1/partitions").await.json()["partitions"].as_array().unwrap().len(), 1);
    assert_eq!(client.get("/v1/feeds").await.json()["feeds"].as_array().unwrap().len(), 1);
    assert_eq!(client.post("/v1/partitions/new/items", "1").await.status, 202);
    assert_eq!(client.get("/v1/partitions/new").await.json()["feed"], "mine");
}

async fn a_revoked_token_ends(place: Arc<Place>) {
    let (id, bearer) = token(&place, Role::Read, None).await;
    let server = place.serve(open()).await;
    let client: Client = server.with("Authorization", &bearer);
    assert_eq!(client.get("/v1/feeds").await.status, 200);
    place.store.revoke_token(&id).await.unwrap();
    while client.get("/v1/feeds").await.status == 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It was the only one, and the API does not open again.
    assert_eq!(server.get("/v1/feeds").await.problem().0, 401);
    let expired = new_token(Role::Read, None, None, Some(chrono::Utc::now() - chrono::TimeDelta::seconds(1)));
    place.store.add_token(&expired.1).await.unwrap();
    let client = place.serve(open()).await.with("Authorization", &format!("Bearer {}", expired.0));
    assert_eq!(client.get("/v1/feeds").await.problem().0, 401);
}

async fn a_revoked_token_waits_no_longer(place: Arc<Place>) {
    place.store.push(&NewPartition::new("p"), &[NewItem::new("p", "i", Data::json("1"))]).await.unwrap();
    let (id, bearer) = token(&place, Role::Read, None).await;
    let client = place.serve(open()).await.with("Authorization", &bearer);
    let calls = Calls::count();
    let waits = ["/v1/partitions/p?wait=100s", "/v1/partitions/p/items/i?wait=100s"].map(|path| {
        let client = client.clone();
        tokio::spawn(async move { client.get(path).await })
    });
    // Each looks by itself before it waits.
    calls.until("glance", 1).await;
    calls.until("items", 1).await;
    let events = client.follow("p").await;
    let revoked = std::time::Instant::now();
    place.store.revoke_token(&id).await.unwrap();
    for wait in waits {
        assert_eq!(wait.await.unwrap().problem(), (401, "unauthorized".into()));
    }
    let events = events.whole().await;
    assert!(events.status == 200 && !events.text().contains("event: end"), "{events:?}");
    assert!(revoked.elapsed() < Duration::from_secs(60));
}

/// Clients of the tokens of two feeds.
async fn of_two_feeds(place: &Place, role: Role) -> [Client; 2] {
    let bearers = [token(place, role, Some("fa")).await.1, token(place, role, Some("fb")).await.1];
    let client = place.serve(open()).await;
    bearers.map(|bearer| client.with("Authorization", &bearer))
}

/// Whoever makes it first, of those that come at the same time.
async fn a_new_partition_is_of_one_feed(place: Arc<Place>) {
    let clients = of_two_feeds(&place, Role::Push).await;
    for round in 0..10 {
        for kind in ["single", "lines", "made"] {
            let partition = format!("{kind}{round}");
            let posts = (0..8).map(|n| {
                let (client, partition) = (clients[n % 2].clone(), partition.clone());
                tokio::spawn(async move {
                    let path = format!("/v1/partitions/{partition}/items");
                    let answer = match kind {
                        "single" => client.post(&path, "1").await,
                        "lines" => client.send("POST", &path, Some("application/x-ndjson"), b"1\n2\n").await,
                        _ => {
                            let body = format!("{{\"id\": \"{partition}\", \"items\": [{{\"data\": 1}}]}}");
                            client.post("/v1/partitions", &body).await
                        }
                    };
                    (n % 2, answer)
                })
            });
            let mut taken = [0; 2];
            for post in posts.collect::<Vec<_>>() {
                let (feed, answer) = post.await.unwrap();
                match answer.status {
                    200..=202 => taken[feed] += 1,
                    _ => assert_eq!(answer.problem(), (404, "not-found".into()), "{kind}"),
                }
            }
            assert!(taken == [4, 0] || taken == [0, 4], "{kind}: {taken:?}");
        }
    }
}

/// It may have been deleted and made again in another feed since.
#[tokio::test(flavor = "current_thread")]
async fn whose_a_partition_is_is_not_remembered() {
    let calls = Calls::count();
    let place = Place::sqlite().await;
    let [ours, theirs] = of_two_feeds(&place, Role::Operate).await;
    assert_eq!(ours.post("/v1/partitions/p/items", "1").await.status, 202);
    let before = calls.of("glance");
    for (path, is_post) in [("items", false), ("gates", false), ("pause", true)] {
        let path = format!("/v1/partitions/p/{path}");
        for (client, expected) in [(&ours, 200), (&theirs, 404)] {
            let answer = if is_post { client.post(&path, "").await } else { client.get(&path).await };
            assert_eq!(answer.status, expected, "{path}");
        }
    }
    assert_eq!(calls.of("glance") - before, 6);
}

async fn a_key_counts_in_its_feed(place: Arc<Place>) {
    let clients = of_two_feeds(&place, Role::Push).await.map(|client| client.with("Idempotency-Key", "k"));
    let mut made = Vec::new();
    for client in &clients {
        let first = client.post("/v1/partitions", "{}").await;
        assert_eq!(first.status, 201, "{first:?}");
        let again = client.post("/v1/partitions", "{}").await;
        assert_eq!((again.status, again.headers["idempotency-replayed"].as_str()), (201, "true"));
        made.push(first.json()["partition"].clone());
    }
    assert_ne!(made[0], made[1]);
}
