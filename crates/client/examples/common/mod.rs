//! What the examples share: a database to run on.

#![allow(dead_code, reason = "each example uses a part of it")]

use gatefeed_client::{Client, Options};
use tempfile::TempDir;

/// The database of DATABASE_URL, or a SQLite file that is gone afterwards.
pub struct Db {
    pub url: String,
    pub client: Client,
    _dir: Option<TempDir>,
}

pub async fn open() -> anyhow::Result<Db> {
    let (url, dir) = match std::env::var("DATABASE_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let dir = tempfile::tempdir()?;
            (format!("sqlite://{}", dir.path().join("gatefeed.db").display()), Some(dir))
        }
    };
    let client = Client::connect_and_migrate(&url, &Options::default()).await?;
    Ok(Db { url, client, _dir: dir })
}

/// An id that no earlier run has used.
pub fn fresh(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::now_v7())
}
