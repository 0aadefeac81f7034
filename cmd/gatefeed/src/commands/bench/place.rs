//! Where a bench takes place: an empty schema or file of its own, gone afterwards.

use std::{path::PathBuf, sync::Arc};

use anyhow::Result;
use gatefeed_core::Store;
use gatefeed_store::{Limit, Options, Synchronous, sqlite_path};

use crate::database::DatabaseArgs;

/// An empty namespace with gatefeed's tables.
pub(crate) struct Place {
    url: String,
    options: Options,
    /// The file, on SQLite.
    file: Option<PathBuf>,
}

impl Place {
    /// Makes it in the database that is named: its schema, or a file in the directory of that file.
    pub(crate) async fn make(database: &DatabaseArgs) -> Result<Self> {
        let (url, options) = database.place()?;
        let name = format!("gatefeed_bench_{}", uuid::Uuid::new_v4().simple());
        let place = match sqlite_path(&url) {
            Some(path) => {
                let file = path.with_file_name(format!("{name}.db"));
                Self { url: format!("sqlite://{}", file.display()), options, file: Some(file) }
            }
            None => Self { url, options: Options { schema: Some(name), ..options }, file: None },
        };
        place.open().await?.migrate().await?;
        Ok(place)
    }

    /// A store of its own, as another process would have it.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>> {
        Ok(gatefeed_store::connect(&self.url, &self.options).await?)
    }

    /// What a process of this binary has to find in its environment, to open the same.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let synchronous = match self.options.synchronous {
            Synchronous::Full => "full",
            Synchronous::Normal => "normal",
        };
        vec![
            ("GATEFEED_DATABASE_URL", self.url.clone()),
            ("GATEFEED_SCHEMA", self.options.schema.clone().unwrap_or_default()),
            ("GATEFEED_SQLITE_SYNCHRONOUS", synchronous.to_owned()),
        ]
    }

    /// A plain connection.
    pub(crate) async fn limit(&self) -> Result<Limit> {
        Ok(Limit::connect(&self.url, &self.options).await?)
    }

    /// The database's name, for people.
    pub(crate) fn database(&self) -> &'static str {
        if self.file.is_some() { "SQLite" } else { "Postgres" }
    }

    /// Removes everything.
    pub(crate) async fn remove(self) -> Result<()> {
        let Some(file) = self.file else {
            return Ok(self.limit().await?.drop_schema().await?);
        };
        for suffix in ["", "-wal", "-shm"] {
            let mut name = file.clone().into_os_string();
            name.push(suffix);
            match std::fs::remove_file(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}
