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

impl Row {
    fn style(&self, kind: Kind, cell: &str) -> Option<Style> {
        if self.is_dim { Some(Style::Dim) } else { kind.style(cell) }
    }
}

/// Rows in aligned columns.
pub(crate) struct Table {
    columns: Vec<(String, Kind)>,
    spare: &'static [&'static str],
    spare_at_last: &'static [&'static str],
    rows: Vec<Row>,
}

struct Row {
    cells: Vec<String>,
    is_dim: bool,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(columns: &[(&str, Kind)]) -> Self {
        let columns = columns.iter().map(|(name, kind)| (name.to_uppercase(), *kind)).collect();
        Self { columns, spare: &[], spare_at_last: &[], rows: Vec::new() }
    }

    /// Columns, by their headings, that are left out before names get short, the last one first.
    pub(crate) fn spare(mut self, columns: &'static [&'static str]) -> Self {
        self.spare = columns;
        self
    }

    /// Columns that are left out where the others do not fit with names as short as they get, the last one first.
    pub(crate) fn spare_at_last(mut self, columns: &'static [&'static str]) -> Self {
        self.spare_at_last = columns;
        self
    }

    /// Adds a row; it has a cell for each column. What a terminal would obey becomes visible.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.add(&cells, false);
    }

    /// Adds a row that counts for less than the others.
    pub(crate) fn dim_row(&mut self, cells: Vec<String>) {
        self.add(&cells, true);
    }

    fn add(&mut self, cells: &[String], is_dim: bool) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(Row { cells: cells.iter().map(|cell| shown(cell)).collect(), is_dim });
    }

    /// Prints it as it fits on stdout.
    pub(crate) fn print(&self) -> Result<()> {
        lines(&self.lines(Look::of_stdout()))
    }

    /// Whether all of it fits.
    pub(crate) fn fits(&self, look: Look) -> bool {
        look.width.is_none_or(|width| total(&self.whole()) <= width)
    }

    /// The headings and the rows; where not even the narrowest of them fits, each row as lines of its own.
    pub(crate) fn lines(&self, look: Look) -> Vec<String> {
        let columns = self.fitted(look.width);
        if let Some(width) = look.width.filter(|width| total(&columns) > *width) {
            return self.blocks(width, look.colours);
        }
        let headings = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let headings = Row { cells: headings, is_dim: false };
        let headings = joined(columns.iter().map(|column| self.aligned(*column, &headings, false)));
        let line = |row: &Row| joined(columns.iter().map(|column| self.aligned(*column, row, look.colours)));
        let headings = paint(&headings, Some(Style::Bold), look.colours);
        std::iter::once(headings).chain(self.rows.iter().map(line)).collect()
    }

    fn aligned(&self, (column, width): (usize, usize), row: &Row, colours: bool) -> String {
        let kind = self.columns[column].1;
        let cell = cut(&row.cells[column], width, kind);
        let padding = width.saturating_sub(cell.width());
        let cell = paint(&cell, row.style(kind, &cell), colours);
        match kind.is_right() {
            true => " ".repeat(padding) + &cell,
            // What is piped on may be as wide as an item's data.
            false if column + 1 == self.columns.len() => cell,
            false => cell + &" ".repeat(padding),
        }
    }

    /// A `name: cell` a line, and a blank line between rows.
    fn blocks(&self, width: usize, colours: bool) -> Vec<String> {
        let columns: Vec<usize> = self.whole().iter().map(|(column, _)| *column).collect();
        let line = |row: &Row, column: usize| {
            let ((name, kind), cell) = (&self.columns[column], &row.cells[column]);
            let name = if name.is_empty() { String::new() } else { format!("{}: ", name.to_lowercase()) };
            let cell = cut(cell, width.saturating_sub(name.width()), *kind);
            name + &paint(&cell, row.style(*kind, &cell), colours)
        };
        let block = |row: &Row| -> Vec<String> {
            let told = columns.iter().filter(|column| !row.cells[**column].is_empty());
            told.map(|column| line(row, *column)).collect()
        };
        self.rows.iter().map(block).collect::<Vec<_>>().join(&String::new())
    }

    /// The columns that are shown, and how wide.
    fn fitted(&self, width: Option<usize>) -> Vec<(usize, usize)> {
        let mut columns = self.whole();
        let Some(width) = width else { return columns };
        self.leave_out(self.spare, width, &mut columns, Kind::comfortable);
        self.leave_out(self.spare_at_last, width, &mut columns, |_| NARROWEST);
        while total(&columns) > width {
            let can_shrink = |c: &&mut (usize, usize)| c.1 > self.at_least(**c, NARROWEST);
            let Some(widest) = columns.iter_mut().filter(can_shrink).max_by_key(|c| c.1) else { break };
            widest.1 -= 1;
        }
        columns
    }

    /// Leaves columns out, the last one first, while the others do not fit although names are as narrow as this.
    fn leave_out(
        &self,
        names: &[&str],
        width: usize,
        columns: &mut Vec<(usize, usize)>,
        narrow: fn(Kind) -> usize,
    ) {
        let narrowed =
            |column: &(usize, usize)| (column.0, self.at_least(*column, narrow(self.columns[column.0].1)));
        for name in names.iter().rev() {
            if total(&columns.iter().map(narrowed).collect::<Vec<_>>()) > width {
                columns.retain(|(column, _)| self.columns[*column].0 != name.to_uppercase());
            }
        }
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
        self.columns[column].1 != Kind::RightIfAny || self.rows.iter().any(|row| row.cells[column] != NONE)
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row.cells[column].width());
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
        assert_eq!(table.lines(narrow(27))[1], "0199…001  1234567  the han…");
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
    fn a_row_becomes_a_block_where_no_table_fits() {
        let mut table = Table::new(&[("id", Kind::Id), ("n", Kind::Right), ("error", Kind::Text)]);
        table.row(vec!["0199-aaaa-0001".into(), "1234567".into(), "the handler did not answer".into()]);
        table.row(vec!["b".into(), "2".into(), String::new()]);
        // No number is cut, whatever the terminal.
        let blocks = ["id: 0199-aaaa-0001", "n: 1234567", "error: the handler di…", "", "id: b", "n: 2"];
        assert_eq!(table.lines(narrow(22)), blocks);
        assert_eq!(table.lines(narrow(8))[..2], ["id: 01…1", "n: 1234567"]);
    }

    #[test]
    fn columns_that_can_be_spared_at_last_go_once_names_are_short() {
        let columns = [("id", Kind::Id), ("size", Kind::Right), ("due", Kind::Left)];
        let mut table = Table::new(&columns).spare_at_last(&["size", "due"]);
        table.row(vec!["x".repeat(40), "1".into(), "now".into()]);
        let at = |width| table.lines(narrow(width))[0].clone();
        assert_eq!(at(19), "ID        SIZE  DUE");
        assert_eq!(at(18), format!("ID{}SIZE", " ".repeat(12)));
        assert_eq!((at(13), at(7)), ("ID".to_owned(), "id: x…x".to_owned()));
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
