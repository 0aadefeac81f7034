//! What is too much.

use std::sync::Arc;

use gatefeed_api::ApiOptions;
use gatefeed_core::{
    item::{Data, NewItem},
    partition::NewPartition,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::place::{Client, Place, open};

on_both!(a_body_has_a_bound a_part_has_a_bound bodies_in_flight_have_a_bound a_feed_has_a_bound
    items_in_flight_have_a_bound what_came_before_is_no_backlog what_is_refused_early_is_read
    an_item_of_a_new_partition_has_a_bound answers_with_data_have_a_bound);

const ITEMS: &str = "/v1/partitions/p/items";

async fn a_body_has_a_bound(place: Arc<Place>) {
    let client = place.serve(ApiOptions { payload_max: 10, bulk_max: 30, ..open() }).await;
    assert_eq!(client.post(ITEMS, "\"12345678\"").await.status, 202);
    assert_eq!(client.post(ITEMS, "\"123456789\"").await.problem(), (413, "too-large".into()));
    let ndjson = Some("application/x-ndjson");
    assert_eq!(client.send("POST", ITEMS, ndjson, b"\"12345678\"\n\"12345678\"").await.status, 202);
    assert_eq!(client.send("POST", ITEMS, ndjson, b"1\n\"123456789\"\n").await.problem().0, 413);
    assert_eq!(client.send("POST", ITEMS, ndjson, &[b'\n'; 31]).await.problem().0, 413);
    assert_eq!(place.store.partition("p").await.unwrap().unwrap().items.available, 3);
    // What is declared is refused before it comes; a client that has to send it first would be given up as too slow.
    let mut stream = TcpStream::connect(client.address).await.unwrap();
    let head = format!("POST {ITEMS} HTTP/1.1\r\nHost: {}\r\nContent-Length: 11\r\n\r\n", client.address);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

async fn a_part_has_a_bound(place: Arc<Place>) {
    let client = place.serve(ApiOptions { payload_max: 10, bulk_max: 1_000, ..open() }).await;
    let form = |size: usize| {
        let data = "x".repeat(size);
        format!("--x\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n{data}\r\n--x--\r\n")
    };
    let kind = Some("multipart/form-data; boundary=x");
    let large = client.send("POST", ITEMS, kind, form(11).as_bytes()).await;
    assert_eq!((large.problem().0, &large.json()["errors"][0]["part"]), (413, &1.into()), "{large:?}");
    assert_eq!(client.send("POST", ITEMS, kind, form(10).as_bytes()).await.status, 202);
    assert_eq!(client.send("POST", ITEMS, kind, form(1_000).as_bytes()).await.problem().0, 413);
}

/// By clients that read nothing before they have sent all: they get the answer, and may go on.
async fn what_is_refused_early_is_read(place: Arc<Place>) {
    let client = place.serve(ApiOptions { payload_max: 1_000, bulk_max: 1_000, ..open() }).await;
    let body = vec![b'x'; 8 << 20];
    for (path, status) in
        [(ITEMS, 413), ("/v1/nope", 404), ("/v1/partitions", 415), ("/v1/partitions/p/items?nope=1", 400)]
    {
        let mut stream = TcpStream::connect(client.address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            client.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), format!("HTTP/1.1 {status}"), "{path}");
        // The next one on the same connection.
        let next = format!("GET /livez HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", client.address);
        stream.write_all(next.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(String::from_utf8_lossy(&rest).contains("HTTP/1.1 404"), "{path}");
    }
}

/// A request that is repeated, since its answer was lost, is answered also where the feed is full, and takes nobody's place.
async fn what_came_before_is_no_backlog(place: Arc<Place>) {
    let client = place.serve(ApiOptions { backlog_max: Some(5), ..open() }).await;
    let (one, many) = (client.with("Idempotency-Key", "one"), client.with("Idempotency-Key", "many"));
    let ndjson = Some("application/x-ndjson");
    let too_many = client.send("POST", ITEMS, ndjson, &b"1\n".repeat(6)).await;
    assert_eq!(too_many.problem(), (413, "too-large".into()), "of no feed");
    assert!(!too_many.headers.contains_key("retry-after") && too_many.text().contains("--max-backlog"));
    let again = |client: Client, is_many: bool| async move {
        match is_many {
            true => client.send("POST", ITEMS, ndjson, b"1\n2\n").await,
            false => client.post(ITEMS, "1").await,
        }
    };
    for (client, is_many) in [(&one, false), (&many, true)] {
        assert_eq!(again(client.clone(), is_many).await.status, 202);
        for _ in 0..10 {
            let answer = again(client.clone(), is_many).await;
            assert_eq!((answer.status, answer.headers["idempotency-replayed"].as_str()), (202, "true"));
        }
    }
    assert_eq!(client.send("POST", ITEMS, ndjson, b"1\n2\n").await.status, 202, "that is five");
    assert_eq!(client.post(ITEMS, "1").await.problem().0, 429);
    for (client, is_many) in [(&one, false), (&many, true)] {
        let answer = again(client.clone(), is_many).await;
        assert_eq!((answer.status, answer.headers["idempotency-replayed"].as_str()), (202, "true"));
    }
    assert_eq!(one.post(ITEMS, "2").await.problem(), (409, "refused".into()));
    assert_eq!(many.send("POST", ITEMS, ndjson, b"1\n").await.problem(), (409, "refused".into()));
    assert_eq!(client.with("Idempotency-Key", "new").post(ITEMS, "1").await.problem().0, 429);
    let elsewhere = "/v1/partitions/yet-to-be-made/items";
    assert_eq!(client.with("Idempotency-Key", "new").post(elsewhere, "1").await.problem().0, 429);
    assert_eq!(client.post(&format!("{elsewhere}?id=new"), "1").await.problem().0, 429);
}

/// However small they are, and however they come: waiting would not help.
async fn items_in_flight_have_a_bound(place: Arc<Place>) {
    let client = place.serve(ApiOptions { in_flight_max: 100_000, ..open() }).await;
    let lines = |count: usize| "1\n".repeat(count);
    let list =
        |count: usize| format!("{{\"id\": \"p\", \"items\": [{}{{}}]}}", "{\"data\":1},".repeat(count));
    let part = "--x\r\nContent-Disposition: form-data\r\n\r\n\r\n";
    let form = |count: usize| format!("{}--x--\r\n", part.repeat(count));
    let many: [(&str, &str, String); 3] = [
        (ITEMS, "application/x-ndjson", lines(500)),
        ("/v1/partitions", "application/json", list(500)),
        (ITEMS, "multipart/form-data; boundary=x", form(500)),
    ];
    for (path, content_type, body) in many {
        let answer = client.send("POST", path, Some(content_type), body.as_bytes()).await;
        assert_eq!(answer.problem(), (413, "too-large".into()), "{content_type}");
        assert!(answer.text().contains("--max-uncommitted"), "{answer:?}");
    }
    assert!(place.store.partition("p").await.unwrap().is_none());
    let ndjson = Some("application/x-ndjson");
    assert_eq!(client.send("POST", ITEMS, ndjson, lines(150).as_bytes()).await.status, 202);
    assert_eq!(client.send("POST", ITEMS, ndjson, lines(150).as_bytes()).await.status, 202, "given back");
}

async fn an_item_of_a_new_partition_has_a_bound(place: Arc<Place>) {
    let client = place.serve(ApiOptions { payload_max: 10, bulk_max: 1_000, ..open() }).await;
    let body =
        |data: &str| format!("{{\"id\": \"p\", \"items\": [{{\"data\": 1}}, {{\"data\": \"{data}\"}}]}}");
    let large = client.post("/v1/partitions", &body("123456789")).await;
    assert_eq!((large.problem().0, &large.json()["errors"][0]["index"]), (413, &1.into()), "{large:?}");
    assert_eq!(client.post("/v1/partitions", &body("12345678")).await.status, 201);
}

/// What clients send slowly takes the room that it has taken; when they go, it is there again.
async fn bodies_in_flight_have_a_bound(place: Arc<Place>) {
    let client = place.serve(ApiOptions { in_flight_max: 100_000, ..open() }).await;
    let head = format!("POST {ITEMS} HTTP/1.1\r\nHost: {}\r\nContent-Length: 99000\r\n\r\n", client.address);
    let body = format!("\"{}\"", "x".repeat(5_000));
    // The slow one is read before the other, sooner or later.
    let (slow, busy) = loop {
        let mut slow = TcpStream::connect(client.address).await.unwrap();
        slow.write_all(&[head.as_bytes(), &[b' '; 98_000]].concat()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let answer = client.post(ITEMS, &body).await;
        if answer.status != 202 {
            break (slow, answer);
        }
    };
    assert_eq!(busy.problem(), (503, "busy".into()));
    assert_eq!(busy.headers["retry-after"], "1");
    drop(slow);
    while client.post(ITEMS, &body).await.status != 202 {
        tokio::task::yield_now().await;
    }
}

async fn a_feed_has_a_bound(place: Arc<Place>) {
    let item = |n: i32| NewItem::new("p", n.to_string(), Data::json("1"));
    place.store.push(&NewPartition::new("p"), &(0..3).map(item).collect::<Vec<_>>()).await.unwrap();
    let client = place.serve(ApiOptions { backlog_max: Some(5), ..open() }).await;
    assert_eq!(client.post(ITEMS, "1").await.status, 202);
    let many = client.send("POST", ITEMS, Some("application/x-ndjson"), b"1\n2\n").await;
    assert_eq!(many.problem(), (429, "backlog".into()));
    assert_eq!(client.post("/v1/partitions/q/items", "1").await.status, 202);
    let full = client.post(ITEMS, "1").await;
    assert_eq!((full.problem().0, full.headers["retry-after"].as_str()), (429, "2"));
    assert_eq!(client.post("/v1/partitions/x/items?feed=other", "1").await.status, 202, "another feed");
    // When there is less, there is room again.
    place.store.cancel("p").await.unwrap();
    while client.post("/v1/partitions/q/items", "1").await.status != 202 {
        tokio::task::yield_now().await;
    }
}

/// Whoever reads slowly takes the room that the data takes; when it goes, it is there again.
async fn answers_with_data_have_a_bound(place: Arc<Place>) {
    let data = Data::json(format!("\"{}\"", "x".repeat(12 << 20)));
    let item = NewItem::new("p", "large", data);
    place
        .store
        .push(&NewPartition::new("p"), &[item, NewItem::new("p", "small", Data::json("1"))])
        .await
        .unwrap();
    let client = place.serve(ApiOptions { answers_max: 16 << 20, ..open() }).await;
    let (large, small) = ("/v1/partitions/p/items/large/data", "/v1/partitions/p/items/small/data");
    // The kernel keeps some megabytes for whoever does not read.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(client.address).await.unwrap();
    slow.write_all(format!("GET {large} HTTP/1.1\r\nHost: {}\r\n\r\n", client.address).as_bytes())
        .await
        .unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let lines = client.with("Accept", "application/x-ndjson");
    let page = "/v1/partitions/p/items?data=true";
    for (client, busy) in [(&client, large), (&client, page), (&lines, page)] {
        assert_eq!(client.get(busy).await.status, 503, "{busy}");
    }
    assert_eq!(client.get(small).await.status, 200);
    drop(slow);
    while client.get(large).await.status == 503 {
        tokio::task::yield_now().await;
    }
    let whole = client.get(large).await;
    assert_eq!((whole.body.len(), whole.headers["content-length"].as_str()), ((12 << 20) + 2, "12582914"));
    // What is larger than all room there is, alone.
    let client = place.serve(ApiOptions { answers_max: 1 << 20, ..open() }).await;
    assert_eq!(client.get(large).await.body.len(), (12 << 20) + 2);
}
