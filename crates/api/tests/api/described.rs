//! The description of the API.

use std::sync::Arc;

use crate::place::Place;

on_both!(what_is_served_is_what_is_checked_in);

const CHECKED_IN: &str = include_str!("../../openapi.json");

/// To write it anew: GATEFEED_WRITE_OPENAPI=1 cargo test -p gatefeed-api the_description
#[test]
fn the_description_is_checked_in() {
    let written = serde_json::to_string_pretty(&gatefeed_api::openapi()).unwrap() + "\n";
    if std::env::var_os("GATEFEED_WRITE_OPENAPI").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        return std::fs::write(path, written).unwrap();
    }
    assert!(
        CHECKED_IN == written,
        "crates/api/openapi.json is not what the code says: GATEFEED_WRITE_OPENAPI=1 writes it anew"
    );
}

async fn what_is_served_is_what_is_checked_in(place: Arc<Place>) {
    let client = place.client();
    let served = client.get("/openapi.json").await;
    assert_eq!(served.json(), serde_json::from_str::<serde_json::Value>(CHECKED_IN).unwrap());
    assert_eq!(served.json()["openapi"], "3.1.0");
    let page = client.get("/docs/").await;
    assert!(page.status == 200 && page.text().contains("Swagger UI"), "{page:?}");
    assert_eq!(
        (page.headers["x-frame-options"].as_str(), page.headers["x-content-type-options"].as_str()),
        ("DENY", "nosniff")
    );
}
