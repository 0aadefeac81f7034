//! Items that come over HTTP, while the server is killed: every 202 is in the database, and every idempotency key once.

use std::{
    collections::{HashMap, HashSet},
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use gatefeed_tests::{Database, Gatefeed, binary, eventually, free_port, gatefeed};

crate::on_both!(what_was_answered_is_there_whatever_dies, serving_takes_a_token_where_others_reach_it);

const CLIENTS: usize = 16;

fn serve(database: &Database, listen: &str) -> Gatefeed {
    let mut command = Command::new(binary());
    command.args(["serve", "--listen", listen]).env("GATEFEED_DATABASE_URL", database.url());
    Gatefeed::start(command)
}

/// Sends a request; the answer's status and head, or nothing when the server went away.
fn send(port: u16, head: &str, body: &str) -> Option<(u16, String)> {
    exchange(port, head, body).map(|(status, head, _)| (status, head))
}

/// Sends a request on a connection of its own; the answer's status, head and body.
fn exchange(port: u16, head: &str, body: &str) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let length = body.len();
    let request =
        format!("{head}Host: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    // An answer counts when it is whole.
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, head.to_owned(), body.to_owned()))
}

/// Lines of a request with many items.
const LINES: usize = 3;

/// What a request with this key adds: every other one has many items.
fn data_of(key: &str) -> Vec<String> {
    let is_many = key.ends_with(['1', '3', '5', '7', '9']);
    (0..if is_many { LINES } else { 1 }).map(|line| format!("\"{key}/{line}\"")).collect()
}

/// The status, and what it was answered with.
fn post(port: u16, key: &str) -> Option<(u16, String)> {
    let (partition, data) = (key.len() % 3, data_of(key));
    let content_type = if data.len() > 1 { "application/x-ndjson" } else { "application/json" };
    let head = format!(
        "POST /v1/partitions/p{partition}/items HTTP/1.1\r\nIdempotency-Key: {key}\r\nContent-Type: {content_type}\r\n"
    );
    let (status, head, body) = exchange(port, &head, &data.join("\n"))?;
    let location = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or("");
    Some((status, format!("{location} {body}")))
}

/// All that is there.
fn data_there(database: &Database) -> Vec<String> {
    database.sql(match database {
        Database::Postgres(_) => "SELECT convert_from(data, 'UTF8') FROM gatefeed_items",
        Database::Sqlite { .. } => "SELECT CAST(data AS TEXT) FROM gatefeed_items",
    })
}

/// Clients that post one key after another, each until it is answered, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<HashMap<String, String>>>,
    lost: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let answered = Arc::<Mutex<HashMap<String, String>>>::default();
        let lost = Arc::<AtomicUsize>::default();
        let clients = (0..CLIENTS).map(|client| {
            let (stop, answered, lost) = (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&lost));
            std::thread::spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{client}-{number}");
                    match post(port, &key) {
                        Some((202, answer)) => {
                            answered.lock().unwrap().insert(key, answer);
                            number += 1;
                        }
                        Some((status, _)) => assert_eq!(status, 503),
                        None => {
                            lost.fetch_add(1, Ordering::Relaxed);
                            std::thread::sleep(Duration::from_millis(2));
                        }
                    }
                }
            })
        });
        Self { clients: clients.collect(), stop, answered, lost }
    }

    fn len(&self) -> usize {
        self.answered.lock().unwrap().len()
    }

    fn end(self) -> HashMap<String, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        assert!(self.lost.load(Ordering::Relaxed) > 0, "the server was never missed");
        std::mem::take(&mut *self.answered.lock().unwrap())
    }
}

async fn what_was_answered_is_there_whatever_dies(database: Database) {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut server = serve(&database, &listen);
    eventually("it serves", || {
        send(port, "GET /readyz HTTP/1.1\r\n", "").is_some_and(|(status, _)| status == 200)
    })
    .await;
    let load = Load::start(port);
    for _ in 0..3 {
        let before = load.len();
        eventually("items are answered", || load.len() > before + 100).await;
        server.kill();
        // What was answered is there before anybody else writes.
        let keys: Vec<String> = load.answered.lock().unwrap().keys().cloned().collect();
        let there: HashSet<String> = data_there(&database).into_iter().collect();
        let is_there = |key: &String| data_of(key).iter().all(|data| there.contains(data));
        assert!(keys.iter().all(is_there), "a request was answered with 202 and its items are not there");
        server = serve(&database, &listen);
    }
    let before = load.len();
    eventually("items are answered again", || load.len() > before + 100).await;
    let answered = load.end();
    // The last of each client may have been taken in without an answer that anybody has read.
    let items = data_there(&database);
    let expected: usize = answered.keys().map(|key| data_of(key).len()).sum();
    let found = items.len();
    assert!((expected..=expected + CLIENTS * LINES).contains(&found), "{found} items, {expected} answered");
    for (key, answer) in answered.iter().take(200) {
        assert_eq!(post(port, key).as_ref(), Some(&(202, answer.clone())), "the same key, the same answer");
    }
    assert_eq!(database.value("SELECT count(*) FROM gatefeed_items").parse::<usize>().unwrap(), found);
    assert_eq!(items.into_iter().collect::<HashSet<_>>().len(), found, "a key made items twice");
    assert!(database.value("SELECT count(*) FROM gatefeed_requests").parse::<usize>().unwrap() > 100);
    assert!(server.terminate().await.success());
}

async fn serving_takes_a_token_where_others_reach_it(database: Database) {
    let port = free_port();
    let listen = format!("0.0.0.0:{port}");
    let mut refused = serve(&database, &listen);
    assert_eq!(refused.ended().await.code(), Some(2), "{}", refused.log());
    assert!(
        refused.log().contains("gatefeed token create") && refused.log().contains("--insecure"),
        "{}",
        refused.log()
    );
    let made = gatefeed(&database, &["token", "create", "--role", "read", "--name", "me", "--json"]);
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let token = made["token"].as_str().unwrap();
    let server = serve(&database, &listen);
    let head = format!("GET /v1/feeds HTTP/1.1\r\nAuthorization: Bearer {token}\r\n");
    eventually("it serves", || send(port, &head, "").is_some_and(|(status, _)| status == 200)).await;
    assert_eq!(send(port, "GET /v1/feeds HTTP/1.1\r\n", "").unwrap().0, 401);
    let list = gatefeed(&database, &["token", "list", "--json"]);
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.contains("\"me\"") && !list.contains(token) && !list.contains("hash"), "{list}");
    assert!(!database.value("SELECT * FROM gatefeed_tokens").contains(token));
    assert!(gatefeed(&database, &["token", "revoke", made["id"].as_str().unwrap()]).status.success());
    eventually("it is refused", || send(port, &head, "").is_some_and(|(status, _)| status == 401)).await;
    assert!(server.terminate().await.success());
}
