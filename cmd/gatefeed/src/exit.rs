//! Exit codes, and how an error leaves the process.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use gatefeed_core::StoreError;

/// The documented codes.
pub(crate) const HELP: &str = "\
Every flag has an environment variable, as --max-retries has GATEFEED_MAX_RETRIES.
The database's URL is also read from DATABASE_URL.

Exit codes:
  0    done; also a clean stop by SIGINT or SIGTERM
  1    an error: no database, no tables or newer ones, not found, refused
  2    wrong usage: an unknown flag, a value that will not do
  3    `run --until-idle` ended and a partition has failed
  130  ended at once by a second SIGINT (the demo: by SIGINT)
  143  ended at once by a second SIGTERM (the demo: by SIGTERM)

Start with: gatefeed demo";

/// All is well.
pub(crate) const OK: u8 = 0;
const ERROR: u8 = 1;
const USAGE: u8 = 2;
/// `run --until-idle` left a failed partition behind.
pub(crate) const PARTITION_FAILED: u8 = 3;

/// Reports an error on stderr, in the format of the log, and says how to exit. That nobody reads stdout any
/// more (`gatefeed items … | head`) is not an error.
pub(crate) fn with_error(error: &anyhow::Error, json_log: bool) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::from(OK);
    }
    let text = format!("{error:#}");
    if json_log {
        tracing::error!(error = text, "gatefeed ends with an error");
    } else {
        // With stderr gone there is nobody left to tell.
        let _ = writeln!(io::stderr(), "error: {text}");
    }
    ExitCode::from(code_of(error))
}

fn code_of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Config(_)) => USAGE,
        _ => ERROR,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
