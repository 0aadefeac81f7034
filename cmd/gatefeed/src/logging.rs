//! Logs: to stderr, since stdout belongs to what was asked for.

use std::{
    env,
    io::{self, IsTerminal},
};

use tracing_subscriber::EnvFilter;

use crate::args::{LogArgs, LogFormat};

/// Starts logging; colours only for a terminal that did not ask for none.
pub(crate) fn init(args: &LogArgs, default_level: &str) {
    // The driver warns of what the watcher reports itself, once and in its own words.
    let default = format!("{default_level},sqlx=error");
    let filter = EnvFilter::new(args.log_level.as_deref().unwrap_or(&default));
    // Complaining on stderr that stderr is closed would panic, and in the middle of a delivery.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    match args.log_format {
        LogFormat::Text => lines.with_ansi(is_coloured(&io::stderr())).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

/// Whether a stream takes colours (<https://no-color.org>).
pub(crate) fn is_coloured(stream: &impl IsTerminal) -> bool {
    let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    is_drawn_on(stream) && !is_unwanted
}

/// Whether a stream is a terminal that can do more than print.
pub(crate) fn is_drawn_on(stream: &impl IsTerminal) -> bool {
    let is_dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    stream.is_terminal() && !is_dumb
}
