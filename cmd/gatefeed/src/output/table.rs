//! Rows in aligned columns, as wide as there is room.

use anyhow::Result;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{
    Look, Style, lines, paint,
    text::{NONE, shown},
};

/// Between two columns.
const GAP: &str = "  ";

/// How narrow what is cut may get.
const NARROWEST: usize = 8;

/// What stands in a column, and so how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A name: cut in its middle, since names that belong together begin alike.
    Id,
    /// Prose: cut at its end.
    Text,
    /// Words that are never cut.
    Left,
    /// A status, coloured; never cut.
    Status,
    /// Numbers; never cut.
    Right,
    /// As `Right`; left out, for the width of terminals, while every cell is [`NONE`].
    RightIfAny,
    /// As `Right`; none is best.
    Failures,
}

impl Kind {
    fn is_right(self) -> bool {
        matches!(self, Self::Right | Self::RightIfAny | Self::Failures)
    }

    fn is_cut(self) -> bool {
        matches!(self, Self::Id | Self::Text)
    }

    /// The columns that it keeps while another column can be spared: for a name those of a UUID.
    fn comfortable(self) -> usize {
        if self == Self::Text { 40 } else { 36 }
    }

    fn style(self, cell: &str) -> Option<Style> {
        match self {
            Self::Status => status_style(cell),
            Self::Failures => (cell != NONE).then_some(Style::Red),
            _ => None,
        }
    }
}

fn status_style(cell: &str) -> Option<Style> {
    match cell {
        "available" => None,
        "complete" => Some(Style::Green),
        "failed" => Some(Style::Red),
        "cancelled" => Some(Style::Dim),
        // Paused, waiting, blocked, and whatever is held.
        _ => Some(Style::Yellow),
    }
}

/// Rows in aligned columns.
pub(crate) struct Table {
    columns: Vec<(String, Kind)>,
    spare: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(columns: &[(&str, Kind)]) -> Self {
        let columns = columns.iter().map(|(name, kind)| (name.to_uppercase(), *kind)).collect();
        Self { columns, spare: &[], rows: Vec::new() }
    }

    /// Columns, by their headings, that are left out where there is little room, the last one first.
    pub(crate) fn spare(mut self, columns: &'static [&'static str]) -> Self {
        self.spare = columns;
        self
    }

    /// Adds a row; it has a cell for each column. What a terminal would obey becomes visible.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells.iter().map(|cell| shown(cell)).collect());
    }

    /// Prints it as it fits on stdout.
    pub(crate) fn print(&self) -> Result<()> {
        lines(&self.lines(Look::of_stdout()))
    }

    /// Whether all of it fits.
    pub(crate) fn fits(&self, look: Look) -> bool {
        look.width.is_none_or(|width| total(&self.whole()) <= width)
    }

    /// The headings and the rows.
    pub(crate) fn lines(&self, look: Look) -> Vec<String> {
        let columns = self.fitted(look.width);
        let headings: Vec<_> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let headings = joined(columns.iter().map(|column| self.aligned(*column, &headings, false)));
        let row = |cells: &Vec<String>| {
            joined(columns.iter().map(|column| self.aligned(*column, cells, look.colours)))
        };
        let headings = paint(&headings, Some(Style::Bold), look.colours);
        std::iter::once(headings).chain(self.rows.iter().map(row)).collect()
    }

    fn aligned(&self, (column, width): (usize, usize), cells: &[String], colours: bool) -> String {
        let kind = self.columns[column].1;
        let cell = cut(&cells[column], width, kind);
        let padding = width.saturating_sub(cell.width());
        let cell = paint(&cell, kind.style(&cell), colours);
        match kind.is_right() {
            true => " ".repeat(padding) + &cell,
            // What is piped on may be as wide as an item's data.
            false if column + 1 == self.columns.len() => cell,
            false => cell + &" ".repeat(padding),
        }
    }

    /// The columns that are shown, and how wide.
    fn fitted(&self, width: Option<usize>) -> Vec<(usize, usize)> {
        let mut columns = self.whole();
        let Some(width) = width else { return columns };
        let comfortable = |columns: &[(usize, usize)]| {
            let width =
                |column: &(usize, usize)| self.at_least(*column, self.columns[column.0].1.comfortable());
            total(&columns.iter().map(|column| (column.0, width(column))).collect::<Vec<_>>())
        };
        for name in self.spare.iter().rev() {
            if comfortable(&columns) > width {
                columns.retain(|(column, _)| self.columns[*column].0 != name.to_uppercase());
            }
        }
        while total(&columns) > width {
            let can_shrink = |c: &&mut (usize, usize)| c.1 > self.at_least(**c, NARROWEST);
            let Some(widest) = columns.iter_mut().filter(can_shrink).max_by_key(|c| c.1) else { break };
            widest.1 -= 1;
        }
        columns
    }

    /// How narrow a column of this width may get.
    fn at_least(&self, (column, width): (usize, usize), narrow: usize) -> usize {
        let (name, kind) = &self.columns[column];
        if kind.is_cut() { width.min(narrow.max(name.width())) } else { width }
    }

    /// The columns as wide as they are.
    fn whole(&self) -> Vec<(usize, usize)> {
        let columns = (0..self.columns.len()).filter(|column| self.is_shown(*column));
        columns.map(|column| (column, self.width(column))).collect()
    }

    fn is_shown(&self, column: usize) -> bool {
        self.columns[column].1 != Kind::RightIfAny || self.rows.iter().any(|row| row[column] != NONE)
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].width());
        cells.chain([self.columns[column].0.width()]).max().unwrap_or(0)
    }
}

