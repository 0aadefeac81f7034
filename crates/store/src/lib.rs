//! gatefeed on Postgres and on SQLite: two twins of [`gatefeed_core::Store`] with the same file names, so that
//! one guesses the file from the question in either. A twin's file says where it differs from the other, and why. Files that
//! one of them has alone are about what the other has not: on Postgres a batch as arrays (`batch`), connecting (`connect`)
//! and the schema's name (`schema`); on SQLite leases checked under its lock (`fence`), the file (`file`), text that is
//! not UTF-8 (`text`) and lists of values (`values`).

mod blobs;
mod instrument;
mod limit;
mod migration;
mod postgres;
mod sqlite;
mod unsettled;

use std::{path::PathBuf, sync::Arc};

use gatefeed_core::{Result, Store, StoreError, item::NewItem, partition::NewPartition, store::Pushed};
use sqlx::{PgConnection, SqliteConnection};

pub use self::{
    blobs::{BlobOptions, INLINE_MAX_DEFAULT},
    limit::Limit,
};

/// How a store is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The Postgres schema of the tables; `None`: `public`. A SQLite file is its own namespace, so that there
    /// a schema is refused.
    pub schema: Option<String>,
    /// Where LISTEN connects, when the URL leads through a pooler in transaction mode; `None`: the same URL.
    pub listen_url: Option<String>,
    /// What SQLite does at a commit.
    pub synchronous: Synchronous,
    /// Where large data goes; `None`: into its row.
    pub blobs: Option<BlobOptions>,
}

/// SQLite's `synchronous` setting.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Synchronous {
    /// A commit is on the disk when it returns.
    #[default]
    Full,
    /// Faster; a power cut can lose the last commits (the file stays intact).
    Normal,
}

/// Opens `sqlite://path` (made if missing), `postgres://…` or `postgresql://…` and checks that it answers.
/// Errs with `Config` for any other URL and with `Unavailable` for a database that cannot be reached.
pub async fn connect(url: &str, options: &Options) -> Result<Arc<dyn Store>> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    match scheme {
        "postgres" | "postgresql" => {
            let store = postgres::Postgres::connect(url, options).await?;
            Ok(Arc::new(instrument::Instrumented::new(store, options.blobs.as_ref())?))
        }
        "sqlite" => {
            if options.schema.is_some() {
                return Err(StoreError::Config(
                    "--schema is for Postgres: a SQLite file is its own namespace, so use another file"
                        .into(),
                ));
            }
            let store = sqlite::Sqlite::connect(url, options).await?;
            Ok(Arc::new(instrument::Instrumented::new(store, options.blobs.as_ref())?))
        }
        _ => Err(StoreError::Config(format!(
            "the database URL {} has no scheme that gatefeed knows: expected sqlite://path/to/file.db or \
             postgres://user@host/database",
            without_password(url)
        ))),
    }
}

/// Adds items, and their partition if it is missing, inside a transaction that the caller has open: they are there
/// with its commit, which also wakes watchers, and gone with its rollback. After an error the transaction is aborted,
/// as Postgres does it. `schema` is that of the tables; `None`: `public`.
pub async fn push_into_postgres(
    connection: &mut PgConnection,
    schema: Option<&str>,
    partition: &NewPartition,
    items: &[NewItem],
) -> Result<Pushed> {
    postgres::insert::push_into(connection, schema.unwrap_or(postgres::PUBLIC), partition, items).await
}

/// As [`push_into_postgres`], on SQLite. An error takes back what this call had added and leaves the
/// transaction open. After a call that was dropped, roll back.
pub async fn push_into_sqlite(
    connection: &mut SqliteConnection,
    partition: &NewPartition,
    items: &[NewItem],
) -> Result<Pushed> {
    sqlite::push_into(connection, partition, items).await
}

/// The file of a `sqlite:` URL, or `None` where it is no file.
pub fn sqlite_path(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let path = path.split('?').next().unwrap_or("");
    (!path.is_empty() && path != ":memory:").then(|| PathBuf::from(path))
}

/// A URL that may be shown: everything between "://" and the last "@" is left out, and parameters are too. A
/// password with a "/" or "@" in it that should have been encoded is not shown either.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url.contains('@') { "(not shown)".to_owned() } else { format!("{url:?}") };
    };
    let shown = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, host)| format!("…@{host}"));
    let shown = shown.split('?').next().unwrap_or_default();
    format!("\"{scheme}://{shown}\"")
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("postgres://me:pw@host:5/db"), "\"postgres://…@host:5/db\"");
        for url in
            ["mysql://u:sec/ret@host/db", "p://u:a@sec@h/db", "postgres://h/db?password=sec", "u:sec@h"]
        {
            assert!(!without_password(url).contains("sec"), "{}", without_password(url));
        }
        assert_eq!(without_password("sqlite://a/b.db"), "\"sqlite://a/b.db\"");
    }
}
