//! `gatefeed status`.

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use gatefeed_core::{
    Store,
    circuit::CircuitStatus,
    id::DEFAULT_FEED,
    inspect::{FeedStatus, WatcherStatus},
};
use serde::Serialize;

use super::listing::{self, Listing, ListingArgs, OnePart, Page, Parts, prose};
use crate::{
    database::DatabaseArgs,
    output::{Kind, Look, Style, Table, count, quoted, rate, relative, relative_or_dash},
};

/// Show the feeds: partitions, items, and the watchers at work.
///
/// OLDEST DUE tells since when the item that has waited longest has been due: while it grows, watchers are missing or
/// too slow. IN FLIGHT and ITEMS/S (outcomes a second, failed attempts included) are what watchers report, about every
/// 5 seconds; one that has been silent for over 10 is marked, and its rate is left out of the feed's. BUDGET is how many
/// deliveries a watcher may have in flight now, over all its feeds. A third table lists the targets that watchers leave
/// alone, since they keep failing or cannot be reached, within about a second. Items that are
/// complete are not counted, so that looking stays cheap. Columns without a count may be left out, and a narrow terminal
/// gets two tables, or a block of lines for each row; --json has everything.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed status
  gatefeed status --watch
  gatefeed status --json | jq '.[] | select(.items.failed > 0) | .feed'")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    listing: ListingArgs,
}

/// From then on a watcher's rate is no longer taken for what it does: it reports about every 5 seconds.
const SILENT_AFTER: TimeDelta = TimeDelta::seconds(10);

fn is_silent(watcher: &WatcherStatus, now: DateTime<Utc>) -> bool {
    now.signed_duration_since(watcher.seen_at) > SILENT_AFTER
}

pub(crate) async fn status(database: &DatabaseArgs, args: StatusArgs) -> Result<()> {
    listing::list(database, &args.listing, &Feeds).await
}

struct Feeds;

impl Listing for Feeds {
    type Row = FeedStatus;

    async fn read(&self, store: &dyn Store) -> Result<Page<FeedStatus>> {
        Ok(Page::whole(store.status().await?))
    }

    fn parts(&self) -> impl Parts<Row = FeedStatus> {
        OnePart::of(self)
    }

    fn json(row: &FeedStatus) -> impl Serialize {
        row
    }

    fn text(&self, feeds: &[FeedStatus], look: Look) -> Vec<String> {
        if feeds.is_empty() {
            return prose(
                "Nothing here yet: make work with `gatefeed push`, or insert a row into gatefeed_partitions and its \
                 items into gatefeed_items; then start `gatefeed run --target URL`.",
                None,
                look,
            );
        }
        let now = Utc::now();
        let mut lines = feed_lines(feeds, look, now);
        if let Some(unserved) = unserved(feeds) {
            lines.push(String::new());
            lines.extend(prose(&unserved, Some(Style::Yellow), look));
        }
        if feeds.iter().any(|feed| !feed.watchers.is_empty()) {
            lines.push(String::new());
            lines.extend(watchers(feeds, now).lines(look));
        }
        if let Some(circuits) = circuits(feeds, now) {
            lines.push(String::new());
            lines.extend(circuits.lines(look));
        }
        lines
    }
}

/// The feeds in one table, or in two if it does not fit.
fn feed_lines(feeds: &[FeedStatus], look: Look, now: DateTime<Utc>) -> Vec<String> {
    let mut whole = Table::new(
        &[&FEED, &[("partitions:", Kind::Left)], PARTITIONS, &[("items:", Kind::Left)], ITEMS].concat(),
    );
    let mut partitions = Table::new(&[&[("partitions", Kind::Id)], PARTITIONS].concat());
    // Who the watchers are is told below.
    let mut items = Table::new(&[&[("items", Kind::Id)], ITEMS].concat()).spare(&["watchers"]);
    for feed in feeds {
        let (name, mark) = ([feed.feed.clone()], [String::new()]);
        let (of_partitions, of_items) = (partition_cells(feed), item_cells(feed, now));
        whole.row([&name[..], &mark, &of_partitions, &mark, &of_items].concat());
        partitions.row([&name[..], &of_partitions].concat());
        items.row([&name[..], &of_items].concat());
    }
    if whole.fits(look) {
        return whole.lines(look);
    }
    [partitions.lines(look), vec![String::new()], items.lines(look)].concat()
}

