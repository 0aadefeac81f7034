//! `--help`.

use crate::place::{Done, Place};

const COMMANDS: [&str; 20] = [
    "demo",
    "migrate",
    "push",
    "run",
    "config",
    "serve",
    "token",
    "status",
    "partitions",
    "items",
    "why",
    "retry",
    "rewind",
    "seal",
    "advance",
    "pause",
    "resume",
    "cancel",
    "prune",
    "bench",
];

const BENCHES: [&str; 5] = ["drain", "http", "ingest", "latency", "idle"];

const TOKENS: [&str; 3] = ["create", "list", "revoke"];

/// Every command, word by word.
pub(crate) fn commands() -> Vec<Vec<&'static str>> {
    let benches = BENCHES.map(|bench| vec!["bench", bench]);
    let tokens = TOKENS.map(|token| vec!["token", token]);
    COMMANDS
        .map(|command| vec![command])
        .into_iter()
        .chain(benches)
        .chain(tokens)
        .chain([vec!["config", "check"]])
        .collect()
}

#[test]
fn help_tells_what_each_command_and_flag_is_for() {
    let place = Place::new();
    let help = place.succeeds(&["--help"]);
    assert!(help.contains("Exit codes:") && help.contains("--database-url"), "{help}");
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in {help}");
    }
    for command in commands() {
        let own = place.succeeds(&[&command[..], &["--help"]].concat());
        assert!(own.contains("Example") && own.contains("Usage:"), "{own}");
        let flags = own.lines().filter(|line| line.starts_with("      --")).count();
        let variables = own.matches("[env: GATEFEED_").count();
        assert_eq!(flags, variables, "a flag of {command:?} has no variable: {own}");
        assert!(!own.contains("=]"), "the value of a variable is shown: {own}");
    }
    assert!(place.succeeds(&["--version"]).starts_with("gatefeed "));
    assert_eq!(place.run(&[]).code, Some(2));
}

#[test]
fn help_never_shows_the_password_of_the_environment() {
    let place = Place::new();
    let mut command = place.command(&["status", "--help"]);
    command.env("GATEFEED_DATABASE_URL", "postgres://u:hunter2@h/d");
    command.env("GATEFEED_NOTIFY_URL", "postgres://u:hunter2@h/d");
    assert!(!Done::from(command.output().unwrap()).out.contains("hunter2"));
}

#[test]
fn help_fits_80_columns_and_a_first_look_is_short() {
    let place = Place::new();
    let alone = place.run(&[]).err;
    assert!(alone.lines().count() <= 48, "{alone}");
    for heading in ["Start:", "Work:", "Look:", "Act:", "Measure:"] {
        assert!(alone.contains(&format!("\n{heading}\n")), "{alone}");
    }
    for command in commands() {
        for flag in ["-h", "--help"] {
            let args = [&command[..], &[flag]].concat();
            let help = Done::from(place.command(&args).env("COLUMNS", "80").output().unwrap()).out;
            let widest = help.lines().max_by_key(|line| line.chars().count()).unwrap();
            assert!(widest.chars().count() <= 80, "{args:?}: {widest}");
            let (own, shared) = (help.find("Example"), help.find("\nDatabase:\n"));
            assert!(own.is_some() && own < shared, "{help}");
        }
    }
    for command in COMMANDS {
        let line = alone.lines().find(|line| line.starts_with(&format!("  {command} ")));
        assert!(line.is_some_and(|line| line.chars().count() <= 80), "{command}: {line:?}");
    }
}
