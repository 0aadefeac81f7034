//! The commands, one file each.

pub(crate) mod advance;
pub(crate) mod bench;
pub(crate) mod cancel;
mod collect;
pub(crate) mod config;
pub(crate) mod items;
pub(crate) mod listen;
pub(crate) mod listing;
pub(crate) mod migrate;
pub(crate) mod partitions;
pub(crate) mod pause;
pub(crate) mod prune;
pub(crate) mod push;
pub(crate) mod resume;
pub(crate) mod retry;
pub(crate) mod rewind;
pub(crate) mod run;
pub(crate) mod seal;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod watch;
pub(crate) mod why;

use anyhow::Result;

use crate::{
    args::{Cli, Command},
    database::DatabaseArgs,
    demo, exit, output,
};

/// Runs the command and returns the exit code.
pub(crate) async fn run(cli: Cli) -> Result<u8> {
    let ended = perform(cli.command, &cli.database).await;
    cli.database.close().await;
    ended
}

async fn perform(command: Command, database: &DatabaseArgs) -> Result<u8> {
    match command {
        Command::Demo(args) => return demo::demo(args).await,
        Command::Run(args) => return run::run(database, *args).await,
        Command::Serve(args) => return serve::serve(database, *args).await,
        Command::Bench(args) => return bench::bench(database, args).await,
        Command::Push(args) => return push::push(database, *args).await,
        Command::Config(args) => config::config(database, args)?,
        Command::Migrate(args) => migrate::migrate(database, args).await?,
        Command::Token(args) => token::token(database, args).await?,
        Command::Status(args) => status::status(database, args).await?,
        Command::Partitions(args) => partitions::partitions(database, args).await?,
        Command::Items(args) => items::items(database, args).await?,
        Command::Retry(args) => retry::retry(database, args).await?,
        Command::Seal(args) => seal::seal(database, args).await?,
        Command::Advance(args) => advance::advance(database, args).await?,
        Command::Pause(args) => pause::pause(database, args).await?,
        Command::Resume(args) => resume::resume(database, args).await?,
        Command::Cancel(args) => cancel::cancel(database, args).await?,
        Command::Rewind(args) => rewind::rewind(database, args).await?,
        Command::Prune(args) => prune::prune(database, args).await?,
        Command::Why(args) => why::why(database, args).await?,
    }
    Ok(exit::OK)
}

/// "1 item", "2,000 items".
fn counted(count: u64, noun: &str) -> String {
    let number = output::number(i64::try_from(count).unwrap_or(i64::MAX));
    format!("{number} {noun}{}", if count == 1 { "" } else { "s" })
}
