//! The recipes of docs/cookbook.md.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, process::Command};

use gatefeed_tests::{Database, Gatefeed};
use serde_json::{Value, json};

use super::{
    connection::Connection,
    queue,
    service::{Service, example},
};

crate::on_both!(thumbnails_are_bytes_in_and_bytes_out);

fn recipe(script: &str, args: &[&str]) -> Service {
    Service::script("python3", &format!("cookbook/{script}"), args)
}

/// The files of a folder under `examples`: their paths from the repository's folder, and their bytes.
fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(example(folder)).unwrap().map(|entry| entry.unwrap());
    files
        .map(|file| {
            let name = file.file_name().into_string().unwrap();
            (format!("examples/{folder}/{name}"), fs::read(file.path()).unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resumes_are_ranked_once_all_are_read() {
    let database = Database::sqlite();
    let service = recipe("resumes.py", &[]);
    queue::prepare(&database, &["bad"]);
    queue::push_as_documented(&database, "1. Rank résumés");
    let resumes = files("resumes");
    queue::insert(&database, "bad", "picture", 0, b"\xff\xd8\xff");
    // One was delivered before, and its answer lost.
    let headers = format!("Gatefeed-Partition: resumes\r\nGatefeed-Item: {}\r\n", resumes[0].0);
    let before = Connection::open(&service.address).post(&headers, &resumes[0].1);
    queue::run(&database, &service.url(), 3).await;
    assert_eq!(queue::status(&database, "resumes"), "complete");
    for (id, text) in &resumes {
        let words = queue::item(&database, "resumes", id).complete(0)["words"].as_u64().unwrap();
        assert!(words > 10 && words < text.len() as u64, "{id}: {words}");
    }
    assert_eq!(before.json()["data"], queue::item(&database, "resumes", &resumes[0].0).json());
    let ranking = queue::item(&database, "resumes", "ranking").complete(1);
    assert_eq!(ranking["of"], json!(resumes.len()), "the one that came twice counts once");
    let best = ranking["best"].as_array().unwrap();
    assert_eq!(best.len(), 3);
    let text_of = |hit: &Value| resumes.iter().find(|(id, _)| hit["id"] == json!(id)).unwrap().1.to_vec();
    for hit in best {
        let text = String::from_utf8(text_of(hit)).unwrap().to_lowercase();
        assert!(text.contains("postgres") || text.contains("kubernetes"), "{hit}");
    }
    assert!(best.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()), "{best:?}");
    queue::item(&database, "bad", "picture").assert_refused("the file is not text in UTF-8");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gathered_may_be_fetched() {
    let database = Database::sqlite();
    let service = recipe("resumes.py", &[]);
    queue::prepare(&database, &[]);
    queue::push_as_documented(&database, "1. Rank résumés");
    let args = ["--until-idle", "--poll-interval", "100ms", "--gather-max", "1", "--listen", "127.0.0.1:0"];
    let mut watcher = Gatefeed::run(&database, &service.url(), &args);
    assert_eq!(watcher.ended().await.code(), Some(0), "{}", watcher.log());
    let ranking = queue::item(&database, "resumes", "ranking").complete(1);
    assert_eq!(
        (&ranking["of"], ranking["best"].as_array().unwrap().len()),
        (&json!(files("resumes").len()), 3)
    );
}

async fn thumbnails_are_bytes_in_and_bytes_out(database: Database) {
    let service = recipe("thumbnails.py", &[]);
    queue::prepare(&database, &["bad"]);
    queue::push_as_documented(&database, "2. Thumbnails: bytes in, bytes out");
    let pictures = files("cookbook/pictures");
    queue::insert(&database, "bad", "gif", 0, b"GIF89a");
    queue::insert(&database, "bad", "cut", 0, &pictures[0].1[..500]);
    let answer = Connection::open(&service.address).post("Gatefeed-Item: i\r\n", &pictures[0].1);
    assert_eq!(answer.header("Content-Type"), Some("image/png"));
    assert_eq!(answer.header("Gatefeed-Done"), Some("true"));
    queue::run(&database, &service.url(), 3).await;
    let thumbnail = |name: &str| {
        let item = queue::item(&database, "pictures", &format!("examples/cookbook/pictures/{name}"));
        assert_eq!((item.status.as_str(), item.content_type.as_str()), ("complete", "image/png"), "{name}");
        item.data
    };
    assert_eq!(answer.body, queue::item(&database, "pictures", &pictures[0].0).data, "the same again");
    // Width, height, colour type, the CRC of all pixels, and colours as they are in the originals.
    let looked_at = |name| look_at(&thumbnail(name));
    assert_eq!(looked_at("boat.png"), "128 85 2 2545385791 top 57,104,192 middle 95,100,85");
    assert_eq!(looked_at("boat-grey.png"), "128 85 0 746908699 top 100 middle 97");
    assert_eq!(looked_at("discs.png"), "128 85 6 2625648876 top 0,0,0,0 middle 40,60,220,150");
    queue::item(&database, "bad", "gif").assert_refused("not a PNG");
    queue::item(&database, "bad", "cut").assert_refused("the PNG is damaged or cut off");
}

/// What is in an unfiltered PNG, seen by other code than the recipe's own.
fn look_at(png: &[u8]) -> String {
    const LOOK: &str = "
import struct, sys, zlib
file, at, packed = sys.stdin.buffer.read(), 8, b''
while at < len(file):
    length, kind = struct.unpack_from('>I4s', file, at)
    data, at = file[at + 8:at + 8 + length], at + 12 + length
    if kind == b'IHDR':
        width, height, depth, colour = struct.unpack('>IIBB', data[:10])
    packed += data if kind == b'IDAT' else b''
raw, channels = zlib.decompress(packed), {0: 1, 2: 3, 6: 4}[colour]
def pixel(x, y):
    start = y * (1 + width * channels) + 1 + x * channels
    return ','.join(map(str, raw[start:start + channels]))
assert depth == 8 and len(raw) == height * (1 + width * channels)
rows = (raw[y * (1 + width * channels):][1:1 + width * channels] for y in range(height))
print(width, height, colour, zlib.crc32(b''.join(rows)), 'top', pixel(64, 12), 'middle', pixel(64, 42))
";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("thumbnail.png");
    fs::write(&path, png).unwrap();
    let output =
        Command::new("python3").args(["-c", LOOK]).stdin(fs::File::open(path).unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_goes_through_a_chain_of_three_gates() {
    let database = Database::sqlite();
    let service = recipe("mail.py", &[]);
    queue::prepare(&database, &["bad"]);
    queue::push_as_documented(&database, "3. A chain over three gates");
    queue::insert(&database, "bad", "note", 0, b"buy milk");
    queue::insert(&database, "bad", "beyond", 3, b"{}");
    queue::run(&database, &service.url(), 3).await;
    assert_eq!(queue::status(&database, "inbox"), "complete");
    let mail = |name: &str| queue::item(&database, "inbox", &format!("examples/cookbook/inbox/{name}.eml"));
    let line = |name: &str| mail(name).complete(2)["line"].as_str().unwrap().to_owned();
    assert_eq!(line("01-invoice"), "billing: Invoice 2031 (Ada Lindqvist <ada@example.com>)");
    assert_eq!(line("02-crash"), "fault: Crash on start (Björn Okkerse <bjorn@example.com>)");
    assert_eq!(line("03-thanks"), "praise: Thank you (Chloé Vandermast <chloe@example.com>)");
    assert_eq!(line("05-hours"), "other: Opening hours (Desmond Faleolo <desmond@example.com>)");
    assert_eq!(line("06-payment"), "billing: Réfund (Eméka <emeka@example.com>)");
    assert_eq!(mail("04-casino").complete(1)["topic"], "unwanted", "it leaves the chain early");
    queue::item(&database, "bad", "note").assert_refused("no mail: it has no From, or no plain text");
    assert_eq!(queue::item(&database, "bad", "beyond").status, "available", "stop: it is not reached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_looked_after_until_they_are_ready() {
    let database = Database::sqlite();
    let service = recipe("jobs.py", &[]);
    queue::prepare(&database, &["bad"]);
    queue::push_as_documented(&database, "4. Loop until ready");
    queue::insert(&database, "jobs", "also", 0, br#"{"seconds": 1.5}"#);
    queue::insert(&database, "bad", "past", 0, br#"{"seconds": -1}"#);
    queue::run(&database, &service.url(), 3).await;
    assert_eq!(queue::status(&database, "jobs"), "complete");
    let slow = queue::item(&database, "jobs", "slow");
    let data = slow.complete(0);
    assert_eq!((&data["name"], &data["result"]), (&json!("films"), &json!({"slept": 1.5})));
    assert!(slow.pass > 1, "it was asked more than once: {slow:?}");
    assert_eq!((&data["looks"], slow.retries), (&json!(slow.pass), 0), "no look is a retry");
    assert_eq!(queue::item(&database, "jobs", "also").complete(0)["result"], json!({"slept": 1.5}));
    // The last answer, had it been lost.
    let headers =
        format!("Gatefeed-Partition: jobs\r\nGatefeed-Item: slow\r\nGatefeed-Pass: {}\r\n", slow.pass - 1);
    let again = Connection::open(&service.address).post(&headers, br#"{"seconds": 1.5, "name": "films"}"#);
    assert_eq!(again.json(), json!({"data": data}));
    queue::item(&database, "bad", "past").assert_refused("expected seconds from 0 to 60");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_fans_out_and_is_summed_up() {
    let database = Database::sqlite();
    let tree = tempfile::tempdir().unwrap();
    let top = tree.path().join("top");
    fs::create_dir_all(top.join("under/deep")).unwrap();
    for n in 0..7 {
        fs::write(top.join(format!("file {n}.txt")), "line\n".repeat(n)).unwrap();
    }
    fs::write(top.join("under/deep/résumé.txt"), "a\nb\n").unwrap();
    fs::write(top.join(OsStr::from_bytes(b"caf\xe9.txt")), "x\n").unwrap();
    fs::write(tree.path().join("outside.txt"), "not ours\n").unwrap();
    std::os::unix::fs::symlink("../outside.txt", top.join("link.txt")).unwrap();
    std::os::unix::fs::symlink("..", top.join("under/circle")).unwrap();
    let service = chunks_of_three(&top);
    queue::prepare(&database, &["bad"]);
    queue::push_as_documented(&database, "5. Fan out a folder");
    queue::insert(&database, "bad", "up", 0, br#"{"folder": "../"}"#);
    queue::insert(&database, "bad", "none", 0, br#"{"folder": "nothing here"}"#);
    queue::run(&database, &service.url(), 3).await;
    assert_eq!(queue::status(&database, "folder"), "complete");
    let file = queue::item(&database, "folder", "file 3.txt").complete(1);
    assert_eq!(file, json!({"file": "file 3.txt", "bytes": 15, "lines": 3}));
    assert_eq!(queue::item(&database, "folder", "under/deep/résumé.txt").complete(1)["lines"], 2);
    let all = queue::item(&database, "folder", "all").complete(2);
    assert_eq!(all, json!({"folder": "", "files": 9, "bytes": 21 * 5 + 4 + 2, "lines": 21 + 2 + 1}));
    // 9 files, 3 folders, and what goes on from the third, sixth and ninth of the nine entries of the first.
    let items = database.value("SELECT count(*) FROM gatefeed_items WHERE partition_id = 'folder'");
    assert_eq!(items, (9 + 3 + 3).to_string());
    queue::item(&database, "bad", "up").assert_refused("the path is not under the root");
    queue::item(&database, "bad", "none").assert_refused("No such file or directory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_of_next_jobs_is_done_in_order() {
    let database = Database::sqlite();
    let uploads = tempfile::tempdir().unwrap();
    let service = recipe("pipeline.py", &[uploads.path().to_str().unwrap()]);
    queue::prepare(&database, &[]);
    queue::push_as_documented(&database, "6. A tree of next jobs");
    queue::run(&database, &service.url(), 3).await;
    let item = |id: &str| queue::item(&database, "pipeline", id);
    let uploaded = item("letter/upload").complete(0);
    assert_eq!((&uploaded["count"], &uploaded["longest"]), (&json!(4), &json!("fish")));
    let file = fs::read_to_string(uploads.path().join(uploaded["file"].as_str().unwrap()));
    assert_eq!(file.unwrap(), "4 fish\n");
    for step in ["clean", "database", "e-mail"] {
        let data = item(&format!("letter/{step}")).complete(0);
        assert_eq!(data, json!({"done": step, "file": uploaded["file"]}));
    }
    item("blank/upload").assert_refused("nothing to upload");
    for step in ["database", "e-mail"] {
        item(&format!("blank/{step}")).assert_refused("dependency \"blank/upload\" failed");
    }
    assert_eq!(item("blank/clean").complete(0), json!({"done": "clean", "file": null}));
    assert_eq!(queue::status(&database, "pipeline"), "failed");
}

fn chunks_of_three(root: &std::path::Path) -> Service {
    let mut command = Command::new("python3");
    command.arg(example("cookbook/folder.py")).env("PYTHONDONTWRITEBYTECODE", "1").env("CHUNK", "3");
    Service::start(command, &["folder.db", root.to_str().unwrap()])
}
