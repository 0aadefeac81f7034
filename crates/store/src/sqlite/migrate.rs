//! Bringing the schema to this binary's version.

use gatefeed_core::{StoreError, store::Migrated};
use sqlx::{Executor, SqliteConnection};

use super::{Sqlite, error::Result, pool::Lane};
use crate::migration::{MIGRATIONS, Migration, newest};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS gatefeed_migrations (
    version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL,
    applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))) STRICT";

impl Sqlite {
    pub(super) async fn migrate_schema(&self) -> Result<Migrated> {
        // The write lock makes it one migrator at a time over all processes.
        let mut tx = self.lanes.write().await?;
        let from = version(tx.conn()?).await?.unwrap_or(0);
        if from > newest() {
            return Err(StoreError::SchemaNewer { found: from, known: newest() }.into());
        }
        sqlx::query(TABLE).execute(tx.conn()?).await?;
        for migration in MIGRATIONS.iter().filter(|m| m.version > from) {
            apply(tx.conn()?, migration).await?;
        }
        tx.commit().await?;
        Ok(Migrated { from, to: newest() })
    }

    pub(super) async fn check_version(&self) -> Result<()> {
        match version(&mut *self.lanes.read(Lane::Work).await?).await? {
            None | Some(0) => Err(StoreError::SchemaMissing { place: String::new() }.into()),
            Some(found) if found < newest() => {
                Err(StoreError::SchemaOlder { found, needed: newest() }.into())
            }
            Some(found) if found > newest() => Err(StoreError::SchemaNewer { found, known: newest() }.into()),
            Some(_) => Ok(()),
        }
    }

    pub(super) async fn answer(&self) -> Result<()> {
        // Reads the file, unlike SELECT 1.
        sqlx::query("PRAGMA schema_version").fetch_one(&mut *self.lanes.read(Lane::Ask).await?).await?;
        Ok(())
    }
}

/// The schema's version; `None` if its table of migrations does not exist.
async fn version(connection: &mut SqliteConnection) -> Result<Option<i64>> {
    let exists =
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'gatefeed_migrations')";
    if !sqlx::query_scalar(exists).fetch_one(&mut *connection).await? {
        return Ok(None);
    }
    let newest = "SELECT coalesce(max(version), 0) FROM gatefeed_migrations";
    Ok(Some(sqlx::query_scalar(newest).fetch_one(connection).await?))
}

async fn apply(connection: &mut SqliteConnection, migration: &Migration) -> Result<()> {
    // A script of many statements, unprepared.
    connection.execute(migration.sqlite).await?;
    let note = sqlx::query("INSERT INTO gatefeed_migrations (version, name) VALUES (?, ?)");
    note.bind(migration.version).bind(migration.name).execute(connection).await?;
    Ok(())
}
