//! `status`, `partitions` and `items`.

use std::{
    io::Read,
    process::{Command, Stdio},
};

use gatefeed_core::partition::NewPartition;
use serde_json::Value;

use crate::place::{Done, OnTerminal, Place, Running, json};

#[test]
fn empty_lists() {
    let place = Place::migrated();
    for command in ["status", "partitions"] {
        assert_eq!(json(&place.succeeds(&[command, "--json"])), json("[]"));
        assert!(place.succeeds(&[command]).contains("gatefeed_partitions"));
    }
    place.push(NewPartition::new("p"), &[]);
    assert_eq!(json(&place.succeeds(&["items", "p", "--json"])), json("[]"));
    assert!(place.succeeds(&["items", "p"]).contains("gatefeed_items"));
    assert!(place.succeeds(&["items", "p", "--gate", "3"]).contains("No item fits"));
    assert!(place.succeeds(&["partitions", "--feed", "x"]).contains("No partition fits"));
    place.fails(&["items", "q"], 1, &["q"]);
}

#[test]
fn lists_show_what_is_there_and_go_on_page_by_page() {
    let place = Place::migrated();
    place.fill(5);
    let status = json(&place.succeeds(&["status", "--json"]));
    assert_eq!((&status[0]["feed"], &status[0]["items"]["available"]), (&json("\"default\""), &json("5")));
    let partitions = json(&place.succeeds(&["partitions", "--json", "--status", "available"]));
    assert_eq!((&partitions[0]["id"], &partitions[0]["gate"]), (&json("\"p\""), &json("0")));
    assert!(place.succeeds(&["partitions"]).starts_with("ID "));

    let page = place.run(&["items", "p", "--limit", "2", "--json"]);
    assert_eq!(json(&page.out).as_array().unwrap().len(), 2);
    assert!(page.err.contains("--after item-00001"), "{}", page.err);
    let rest = place.run(&["items", "--partition", "p", "--after", "item-00001", "--limit", "3", "--json"]);
    assert_eq!((json(&rest.out).as_array().unwrap().len(), rest.err.as_str()), (3, ""));
    assert!(place.succeeds(&["items", "p", "--after", "item-00004"]).contains("No items after"));
}

#[test]
fn data_is_text_or_base64_and_harms_no_terminal() {
    let place = Place::migrated();
    let data: [&[u8]; 3] = [b"{\"n\": 12345678901234567890.10}", b"\xff\x00", b"\x1b[31m"];
    place.push(NewPartition::new("p"), &[("1", 0, data[0]), ("2", 0, data[1]), ("3", 0, data[2])]);
    let items = json(&place.succeeds(&["items", "p", "--data", "--json"]));
    assert_eq!(items[0]["data"], "{\"n\": 12345678901234567890.10}");
    assert_eq!((&items[1]["data_base64"], &items[1]["data"]), (&json("\"/wA=\""), &Value::Null));
    assert_eq!(items[2]["data"], "\u{1b}[31m");
    let shown = place.succeeds(&["items", "p", "--data"]);
    assert!(shown.contains("12345678901234567890.10") && !shown.contains('\u{1b}'), "{shown:?}");
    let without = json(&place.succeeds(&["items", "p", "--json"]));
    assert!(without[0].get("data").is_none(), "{without}");
}

#[test]
fn of_data_a_table_shows_the_beginning() {
    let place = Place::migrated();
    let long = "é".repeat(5_000);
    place.push(
        NewPartition::new("p"),
        &[("long", 0, long.as_bytes()), ("short", 0, "é".repeat(200).as_bytes())],
    );
    let shown = place.succeeds(&["items", "p", "--data"]);
    let cells: Vec<_> = shown.lines().skip(1).map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(cells, ["é".repeat(200) + "…", "é".repeat(200)]);
    assert_eq!(json(&place.succeeds(&["items", "p", "--data", "--json"]))[0]["data"], long);
}

