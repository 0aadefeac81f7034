//! How far the demo is: bars on a terminal, lines elsewhere.

use std::{
    convert::Infallible,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::handler::Handler;
use crate::output;

const BARS_INTERVAL: Duration = Duration::from_millis(50);
const LINES_INTERVAL: Duration = Duration::from_secs(3);

/// What is shown while the watcher works.
pub(crate) struct Progress {
    documents: u64,
    bars: Option<Bars>,
}

struct Bars {
    read: ProgressBar,
    rank: ProgressBar,
}

impl Progress {
    /// For this many documents.
    pub(crate) fn new(documents: u64) -> Self {
        Self { documents, bars: io::stderr().is_terminal().then(|| Bars::new(documents)) }
    }

    /// Shows how far the handler is, for ever.
    pub(crate) async fn follow(&self, handler: &Handler) -> Infallible {
        let pace = if self.bars.is_some() { BARS_INTERVAL } else { LINES_INTERVAL };
        loop {
            tokio::time::sleep(pace).await;
            match &self.bars {
                Some(bars) => bars.update(handler),
                None => self.line(handler),
            }
        }
    }

    /// Shows how far the handler came.
    pub(crate) fn finish(&self, handler: &Handler) {
        if let Some(bars) = &self.bars {
            bars.update(handler);
            bars.read.abandon();
            bars.rank.abandon();
        } else {
            self.line(handler);
            output::note(&format!("gate 1: {}", if handler.has_ranked() { "ranked" } else { "not reached" }));
        }
    }

    fn line(&self, handler: &Handler) {
        output::note(&format!("gate 0: {} of {} documents read", handler.documents_read(), self.documents));
    }
}

impl Bars {
    fn new(documents: u64) -> Self {
        let bars = MultiProgress::new();
        let read = bars.add(bar(documents, "gate 0: read each document"));
        let rank = bars.add(bar(1, "gate 1: rank all of them  "));
        read.tick();
        rank.tick();
        Self { read, rank }
    }

    fn update(&self, handler: &Handler) {
        self.read.set_position(handler.documents_read() as u64);
        self.rank.set_position(handler.has_ranked().into());
    }
}

fn bar(length: u64, title: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix}  {bar:32.green/dim}  {human_pos}/{human_len}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━─");
    ProgressBar::new(length).with_style(style).with_prefix(title)
}
