//! Exit codes, and how an error leaves the process.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use gatefeed_core::StoreError;

use crate::output::shown;

/// The documented codes.
pub(crate) const HELP: &str = "\
Every flag has an environment variable, which its help names; true or false
where the flag has no value. The database's URL is also read from DATABASE_URL.

Exit codes:
  0    done; also a clean stop by SIGINT or SIGTERM
  1    an error: no answer from the database, no file or tables yet or newer
       ones, not found, refused
  2    wrong usage or configuration: an unknown flag, a value that will not do,
       a Postgres database that does not exist, a password or privilege that is
       missing, a file that is not a SQLite database
  3    `run --until-idle` ended and a partition has failed, or that of
       `push --wait` has failed or was cancelled
  130  ended at once by a second SIGINT (demo, push, bench: by the first)
  143  ended at once by a second SIGTERM (demo, push, bench: by the first)
A listing with --watch ends with 0 at the first signal.

Start with: gatefeed demo";

/// All is well.
pub(crate) const OK: u8 = 0;
const ERROR: u8 = 1;
const USAGE: u8 = 2;
/// `run --until-idle` left a failed partition behind, or the partition of `push --wait` did not complete.
pub(crate) const PARTITION_FAILED: u8 = 3;

/// Reports an error on stderr, in the format of the log, and says how to exit. That nobody reads stdout any
/// more (`gatefeed items … | head`) is not an error.
pub(crate) fn with_error(error: &anyhow::Error, json_log: bool) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::from(OK);
    }
    let mut text = format!("{error:#}").lines().map(shown).collect::<Vec<_>>().join("\n");
    if let Some(advice) = advice(error) {
        text = format!("{text}: {advice}");
    }
    if json_log {
        tracing::error!(error = text, "gatefeed ends with an error");
    } else {
        // With stderr gone there is nobody left to tell.
        let _ = writeln!(io::stderr(), "error: {text}");
    }
    ExitCode::from(code_of(error))
}

/// Where to look for what is missing.
fn advice(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::NotFound(what)) if what.ends_with("does not exist") => {
            Some("`gatefeed partitions` lists those that do")
        }
        Some(StoreError::Config(why)) if why.contains("permission denied for ") => {
            Some("docs/operations.md, Privileges, lists what each command needs")
        }
        Some(StoreError::NotFound(what)) if what.starts_with("there is no token") => {
            Some("`gatefeed token list` lists those there are")
        }
        Some(StoreError::NotFound(_)) => Some("`gatefeed items PARTITION` lists those it has"),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_privilege_is_a_matter_of_configuration_and_the_page_about_them_is_named() {
        let error = |error: StoreError| anyhow::Error::from(error).context("cannot look");
        let denied = error(StoreError::Config("permission denied for table gatefeed_items".into()));
        assert!(advice(&denied).is_some_and(|advice| advice.contains("Privileges")));
        assert_eq!(code_of(&denied), USAGE);
        assert_eq!(advice(&error(StoreError::Config("the password is wrong".into()))), None);
        let missing = |what: &str| advice(&error(StoreError::NotFound(what.into())));
        assert!(missing("there is no token \"x\"").is_some_and(|advice| advice.contains("token list")));
        assert!(missing("partition \"p\" has no item \"i\"").is_some_and(|advice| advice.contains("items")));
        let pages = include_str!("../../../docs/operations.md");
        assert!(pages.contains("\n## Privileges\n"));
    }
}
