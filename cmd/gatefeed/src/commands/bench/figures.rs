//! What a bench prints.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{IngestArgs, LoadArgs, place::Place};
use crate::output::{self, Kind, Table, number, rate};

/// The figures of one bench. The JSON of each has its fields; docs/performance.md explains them.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Figures {
    Load(Load),
    Ingest(Ingest),
    Latency(Latency),
    Idle(Idle),
}

/// Of `drain` and `http`.
#[derive(Serialize)]
pub(crate) struct Load {
    #[serde(flatten)]
    about: About,
    items: usize,
    partitions: usize,
    gates: usize,
    concurrency: usize,
    payload: u64,
    /// What the limit is.
    limit_is: &'static str,
    /// Medians over the rounds.
    per_second: f64,
    limit_per_second: f64,
    /// The median of the rounds' ratios.
    ratio: f64,
    rounds: Vec<Round>,
    #[serde(skip)]
    is_warm: bool,
    /// For how long gatefeed is still to be measured.
    #[serde(skip)]
    left: Duration,
}

#[derive(Clone, Copy, Serialize)]
struct Round {
    per_second: f64,
    limit_per_second: f64,
}

/// Of `ingest`.
#[derive(Serialize)]
pub(crate) struct Ingest {
    #[serde(flatten)]
    about: About,
    connections: usize,
    partitions: usize,
    payload: u64,
    /// Medians over the rounds.
    per_second: f64,
    limit_per_second: f64,
    /// The median of the rounds' ratios.
    ratio: f64,
    /// Over all rounds, from a request's first byte to its answer's last.
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    rounds: Vec<Round>,
    #[serde(skip)]
    ms: Vec<f64>,
}

/// Of `latency`.
#[derive(Serialize)]
pub(crate) struct Latency {
    #[serde(flatten)]
    about: About,
    samples: usize,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// Of `idle`.
#[derive(Serialize)]
pub(crate) struct Idle {
    #[serde(flatten)]
    pub(crate) about: About,
    pub(crate) partitions_waiting: usize,
    pub(crate) partitions_complete: usize,
    pub(crate) seconds: f64,
    /// Of one core.
    pub(crate) watcher_cpu_percent: f64,
    /// Of one core; absent where the server is not on this machine, or is SQLite, which is in the watcher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database_cpu_percent: Option<f64>,
    pub(crate) resident_bytes: i64,
}

/// What was measured, where.
#[derive(Serialize)]
pub(crate) struct About {
    bench: &'static str,
    database: &'static str,
    version: &'static str,
    cores: usize,
}

impl About {
    pub(crate) fn new(bench: &'static str, place: &Place) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { bench, database: place.database(), version: env!("CARGO_PKG_VERSION"), cores }
    }
}

impl Load {
    pub(crate) fn new(bench: &'static str, limit_is: &'static str, place: &Place, args: &LoadArgs) -> Self {
        Self {
            about: About::new(bench, place),
            items: args.items(),
            partitions: args.partitions,
            gates: args.gates,
            concurrency: args.concurrency(),
            payload: args.payload,
            limit_is,
            per_second: 0.0,
            limit_per_second: 0.0,
            ratio: 0.0,
            rounds: Vec::new(),
            is_warm: false,
            left: args.run.duration,
        }
    }

    /// How many items the next round has: the first one warms up.
    pub(crate) fn items_of_round(&self) -> usize {
        if self.is_warm { self.items } else { (self.items / 10).max(1) }
    }

    /// Takes what a round came to, unless it was to warm up; returns whether that is enough.
    pub(crate) fn round(&mut self, took: Duration, limit_per_second: f64) -> bool {
        if !std::mem::replace(&mut self.is_warm, true) {
            return false;
        }
        self.add(per_second(self.items as u64, took), limit_per_second);
        self.left = self.left.saturating_sub(took);
        self.left.is_zero()
    }

    /// Adds a round and says how it was.
    fn add(&mut self, per_second: f64, limit_per_second: f64) {
        self.rounds.push(Round { per_second, limit_per_second });
        let all = |value: fn(&Round) -> f64| median(self.rounds.iter().map(value).collect());
        self.per_second = all(|round| round.per_second);
        self.limit_per_second = all(|round| round.limit_per_second);
        self.ratio = all(|round| round.per_second / round.limit_per_second);
        let (round, ratio) = (self.rounds.len(), per_second / limit_per_second);
        output::note(&format!(
            "round {round}: {} items/s, {} {}/s: {ratio:.2}",
            rate(per_second),
            self.limit_is,
            rate(limit_per_second)
        ));
    }

    fn table(&self) -> Table {
        use Kind::{Left, Right};
        let mut table = Table::new(&[("", Left), ("items/s", Right), ("of the limit", Right)]);
        let ratio = format!("{:.2}", self.ratio);
        table.row(vec!["gatefeed".to_owned(), rate(self.per_second), ratio]);
        table.row(vec![self.limit_is.to_owned(), rate(self.limit_per_second), "1.00".to_owned()]);
        table
    }

