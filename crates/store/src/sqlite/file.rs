//! The database's file.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use gatefeed_core::StoreError;
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{error::Result, pool::WRITE_PATIENCE};

/// Which file is at a path; none, where that cannot be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileId(Option<(u64, u64)>);

impl FileId {
    #[cfg(unix)]
    pub(super) fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self(path.metadata().ok().map(|file| (file.dev(), file.ino())))
    }

    #[cfg(not(unix))]
    pub(super) fn of(_: &Path) -> Self {
        Self(None)
    }
}

/// The file of a `sqlite:` URL: a place where it is or can be made.
pub(super) fn file_of(url: &str) -> gatefeed_core::Result<PathBuf> {
    let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
    if !matches!(parameters, "" | "mode=rwc") {
        return Err(StoreError::Config(format!(
            "the database URL {url:?} has the parameter {parameters:?}: sqlite://path takes none, and a missing file \
             is made"
        )));
    }
    let Some(path) = crate::sqlite_path(address) else {
        return Err(StoreError::Config(format!(
            "the database URL {url:?} names no file: several connections and processes share the database, so it \
             has to be one, as in sqlite://gatefeed.db"
        )));
    };
    check(&path)?;
    // Absolute, for the messages, and so that no path is taken for a "file:" URI.
    Ok(std::path::absolute(&path).unwrap_or(path))
}

fn check(path: &Path) -> gatefeed_core::Result<()> {
    if path.is_dir() {
        let text = format!("the database {} is a directory: name a file in it", path.display());
        return Err(StoreError::Config(text));
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            Err(StoreError::Config(format!(
                "the database {} cannot be made: there is no directory {}",
                path.display(),
                parent.display()
            )))
        }
        _ => Ok(()),
    }
}

/// Makes the file if it is missing, and puts it into WAL mode, in which it stays.
pub(super) async fn make(options: &SqliteConnectOptions) -> Result<()> {
    let options = options.clone().create_if_missing(true).busy_timeout(WRITE_PATIENCE);
    let mut connection = options.connect().await?;
    let mode = into_wal(&mut connection).await?;
    forget_small_tables(&mut connection).await?;
    connection.close().await?;
    if mode != "wal" {
        return Err(StoreError::Config(format!(
            "the database {} cannot have a write-ahead log (its journal mode stays {mode:?}): is it on a network file \
             system?",
            options.get_filename().display()
        ))
        .into());
    }
    Ok(())
}

/// Another process that does the same at the same moment makes SQLite give up at once, so this asks again.
async fn into_wal(connection: &mut SqliteConnection) -> Result<String> {
    let started = Instant::now();
    loop {
        let asked = sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut *connection).await;
        match asked.map_err(super::error::Error::from) {
            Err(error) if error.is_busy() && started.elapsed() < WRITE_PATIENCE => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            mode => return mode,
        }
    }
}

/// Removes what an ANALYZE has noted while our tables were small. SQLite believes it for ever, and scans the table
/// however large it has become; with nothing noted it assumes a large one.
async fn forget_small_tables(connection: &mut SqliteConnection) -> Result<()> {
    let tables = "SELECT name FROM sqlite_schema WHERE name IN ('sqlite_stat1', 'sqlite_stat4')";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut *connection).await?;
    if !tables.iter().any(|table| table == "sqlite_stat1") {
        return Ok(());
    }
    let small =
        "SELECT DISTINCT tbl FROM sqlite_stat1 WHERE tbl GLOB 'gatefeed_*' AND CAST(stat AS INTEGER) < 1000";
    let small: Vec<String> = sqlx::query_scalar(small).fetch_all(&mut *connection).await?;
    for name in &small {
        for table in &tables {
            let forget = format!("DELETE FROM {table} WHERE tbl = ?");
            sqlx::query(&forget).bind(name).execute(&mut *connection).await?;
        }
    }
    Ok(())
}
