//! The commands, one file each.

pub(crate) mod advance;
pub(crate) mod items;
pub(crate) mod migrate;
pub(crate) mod partitions;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod seal;
pub(crate) mod status;

use anyhow::Result;

use crate::{
    args::{Cli, Command},
    demo, exit,
};

/// Runs the command and returns the exit code.
pub(crate) async fn run(cli: Cli) -> Result<u8> {
    let database = &cli.database;
    match cli.command {
        Command::Demo(args) => return demo::demo(args).await,
        Command::Run(args) => return run::run(database, *args).await,
        Command::Migrate(args) => migrate::migrate(database, args).await?,
        Command::Status(args) => status::status(database, args).await?,
        Command::Partitions(args) => partitions::partitions(database, args).await?,
        Command::Items(args) => items::items(database, args).await?,
        Command::Retry(args) => retry::retry(database, args).await?,
        Command::Seal(args) => seal::seal(database, args).await?,
        Command::Advance(args) => advance::advance(database, args).await?,
    }
    Ok(exit::OK)
}

/// Splits off the row that was read only to know whether there are more, and says how to go on.
fn page_end<T>(rows: &mut Vec<T>, limit: usize, id: impl Fn(&T) -> &str) {
    if rows.len() > limit {
        rows.truncate(limit);
        if let Some(last) = rows.last() {
            crate::output::note(&format!("there are more: add --after {}", crate::output::quoted(id(last))));
        }
    }
}