    fn headline(&self) -> String {
        format!(
            "{} on {}: {} rounds of {} items of {} bytes, {} partitions, {} gates, {} in flight, {} cores",
            self.about.bench,
            self.about.database,
            self.rounds.len(),
            number(self.items as i64),
            number(self.payload as i64),
            number(self.partitions as i64),
            self.gates,
            self.concurrency,
            self.about.cores
        )
    }
}

impl Ingest {
    pub(crate) fn new(place: &Place, args: &IngestArgs) -> Self {
        Self {
            about: About::new("ingest", place),
            connections: args.connections,
            partitions: args.partitions,
            payload: args.payload,
            per_second: 0.0,
            limit_per_second: 0.0,
            ratio: 0.0,
            p50_ms: 0.0,
            p99_ms: 0.0,
            max_ms: 0.0,
            rounds: Vec::new(),
            ms: Vec::new(),
        }
    }

    /// Takes what a round came to, and says how it was.
    pub(crate) fn round(&mut self, took: Duration, latencies: &[Duration], limit_per_second: f64) {
        let round = Round { per_second: per_second(latencies.len() as u64, took), limit_per_second };
        self.rounds.push(round);
        let all = |value: fn(&Round) -> f64| median(self.rounds.iter().map(value).collect());
        self.per_second = all(|round| round.per_second);
        self.limit_per_second = all(|round| round.limit_per_second);
        self.ratio = all(|round| round.per_second / round.limit_per_second);
        self.ms.extend(latencies.iter().map(|latency| latency.as_secs_f64() * 1e3));
        self.ms.sort_by(f64::total_cmp);
        [self.p50_ms, self.p99_ms, self.max_ms] = [50, 99, 100].map(|percent| percentile(&self.ms, percent));
        output::note(&format!(
            "round {}: {} requests/s, the plain INSERT {}/s: {:.2}",
            self.rounds.len(),
            rate(round.per_second),
            rate(limit_per_second),
            round.per_second / limit_per_second
        ));
    }

    fn headline(&self) -> String {
        format!(
            "ingest on {}: {} rounds, {} connections, {} partitions, items of {} bytes, {} cores; p50 {:.2} ms, p99 {:.2} ms, \
             max {:.0} ms",
            self.about.database,
            self.rounds.len(),
            self.connections,
            self.partitions,
            number(self.payload as i64),
            self.about.cores,
            self.p50_ms,
            self.p99_ms,
            self.max_ms
        )
    }

    fn table(&self) -> Table {
        use Kind::{Left, Right};
        let mut table = Table::new(&[("", Left), ("items/s", Right), ("of the limit", Right)]);
        table.row(vec!["the API".to_owned(), rate(self.per_second), format!("{:.2}", self.ratio)]);
        table.row(vec!["the plain INSERT".to_owned(), rate(self.limit_per_second), "1.00".to_owned()]);
        table
    }
}

impl Latency {
    pub(crate) fn new(place: &Place, samples: &[Duration]) -> Self {
        let mut ms: Vec<f64> = samples.iter().map(|sample| sample.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        Self {
            about: About::new("latency", place),
            samples: ms.len(),
            p50_ms: percentile(&ms, 50),
            p90_ms: percentile(&ms, 90),
            p99_ms: percentile(&ms, 99),
            max_ms: percentile(&ms, 100),
        }
    }

    fn table(&self) -> Table {
        use Kind::{Left, Right};
        let mut table = Table::new(&[("", Left), ("ms", Right)]);
        for (name, ms) in
            [("p50", self.p50_ms), ("p90", self.p90_ms), ("p99", self.p99_ms), ("max", self.max_ms)]
        {
            table.row(vec![name.to_owned(), format!("{ms:.2}")]);
        }
        table
    }
}

impl Idle {
    fn table(&self) -> Table {
        use Kind::{Left, Right};
        let mut table = Table::new(&[("", Left), ("% of a core", Right)]);
        let percent = |percent: f64| format!("{percent:.2}");
        table.row(vec!["watcher".to_owned(), percent(self.watcher_cpu_percent)]);
        if let Some(database) = self.database_cpu_percent {
            table.row(vec!["database server".to_owned(), percent(database)]);
        }
        table
    }
}

impl Figures {
    /// Prints them: a table, or one JSON object.
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            return output::json_object(self);
        }
        let (headline, table) = match self {
            Self::Load(load) => (load.headline(), load.table()),
            Self::Ingest(ingest) => (ingest.headline(), ingest.table()),
            Self::Latency(latency) => (
                format!(
                    "latency on {}: {} items, one at a time, from just before the COMMIT to the start of the delivery",
                    latency.about.database,
                    number(latency.samples as i64)
                ),
                latency.table(),
            ),
            Self::Idle(idle) => (
                format!(
                    "idle on {}: {} partitions waiting and {} complete, {:.0} s, {} resident",
                    idle.about.database,
                    number(idle.partitions_waiting as i64),
                    number(idle.partitions_complete as i64),
                    idle.seconds,
                    output::size(idle.resident_bytes)
                ),
                idle.table(),
            ),
        };
        output::line(&headline)?;
        output::line("")?;
        table.print()
    }
}

/// A rate.
pub(crate) fn per_second(number: u64, time: Duration) -> f64 {
    number as f64 / time.as_secs_f64().max(1e-9)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 50)
}

/// The nearest-rank percentile of values in order; 0 of none.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!([0, 50, 99, 100].map(|percent| percentile(&values, percent)), [1.0, 100.0, 198.0, 200.0]);
        assert_eq!((percentile(&[], 50), percentile(&[7.0], 99)), (0.0, 7.0));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