const FEED: [(&str, Kind); 1] = [("feed", Kind::Id)];

const PARTITIONS: &[(&str, Kind)] = &[
    ("available", Kind::Right),
    ("leased", Kind::Right),
    ("paused", Kind::RightIfAny),
    ("complete", Kind::Right),
    ("failed", Kind::Failures),
    ("cancelled", Kind::RightIfAny),
];

fn partition_cells(feed: &FeedStatus) -> Vec<String> {
    let partitions = &feed.partitions;
    [
        partitions.available,
        feed.leased,
        partitions.paused,
        partitions.complete,
        partitions.failed,
        partitions.cancelled,
    ]
    .map(count)
    .to_vec()
}

const ITEMS: &[(&str, Kind)] = &[
    ("available", Kind::Right),
    ("waiting", Kind::RightIfAny),
    ("blocked", Kind::RightIfAny),
    ("failed", Kind::Failures),
    ("oldest due", Kind::Left),
    ("in flight", Kind::Right),
    ("items/s", Kind::Right),
    ("watchers", Kind::Right),
];

fn item_cells(feed: &FeedStatus, now: DateTime<Utc>) -> Vec<String> {
    let items = &feed.items;
    let heard = feed.watchers.iter().filter(|watcher| !is_silent(watcher, now));
    let per_second = heard.map(|watcher| watcher.outcomes_per_second).sum();
    vec![
        count(items.available),
        count(items.waiting),
        count(items.blocked),
        count(items.failed),
        relative_or_dash(feed.oldest_due_at, now),
        count(feed.in_flight),
        rate(per_second),
        count(i64::try_from(feed.watchers.len()).unwrap_or(i64::MAX)),
    ]
}

/// The watchers, feed by feed.
fn watchers(feeds: &[FeedStatus], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&[
        ("watcher", Kind::Id),
        ("feed", Kind::Id),
        ("partitions", Kind::Right),
        ("in flight", Kind::Right),
        ("budget", Kind::Right),
        ("items/s", Kind::Right),
        ("started", Kind::Left),
        ("last seen", Kind::Left),
    ])
    .spare(&["started", "budget"]);
    for feed in feeds {
        for watcher in &feed.watchers {
            let cells = watcher_cells(feed, watcher, now);
            if is_silent(watcher, now) { table.dim_row(cells) } else { table.row(cells) }
        }
    }
    table
}

fn watcher_cells(feed: &FeedStatus, watcher: &WatcherStatus, now: DateTime<Utc>) -> Vec<String> {
    let silent = if is_silent(watcher, now) { " (silent)" } else { "" };
    vec![
        watcher.id.clone(),
        feed.feed.clone(),
        count(watcher.partitions),
        count(watcher.in_flight),
        count(watcher.concurrency),
        rate(watcher.outcomes_per_second),
        relative(watcher.started_at, now),
        format!("{}{silent}", relative(watcher.seen_at, now)),
    ]
}

