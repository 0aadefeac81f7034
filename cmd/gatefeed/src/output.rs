//! What goes to stdout: tables and relative times for people, JSON for programs.

use std::io::{self, BufWriter, Write};

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::logging::is_coloured;

/// Writes to stdout through a buffer. That the reader has gone comes back as an error, which ends the process
/// quietly.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out)?;
    Ok(out.flush()?)
}

/// Prints one line.
pub(crate) fn line(text: &str) -> Result<()> {
    print(|out| writeln!(out, "{text}"))
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
            write!(out, "{before}{}", serde_json::to_string(row)?)?;
        }
        writeln!(out, "{}", if rows.is_empty() { "[]" } else { "\n]" })
    })
}

/// Prints one JSON object on a line.
pub(crate) fn json_object<T: Serialize>(object: &T) -> Result<()> {
    line(&serde_json::to_string(object)?)
}

/// How a column's cells stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Align {
    Left,
    Right,
    /// As `Right`; left out, for the width of terminals, while every cell is [`NONE`].
    RightIfAny,
}

/// A count of zero: a dot, so that what there is stands out.
const NONE: &str = "·";

/// Rows in aligned columns.
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|(name, align)| (name.to_uppercase(), *align)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; it has a cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Prints it, the headings bold on a terminal.
    pub(crate) fn print(&self) -> Result<()> {
        let (bold, plain) = if is_coloured(&io::stdout()) { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let mut lines = self.lines().into_iter();
        let headings = lines.next().unwrap_or_default();
        print(|out| {
            writeln!(out, "{bold}{headings}{plain}")?;
            lines.try_for_each(|line| writeln!(out, "{line}"))
        })
    }

    /// The headings and the rows.
    fn lines(&self) -> Vec<String> {
        let headings: Vec<_> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let shown: Vec<_> = (0..self.columns.len()).filter(|column| self.is_shown(*column)).collect();
        let widths: Vec<_> = shown.iter().map(|column| self.width(*column)).collect();
        let aligned = |cells: &Vec<String>| {
            let cells = shown.iter().zip(&widths).map(|(column, width)| self.aligned(*column, cells, *width));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        std::iter::once(&headings).chain(&self.rows).map(aligned).collect()
    }

    fn aligned(&self, column: usize, cells: &[String], width: usize) -> String {
        let cell = &cells[column];
        let padding = " ".repeat(width.saturating_sub(cell.width()));
        match self.columns[column].1 {
            Align::Left => format!("{cell}{padding}"),
            Align::Right | Align::RightIfAny => format!("{padding}{cell}"),
        }
    }

    fn is_shown(&self, column: usize) -> bool {
        self.columns[column].1 != Align::RightIfAny || self.rows.iter().any(|row| row[column] != NONE)
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].width());
        cells.chain([self.columns[column].0.width()]).max().unwrap_or(0)
    }
}

/// A count.
pub(crate) fn count(number: i64) -> String {
    if number == 0 { NONE.to_owned() } else { number.to_string() }
}

/// A number of bytes, for people.
pub(crate) fn size(bytes: i64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if bytes < 1024 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A moment as seen from now: `3s ago`, `in 2m`, `now`.
pub(crate) fn relative(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let secs = at.signed_duration_since(now).num_seconds();
    let length = match secs.unsigned_abs() {
        0 => return "now".to_owned(),
        secs @ 1..60 => format!("{secs}s"),
        secs @ 60..3600 => format!("{}m", secs / 60),
        secs @ 3600..86_400 => format!("{}h", secs / 3600),
        secs => format!("{}d", secs / 86_400),
    };
    if secs > 0 { format!("in {length}") } else { format!("{length} ago") }
}

/// As [`relative`], with a dash for never.
pub(crate) fn relative_or_dash(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| relative(at, now))
}

/// Text of unknown origin as one short piece of a line: control characters, which a terminal would obey, become
/// visible, and what is over `max` characters is cut.
pub(crate) fn shortened(text: &str, max: usize) -> String {
    let mut shown: String = text.chars().take(max).map(visible).collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

fn visible(c: char) -> char {
    match c {
        '\n' | '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// An argument as a shell takes it.
pub(crate) fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    #[test]
    fn times_are_told_from_now() {
        let now = Utc::now();
        for (secs, expected) in [
            (0, "now"),
            (-3, "3s ago"),
            (59, "in 59s"),
            (125, "in 2m"),
            (-7200, "2h ago"),
            (-200_000, "2d ago"),
        ] {
            assert_eq!(relative(now + TimeDelta::seconds(secs), now), expected);
        }
    }

    #[test]
    fn columns_line_up_by_what_is_seen_and_empty_ones_can_go() {
        let columns =
            [("id", Align::Left), ("n", Align::RightIfAny), ("m", Align::RightIfAny), ("x", Align::Left)];
        let mut table = Table::new(&columns);
        table.row(vec!["履歴書".into(), "7".into(), count(0), "a".into()]);
        table.row(vec!["b".into(), count(12), count(0), String::new()]);
        assert_eq!(table.lines(), ["ID       N  X", "履歴書   7  a", "b       12"]);
    }

    #[test]
    fn sizes_and_arguments_and_foreign_text() {
        assert_eq!((size(0), size(1023)), ("0 B".into(), "1023 B".into()));
        assert_eq!((size(1536), size(1 << 20)), ("1.5 KiB".into(), "1.0 MiB".into()));
        assert_eq!(size((1 << 20) - 1), "1.0 MiB");
        assert_eq!(quoted("a/b-1.txt"), "a/b-1.txt");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
        assert_eq!(shortened("a\x1b[31mb\nc", 6), "a\u{fffd}[31m…");
    }
}
