//! `--help`: the commands in the order in which people meet them, a command's examples before its flags, and the flags
//! that all commands share last.

use clap::{Arg, ArgAction, Command, CommandFactory, builder::ValueParser};

use crate::{args::Cli, exit, output::wrapped, parse};

/// What each group of commands is for.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Start", &["demo", "migrate"]),
    ("Work", &["push", "run", "serve", "config", "token"]),
    ("Look", &["status", "partitions", "items", "why"]),
    ("Act", &["retry", "rewind", "seal", "advance", "pause", "resume", "cancel", "prune"]),
    ("Measure", &["bench"]),
];

const COLUMNS: usize = 80;
const NAME_COLUMNS: usize = 14;

const SHORT_END: &str = "\
Start with: gatefeed demo
`gatefeed COMMAND --help` tells about a command, `gatefeed --help` also about
the log, the environment's variables and the exit codes.";

/// The command line with its help.
pub(crate) fn command() -> Command {
    let command = Cli::command().mut_args(argument);
    let groups = groups(&command);
    command
        // Hidden, since the groups list them.
        .mut_subcommands(|command| subcommand(command).hide(true))
        .override_usage("gatefeed [OPTIONS] <COMMAND>")
        .help_template(format!(
            "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}{{all-args}}{{after-help}}"
        ))
        .after_help(SHORT_END)
        .after_long_help(exit::HELP)
}

/// Values of the environment may be passwords, and `--limit -1` is a wrong value rather than an unknown flag.
fn argument(arg: Arg) -> Arg {
    let is_option = arg.get_long().is_some() && arg.get_action().takes_values();
    let arg = arg.hide_env_values(true).allow_negative_numbers(is_option);
    // The variable of a switch has a value, though the switch has none.
    if is_switch(&arg) { arg.value_parser(ValueParser::new(parse::truth)) } else { arg }
}

/// Whether it takes no value and is on where it stands.
pub(crate) fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

fn subcommand(command: Command) -> Command {
    command
        .mut_args(argument)
        .mut_subcommands(subcommand)
        .help_template("{about-with-newline}\n{usage-heading} {usage}{after-help}\n\n{all-args}")
}

fn groups(command: &Command) -> String {
    let heading = command.get_styles().get_header();
    let literal = command.get_styles().get_literal();
    let line = |name: &str| {
        let about = command.find_subcommand(name).and_then(Command::get_about);
        let about = about.map(ToString::to_string).unwrap_or_default();
        let about = wrapped(&about, Some(COLUMNS - NAME_COLUMNS)).join(&format!("\n{:NAME_COLUMNS$}", ""));
        format!("  {literal}{name}{literal:#}{:width$}{about}\n", "", width = NAME_COLUMNS - 2 - name.len())
    };
    let group = |(title, names): &(&str, &[&str])| {
        let lines: String = names.iter().map(|name| line(name)).collect();
        format!("{heading}{title}:{heading:#}\n{lines}\n")
    };
    GROUPS.iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Variables with the command in their name: they say what is asked for once or done, and a word that is as common in
    /// the environment of a watcher must not do that.
    const OF_COMMANDS: [&str; 16] = [
        "GATEFEED_ITEMS_AFTER",
        "GATEFEED_ITEMS_GATE",
        "GATEFEED_ITEMS_ID",
        "GATEFEED_ITEMS_STATUS",
        "GATEFEED_PARTITIONS_AFTER",
        "GATEFEED_PARTITIONS_FEED",
        "GATEFEED_PARTITIONS_ID",
        "GATEFEED_PARTITIONS_STATUS",
        "GATEFEED_PRUNE_BLOBS",
        "GATEFEED_RETRY_GATE",
        "GATEFEED_RETRY_ITEM",
        "GATEFEED_REWIND_GATE",
        "GATEFEED_TOKEN_EXPIRES",
        "GATEFEED_TOKEN_FEED",
        "GATEFEED_TOKEN_NAME",
        "GATEFEED_TOKEN_ROLE",
    ];

    /// The variable that a flag of this command of the first level ought to have.
    fn variable_of(name: &str, flag: &str) -> String {
        let of = |name: &str| format!("GATEFEED_{}", name.replace('-', "_").to_uppercase());
        let of_command = of(&format!("{name}-{flag}"));
        if OF_COMMANDS.contains(&of_command.as_str()) { of_command } else { of(flag) }
    }

    /// The variables of all flags, which are as they ought to be.
    fn variables(command: &Command, name: &str) -> BTreeSet<String> {
        let flags = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg.get_env())));
        let own = flags.map(|(flag, variable)| {
            let variable = variable.map(|variable| variable.to_string_lossy().into_owned());
            assert_eq!(variable, Some(variable_of(name, flag)), "--{flag} of {}", command.get_name());
            variable_of(name, flag)
        });
        let mut found: BTreeSet<_> = own.collect();
        for subcommand in command.get_subcommands() {
            let name = if name.is_empty() { subcommand.get_name() } else { name };
            found.extend(variables(subcommand, name));
        }
        found
    }

    #[test]
    fn every_flag_has_its_variable() {
        let found = variables(&command(), "");
        assert!(OF_COMMANDS.iter().all(|variable| found.contains(*variable)), "{found:?}");
        assert!(found.contains("GATEFEED_DATABASE_URL") && found.len() > 90, "{found:?}");
    }

    #[test]
    fn every_command_is_in_a_group() {
        let grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        for command in Cli::command().get_subcommands() {
            assert!(grouped.contains(&command.get_name()), "{} is in no group", command.get_name());
        }
        for name in grouped {
            assert!(Cli::command().find_subcommand(name).is_some(), "there is no command {name}");
        }
    }
}
