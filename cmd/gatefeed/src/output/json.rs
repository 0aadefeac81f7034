//! JSON for programs, which also a terminal can be shown.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;
use serde_json::{Serializer, ser::Formatter};

use super::{print, text::is_harmful};

/// One JSON array on stdout, written piece by piece.
pub(crate) struct JsonArray {
    /// Between an element and the next.
    gap: &'static str,
    is_empty: bool,
}

impl JsonArray {
    /// An element a line.
    pub(crate) fn of_lines() -> Self {
        Self { gap: "\n", is_empty: true }
    }

    /// All of it on one line.
    pub(crate) fn on_a_line() -> Self {
        Self { gap: "", is_empty: true }
    }

    /// Prints elements, one by one.
    pub(crate) fn add<T: Serialize>(&mut self, elements: impl Iterator<Item = T>) -> Result<()> {
        print(|out| {
            for element in elements {
                write!(out, "{}{}", if self.is_empty { '[' } else { ',' }, self.gap)?;
                self.is_empty = false;
                write(out, &element)?;
            }
            Ok(())
        })
    }

    /// Prints what is missing to an array.
    pub(crate) fn end(self) -> Result<()> {
        print(|out| if self.is_empty { writeln!(out, "[]") } else { writeln!(out, "{}]", self.gap) })
    }
}

/// Writes one JSON value without building it up first: it may be as large as an item.
pub(super) fn write<T: Serialize + ?Sized>(out: &mut dyn Write, value: &T) -> io::Result<()> {
    Ok(value.serialize(&mut Serializer::with_formatter(out, Harmless))?)
}

/// Escapes what a terminal would obey. (Outside of strings there is none of it.)
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, harmful)) = rest.char_indices().find(|(_, c)| is_harmful(*c)) {
            out.write_all(&rest.as_bytes()[..at])?;
            harmful.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
            rest = &rest[at + harmful.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_same_and_harmless() {
        let text = "a\u{1b}\u{9b}31m\u{202e}\u{e0041}é\n";
        let mut json = Vec::new();
        write(&mut json, text).unwrap();
        assert_eq!(str::from_utf8(&json).unwrap(), r#""a\u001b\u009b31m\u202e\udb40\udc41é\n""#);
        assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
    }
}
