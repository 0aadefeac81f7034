//! `--watch`: a listing again and again.

use std::{io, process, time::Duration};

use anyhow::Result;
use chrono::{DateTime, Local};
use clap::Args;
use gatefeed_core::Store;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::listing::{Listing, Page, Parts, prose, remark};
use crate::{
    exit,
    logging::is_drawn_on,
    output::{self, JsonArray, Look, Screen, Style},
    parse,
    signals::Signals,
};

/// How often a listing is printed.
#[derive(Args, Debug)]
pub(crate) struct WatchArg {
    /// Show it again and again, every 2s unless told otherwise: in place on a terminal, else one after another, with
    /// --json an array a line. Ctrl-C ends it, with exit code 0
    #[arg(
        long,
        env = "GATEFEED_WATCH",
        value_name = "DURATION",
        help_heading = "Output",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = parse::watch_interval
    )]
    pub(crate) watch: Option<Duration>,
}

/// Shows a page and reads it again every so often. Where the first look fails that is an error; later a database that
/// goes away is waited for, and a signal is the end that was asked for.
pub(crate) async fn watch<L: Listing>(
    store: &dyn Store,
    listing: &L,
    every: Duration,
    json: bool,
) -> Result<()> {
    if json {
        return arrays(store, listing, every).await;
    }
    let first = listing.read(store).await?;
    if is_drawn_on(&io::stdout()) {
        in_place(store, listing, first, every).await
    } else {
        one_after_another(store, listing, first, every).await
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn in_place<L: Listing>(
    store: &dyn Store,
    listing: &L,
    first: Page<L::Row>,
    every: Duration,
) -> Result<()> {
    let mut signals = Signals::with_hangup()?;
    let mut resizes = signal(SignalKind::window_change())?;
    let mut stops = signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?;
    let mut ticks = ticks(every);
    let mut seen = Seen { page: first, at: Local::now(), error: None };
    let screen = Screen::enter()?;
    loop {
        screen.draw(&seen.lines(listing, every, Look::of_stdout()))?;
        let read = async {
            ticks.tick().await;
            listing.read(store).await
        };
        tokio::select! {
            _ = signals.next() => return Ok(()),
            // Drawn anew.
            _ = resizes.recv() => {}
            _ = stops.recv() => screen.suspend()?,
            read = read => seen.take(read),
        }
    }
}

/// What is on the screen.
struct Seen<R> {
    page: Page<R>,
    at: DateTime<Local>,
    /// Why reading it again did not work.
    error: Option<String>,
}

impl<R> Seen<R> {
    fn take(&mut self, read: Result<Page<R>>) {
        match read {
            Ok(page) => *self = Self { page, at: Local::now(), error: None },
            Err(error) => self.error = Some(format!("{error:#}")),
        }
    }

    fn lines<L: Listing<Row = R>>(&self, listing: &L, every: Duration, look: Look) -> Vec<String> {
        let at = self.at.format("%H:%M:%S");
        let every = humantime::format_duration(every);
        let (head, style) = match &self.error {
            None => (format!("{at}, every {every}; Ctrl-C ends it"), Style::Dim),
            Some(error) => (format!("error: {error}; trying again, what is below is from {at}"), Style::Red),
        };
        let mut lines = prose(&head, Some(style), look);
        lines.push(String::new());
        lines.extend(listing.text(&self.page.rows, look));
        if let Some(remark) = self.page.remark() {
            lines.push(String::new());
            lines.extend(prose(&remark, None, look));
        }
        lines
    }
}

async fn one_after_another<L: Listing>(
    store: &dyn Store,
    listing: &L,
    first: Page<L::Row>,
    every: Duration,
) -> Result<()> {
    end_on_signal()?;
    let mut ticks = ticks(every);
    let mut remarks = Remarks::default();
    let mut read = Ok(first);
    let mut before = "";
    loop {
        match read {
            Ok(page) => {
                let text = listing.text(&page.rows, Look::of_stdout()).join("\n");
                output::line(&format!("{before}{text}"))?;
                before = "\n";
                remarks.note(page.remark());
            }
            Err(error) => remarks.trying_again(&error),
        }
        ticks.tick().await;
        read = listing.read(store).await;
    }
}

/// One JSON array after another.
async fn arrays<L: Listing>(store: &dyn Store, listing: &L, every: Duration) -> Result<()> {
    let mut parts = listing.parts();
    let mut read = Ok(parts.next(store).await?);
    let mut array = JsonArray::on_a_line();
    end_on_signal()?;
    let mut ticks = ticks(every);
    let mut remarks = Remarks::default();
    loop {
        match read {
            Ok(Some(rows)) => array.add(rows.iter().map(L::json))?,
            Ok(None) => {
                array.end()?;
                remarks.note(remark(parts.more_after()));
                (parts, array) = (listing.parts(), JsonArray::on_a_line());
                ticks.tick().await;
            }
            // An array that has been begun goes on where it stopped.
            Err(error) => {
                remarks.trying_again(&error);
                ticks.tick().await;
            }
        }
        read = parts.next(store).await;
    }
}

/// Also while a reader that does not read keeps this process from writing.
fn end_on_signal() -> Result<()> {
    let mut signals = Signals::with_hangup()?;
    tokio::spawn(async move {
        signals.next().await;
        process::exit(exit::OK.into());
    });
    Ok(())
}

/// Remarks on stderr, each once until another takes its place.
#[derive(Default)]
struct Remarks {
    last: Option<String>,
}

impl Remarks {
    fn trying_again(&mut self, error: &anyhow::Error) {
        self.note(Some(format!("error: {error:#}; trying again")));
    }

    fn note(&mut self, remark: Option<String>) {
        if remark != self.last {
            remark.iter().for_each(|remark| output::note(&output::shown(remark)));
            self.last = remark;
        }
    }
}
