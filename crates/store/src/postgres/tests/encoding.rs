//! Databases that cannot hold every text.

use gatefeed_core::{Result, StoreError, store::Migrated};
use sqlx::{Connection, Executor, PgConnection};
use url::Url;

use crate::{Options, postgres::Postgres};

/// An id in Latin-1.
const WRONG: &str =
    "INSERT INTO gatefeed_partitions (id) VALUES (convert_from('\\x4dfc6c', getdatabaseencoding()))";

/// Migrates a database of this encoding; what that came to, how many tables are there then, and whether it takes a wrong id.
async fn migrate(encoding: &str) -> (Result<Migrated>, i64, bool) {
    let mut url =
        Url::parse(&std::env::var("GATEFEED_TEST_POSTGRES_URL").expect("run ./scripts/test")).unwrap();
    let mut server = PgConnection::connect(url.as_str()).await.unwrap();
    let name = format!("encoding_{}", uuid::Uuid::new_v4().simple());
    // ICU, which a server of 15 may have for its default, knows fewer encodings.
    let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
        .fetch_one(&mut server)
        .await
        .unwrap();
    let provider = if version < 150_000 { "" } else { "LOCALE_PROVIDER libc" };
    let create =
        format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' {provider} TEMPLATE template0");
    server.execute(create.as_str()).await.unwrap();
    url.set_path(&name);
    let store = Postgres::connect(url.as_str(), &Options::default()).await.unwrap();
    let migrated = store.migrate_schema().await;
    let mut conn = PgConnection::connect(url.as_str()).await.unwrap();
    let count = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'gatefeed%'";
    let tables = sqlx::query_scalar(count).fetch_one(&mut conn).await.unwrap();
    let is_taken = conn.execute(WRONG).await.is_ok();
    server.execute(format!("DROP DATABASE {name} WITH (FORCE)").as_str()).await.unwrap();
    (migrated, tables, is_taken)
}

#[tokio::test]
async fn a_database_that_does_not_hold_every_text_is_refused_with_what_to_do() {
    for encoding in ["LATIN1", "WIN1252"] {
        let (migrated, tables, _) = migrate(encoding).await;
        let Err(StoreError::Config(why)) = migrated else { panic!("{encoding}: {migrated:?}") };
        assert!(why.contains(encoding) && why.contains("createdb -E UTF8 -T template0"), "{why}");
        assert_eq!(tables, 0, "{encoding}");
    }
    for encoding in ["UTF8", "SQL_ASCII"] {
        let (migrated, tables, is_taken) = migrate(encoding).await;
        assert!(migrated.is_ok() && tables > 5, "{encoding}: {migrated:?}");
        assert!(!is_taken, "{encoding} takes an id that is not UTF-8");
    }
}
