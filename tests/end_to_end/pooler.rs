//! Everything through PgBouncer in transaction mode, where one is to be had.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use gatefeed_testkit::handler::{Handler, Reply};
use gatefeed_tests::{Database, Gatefeed, Pooler, binary};

const ROUNDS: usize = 2;
const PRODUCERS: usize = 16;
const ITEMS: usize = 5;

fn command(pooler: &Pooler, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env("GATEFEED_DATABASE_URL", pooler.url()).env("NO_COLOR", "1");
    command
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Several at a time, into a few partitions.
fn push(pooler: &Pooler) {
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|n| {
            let mut push = command(pooler, &["push", "--partition", &format!("p{}", n % 3)]);
            push.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut push = push.spawn().unwrap();
            push.stdin.take().unwrap().write_all("{\"n\": 1}\n".repeat(ITEMS).as_bytes()).unwrap();
            push
        })
        .collect();
    producers.into_iter().for_each(|push| succeeds(&push.wait_with_output().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_behind_a_pooler() {
    let database = Database::postgres();
    let Some(pooler) = Pooler::start(database.cluster()).await else {
        eprintln!("skipped: there is no pgbouncer in the PATH");
        return;
    };
    succeeds(&command(&pooler, &["migrate"]).output().unwrap());
    (0..ROUNDS).for_each(|_| push(&pooler));
    let items = ROUNDS * PRODUCERS * ITEMS;
    assert_eq!(database.items("available"), items);
    let handler = Handler::start(async |_| Reply::ok()).await;
    let run = ["run", "--target", &handler.url(), "--until-idle", "--poll-interval", "100ms"];
    let mut watchers = [(); 2].map(|()| Gatefeed::start(command(&pooler, &run)));
    for watcher in &mut watchers {
        assert!(watcher.ended().await.success());
    }
    assert_eq!((database.items("complete"), handler.requests().len()), (items, items));
    let log: String = watchers.iter().map(Gatefeed::log).collect();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    let status = command(&pooler, &["status"]).output().unwrap();
    succeeds(&status);
}
