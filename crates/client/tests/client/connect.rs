//! Opening: what is missing is said, and nothing is made that nobody asked for.

use std::sync::Arc;

use gatefeed_client::{Client, Options, StoreError};

use crate::db::{Db, postgres_url, pushed};

on_both! { clients_share_their_tables }

async fn clients_share_their_tables(db: Arc<Db>) {
    let partition = gatefeed_client::Partition::builder("p").item(1).build().unwrap();
    db.client.push(&partition).await.unwrap();
    let over = Client::over(db.store());
    assert_eq!(over.clone().push(&partition).await.unwrap(), pushed(false, 0, 1));
    // Twice is once.
    Client::connect_and_migrate(&db.url, &db.options).await.unwrap();
}

#[tokio::test]
async fn a_missing_sqlite_file_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mistyped.db");
    let url = format!("sqlite://{}", path.display());
    let error = Client::connect(&url).await.unwrap_err();
    assert!(error.to_string().contains("mistyped.db: run `gatefeed migrate`"), "{error}");
    assert!(!error.is_retryable() && !path.exists());
    Client::connect_and_migrate(&url, &Options::default()).await.unwrap();
    Client::connect(&url).await.unwrap();
}

#[tokio::test]
async fn missing_tables_are_named() {
    let schema = Some("nobody_made_this".to_owned());
    let error = Client::connect_with(&postgres_url(), &Options { schema, ..Options::default() }).await;
    let Err(gatefeed_client::Error::Store(error @ StoreError::SchemaMissing { .. })) = error else {
        panic!("{error:?}")
    };
    assert!(error.to_string().contains("nobody_made_this") && error.to_string().contains("gatefeed migrate"));
}
