//! Items that come over HTTP, while the server is killed: every 202 is in the database, and every idempotency key once.

use std::{
    collections::HashMap,
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

/// Sends a request on a connection of its own; the answer's status and head, or nothing when the server went away.
fn send(port: u16, head: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let length = body.len();
    let request =
        format!("{head}Host: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    // An answer counts when it is whole.
    stream.read_to_string(&mut answer).ok()?;
    let (head, _) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, head.to_owned()))
}

fn post(port: u16, key: &str) -> Option<(u16, String)> {
    let partition = key.len() % 3;
    let head = format!(
        "POST /v1/partitions/p{partition}/items HTTP/1.1\r\nIdempotency-Key: {key}\r\nContent-Type: application/json\r\n"
    );
    let (status, head) = send(port, &head, &format!("\"{key}\""))?;
    let location = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or("").to_owned();
    Some((status, location))
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
                        Some((202, location)) => {
                            answered.lock().unwrap().insert(key, location);
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
        let ids: Vec<String> = load.answered.lock().unwrap().values().map(|url| id_of(url)).collect();
        let there: std::collections::HashSet<String> =
            database.sql("SELECT id FROM gatefeed_items").into_iter().collect();
        assert!(ids.iter().all(|id| there.contains(id)), "an item was answered with 202 and is not there");
        server = serve(&database, &listen);
    }
    let before = load.len();
    eventually("items are answered again", || load.len() > before + 100).await;
    let answered = load.end();
    // The last of each client may have been taken in without an answer that anybody has read.
    let items: usize = database.value("SELECT count(*) FROM gatefeed_items").parse().unwrap();
    assert!(
        (answered.len()..=answered.len() + CLIENTS).contains(&items),
        "{items} items, {} answers",
        answered.len()
    );
    for (key, location) in answered.iter().take(200) {
        assert_eq!(post(port, key).as_ref(), Some(&(202, location.clone())), "the same key, the same answer");
    }
    assert_eq!(database.value("SELECT count(*) FROM gatefeed_items").parse::<usize>().unwrap(), items);
    let data = database.value("SELECT count(DISTINCT data) FROM gatefeed_items").parse::<usize>().unwrap();
    assert_eq!(data, items, "a key made two items");
    assert!(server.terminate().await.success());
}

fn id_of(url: &str) -> String {
    url.rsplit('/').next().unwrap().to_owned()
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