/// Targets that watchers leave alone, feed by feed; `None`: there is none.
fn circuits(feeds: &[FeedStatus], now: DateTime<Utc>) -> Option<Table> {
    let mut table = Table::new(&[
        ("target", Kind::Id),
        ("feed", Kind::Id),
        ("gate", Kind::Left),
        ("circuit", Kind::Status),
        ("since", Kind::Left),
        ("next try", Kind::Left),
        ("watchers", Kind::Left),
    ])
    .spare(&["gate"]);
    let mut is_any = false;
    for feed in feeds {
        // In order of gate and target; what a target is to several watchers is one row.
        let mut by_target: BTreeMap<(Option<i32>, &str), Vec<&CircuitStatus>> = BTreeMap::new();
        for circuit in feed.watchers.iter().flat_map(|watcher| &watcher.circuits) {
            by_target.entry((circuit.gate, &circuit.target)).or_default().push(circuit);
        }
        is_any |= !by_target.is_empty();
        by_target.values().for_each(|of| table.row(circuit_cells(feed, of, now)));
    }
    is_any.then_some(table)
}

/// Of one target, as some watchers see it, one at least: the state of which it is the most, the longest time and the soonest
/// try.
fn circuit_cells(feed: &FeedStatus, circuits: &[&CircuitStatus], now: DateTime<Utc>) -> Vec<String> {
    let first = circuits[0];
    let all = || circuits.iter();
    let state = all().map(|circuit| circuit.state).min().unwrap_or(first.state);
    let since = all().map(|circuit| circuit.since).min().unwrap_or(first.since);
    let until = all().map(|circuit| circuit.until).min().unwrap_or(first.until);
    vec![
        first.target.clone(),
        feed.feed.clone(),
        first.gate.map_or_else(|| "-".to_owned(), |gate| gate.to_string()),
        state.as_str().to_owned(),
        relative(since, now),
        relative(until.max(now), now),
        format!("{} of {}", circuits.len(), feed.watchers.len()),
    ]
}

