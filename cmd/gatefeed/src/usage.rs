//! What a value that was refused has to do with the environment, which clap does not tell.

use std::env;

use clap::{
    Arg, Command, Error,
    error::{ContextKind, ContextValue},
};

/// The variable that a refused value comes from, if it is not from the command line.
pub(crate) fn variable_at_fault(error: &Error, command: &Command) -> Option<String> {
    let flag = flag_of(error)?;
    let is_typed = |word: &str| word == format!("--{flag}") || word.starts_with(&format!("--{flag}="));
    if env::args_os().any(|word| is_typed(&word.to_string_lossy())) {
        return None;
    }
    let value = text(error, ContextKind::InvalidValue)?;
    let is_it = |arg: &&Arg| arg.get_long() == Some(&flag) && value_of(arg).as_ref() == Some(&value);
    let all = command.get_subcommands().flat_map(Command::get_arguments).chain(command.get_arguments());
    Some(all.into_iter().find(is_it)?.get_env()?.to_string_lossy().into_owned())
}

/// The name of the flag: clap writes `--limit <ROWS>`.
fn flag_of(error: &Error) -> Option<String> {
    let shown = text(error, ContextKind::InvalidArg)?;
    let name = shown.strip_prefix("--")?.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next()?;
    Some(name.to_owned())
}

fn text(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn value_of(arg: &Arg) -> Option<String> {
    Some(env::var_os(arg.get_env()?)?.to_string_lossy().into_owned())
}
