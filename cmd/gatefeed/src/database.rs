//! Which database, and opening it.

use std::sync::Arc;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use gatefeed_core::Store;
use gatefeed_store::{Options, Synchronous, sqlite_path};

const DEFAULT_URL: &str = "sqlite://gatefeed.db";

/// The flags that name a database.
#[derive(Args, Debug)]
#[command(next_help_heading = "Database")]
pub(crate) struct DatabaseArgs {
    /// sqlite://path/to/file.db or postgres://user@host/database; also read from DATABASE_URL [default:
    /// sqlite://gatefeed.db]
    #[arg(long, global = true, env = "GATEFEED_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// The Postgres schema of the tables [default: public]
    #[arg(long, global = true, env = "GATEFEED_SCHEMA", value_name = "NAME")]
    pub(crate) schema: Option<String>,
    /// A direct Postgres URL for LISTEN, where the database's URL leads through PgBouncer
    #[arg(long, global = true, env = "GATEFEED_NOTIFY_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) notify_url: Option<String>,
    /// What SQLite does at a commit. normal is faster, at a price: a power cut can lose the last commits that were
    /// acknowledged (the file stays intact). full loses none
    #[arg(
        long,
        global = true,
        env = "GATEFEED_SQLITE_SYNCHRONOUS",
        value_name = "MODE",
        value_enum,
        default_value = "full"
    )]
    pub(crate) sqlite_synchronous: SynchronousArg,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum SynchronousArg {
    Full,
    Normal,
}

impl DatabaseArgs {
    /// Opens the database; a missing SQLite file is made.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>> {
        let options = Options {
            schema: given(&self.schema),
            listen_url: given(&self.notify_url),
            synchronous: match self.sqlite_synchronous {
                SynchronousArg::Full => Synchronous::Full,
                SynchronousArg::Normal => Synchronous::Normal,
            },
        };
        Ok(gatefeed_store::connect(&self.url(), &options).await?)
    }

    /// Opens a database that has gatefeed's tables: whoever only looks leaves no new file behind.
    pub(crate) async fn open_migrated(&self) -> Result<Arc<dyn Store>> {
        if let Some(path) = sqlite_path(&self.url()).filter(|path| !path.exists()) {
            bail!("the database file {} does not exist: run `gatefeed migrate` first", path.display());
        }
        let store = self.open().await?;
        store.check_schema().await?;
        Ok(store)
    }

    fn url(&self) -> String {
        given(&self.database_url)
            .or_else(|| std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()))
            .unwrap_or_else(|| DEFAULT_URL.to_owned())
    }
}

/// An empty value, as of a variable that a script or a compose file left empty, is none.
fn given(value: &Option<String>) -> Option<String> {
    value.clone().filter(|value| !value.is_empty())
}
