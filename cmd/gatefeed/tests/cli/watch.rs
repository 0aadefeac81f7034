//! `--watch`.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::place::{OnTerminal, Place, Running, json};

/// A database that has gone away, as far as `gatefeed status` can see.
const GOES: &str = "ALTER TABLE gatefeed_watchers RENAME TO elsewhere";
const COMES_BACK: &str = "ALTER TABLE elsewhere RENAME TO gatefeed_watchers";

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

#[test]
fn json_comes_as_an_array_a_line_until_a_signal() {
    let place = Place::migrated();
    place.fill(3);
    let args = ["items", "p", "--limit", "2", "--json", "--watch=100ms"];
    let mut running = Running::start(place.command(&args));
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut ids = || json(&lines.next().unwrap().unwrap()).as_array().unwrap().len();
    assert_eq!((ids(), ids(), ids()), (2, 2, 2));
    running.signal("INT");
    assert_eq!(running.wait(), Some(0));
    let remarks = BufReader::new(running.0.stderr.take().unwrap()).lines().count();
    assert_eq!(remarks, 1, "how to go on is told once");
}

#[test]
fn text_comes_again_after_a_blank_line_and_outlives_an_outage() {
    let place = Place::migrated();
    place.fill(1);
    let mut running = Running::start(place.command(&["status", "--watch=100ms"]));
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut table = || {
        let blank = lines.by_ref().take_while(|line| !line.starts_with("FEED")).filter(String::is_empty);
        let blank = blank.count();
        assert!(lines.next().unwrap().starts_with("default "));
        blank
    };
    assert_eq!(table(), 0);
    // One before the line that says that nobody works, and one between the tables.
    assert_eq!(table(), 2);
    place.sql(GOES);
    running.wait_for_log("trying again");
    place.sql(COMES_BACK);
    let after = (0..20).map(|_| table()).last();
    assert_eq!(after, Some(2));
    running.signal("TERM");
    assert_eq!(running.wait(), Some(0));
}

#[test]
fn json_outlives_an_outage_too() {
    let place = Place::migrated();
    place.fill(1);
    let mut running = Running::start(place.command(&["status", "--json", "--watch=100ms"]));
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut feeds = || json(&lines.next().unwrap()).as_array().unwrap().len();
    assert_eq!(feeds(), 1);
    place.sql(GOES);
    running.wait_for_log("trying again");
    place.sql(COMES_BACK);
    assert!((0..20).all(|_| feeds() == 1));
}

#[test]
fn a_first_look_that_fails_is_an_error() {
    let place = Place::new();
    place.fails(&["status", "--watch"], 1, &["does not exist"]);
    place.succeeds(&["migrate"]);
    place.fails(&["items", "nobody", "--watch"], 1, &["nobody"]);
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let place = Place::migrated();
    let mut command = place.command(&["status", "--json", "--watch=100ms"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(Running(child).wait() == Some(0));
}

#[test]
fn a_terminal_is_drawn_on_in_place_and_left_as_it_was() {
    let place = Place::migrated();
    place.fill(1);
    let mut terminal = OnTerminal::start(place.command(&["status", "--watch=100ms"]), 80);
    let shown = terminal.wait_for(&[ENTER, "Ctrl-C ends it", "default"]);
    assert!(!shown.contains(LEAVE) && !shown.contains("\x1b[2J"), "{shown:?}");
    place.sql(GOES);
    // What was seen last stays.
    terminal.wait_for(&["error: ", "trying again", "default"]);
    place.sql(COMES_BACK);
    terminal.wait_for(&["Ctrl-C ends it", "default"]);
    terminal.signal("INT");
    let end = terminal.wait_for(&[LEAVE]);
    assert!(end.ends_with(LEAVE) && end.contains("\x1b[?25h") && end.contains("\x1b[?7h"), "{end:?}");
    assert_eq!(terminal.wait(), Some(0));
}
