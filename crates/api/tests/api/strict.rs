//! What a request may not say, and what every answer says.

use std::sync::Arc;

use gatefeed_core::{
    item::{Data, NewItem},
    partition::NewPartition,
};
use tokio::net::TcpListener;

use crate::place::{Client, Place};

on_both!(
    no_operation_takes_what_it_does_not_know an_action_takes_no_body_that_it_does_not_know
    a_partition_is_an_object parameters_are_text what_is_added_has_no_version data_that_is_known_is_not_sent_again
    every_error_is_a_problem json_is_kept_by_nobody a_gate_below_zero_is_no_filter what_was_pushed_runs_in_no_browser
);

async fn push(place: &Place) {
    place.store.push(&NewPartition::new("p"), &[NewItem::new("p", "i", Data::json("1"))]).await.unwrap();
}

/// Every operation of the description.
async fn no_operation_takes_what_it_does_not_know(place: Arc<Place>) {
    push(&place).await;
    let client = place.client();
    let description = client.get("/openapi.json").await.json();
    for (path, methods) in description["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "p").replace("{item}", "i");
        for method in methods.as_object().unwrap().keys() {
            let path = format!("{path}?dry_run=true");
            let answer = client.send(&method.to_uppercase(), &path, Some("application/json"), b"{}").await;
            assert_eq!(answer.problem(), (400, "bad-request".into()), "{method} {path}");
        }
    }
    let row = client.get("/v1/partitions/p?").await.json();
    assert_eq!((&row["status"], &row["version"]), (&"available".into(), &0.into()));
}

async fn an_action_takes_no_body_that_it_does_not_know(place: Arc<Place>) {
    push(&place).await;
    let client = place.client();
    for action in ["pause", "resume", "cancel", "seal", "advance", "retry"] {
        for bad in ["{\"dry_run\": true}", "[]", "1", "{"] {
            let answer = client.post(&format!("/v1/partitions/p/{action}"), bad).await;
            assert_eq!(answer.problem(), (422, "invalid".into()), "{action} {bad}");
        }
    }
    let negative = client.post("/v1/partitions/p/retry", "{\"gate\": -1}").await;
    assert_eq!(negative.problem(), (422, "invalid".into()));
    assert_eq!(client.get("/v1/partitions/p").await.json()["status"], "available");
    assert_eq!(client.post("/v1/partitions/p/pause", " {} ").await.status, 200);
}

async fn a_partition_is_an_object(place: Arc<Place>) {
    let client = place.client();
    for bad in ["[]", "[\"p\"]", "1", "", "null", "{\"items\": null}", "{\"items\": {}}", "{\"items\": [1}"] {
        let answer = client.post("/v1/partitions", bad).await;
        assert_eq!(answer.problem(), (422, "invalid".into()), "{bad}");
        assert!(!answer.text().contains("NewPartitionBody"), "{answer:?}");
    }
}

async fn parameters_are_text(place: Arc<Place>) {
    push(&place).await;
    let client = place.client();
    assert_eq!(client.post("/v1/partitions/p/items?id=%ff", "1").await.problem().0, 400);
    for path in ["/v1/partitions", "/v1/partitions/p/items"] {
        for bad in ["%00", "a%00b", "%ff", "%c3"] {
            let answer = client.get(&format!("{path}?after={bad}")).await;
            assert_eq!(answer.problem(), (400, "bad-request".into()), "{path} {bad}");
        }
    }
    assert_eq!(client.post("/v1/partitions/p/items?id=%c3%bc+%25", "1").await.json()["id"], "ü %");
}

async fn what_is_added_has_no_version(place: Arc<Place>) {
    push(&place).await;
    let client = place.client().with("If-Match", "\"7\"");
    assert_eq!(client.post("/v1/partitions/p/items", "1").await.problem(), (400, "bad-request".into()));
    assert_eq!(client.post("/v1/partitions", "{}").await.problem().0, 400);
    assert_eq!(client.get("/v1/partitions/p/items").await.json()["items"].as_array().unwrap().len(), 1);
}