fn total(columns: &[(usize, usize)]) -> usize {
    columns.iter().map(|(_, width)| width + GAP.len()).sum::<usize>().saturating_sub(GAP.len())
}

fn joined(cells: impl Iterator<Item = String>) -> String {
    cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
}

/// What fits, with a … where something is missing.
fn cut(cell: &str, width: usize, kind: Kind) -> String {
    if !kind.is_cut() || cell.width() <= width {
        return cell.to_owned();
    }
    let room = width.saturating_sub(1);
    let end = if kind == Kind::Id { room / 2 } else { 0 };
    let end: String = within(cell.chars().rev(), end).chars().rev().collect();
    within(cell.chars(), room - end.width()) + "…" + &end
}

/// As many characters from the beginning as fit.
fn within(chars: impl Iterator<Item = char>, width: usize) -> String {
    let mut left = width;
    chars
        .take_while(|c| {
            c.width().unwrap_or(0) <= left && {
                left -= c.width().unwrap_or(0);
                true
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::count;

    const PLAIN: Look = Look { width: None, colours: false };

    fn narrow(width: usize) -> Look {
        Look { width: Some(width), colours: false }
    }

    #[test]
    fn columns_line_up_by_what_is_seen_and_empty_ones_can_go() {
        let columns = [("id", Kind::Id), ("n", Kind::RightIfAny), ("m", Kind::RightIfAny), ("x", Kind::Left)];
        let mut table = Table::new(&columns);
        table.row(vec!["履歴書".into(), "7".into(), count(0), "a".into()]);
        table.row(vec!["b".into(), count(12), count(0), String::new()]);
        assert_eq!(table.lines(PLAIN), ["ID       N  X", "履歴書   7  a", "b       12"]);
    }

    #[test]
    fn names_are_cut_in_the_middle_and_prose_at_its_end_until_it_fits() {
        let mut table = Table::new(&[("id", Kind::Id), ("n", Kind::Right), ("error", Kind::Text)]);
        table.row(vec!["0199-aaaa-0001".into(), "1234567".into(), "the handler did not answer".into()]);
        assert_eq!(table.lines(narrow(60)).len(), 2);
        assert!(table.fits(narrow(51)) && !table.fits(narrow(50)));
        assert_eq!(table.lines(narrow(50))[1], "0199-aaaa-0001  1234567  the handler did not answ…");
        assert_eq!(table.lines(narrow(33))[1], "0199-…-0001  1234567  the handle…");
        // No number is cut, whatever the terminal.
        assert_eq!(table.lines(narrow(10))[1], "0199…001  1234567  the han…");
    }

    #[test]
    fn wide_characters_are_not_split() {
        assert_eq!(cut("履歴書履歴書", 8, Kind::Id), "履歴…書");
        assert_eq!(cut("履歴書履歴書", 8, Kind::Text), "履歴書…");
        assert_eq!(cut("履歴書", 6, Kind::Id), "履歴書");
    }

    #[test]
    fn columns_that_can_be_spared_go_before_names_get_short() {
        let columns = [("id", Kind::Id), ("pass", Kind::Right), ("updated", Kind::Left)];
        let mut table = Table::new(&columns).spare(&["pass", "updated"]);
        table.row(vec!["x".repeat(40), "1".into(), "3s ago".into()]);
        let at = |width| table.lines(narrow(width));
        assert_eq!(at(53)[0], format!("ID{}PASS  UPDATED", " ".repeat(38)));
        assert_eq!(at(50)[0], format!("ID{}PASS", " ".repeat(40)));
        assert_eq!(at(41), ["ID".to_owned(), "x".repeat(40)]);
        assert_eq!(at(16), ["ID", "xxxxxxxx…xxxxxxx"]);
    }

    #[test]
    fn cells_cannot_command_the_terminal() {
        let mut table = Table::new(&[("id", Kind::Id)]);
        table.row(vec!["\x1b[2Ja\u{202e}b\u{9b}c\n".into()]);
        assert_eq!(table.lines(PLAIN)[1], "\u{fffd}[2Ja\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn colours_change_no_column() {
        let columns = [("status", Kind::Status), ("failed", Kind::Failures), ("x", Kind::Left)];
        let mut table = Table::new(&columns);
        for status in ["complete", "failed", "available (held)", "available"] {
            table.row(vec![status.into(), count(i64::from(status == "failed")), "x".into()]);
        }
        let coloured = table.lines(Look { colours: true, ..PLAIN });
        assert!(
            coloured[0].starts_with("\x1b[1mSTATUS") && coloured[1].starts_with("\x1b[32mcomplete\x1b[0m ")
        );
        assert!(coloured[2].contains("\x1b[31m1\x1b[0m  x") && coloured[3].starts_with("\x1b[33m"));
        let codes = ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m"];
        let plain = |line: &String| codes.iter().fold(line.clone(), |line, code| line.replace(code, ""));
        assert_eq!(coloured.iter().map(plain).collect::<Vec<_>>(), table.lines(PLAIN));
    }
}