#[test]
fn json_with_data_is_one_array_however_much_there_is() {
    let place = Place::migrated();
    let (large, larger) = (vec![b'x'; 3 << 20], vec![b'y'; 5 << 20]);
    let items: [(&str, i32, &[u8]); 7] = [
        ("1", 0, b"{}"),
        ("2", 0, &large),
        ("3", 0, &large),
        ("4", 0, b"{}"),
        ("5", 0, &larger),
        ("6", 0, b"\xff"),
        ("7", 0, b"{}"),
    ];
    place.push(NewPartition::new("p"), &items);
    let ids = |text: &str| -> Vec<String> {
        let rows = json(text);
        rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let list = |more: &[&str]| place.run(&[&["items", "p", "--json", "--data"], more].concat());
    let all = list(&[]);
    assert_eq!((ids(&all.out).join(""), all.err.as_str()), ("1234567".to_owned(), ""));
    let size = |index: usize| json(&all.out)[index]["data"].as_str().unwrap().len();
    assert_eq!((size(1), size(4)), (large.len(), larger.len()));
    let five = list(&["--limit", "5", "--after", "1"]);
    assert_eq!((ids(&five.out).join(""), five.err.contains("--after 6")), ("23456".to_owned(), true));
    assert_eq!(list(&["--limit", "6", "--after", "1"]).err, "");
}

/// The most memory that a process has had, in bytes.
fn most_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn the_data_of_a_page_is_never_held_as_a_whole() {
    const ITEM: u64 = 2 << 20;
    const ITEMS: u64 = 120;
    let place = Place::migrated();
    place.push(NewPartition::new("p"), &[]);
    place.sql(&format!(
        "WITH RECURSIVE n (n) AS (SELECT 10 UNION ALL SELECT n + 1 FROM n WHERE n < {})
         INSERT INTO gatefeed_items (partition_id, id, data) SELECT 'p', n, hex(zeroblob({})) FROM n",
        ITEMS + 9,
        ITEM / 2
    ));
    for (args, enough) in [(&["--json", "--limit=120"][..], (ITEMS - 1) * ITEM), (&["--watch=100ms"], 100)] {
        let command = place.command(&[&["items", "p", "--data"], args].concat());
        let mut running = Running::start(command);
        let mut out = running.0.stdout.take().unwrap();
        // More is to come, and so the process is still there.
        std::io::copy(&mut out.by_ref().take(enough), &mut std::io::sink()).unwrap();
        let memory = most_memory(running.0.id());
        assert!(memory < ITEMS * ITEM / 2, "{args:?} took {} MiB", memory >> 20);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::migrated();
    place.fill(5000);
    for extra in ["--json", "--data"] {
        let mut command = place.command(&["items", "p", "--limit", "5000", extra]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // More comes than a pipe holds, so that the writer meets the closed end.
        let mut first = [0; 1];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let done = Done::from(child.wait_with_output().unwrap());
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    }
}

/// What stands on the lines of a terminal, without its colours.
fn plain(shown: &str) -> Vec<String> {
    let mut text = shown.replace('\r', "");
    for code in ["0", "1", "2", "31", "32", "33"] {
        text = text.replace(&format!("\x1b[{code}m"), "");
    }
    text.lines().map(str::to_owned).collect()
}

#[test]
fn what_is_too_wide_for_a_terminal_is_cut_there_and_nowhere_else() {
    let place = Place::migrated();
    let id = format!("{}-the-end", "long-".repeat(40));
    place.push(NewPartition::new(&id), &[("a", 0, b"{}")]);
    for columns in [64, 80, 120] {
        let mut terminal = OnTerminal::start(place.command(&["partitions"]), columns);
        assert_eq!(terminal.wait(), Some(0));
        let lines = plain(&terminal.wait_for(&["available"]));
        assert!(lines.iter().all(|line| line.chars().count() <= usize::from(columns)), "{lines:#?}");
        assert!(lines[1].starts_with("long-") && lines[1].contains('…'), "{lines:#?}");
    }
    assert!(place.succeeds(&["partitions"]).contains(&id));
    let mut command = place.command(&["partitions"]);
    assert!(Done::from(command.env("COLUMNS", "60").output().unwrap()).out.contains(&id));
}

#[test]
fn every_list_fits_40_columns() {
    let place = Place::migrated();
    let held = NewPartition { manual_checkpoint: true, ..NewPartition::new("a-partition-with-a-long-name") };
    place.push(held, &[("an-item-with-a-very-long-name", 0, b"{}"), ("b", 1, b"{}")]);
    place.sql("INSERT INTO gatefeed_partitions (id, status) VALUES ('p', 'paused')");
    let items = ["items", "a-partition-with-a-long-name", "--data"];
    for (args, last) in [(&["status"][..], "--target URL"), (&["partitions"], "paused"), (&items, "b")] {
        let mut terminal = OnTerminal::start(place.command(args), 40);
        assert_eq!(terminal.wait(), Some(0));
        let lines = plain(&terminal.wait_for(&[last]));
        assert!(lines.iter().all(|line| line.chars().count() <= 40), "{args:?}: {lines:#?}");
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let place = Place::migrated();
    place.fill(1);
    assert!(!place.succeeds(&["items", "p"]).contains('\x1b'));
    let coloured = OnTerminal::start(place.command(&["items", "p"]), 80).wait_for(&["available"]);
    assert!(coloured.contains("\x1b[1mID"), "{coloured:?}");
    let mut command = place.command(&["items", "p"]);
    command.args(["--log-level", "off"]);
    let terminal = OnTerminal::start_with(command, 80, &[("NO_COLOR", "1")]);
    let plain = terminal.wait_for(&["available"]);
    assert!(!plain.contains('\x1b'), "{plain:?}");
}

#[test]
fn rows_of_plain_sql_cannot_command_the_terminal() {
    let place = Place::migrated();
    place.sql(
        "INSERT INTO gatefeed_partitions (id, feed) VALUES ('a' || char(8238) || 'b', 'f' || char(8238))",
    );
    for command in ["status", "partitions"] {
        assert!(!place.succeeds(&[command]).contains('\u{202e}'));
        let text = place.succeeds(&[command, "--json"]);
        assert!(!text.contains('\u{202e}') && text.contains("\\u202e"), "{text}");
        assert!(json(&text).to_string().contains('\u{202e}'));
    }
}

#[test]
fn the_settings_of_a_watcher_filter_no_list() {
    let place = Place::migrated();
    place.fill(1);
    let ids = |variables: &[(&str, &str)]| {
        let mut command = place.command(&["partitions", "--json"]);
        json(&Done::from(command.envs(variables.iter().copied()).output().unwrap()).out)
    };
    assert_eq!(ids(&[("GATEFEED_FEED", "a,b")])[0]["id"], "p");
    assert_eq!(ids(&[("GATEFEED_PARTITIONS_FEED", "a")]), json("[]"));
}

#[test]
fn the_next_page_is_a_command_that_can_be_pasted() {
    let place = Place::migrated();
    place.push(NewPartition::new("my import"), &[("it's 1", 0, b"{}"), ("it's 2", 0, b"{}")]);
    let page = place.run(&["items", "my import", "--gate", "0", "--limit", "1"]);
    let next = page.err.trim().split_once("the next page: ").unwrap().1.to_owned();
    assert!(next.contains("--gate 0"), "{next}");
    let mut shell = Command::new("sh");
    let done = Done::from(shell.args(["-c", &next]).current_dir(place.path()).output().unwrap());
    assert!(done.out.contains("it's 2") && !done.out.contains("it's 1"), "{next}: {}{}", done.out, done.err);
}
