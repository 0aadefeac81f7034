//! The `gatefeed` binary: joins store, engine and API, and talks with people.

mod args;
mod blobs;
mod commands;
mod config;
mod database;
mod demo;
mod exit;
mod gates;
mod help;
mod logging;
mod output;
mod parse;
mod signals;
mod usage;

use std::{
    ffi::OsStr,
    process::{self, ExitCode},
    time::Duration,
};

use clap::{Arg, Command, FromArgMatches, builder::Resettable};

use crate::args::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// For how long work on blocking threads, such as a read that hangs, may hold up the end of the process.
const BLOCKING_MAX: Duration = Duration::from_millis(200);

/// The command line, where a variable that is set but empty counts as not set, as compose files have them, and that of a
/// switch also if it says no: it is neither at odds with another flag nor in the place of one that is required.
fn parse() -> Cli {
    let mut command = without_idle_variables(help::command());
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).unwrap_or_else(|error| {
        let _ = error.print();
        if let Some(variable) = usage::variable_at_fault(&error, &command) {
            output::note(&format!("The value is that of the variable {variable}."));
        }
        process::exit(error.exit_code())
    })
}

fn without_idle_variables(command: Command) -> Command {
    let unset = |arg: Arg| match arg.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() || help::is_switch(&arg) && says_no(&value) => {
            arg.env(Resettable::Reset)
        }
        _ => arg,
    };
    command.mut_args(unset).mut_subcommands(without_idle_variables)
}

fn says_no(value: &OsStr) -> bool {
    value.to_str().map(parse::truth) == Some(Ok(false))
}

fn main() -> ExitCode {
    let cli = parse();
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
