//! Who may use the API.

use gatefeed_core::{
    StoreError,
    token::{NewToken, Role},
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
