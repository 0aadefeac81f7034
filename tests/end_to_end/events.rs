//! What waits for a partition that is deleted meanwhile, and made again in another feed, by tokens of one feed.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    thread::JoinHandle,
    time::Instant,
};

use gatefeed_tests::{DEADLINE, Database, Gatefeed, binary, eventually, free_port, gatefeed};

crate::on_both!(nobody_is_shown_another_feed_s_partition);

/// A token for a feed, or for all.
fn token(database: &Database, feed: &[&str]) -> String {
    let made = gatefeed(database, &[&["token", "create", "--role", "read", "--json"], feed].concat());
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    made["token"].as_str().unwrap().to_owned()
}

/// Asks, and reads to the end.
fn ask(port: u16, token: &str, path: &str) -> String {
    let mut answer = String::new();
    open(port, token, path).read_to_string(&mut answer).unwrap();
    answer
}

fn open(port: u16, token: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    write!(stream, "{head}Authorization: Bearer {token}\r\n\r\n").unwrap();
    stream
}

/// Reads on until this is there; false: that was all.
fn read_until(stream: &mut TcpStream, text: &mut String, wanted: &str) -> bool {
    let started = Instant::now();
    while !text.contains(wanted) {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).unwrap();
        if count == 0 {
            return false;
        }
        assert!(started.elapsed() < DEADLINE, "it goes on: {text}");
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    true
}

/// Events from the first one, which has come, to the last: this one, or the end of the stream.
fn follow(port: u16, token: &str, last: &'static str) -> JoinHandle<String> {
    let mut stream = open(port, token, "/v1/partitions/p/events");
    let mut text = String::new();
    assert!(read_until(&mut stream, &mut text, "event: progress"), "{text}");
    std::thread::spawn(move || {
        read_until(&mut stream, &mut text, last);
        text
    })
}

/// The partition, with an item at this gate.
fn made(feed: &str, gate: i32, status: &str) -> String {
    format!(
        "INSERT INTO gatefeed_partitions (id, feed, manual_checkpoint) VALUES ('p', '{feed}', true);
         INSERT INTO gatefeed_items (partition_id, id, gate, status, data) VALUES ('p', 'i', {gate}, '{status}', '1');"
    )
}

async fn nobody_is_shown_another_feed_s_partition(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    let [mine, theirs, all] =
        [&["--feed", "mine"][..], &["--feed", "theirs"], &[]].map(|feed| token(&database, feed));
    database.sql(&made("mine", 3, "available"));
    let port = free_port();
    let mut command = Command::new(binary());
    command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--log-level", "gatefeed::store=trace"]);
    command.env("GATEFEED_DATABASE_URL", database.url());
    let server = Gatefeed::start(command);
    eventually("it serves", || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;

    let (own, everybody) = (follow(port, &mine, "\"gate\":7"), follow(port, &all, "event: end"));
    let item = {
        let (token, path) = (mine.clone(), "/v1/partitions/p/items/i?wait=100s");
        std::thread::spawn(move || ask(port, &token, path))
    };
    // It has found its own, and waits from then on.
    eventually("it waits", || server.log().contains("name=\"items\"")).await;
    database
        .sql(&format!("BEGIN; DELETE FROM gatefeed_partitions; {} COMMIT;", made("theirs", 7, "complete")));

    let own = own.join().unwrap();
    assert!(own.contains("\"gate\":3") && !own.contains("\"gate\":7"), "{own}");
    assert!(!own.contains("event: end"), "{own}");
    let item = item.join().unwrap();
    assert!(item.starts_with("HTTP/1.1 404"), "{item}");
    // Whose it is now follows it, and so does whoever may see all.
    let new = follow(port, &theirs, "event: end");
    assert!(gatefeed(&database, &["cancel", "p"]).status.success());
    let (new, everybody) = (new.join().unwrap(), everybody.join().unwrap());
    assert!(new.contains("\"gate\":7") && !new.contains("\"gate\":3"), "{new}");
    for text in [new, everybody] {
        assert!(text.contains("event: end"), "{text}");
    }
    assert!(server.terminate().await.success());
}
