//! The `gatefeed` binary: joins store, engine and API, and talks with people.

mod args;
mod commands;
mod database;
mod demo;
mod exit;
mod logging;
mod output;
mod parse;
mod signals;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use crate::args::Cli;

/// For how long work on blocking threads, such as a read that hangs, may hold up the end of the process.
const BLOCKING_MAX: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::init(&cli.log, cli.command.log_level());
    let json_log = cli.log.is_json();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return exit::with_error(&error.into(), json_log),
    };
    let result = runtime.block_on(commands::run(cli));
    runtime.shutdown_timeout(BLOCKING_MAX);
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => exit::with_error(&error, json_log),
    }
}