async fn data_that_is_known_is_not_sent_again(place: Arc<Place>) {
    push(&place).await;
    let client = place.client();
    let tag = client.get("/v1/partitions/p/items/i/data").await.headers["etag"].clone();
    for path in ["/v1/partitions/p/items/i/data", "/v1/partitions/p/items/i"] {
        for seen in [tag.as_str(), "*", &format!("\"99\", W/{tag}")] {
            let answer = client.with("If-None-Match", seen).get(path).await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{path} {seen}");
            assert_eq!(answer.headers["etag"], tag);
        }
        assert_eq!(client.with("If-None-Match", "\"99\"").get(path).await.status, 200);
    }
    let any = client.with("If-None-Match", "*");
    assert_eq!(any.get("/v1/partitions/p").await.status, 304);
    assert_eq!(any.get("/v1/partitions/q").await.problem().0, 404);
}

/// A server of what is beside the API.
async fn beside(place: &Place) -> Client {
    let router = gatefeed_api::health(Arc::clone(&place.store), Box::new(|| Box::pin(async { Vec::new() })))
        .merge(gatefeed_api::callbacks(Arc::clone(&place.store)))
        .merge(gatefeed_api::gathered(Arc::clone(&place.store)))
        .merge(gatefeed_api::blobs(Arc::clone(&place.store)))
        .merge(gatefeed_api::api(Arc::clone(&place.store), crate::place::open()))
        .fallback(gatefeed_api::not_found);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(gatefeed_api::serve(listener, router, std::future::pending()));
    place.client().at(address)
}

async fn every_error_is_a_problem(place: Arc<Place>) {
    let client = beside(&place).await;
    for (method, path, expected) in [
        ("POST", "/livez", 405),
        ("POST", "/readyz", 405),
        ("GET", "/v1/callbacks/x", 405),
        ("GET", "/v1/callbacks/x/heartbeat", 405),
        ("POST", "/v1/partitions/p/gathered/0", 405),
        ("DELETE", "/v1/partitions", 405),
        ("POST", "/v1/blobs/a/b/c", 405),
        ("GET", "/v1/blobs/a/b/c", 400),
        ("GET", "/v1/blobs/a/%ff/c?expires=1&signature=00", 400),
        ("GET", "/v1/blobs/a/b/c?expires=1&signature=00", 404),
        ("POST", "/v1/callbacks/x", 404),
        ("GET", "/nothing", 404),
    ] {
        let answer = client.send(method, path, None, b"").await;
        assert_eq!(answer.problem().0, expected, "{method} {path}");
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    assert_eq!(client.get("/livez").await.text(), "ok");
    assert_eq!(client.get("/readyz").await.headers["cache-control"], "no-store");
}

async fn json_is_kept_by_nobody(place: Arc<Place>) {
    push(&place).await;
    let client = place.client();
    for path in [
        "/v1/partitions",
        "/v1/partitions/p",
        "/v1/partitions/p/items/i/data",
        "/v1/partitions/q",
        "/openapi.json",
    ] {
        let answer = client.get(path).await;
        assert_eq!(
            (answer.headers["x-content-type-options"].as_str(), answer.headers["cache-control"].as_str()),
            ("nosniff", "no-store"),
            "{path}"
        );
    }
    let lines = client.with("Accept", "application/x-ndjson").get("/v1/partitions").await;
    assert_eq!(lines.headers["cache-control"], "no-store");
}

/// Data may be a page with a script, and the API's own pages are in no other site's frame.
async fn what_was_pushed_runs_in_no_browser(place: Arc<Place>) {
    let client = place.client();
    let page = b"<script>fetch('/v1/partitions')</script>";
    client.send("POST", "/v1/partitions/p/items?id=i", Some("text/html"), page).await;
    let data = client.get("/v1/partitions/p/items/i/data").await;
    assert_eq!((data.headers["content-type"].as_str(), &data.body[..]), ("text/html", &page[..]));
    assert_eq!(data.headers["content-security-policy"], "sandbox; default-src 'none'");
    assert_eq!(data.headers["x-content-type-options"], "nosniff");
    let pages = client.get("/docs/").await;
    assert_eq!((pages.status, pages.headers["x-frame-options"].as_str()), (200, "DENY"));
    assert!(pages.headers["content-security-policy"].contains("default-src 'self'"), "{pages:?}");
    assert!(!pages.headers["content-security-policy"].contains("script-src"), "{pages:?}");
}

async fn a_gate_below_zero_is_no_filter(place: Arc<Place>) {
    push(&place).await;
    let answer = place.client().get("/v1/partitions/p/items?gate=-1").await;
    assert_eq!(answer.problem(), (400, "bad-request".into()));
}
