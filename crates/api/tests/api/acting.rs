//! What operators do.

use std::sync::Arc;

use gatefeed_core::{
    item::{Data, NewItem},
    partition::NewPartition,
};
use serde_json::json;

use crate::place::Place;

on_both!(every_action_acts_and_tells a_version_that_has_passed_is_refused why_is_told);

async fn push(place: &Place, partition: &NewPartition, gates: &[i32]) {
    let item = |gate: &i32| NewItem {
        gate: *gate,
        ..NewItem::new(&partition.id, format!("g{gate}"), Data::json("1"))
    };
    place.store.push(partition, &gates.iter().map(item).collect::<Vec<_>>()).await.unwrap();
}

async fn every_action_acts_and_tells(place: Arc<Place>) {
    push(&place, &NewPartition { manual_checkpoint: true, ..NewPartition::new("p") }, &[3]).await;
    let client = place.client();
    let act = async |action: &str, body: &str| {
        let answer = client.post(&format!("/v1/partitions/p/{action}"), body).await;
        assert_eq!(answer.status, 200, "{action}: {answer:?}");
        answer.json()
    };
    assert_eq!(act("pause", "").await, json!({"partition": "p", "status": "paused"}));
    assert_eq!(client.get("/v1/partitions/p").await.json()["status"], "paused");
    assert_eq!(act("resume", "").await, json!({"partition": "p", "status": "available"}));
    assert_eq!(act("advance", "").await, json!({"partition": "p", "gate": 3}));
    assert_eq!(act("seal", "").await, json!({"partition": "p", "sealed": true}));
    assert_eq!(act("retry", "{\"gate\": 3}").await, json!({"partition": "p", "retried": 0}));
    assert_eq!(act("retry", "").await["retried"], 0);
    let refused = client.post("/v1/partitions/p/rewind", "{\"gate\": 0}").await;
    assert_eq!(refused.problem(), (409, "refused".into()), "it keeps no history");
    for bad in ["", "{}", "{\"gate\": -1}", "{\"gat\": 1}"] {
        assert_eq!(client.post("/v1/partitions/p/rewind", bad).await.problem().0, 422, "{bad}");
    }
    assert_eq!(act("cancel", "").await, json!({"partition": "p", "cancelled": 1}));
    assert_eq!(client.post("/v1/partitions/p/pause", "").await.problem().0, 409);
    assert_eq!(client.post("/v1/partitions/q/pause", "").await.problem().0, 404);
    push(&place, &NewPartition { keep_history: true, ..NewPartition::new("h") }, &[0]).await;
    let rewound = client.post("/v1/partitions/h/rewind", "{\"gate\": 0}").await.json();
    assert_eq!(rewound, json!({"partition": "h", "gate": 0, "items": 1, "removed": 0}));
}

async fn a_version_that_has_passed_is_refused(place: Arc<Place>) {
    push(&place, &NewPartition::new("p"), &[0]).await;
    let client = place.client();
    let seen = client.get("/v1/partitions/p").await.headers["etag"].clone();
    let mine = client.with("If-Match", &seen);
    assert_eq!(mine.post("/v1/partitions/p/pause", "").await.status, 200);
    assert_eq!(mine.post("/v1/partitions/p/cancel", "").await.problem(), (412, "changed".into()));
    assert_eq!(client.get("/v1/partitions/p").await.json()["status"], "paused");
    assert_eq!(client.with("If-Match", "*").post("/v1/partitions/p/resume", "").await.status, 200);
    assert_eq!(client.with("If-Match", "x").post("/v1/partitions/p/pause", "").await.problem().0, 400);
}

async fn why_is_told(place: Arc<Place>) {
    push(&place, &NewPartition::new("p"), &[0]).await;
    place.store.pause("p").await.unwrap();
    let client = place.client();
    let why = client.get("/v1/partitions/p/why").await.json();
    assert_eq!(
        (&why["status"], &why["todo"][0]),
        (&"paused".into(), &"`gatefeed resume p` lets it go on.".into())
    );
    assert_eq!(client.get("/v1/partitions/p/why?item=g0").await.json()["item"]["id"], "g0");
    assert_eq!(client.get("/v1/partitions/p/why?item=x").await.problem().0, 404);
    assert_eq!(client.get("/v1/watchers").await.json(), json!({"watchers": []}));
}
