//! `gatefeed migrate`.

use anyhow::Result;
use clap::Args;

use crate::{database::DatabaseArgs, output};

/// Make gatefeed's tables in the database, or bring them up to date.
///
/// Safe to repeat and to run from several places at once. It only goes forward: tables that a newer gatefeed made are
/// left alone. `gatefeed run` does the same at its start unless told --no-migrate.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed migrate
  gatefeed migrate --database-url postgres://app@db.example/app --schema gatefeed")]
pub(crate) struct MigrateArgs {}

pub(crate) async fn migrate(database: &DatabaseArgs, MigrateArgs {}: MigrateArgs) -> Result<()> {
    let migrated = database.open().await?.migrate().await?;
    output::line(&match (migrated.from, migrated.to) {
        (from, to) if from == to => format!("the schema is at version {to} already"),
        (0, to) => format!("made gatefeed's tables: the schema is at version {to}"),
        (from, to) => format!("migrated the schema from version {from} to {to}"),
    })
}
