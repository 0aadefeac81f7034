//! What goes to stdout: tables for people, JSON for programs.

mod json;
mod table;
mod terminal;
mod text;

use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result};
use serde::Serialize;

pub(crate) use self::{
    json::JsonArray,
    table::{Kind, Table},
    terminal::{Look, Screen, Style, paint},
    text::{count, number, quoted, rate, relative, relative_or_dash, shortened, shown, size, wrapped},
};

/// Writes to stdout through a buffer. That the reader has gone comes back as an error, which ends the process
/// quietly.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).context("cannot write to stdout")
}

/// Prints one line.
pub(crate) fn line(text: &str) -> Result<()> {
    print(|out| writeln!(out, "{text}"))
}

/// Prints lines.
pub(crate) fn lines(lines: &[String]) -> Result<()> {
    print(|out| lines.iter().try_for_each(|line| writeln!(out, "{line}")))
}

/// Writes a remark to stderr, so that it does not mix with what is piped on.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints one JSON value on a line.
pub(crate) fn json_object<T: Serialize + ?Sized>(value: &T) -> Result<()> {
    print(|out| {
        json::write(out, value)?;
        writeln!(out)
    })
}
