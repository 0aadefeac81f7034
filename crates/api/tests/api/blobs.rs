//! Data that lies in a blob store, or should.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use gatefeed_core::{
    item::{Data, NewItem},
    partition::NewPartition,
};

use crate::place::Place;

on_both!(data_that_cannot_be_read_is_told_of);

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

async fn data_that_cannot_be_read_is_told_of(place: Arc<Place>) {
    let folder = tempfile::tempdir().unwrap();
    let (store, client) = place.with_blobs(folder.path(), 10).await;
    let item = |id: &str, text: &'static str| NewItem::new("p", id, Data::json(text));
    let items = [item("large", "\"more than ten bytes\""), item("small", "1")];
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    let (listing, data) = ("/v1/partitions/p/items?data=true", "/v1/partitions/p/items/large/data");
    assert_eq!(client.get(data).await.text(), "\"more than ten bytes\"");
    let page = client.get(listing).await.json();
    assert!(page["items"][0].get("data_error").is_none() && page["items"][0]["data"].is_string());

    // A server that was started without it says so, and shows all else.
    let without = place.client();
    let refused = without.get(data).await;
    assert_eq!(refused.problem(), (503, "no-blob-store".into()));
    assert!(refused.text().contains("--blob-store"));

    files(folder.path()).iter().for_each(|file| fs::remove_file(file).unwrap());
    let refused = client.get(data).await;
    assert_eq!(refused.problem(), (410, "data-gone".into()));
    for (client, why) in [(&client, "is not in the blob store"), (&without, "--blob-store")] {
        let answer = client.get(listing).await;
        let items = answer.json()["items"].clone();
        assert_eq!((answer.status, &items[1]["data"]), (200, &"1".into()));
        assert!(items[0]["data_error"].as_str().unwrap().contains(why) && items[0].get("data").is_none());
        let lines = client.clone().with("Accept", "application/x-ndjson").get(listing).await;
        assert_eq!((lines.status, lines.text().lines().count()), (200, 2));
        assert_eq!(client.get("/v1/partitions/p/items/large").await.status, 200);
    }
}
