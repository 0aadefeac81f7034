//! Pages and streams.

use std::sync::Arc;

use gatefeed_core::{
    item::{Data, NewItem},
    partition::NewPartition,
};

use crate::place::{Client, Place};

on_both!(partitions_come_in_pages items_come_in_pages everything_comes_as_lines);

/// Follows `next` to the end.
async fn all(client: &Client, path: &str, list: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut after = String::new();
    loop {
        let page = client.get(&format!("{path}limit=2{after}")).await.json();
        let rows = page[list].as_array().unwrap();
        assert!(rows.len() <= 2);
        ids.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return ids,
        }
    }
}

async fn fill(place: &Place) {
    for (id, feed) in [("a", "x"), ("b", "y"), ("c", "x"), ("d", "x"), ("e", "x")] {
        let partition = NewPartition { feed: feed.into(), ..NewPartition::new(id) };
        let item =
            |n: i32| NewItem { gate: n % 2, ..NewItem::new(id, format!("i{n}"), Data::json(n.to_string())) };
        place.store.push(&partition, &(0..5).map(item).collect::<Vec<_>>()).await.unwrap();
    }
    place.store.pause("d").await.unwrap();
}

async fn partitions_come_in_pages(place: Arc<Place>) {
    fill(&place).await;
    let client = place.client();
    assert_eq!(all(&client, "/v1/partitions?", "partitions").await, ["a", "b", "c", "d", "e"]);
    assert_eq!(all(&client, "/v1/partitions?feed=x&", "partitions").await, ["a", "c", "d", "e"]);
    assert_eq!(all(&client, "/v1/partitions?status=paused&", "partitions").await, ["d"]);
    for bad in ["status=lost", "limit=0", "limit=10000"] {
        assert_eq!(client.get(&format!("/v1/partitions?{bad}")).await.problem().0, 422, "{bad}");
    }
}

async fn items_come_in_pages(place: Arc<Place>) {
    fill(&place).await;
    let client = place.client();
    assert_eq!(all(&client, "/v1/partitions/a/items?", "items").await, ["i0", "i1", "i2", "i3", "i4"]);
    assert_eq!(all(&client, "/v1/partitions/a/items?data=true&", "items").await.len(), 5);
    assert_eq!(all(&client, "/v1/partitions/a/items?gate=1&", "items").await, ["i1", "i3"]);
    assert!(all(&client, "/v1/partitions/a/items?status=failed&", "items").await.is_empty());
    let page = client.get("/v1/partitions/a/items?data=true&after=i3").await.json();
    assert_eq!(page["items"][0]["data"], "4");
    assert!(client.get("/v1/partitions/a/items").await.json()["items"][0].get("data").is_none());
    let gates = client.get("/v1/partitions/a/gates").await.json();
    assert_eq!((&gates["gates"][0]["available"], &gates["gates"][1]["gate"]), (&3.into(), &1.into()));
}

async fn everything_comes_as_lines(place: Arc<Place>) {
    fill(&place).await;
    let many: Vec<NewItem> =
        (0..1_234).map(|n| NewItem::new("many", format!("{n:05}"), Data::json(n.to_string()))).collect();
    place.store.push(&NewPartition::new("many"), &many).await.unwrap();
    let lines = place.client().with("Accept", "application/x-ndjson");
    let partitions = lines.get("/v1/partitions?feed=x").await;
    assert_eq!(partitions.headers["content-type"], "application/x-ndjson");
    assert_eq!(partitions.text().lines().count(), 4);
    let items = lines.get("/v1/partitions/many/items?data=true").await.text();
    let data = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["data"].as_str().unwrap().to_owned()
    };
    let expected: Vec<String> = (0..1_234).map(|n| n.to_string()).collect();
    assert_eq!(items.lines().map(data).collect::<Vec<_>>(), expected);
    assert_eq!(lines.get("/v1/partitions/many/items?limit=700").await.text().lines().count(), 700);
    assert_eq!(lines.get("/v1/partitions?limit=2").await.text().lines().count(), 2);
    assert_eq!(lines.get("/v1/partitions/nobody/items").await.problem().0, 404);
    for none in ["/v1/partitions?limit=0", "/v1/partitions/many/items?limit=0&data=true"] {
        assert_eq!(lines.get(none).await.problem().0, 422, "{none}");
    }
}
