//! The flags of the blob store.

use std::fs;

use crate::place::{Place, handler, json};

#[test]
fn a_file_goes_to_the_blob_store_and_comes_back() {
    let place = Place::migrated();
    let blobs = format!("file://{}", place.path().join("blobs").display());
    let store = ["--blob-store", &blobs, "--inline-max", "10"];
    fs::write(place.path().join("large.txt"), "more than ten bytes").unwrap();
    fs::write(place.path().join("small.txt"), "ten bytes!").unwrap();
    place
        .succeeds(&[&["push", "--partition", "p", "--files", "large.txt", "small.txt"], &store[..]].concat());
    let items = json(&place.succeeds(&[&["items", "p", "--data", "--json"], &store[..]].concat()));
    assert_eq!((&items[0]["data"], &items[0]["size"]), (&json("\"more than ten bytes\""), &json("19")));
    assert_eq!(items[0]["content_type"], "text/plain");
    assert_eq!(items[1]["data"], "ten bytes!");
    // Without it the listing has everything but the data.
    let items = json(&place.succeeds(&["items", "p", "--json"]));
    assert_eq!((&items[0]["content_type"], &items[0]["size"]), (&json("\"text/plain\""), &json("19")));
    let told = place.succeeds(&["items", "p", "--data"]);
    assert!(told.contains("its data is in a blob store: start gatefeed with --blob-store"), "{told}");
    assert!(told.contains("ten bytes!"), "{told}");
    let url = handler("200 OK");
    place.succeeds(&[&["run", "--until-idle", "--target", &url], &store[..]].concat());
    let old = [&["prune", "--blobs", "--older-than", "0s"], &store[..]].concat();
    assert!(place.succeeds(&old).starts_with("0 blobs of 0 B removed, 1 of that age referred to."));
}

#[test]
fn what_will_not_do_as_a_blob_store_is_told() {
    let place = Place::migrated();
    for (url, expected) in [
        ("blobs", "expected file:///path/to/folder or s3://bucket/prefix"),
        ("file://blobs", "with three slashes"),
        ("ftp://u:secret@h/x", "expected file:///"),
        ("file:///dev/null/blobs", "cannot be made"),
    ] {
        place.fails(&["status", "--blob-store", url], 2, &[expected]);
        let told = place.run(&["status", "--blob-store", url]).err;
        assert!(!told.contains("secret"), "{told}");
        assert!(!told.contains("DATABASE_URL"), "it is not the database that will not do: {told}");
    }
    #[cfg(not(feature = "s3"))]
    place.fails(&["status", "--blob-store", "s3://bucket"], 2, &["built without S3"]);
    place.fails(&["prune", "--blobs"], 1, &["add --blob-store"]);
    place.fails(&["prune"], 2, &["--blobs"]);
    place.fails(&["run", "--target", "http://h/", "--blob-links"], 2, &["--blob-store"]);
}
