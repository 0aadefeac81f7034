//! Many handlers, one watcher: by flags and by a file.

use std::{fs, time::Duration};

use gatefeed_testkit::handler::{Handler, Recorded, Reply};
use gatefeed_tests::{Database, Gatefeed, gatefeed};

crate::on_both!(a_chain_of_handlers_is_three_urls, feeds_of_a_file_have_policies_of_their_own);

/// Moves everything on to `gate`, or is through with it.
async fn stage(next: Option<i32>) -> Handler {
    Handler::always(next.map_or_else(Reply::ok, |gate| Reply::json(format!("{{\"gate\": {gate}}}")))).await
}

fn gates(handler: &Handler) -> Vec<String> {
    let mut gates: Vec<String> = handler.requests().iter().map(|r| r.header_text("gatefeed-gate")).collect();
    gates.sort();
    gates.dedup();
    gates
}

async fn a_chain_of_handlers_is_three_urls(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.insert_partition("p");
    database.insert_items("p", "i", 0, 20);
    let (ocr, classify, rank) = (stage(Some(1)).await, stage(Some(2)).await, stage(None).await);
    let [to_classify, to_rank] = [format!("1={}", classify.url()), format!("2={}", rank.url())];
    let args = ["--gate-target", &to_classify, "--gate-target", &to_rank, "--until-idle"];
    let mut watcher = Gatefeed::run(&database, &ocr.url(), &args);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    for (handler, gate) in [(&ocr, "0"), (&classify, "1"), (&rank, "2")] {
        assert_eq!((handler.requests().len(), gates(handler)), (20, vec![gate.to_owned()]));
    }
    assert_eq!(database.items("complete"), 20);
}

async fn feeds_of_a_file_have_policies_of_their_own(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    for feed in ["quick", "slow"] {
        database.sql(&format!("INSERT INTO gatefeed_partitions (id, feed) VALUES ('{feed}', '{feed}')"));
        database.insert_items(feed, "i", 0, 2);
    }
    let silent = |_: Recorded| async { Reply::ok().after(Duration::from_secs(600)) };
    let (quick, slow) = (Handler::always(Reply::ok()).await, Handler::start(silent).await);
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "request_timeout = \"10m\"\n\
         [feeds.quick]\ntarget = \"{}\"\n\
         [feeds.slow]\nmax_retries = 0\n\
         [[feeds.slow.gates]]\ngate = 0\ntarget = \"{}\"\nrequest_timeout = \"300ms\"\nconcurrency = 1\n",
        quick.url(),
        slow.url()
    );
    fs::write(file.path(), text).unwrap();
    let mut command = std::process::Command::new(gatefeed_tests::binary());
    command.args(["run", "--until-idle", "--config"]).arg(file.path());
    command.env("GATEFEED_DATABASE_URL", database.url());
    let mut watcher = Gatefeed::start(command);
    assert_eq!(watcher.ended().await.code(), Some(3), "{}", watcher.log());
    assert_eq!((quick.requests().len(), slow.requests().len()), (2, 2));
    assert_eq!((database.items("complete"), database.items("failed")), (2, 2));
    let errors = "SELECT count(*) FROM gatefeed_items WHERE error_messages LIKE '%no answer within 300ms%'";
    assert_eq!(database.value(errors), "2");
}
