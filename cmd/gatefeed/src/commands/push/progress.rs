//! How far the push is: a bar on a terminal, nothing elsewhere.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use crate::output;

/// Keeps a spinner alive while nothing comes in.
const TICK: Duration = Duration::from_millis(100);

const KNOWN: &str = "{prefix}  {bar:20.green/dim}  {percent:>3}%  {msg}  {eta} left";
const UNKNOWN: &str = "{spinner} {prefix}  {msg}";

/// One pass over the input; gone from the screen when dropped.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    items: u64,
}

impl Progress {
    /// `bytes`: all that there is to read, if that is known.
    pub(super) fn new(title: &'static str, bytes: Option<u64>) -> Self {
        let bar = io::stderr().is_terminal().then(|| bar(title, bytes));
        Self { bar, started: Instant::now(), items: 0 }
    }

    /// So many items more, and so many bytes of the input read with all of them.
    pub(super) fn advance(&mut self, items: u64, bytes_read: u64) {
        self.items += items;
        let Some(bar) = &self.bar else { return };
        let rate = self.items as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let items = format!("{} items  {}/s", HumanCount(self.items), HumanCount(rate as u64));
        match bar.length() {
            Some(_) => bar.set_message(items),
            None => bar.set_message(format!("{items}  {}", HumanBytes(bytes_read))),
        }
        bar.set_position(bytes_read);
    }

    /// Writes a remark, above the bar if there is one.
    pub(super) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => output::note(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(title: &'static str, bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), KNOWN),
        None => (ProgressBar::no_length(), UNKNOWN),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("━━─"));
    bar.set_prefix(title);
    bar.enable_steady_tick(TICK);
    bar
}
