//! Which database, and opening it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use gatefeed_core::{Store, StoreError};
use gatefeed_store::{BlobOptions, Options, Synchronous, sqlite_path};

use crate::blobs::BlobArgs;

/// For how long a command that ends waits for its connections' end.
const CLOSE_MAX: Duration = Duration::from_secs(2);

const DEFAULT_URL: &str = "sqlite://gatefeed.db";

/// The flags that name a database.
#[derive(Args, Debug)]
#[command(next_help_heading = "Database")]
pub(crate) struct DatabaseArgs {
    /// sqlite://path/to/file.db or postgres://user@host/database; also read from DATABASE_URL [default:
    /// sqlite://gatefeed.db]
    #[arg(long, global = true, env = "GATEFEED_DATABASE_URL", value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// The Postgres schema of the tables [default: public]
    #[arg(long, global = true, env = "GATEFEED_SCHEMA", hide_short_help = true, value_name = "NAME")]
    pub(crate) schema: Option<String>,
    /// A direct Postgres URL for LISTEN, where the database's URL leads through PgBouncer
    #[arg(long, global = true, env = "GATEFEED_NOTIFY_URL", hide_short_help = true, value_name = "URL")]
    pub(crate) notify_url: Option<String>,
    /// What SQLite does at a commit. normal is faster, at a price: a power cut can lose the last commits that were
    /// acknowledged (the file stays intact). full loses none
    #[arg(
        long,
        global = true,
        env = "GATEFEED_SQLITE_SYNCHRONOUS",
        hide_short_help = true,
        value_name = "MODE",
        value_enum,
        default_value = "full"
    )]
    pub(crate) sqlite_synchronous: SynchronousArg,
    #[command(flatten)]
    pub(crate) blobs: BlobArgs,
    /// What this process has opened.
    #[arg(skip)]
    opened: Mutex<Vec<Arc<dyn Store>>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum SynchronousArg {
    Full,
    Normal,
}

impl DatabaseArgs {
    /// Opens the database; a missing SQLite file is made.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>> {
        let (url, source) = self.url()?;
        let options = self.options();
        // Before the database, whose errors say where its URL is from.
        options.blobs.as_ref().map(BlobOptions::check).transpose()?;
        let store = gatefeed_store::connect(&url, &options).await;
        let store = store.map_err(|error| with_advice(error, &url, source))?;
        self.opened().push(Arc::clone(&store));
        Ok(store)
    }

    /// Ends all connections, so that SQLite leaves one file behind, not three. Not for long: one may hang.
    pub(crate) async fn close(&self) {
        let opened = std::mem::take(&mut *self.opened());
        let closed = async {
            for store in opened {
                store.close().await;
            }
        };
        _ = tokio::time::timeout(CLOSE_MAX, closed).await;
    }

    fn opened(&self) -> MutexGuard<'_, Vec<Arc<dyn Store>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the database is, for whoever opens it in another way.
    pub(crate) fn place(&self) -> Result<(String, Options)> {
        Ok((self.url()?.0, self.options()))
    }

    fn options(&self) -> Options {
        Options {
            schema: given(&self.schema),
            listen_url: given(&self.notify_url),
            synchronous: match self.sqlite_synchronous {
                SynchronousArg::Full => Synchronous::Full,
                SynchronousArg::Normal => Synchronous::Normal,
            },
            blobs: self.blobs.options(),
        }
    }

    /// Opens a database that has gatefeed's tables: whoever only looks leaves no new file behind.
    pub(crate) async fn open_migrated(&self) -> Result<Arc<dyn Store>> {
        let (url, source) = self.url()?;
        if let Some(path) = sqlite_path(&url).filter(|path| !path.exists()) {
            let file = path.display();
            bail!("the database file {file} does not exist: run `gatefeed migrate` first{}", source.told());
        }
        let store = self.open().await?;
        store.check_schema().await?;
        Ok(store)
    }

    fn url(&self) -> Result<(String, Source)> {
        if let Some(url) = given(&self.database_url) {
            return Ok((url, Source::Given));
        }
        let Some(url) = std::env::var_os(VARIABLE).filter(|url| !url.is_empty()) else {
            return Ok((DEFAULT_URL.to_owned(), Source::Default));
        };
        let url = url.into_string().ok().with_context(|| format!("the variable {VARIABLE} is not UTF-8"))?;
        Ok((url, Source::Variable))
    }
}

/// The variable that other programs use too.
const VARIABLE: &str = "DATABASE_URL";

/// Where a URL comes from: the one that is in use is often not the one that was meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    /// The flag or its own variable.
    Given,
    Variable,
    Default,
}

impl Source {
    /// Worth telling unless it has just been typed.
    fn told(self) -> &'static str {
        match self {
            Self::Given => "",
            Self::Variable => " (the URL is that of DATABASE_URL)",
            Self::Default => {
                " (no other database is named: there is --database-url, or the variable DATABASE_URL)"
            }
        }
    }
}

/// What to look at when a database cannot be opened.
fn with_advice(error: StoreError, url: &str, source: Source) -> StoreError {
    let source = source.told();
    match error {
        StoreError::Unavailable(why) if url.starts_with("sqlite:") => {
            StoreError::Unavailable(format!("{why}: may this user write the file and its directory?{source}"))
        }
        StoreError::Unavailable(why) => {
            StoreError::Unavailable(format!("{why}: does it run there, with this host and port?{source}"))
        }
        StoreError::Config(why) => StoreError::Config(format!("{why}{source}")),
        error => error,
    }
}

/// An empty value, as of a variable that a script or a compose file left empty, is none.
fn given(value: &Option<String>) -> Option<String> {
    value.clone().filter(|value| !value.is_empty())
}
