//! What goes to stdout: tables for people, JSON for programs.

mod table;
mod terminal;
mod text;

use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result};
use serde::Serialize;

pub(crate) use self::{
    table::{Kind, Table},
    terminal::{Look, Screen, Style, paint},
    text::{
        count, is_harmful, number, quoted, rate, relative, relative_or_dash, shortened, shown, size, wrapped,
    },
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

/// Prints one JSON array, an element a line.
pub(crate) fn json_rows<T: Serialize>(rows: &[T]) -> Result<()> {
    print(|out| {
        for (index, row) in rows.iter().enumerate() {
            let before = if index == 0 { "[\n" } else { ",\n" };
            write!(out, "{before}{}", json(row)?)?;
        }
        writeln!(out, "{}", if rows.is_empty() { "[]" } else { "\n]" })
    })
}

/// Prints one JSON value on a line.
pub(crate) fn json_object<T: Serialize + ?Sized>(value: &T) -> Result<()> {
    line(&json(value)?)
}

/// JSON that also a terminal can be shown: what that would obey is escaped. (Outside of strings there is none of it.)
fn json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    let json = serde_json::to_string(value)?;
    if !json.chars().any(is_harmful) {
        return Ok(json);
    }
    Ok(json.chars().map(|c| if is_harmful(c) { escaped(c) } else { c.to_string() }).collect())
}

fn escaped(c: char) -> String {
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_same_and_harmless() {
        let text = "a\u{1b}\u{9b}31m\u{202e}\u{e0041}é\n";
        let json = json(text).unwrap();
        assert_eq!(json, r#""a\u001b\u009b31m\u202e\udb40\udc41é\n""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
