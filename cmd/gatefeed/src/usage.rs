//! What clap does not tell about an argument that was refused.

use std::{
    env,
    ffi::{OsStr, OsString},
};

use clap::{
    Arg, Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::output::{note, quoted, shown};

/// The variable that a refused value comes from, if it is not from the command line. What else clap leaves unsaid goes
/// to stderr.
pub(crate) fn variable_at_fault(error: &Error, command: &Command) -> Option<String> {
    let typed: Vec<OsString> = env::args_os().skip(1).collect();
    hint(error, &typed).iter().for_each(|hint| note(&shown(hint)));
    if error.kind() == ErrorKind::InvalidUtf8 {
        let is_it = |arg: &&Arg| value_of(arg).is_some_and(|value| value.to_str().is_none());
        return not_utf8(&typed).is_none().then(|| variable(command, &is_it)).flatten();
    }
    let flag = flag_of(error)?;
    let is_typed = |word: &str| word == format!("--{flag}") || word.starts_with(&format!("--{flag}="));
    if typed.iter().any(|word| is_typed(&word.to_string_lossy())) {
        return None;
    }
    let value = text(error, ContextKind::InvalidValue)?;
    let is_value = |arg: &Arg| value_of(arg).is_some_and(|of_arg| of_arg.to_string_lossy() == value);
    variable(command, &|arg: &&Arg| arg.get_long() == Some(&flag) && is_value(arg))
}

/// What to write instead, where clap does not tell or tells something else.
fn hint(error: &Error, typed: &[OsString]) -> Option<String> {
    match error.kind() {
        ErrorKind::InvalidUtf8 => not_utf8(typed),
        ErrorKind::UnknownArgument => {
            let unknown = text(error, ContextKind::InvalidArg)?;
            with_equals(&unknown, typed).or_else(|| with_dashes(error, &unknown, typed))
        }
        _ => None,
    }
}

fn not_utf8(typed: &[OsString]) -> Option<String> {
    let words = typed.iter().filter(|word| word.to_str().is_none());
    let words: Vec<_> = words.map(|word| format!("{word:?}")).collect();
    (!words.is_empty()).then(|| format!("Not UTF-8: {}", words.join(", ")))
}

/// `--watch` may stand alone, and so a word after it is not its value.
fn with_equals(unknown: &str, typed: &[OsString]) -> Option<String> {
    let is_it = |pair: &&[OsString]| pair[0] == "--watch" && pair[1] == unknown;
    typed.windows(2).find(is_it).map(|_| format!("To look that often: --watch={}", quoted(unknown)))
}

/// Of a word such as `-dash` clap names only `-d`.
fn with_dashes(error: &Error, unknown: &str, typed: &[OsString]) -> Option<String> {
    // Where it proposes `--` there is something that takes a word.
    error.get(ContextKind::Suggested)?;
    let words = typed.iter().map(|word| word.to_string_lossy()).take_while(|word| word != "--");
    let is_it = |word: &str| {
        !word.starts_with("--")
            && word.len() > unknown.len()
            && word.starts_with(unknown)
            && unknown.len() == 2
    };
    words
        .into_iter()
        .find(|word| is_it(word))
        .map(|word| format!("To pass {word:?} as a value: -- {}", quoted(&word)))
}

/// The variable of the first argument, of any command, that fits.
fn variable(command: &Command, is_it: &dyn Fn(&&Arg) -> bool) -> Option<String> {
    let own = command.get_arguments().find(is_it).and_then(Arg::get_env);
    own.map(|name| name.to_string_lossy().into_owned())
        .or_else(|| command.get_subcommands().find_map(|command| variable(command, is_it)))
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

fn value_of(arg: &Arg) -> Option<OsString> {
    env::var_os::<&OsStr>(arg.get_env()?)
}