/// What to do about work that is due and that nobody does.
fn unserved(feeds: &[FeedStatus]) -> Option<String> {
    let is_unserved =
        |feed: &&FeedStatus| feed.oldest_due_at.is_some() && feed.watchers.is_empty() && feed.leased == 0;
    let names: Vec<_> = feeds.iter().filter(is_unserved).map(|feed| feed.feed.as_str()).collect();
    let flag = match names.as_slice() {
        [] => return None,
        [DEFAULT_FEED] => String::new(),
        names => format!(" --feed {}", quoted(&names.join(","))),
    };
    let feed = if names.len() == 1 { "the feed" } else { "the feeds" };
    Some(format!(
        "Work is due in {feed} {}, and no watcher serves {}: start one with `gatefeed run{flag} --target URL`.",
        names.join(", "),
        if names.len() == 1 { "it" } else { "them" },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefeed_core::{
        circuit::CircuitState,
        inspect::{ItemCounts, PartitionCounts},
    };

    fn feed(name: &str, due: bool, has_watcher: bool) -> FeedStatus {
        let watcher = WatcherStatus {
            id: "worker-1".into(),
            version: "1".into(),
            concurrency: 10,
            partitions: 2,
            in_flight: 1_000,
            outcomes: 7,
            outcomes_per_second: 1234.4,
            circuits: vec![],
            started_at: Utc::now(),
            seen_at: Utc::now(),
        };
        FeedStatus {
            feed: name.into(),
            partitions: PartitionCounts { available: 1, complete: 1_234, ..PartitionCounts::default() },
            leased: i64::from(has_watcher),
            items: ItemCounts { available: 1_234_567, failed: 3, ..ItemCounts::default() },
            oldest_due_at: due.then(Utc::now),
            in_flight: if has_watcher { 1_000 } else { 0 },
            outcomes_per_second: if has_watcher { 1234.4 } else { 0.0 },
            watchers: if has_watcher { vec![watcher] } else { Vec::new() },
        }
    }

    #[test]
    fn work_that_nobody_does_is_told_with_what_to_do() {
        let told = |feeds: &[FeedStatus]| unserved(feeds);
        let idle_watcher = FeedStatus { leased: 0, ..feed("b", true, true) };
        let silent_watcher = FeedStatus { leased: 1, ..feed("c", true, false) };
        assert_eq!(told(&[feed("a", false, false), idle_watcher, silent_watcher]), None);
        let default = told(&[feed("default", true, false)]).unwrap();
        assert!(default.contains("in the feed default,") && default.contains("`gatefeed run --target URL`"));
        let two = told(&[feed("a", true, false), feed("b", true, false), feed("c", false, false)]).unwrap();
        assert!(
            two.contains("feeds a, b,") && two.contains("`gatefeed run --feed a,b --target URL`"),
            "{two}"
        );
    }

    #[test]
    fn targets_that_are_left_alone_are_one_row_for_all_watchers() {
        let now = Utc::now();
        let circuit = |gate, state, since, until| CircuitStatus {
            target: "http://ocr:8000/".into(),
            gate,
            state,
            since: now - TimeDelta::seconds(since),
            until: now + TimeDelta::milliseconds(until),
            targets_left: 0,
        };
        let mut feed = feed("scans", true, true);
        assert!(circuits(std::slice::from_ref(&feed), now).is_none());
        let mut others = vec![feed.watchers[0].clone(); 2];
        feed.watchers[0].circuits = vec![circuit(None, CircuitState::HalfOpen, 50, -700)];
        others[0].circuits = vec![
            circuit(None, CircuitState::Open, 40, 9_000),
            circuit(Some(1), CircuitState::Unreachable, 8, 3_500),
        ];
        feed.watchers.extend(others);
        let lines = circuits(&[feed], now).unwrap().lines(Look { width: None, colours: false });
        let words = |line: &String| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            lines.iter().map(words).collect::<Vec<_>>(),
            [
                "TARGET FEED GATE CIRCUIT SINCE NEXT TRY WATCHERS",
                "http://ocr:8000/ scans - open 50s ago now 2 of 3",
                "http://ocr:8000/ scans 1 unreachable 8s ago in 3s 1 of 3",
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_gets_two_tables_and_nothing_is_cut() {
        let feeds = [feed("default", true, true)];
        let look = |width| Look { width, colours: false };
        let lines = |width| Feeds.text(&feeds, look(width));
        assert_eq!(lines(None).len(), 5, "{:#?}", lines(None));
        assert_eq!(lines(Some(200)), lines(None));
        let narrow = lines(Some(80));
        assert!(narrow.iter().all(|line| line.chars().count() <= 80), "{narrow:#?}");
        for text in ["1,234,567", "1,234", "PARTITIONS", "ITEMS ", "worker-1", "WATCHERS"] {
            assert!(narrow.iter().any(|line| line.contains(text)), "{text}: {narrow:#?}");
        }
    }

    #[test]
    fn a_very_narrow_terminal_gets_blocks_and_nothing_is_cut_either() {
        let lines = Feeds.text(&[feed("default", true, true)], Look { width: Some(40), colours: false });
        assert!(lines.iter().all(|line| line.chars().count() <= 40), "{lines:#?}");
        for line in ["partitions: default", "items: default", "available: 1,234,567", "watcher: worker-1"] {
            assert!(lines.iter().any(|found| found == line), "{line}: {lines:#?}");
        }
    }

    #[test]
    fn the_rate_of_a_silent_watcher_no_longer_counts() {
        let mut feed = feed("default", true, true);
        let silent = WatcherStatus {
            id: "gone".into(),
            seen_at: Utc::now() - SILENT_AFTER * 2,
            ..feed.watchers[0].clone()
        };
        feed.watchers[0].outcomes_per_second = 50.0;
        feed.watchers.push(silent);
        let lines = Feeds.text(&[feed], Look { width: None, colours: true });
        let of_feed = lines.iter().find(|line| line.starts_with("default")).unwrap();
        assert!(of_feed.contains("  50 ") && !of_feed.contains("1,284"), "{lines:#?}");
        let marked: Vec<_> = lines.iter().filter(|line| line.contains("20s ago (silent)")).collect();
        assert!(marked.len() == 1 && marked[0].starts_with("\x1b[2mgone\x1b[0m"), "{lines:#?}");
    }
}
