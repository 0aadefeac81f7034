//! The terminal on stdout, if it is one: how wide it is, colours, and drawing in place.

use std::{
    env,
    io::{self, IsTerminal},
};

use anyhow::Result;

use super::print;
use crate::logging::is_coloured;

/// The alternate screen, where what was there before stays as it was; no cursor; long lines end at the edge.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// How text for people may look where it goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    /// Columns; `None`: as many as it takes.
    pub(crate) width: Option<usize>,
    /// Whether colours are shown.
    pub(crate) colours: bool,
}

impl Look {
    /// What fits on stdout. What is piped on is never cut.
    pub(crate) fn of_stdout() -> Self {
        let out = io::stdout();
        let width = out.is_terminal().then(|| extent().0).flatten();
        Self { width, colours: is_coloured(&out) }
    }
}

/// Columns and rows; from `COLUMNS` and `LINES` where the terminal does not know.
fn extent() -> (Option<usize>, Option<usize>) {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let known = |number: u16| Some(usize::from(number)).filter(|number| *number > 0);
    let variable = |name| env::var(name).ok()?.parse().ok().filter(|number| *number > 0);
    (
        size.and_then(|size| known(size.ws_col)).or_else(|| variable("COLUMNS")),
        size.and_then(|size| known(size.ws_row)).or_else(|| variable("LINES")),
    )
}

/// How a piece of text stands out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Style {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

/// Text in a style, if there are colours.
pub(crate) fn paint(text: &str, style: Option<Style>, colours: bool) -> String {
    let code = match style {
        Some(style) if colours && !text.is_empty() => match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Red => 31,
            Style::Green => 32,
            Style::Yellow => 33,
        },
        _ => return text.to_owned(),
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// The whole terminal, drawn on in place. Dropped it leaves the terminal as it was.
pub(crate) struct Screen(());

impl Screen {
    /// Takes the terminal.
    pub(crate) fn enter() -> Result<Self> {
        print(|out| out.write_all(ENTER.as_bytes()))?;
        Ok(Self(()))
    }

    /// Stops the process as Ctrl-Z does, with the terminal as it was, and takes it again afterwards.
    pub(crate) fn suspend(&self) -> Result<()> {
        print(|out| out.write_all(LEAVE.as_bytes()))?;
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?;
        print(|out| out.write_all(ENTER.as_bytes()))
    }

    /// Draws over what was drawn before; what does not fit is counted.
    pub(crate) fn draw(&self, lines: &[String]) -> Result<()> {
        let drawn = drawn(lines, extent().1.unwrap_or(24));
        print(|out| out.write_all(drawn.as_bytes()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where stdout is gone there is nothing to leave.
        let _ = print(|out| out.write_all(LEAVE.as_bytes()));
    }
}

/// Nothing is wiped before it is written over, so that nothing flickers, and no line ends the last row, so that
/// nothing scrolls.
fn drawn(lines: &[String], rows: usize) -> String {
    let fitting = if lines.len() > rows { rows.saturating_sub(1) } else { lines.len() };
    let mut shown = lines[..fitting].to_vec();
    if fitting < lines.len() {
        shown.push(format!("… and {} more lines", lines.len() - fitting));
    }
    format!("\x1b[H{}\x1b[K\x1b[J", shown.join("\x1b[K\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_fits_and_does_not_scroll() {
        let lines = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(drawn(&lines, 3), "\x1b[Ha\x1b[K\r\nb\x1b[K\r\nc\x1b[K\x1b[J");
        assert_eq!(drawn(&lines, 2), "\x1b[Ha\x1b[K\r\n… and 2 more lines\x1b[K\x1b[J");
        assert_eq!(drawn(&lines, 0), "\x1b[H… and 3 more lines\x1b[K\x1b[J");
    }

    #[test]
    fn styles_are_for_terminals() {
        assert_eq!(paint("x", Some(Style::Red), true), "\x1b[31mx\x1b[0m");
        assert_eq!((paint("x", Some(Style::Red), false), paint("x", None, true)), ("x".into(), "x".into()));
    }
}
