//! What is different over HTTP.

use std::{sync::Arc, time::Duration};

use gatefeed_api::new_token;
use gatefeed_client::{Client, Error, Item, Partition, StoreError};
use gatefeed_core::token::Role;

use crate::db::{Db, PATIENCE, Pool};

on_both! { what_takes_a_connection_says_so, a_token_decides }

async fn what_takes_a_connection_says_so(db: Arc<Db>) {
    let client = Client::http("http://127.0.0.1:9").build().unwrap();
    assert!(client.store().is_none());
    let partition = Partition::builder("p").item(1).build().unwrap();
    let refused = match &db.pool {
        Pool::Postgres(pool) => client.push_in(&mut *pool.acquire().await.unwrap(), &partition).await,
        Pool::Sqlite(pool) => client.push_in(&mut *pool.acquire().await.unwrap(), &partition).await,
    };
    let Err(Error::Store(StoreError::Config(why))) = refused else { panic!("{refused:?}") };
    assert!(why.contains("takes a connection to the database"), "{why}");
    assert!(client.push(&partition).await.unwrap_err().is_retryable(), "nobody answers there");
    let mut pusher = client.begin(&partition).await.unwrap();
    for _ in 0..4 {
        pusher.add(Item::bytes("text/plain", vec![b'x'; 16 << 20])).await.unwrap();
    }
    let told = match pusher.add(Item::bytes("text/plain", vec![b'x'; 16 << 20])).await {
        Err(told) => told,
        Ok(()) => pusher.commit().await.unwrap_err(),
    };
    assert!(told.to_string().contains("push in parts"), "{told}");
}

async fn a_token_decides(db: Arc<Db>) {
    let (client, url, _server) = db.api().await;
    let partition = Partition::builder("p").item(1).build().unwrap();
    client.push(&partition).await.unwrap();
    let (secret, token) = new_token(Role::Push, None, None, None);
    db.store().add_token(&token).await.unwrap();
    let pusher = Client::http(&url).token(secret).build().unwrap();
    let nobody = Client::connect(&url).await.unwrap();
    let stranger = Client::http(&url).token("gf_x_y").build().unwrap();
    for client in [nobody, stranger] {
        let told = client.push(&partition).await.unwrap_err();
        assert!(matches!(told, Error::Store(StoreError::Config(_))), "{told}");
    }
    // A server notices a new token within seconds.
    let pushed = async {
        loop {
            match pusher.push(&partition).await {
                Err(Error::Store(StoreError::Config(_))) => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                pushed => return pushed.unwrap(),
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, pushed).await.unwrap().existing, 1);
    let told = pusher.cancel("p").await.unwrap_err();
    assert!(matches!(told, Error::Store(StoreError::Config(_))), "{told}");
    client.cancel("p").await.unwrap();
}
