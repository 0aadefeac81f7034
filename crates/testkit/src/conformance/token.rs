//! Who may use the API.

use gatefeed_core::{
    StoreError,
    token::{ENDED_MAX, NewToken, Role},
};

use super::given::TestDb;

fn token(id: &str, role: Role) -> NewToken {
    NewToken { id: id.into(), name: None, role, feed: None, hash: [id.as_bytes()[0]; 32], expires_at: None }
}

/// Every field is kept, and the list is in order of id.
pub async fn tokens_are_listed(db: TestDb) {
    let store = db.store();
    assert!(store.tokens().await.unwrap().is_empty());
    let end = "2030-01-31T08:00:00Z".parse().unwrap();
    let whole = NewToken {
        name: Some("the importer".into()),
        feed: Some("video".into()),
        expires_at: Some(end),
        ..token("b", Role::Push)
    };
    store.add_token(&whole).await.unwrap();
    store.add_token(&token("a", Role::Operate)).await.unwrap();
    let tokens = store.tokens().await.unwrap();
    assert_eq!(tokens.iter().map(|token| token.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((tokens[0].role, &tokens[0].feed, tokens[0].expires_at), (Role::Operate, &None, None));
    let (name, feed) = (tokens[1].name.as_deref(), tokens[1].feed.as_deref());
    assert_eq!((name, tokens[1].role, feed), (Some("the importer"), Role::Push, Some("video")));
    assert_eq!((tokens[1].expires_at, tokens[1].hash.as_slice()), (Some(end), &[b'b'; 32][..]));
    assert!(tokens[1].holds(end - std::time::Duration::from_secs(1)) && !tokens[1].holds(end));
    assert!(store.add_token(&token("a", Role::Read)).await.unwrap_err().is_data());
    assert!(
        store.add_token(&NewToken { feed: Some(String::new()), ..token("c", Role::Read) }).await.is_err()
    );
}

/// A revoked token is still there, and holds no more.
pub async fn a_revoked_one_stays(db: TestDb) {
    let store = db.store();
    store.add_token(&token("a", Role::Read)).await.unwrap();
    store.revoke_token("a").await.unwrap();
    let revoked = store.tokens().await.unwrap().remove(0);
    assert!(revoked.revoked_at.is_some() && !revoked.holds(revoked.created_at));
    store.revoke_token("a").await.unwrap();
    assert_eq!(store.tokens().await.unwrap()[0].revoked_at, revoked.revoked_at);
    assert!(matches!(store.revoke_token("b").await, Err(StoreError::NotFound(_))));
}

/// Those that hold are found whatever there was before them, of which the oldest are forgotten.
pub async fn ended_ones_are_forgotten_in_time(db: TestDb) {
    let store = db.store();
    let numbers = match db.is_postgres() {
        true => "SELECT n FROM generate_series(1, 20000) AS s (n)",
        false => {
            "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 20000) SELECT n FROM s"
        }
    };
    let past = db.in_secs(-60.0);
    let hash = match db.is_postgres() {
        true => "convert_to(lpad(n::text, 32, '0'), 'UTF8')",
        false => "CAST(printf('%032d', n) AS BLOB)",
    };
    db.run(&format!(
        "INSERT INTO gatefeed_tokens (id, role, hash, revoked_at, created_at)
         SELECT 'a' || n, 'read', {hash}, {past}, {past} FROM ({numbers}) AS numbers"
    ))
    .await;
    store.add_token(&token("z", Role::Read)).await.unwrap();
    let tokens = store.tokens().await.unwrap();
    assert_eq!(tokens.len(), ENDED_MAX + 1);
    assert!(tokens.iter().any(|token| token.id == "z"));
    db.run("UPDATE gatefeed_tokens SET revoked_at = NULL").await;
    let error = store.add_token(&token("y", Role::Read)).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    assert_eq!(store.tokens().await.unwrap().len(), ENDED_MAX + 1);
}
