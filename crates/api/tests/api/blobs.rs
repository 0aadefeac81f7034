//! Data that lies in a blob store, or should.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use gatefeed_core::{
    blob::{Link, Reference},
    gather::{Ended, Gather},
    item::{Data, NewItem},
    partition::NewPartition,
};

use crate::place::Place;

on_both!(data_that_cannot_be_read_is_told_of a_blob_store_that_is_away_is_told_of);

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
    // What gathers it is cancelled with it here: whoever was sent a URL for it asks.
    store.cancel("p").await.unwrap();
    let gather = Gather { gate: 0, status: Ended::Cancelled };
    let token = store.callback_key().await.unwrap().sign_gathered("p", gather);
    let gathered = format!("/v1/partitions/p/gathered/0?status=cancelled&token={token}");
    for refused in [client.get(data).await, client.get(&gathered).await] {
        assert_eq!(refused.problem(), (410, "data-gone".into()));
        assert!(refused.text().contains("is not in the blob store"), "{}", refused.text());
    }
    assert_eq!(without.get(&gathered).await.problem(), (503, "no-blob-store".into()));
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

/// What is damaged is gone, and what is away is not the database.
async fn a_blob_store_that_is_away_is_told_of(place: Arc<Place>) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("blobs");
    let (store, client) = place.with_blobs(&folder, 10).await;
    let large = NewItem::new("p", "large", Data::json("\"more than ten bytes\""));
    store.push(&NewPartition::new("p"), &[large]).await.unwrap();
    let data = "/v1/partitions/p/items/large/data";
    files(&folder).iter().for_each(|file| fs::write(file, "short").unwrap());
    let refused = client.get(data).await;
    assert_eq!(refused.problem(), (410, "data-gone".into()));
    assert!(refused.text().contains("is damaged: it has 5 bytes instead of 21"), "{}", refused.text());
    assert!(!refused.text().contains("database"), "{}", refused.text());

    let path = files(&folder).remove(0).strip_prefix(&folder).unwrap().display().to_string();
    let reference = Reference::new(path, 21, "application/json".into());
    let Link::Relative(link) = store.blobs().unwrap().link(&reference).await.unwrap() else { panic!() };
    let link = format!("/{link}");
    assert_eq!(client.get(&link).await.text(), "short");

    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    let items = "/v1/partitions/p/items";
    let posted = client.post(items, "\"also more than ten bytes\"").await;
    for refused in [client.get(data).await, client.get(&link).await, posted] {
        assert_eq!(refused.problem(), (503, "busy".into()));
        let text = refused.text();
        assert!(
            text.contains("the blob store, where large data lies,") && !text.contains("the database"),
            "{text}"
        );
        assert!(!text.contains(folder.to_str().unwrap()), "where it lies is nobody's business: {text}");
    }
    assert_eq!(client.get(items).await.json()["items"].as_array().unwrap().len(), 1);
}
