//! The demo.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::place::{DEADLINE, Place, Running, json};

#[test]
fn the_demo_ranks_the_documents_that_come_with_it() {
    let place = Place::new();
    let done = place.run(&["demo"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.out.contains("60 documents read and ranked"), "{}", done.out);
    assert!(done.out.contains("postgres ×") && done.out.contains("Next: "), "{}", done.out);
    let places = done.out.lines().filter(|line| line.contains(".txt")).count();
    assert_eq!(places, 10, "{}", done.out);
    assert!(done.err.contains("gate 0: 60 of 60") && done.err.contains("gate 1: ranked"), "{}", done.err);
}

#[test]
fn the_demo_takes_a_folder_as_it_is() {
    let place = Place::new();
    let dir = place.path().join("docs");
    fs::create_dir_all(dir.join("deep/er")).unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    fs::write(dir.join("latin1.txt"), b"caf\xe9 zebra zebra\x00").unwrap();
    fs::write(dir.join("deep/er/zürich.md"), "one zebra among many other words that are here").unwrap();
    fs::write(dir.join("a\nb"), "a zebra with a bad name").unwrap();
    fs::write(dir.join("ranking"), "a file that is called as the ranking item is").unwrap();
    fs::File::create(dir.join("huge")).unwrap().set_len(17 * 1024 * 1024).unwrap();
    std::os::unix::fs::symlink("/nowhere", dir.join("dangling")).unwrap();
    let done = place.run(&["demo", "docs", "--query", "Zebra?", "--keep"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.out.contains("5 documents read and ranked"), "{}", done.out);
    assert!(done.err.contains("skipped files: 1 cannot be read, 1 over 16 MiB"), "{}", done.err);
    let ranked: Vec<_> = done.out.lines().filter(|line| line.contains("zebra ×")).collect();
    assert_eq!(ranked.len(), 3, "{}", done.out);
    assert!(ranked[0].contains("latin1.txt") && ranked[0].contains("zebra ×2"), "{}", done.out);

    let kept = done.out.lines().find_map(|line| line.strip_prefix("Kept the queue in ")).unwrap();
    let url = format!("sqlite://{kept}");
    let items = ["items", "demo", "--data", "--json", "--database-url", &url];
    let items = json(&place.succeeds(&items));
    let data = items.as_array().unwrap().iter().find(|item| item["id"] == "ranking").unwrap()["data"].clone();
    assert_eq!(json(data.as_str().unwrap())["documents"], 5);
    fs::remove_dir_all(Path::new(kept).parent().unwrap()).unwrap();
}

#[test]
fn the_demo_refuses_what_is_no_folder_of_files() {
    let place = Place::new();
    fs::write(place.path().join("file"), "x").unwrap();
    fs::create_dir(place.path().join("empty")).unwrap();
    place.fails(&["demo", "nowhere"], 1, &["nowhere"]);
    place.fails(&["demo", "file"], 1, &["file is a file"]);
    place.fails(&["demo", "empty"], 1, &["no files to rank"]);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let place = Place::new();
    let (docs, temp) = (place.path().join("docs"), place.path().join("temp"));
    fs::create_dir(&docs).unwrap();
    fs::create_dir(&temp).unwrap();
    for n in 0..300 {
        fs::write(docs.join(format!("{n}.txt")), "word ".repeat(50_000)).unwrap();
    }
    let mut command = place.command(&["demo", "docs"]);
    command.env("TMPDIR", &temp);
    let mut running = Running::start(command);
    let started = Instant::now();
    while fs::read_dir(&temp).unwrap().count() == 0 {
        assert!(started.elapsed() < DEADLINE, "it does not start");
        std::thread::sleep(Duration::from_millis(2));
    }
    running.signal("INT");
    assert_eq!(running.wait(), Some(130));
    assert_eq!(fs::read_dir(&temp).unwrap().count(), 0);
}
