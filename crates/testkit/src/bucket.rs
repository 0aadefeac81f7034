//! A bucket of a server that speaks like S3 and checks no signature, such as moto's. `scripts/test` starts one.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gatefeed_core::Store;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Db, OpenTx};

/// `host:port` of the server. Stores find it by AWS_ENDPOINT and its like.
const SERVER: &str = "GATEFEED_TEST_S3";

/// What blobs lie below, in the bucket.
const PREFIX: &str = "some/where";

/// What is signed by anybody counts as the owner's.
const SIGNED: &str = "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, \
                      Signature=0\r\n";

/// A bucket that nobody else has.
#[derive(Clone, Debug)]
pub struct Bucket {
    server: String,
    name: String,
}

impl Bucket {
    /// Makes one; `None`: no server is named, which is told.
    pub async fn make() -> Option<Self> {
        let Ok(server) = std::env::var(SERVER) else {
            eprintln!(
                "skipped: {SERVER} names no server (scripts/test starts one where moto can be installed)"
            );
            return None;
        };
        let bucket = Self { server, name: format!("test-{}", uuid::Uuid::new_v4().simple()) };
        bucket.send("PUT", &format!("/{}", bucket.name), b"").await;
        Some(bucket)
    }

    /// As `--blob-store` has it.
    pub fn url(&self) -> String {
        format!("s3://{}/{PREFIX}", self.name)
    }

    /// The paths of all blobs.
    pub async fn paths(&self) -> Vec<String> {
        let listed = self.send("GET", &format!("/{}?list-type=2&prefix={PREFIX}", self.name), b"").await;
        let listed = String::from_utf8(listed.to_vec()).unwrap();
        assert!(!listed.contains("<IsTruncated>true"), "more than a page");
        let keys = listed.split("<Key>").skip(1).map(|rest| rest.split('<').next().unwrap());
        keys.map(|key| key.trim_start_matches(PREFIX).trim_start_matches('/').to_owned()).collect()
    }

    /// The bytes of a blob.
    pub async fn read(&self, path: &str) -> Bytes {
        self.send("GET", &self.place(path), b"").await
    }

    /// Puts something else in its place.
    pub async fn write(&self, path: &str, bytes: &[u8]) {
        self.send("PUT", &self.place(path), bytes).await;
    }

    /// Removes it.
    pub async fn remove(&self, path: &str) {
        self.send("DELETE", &self.place(path), b"").await;
    }

    fn place(&self, path: &str) -> String {
        format!("/{}/{PREFIX}/{path}", self.name)
    }

    async fn send(&self, method: &str, path: &str, body: &[u8]) -> Bytes {
        request(&self.server, method, path, SIGNED, body).await
    }
}

/// What a link to a blob leads to.
pub async fn fetch(url: &str) -> Bytes {
    let (server, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    request(server, "GET", &format!("/{path}"), "", b"").await
}

/// Panics unless the answer is 2xx.
async fn request(server: &str, method: &str, path: &str, signed: &str, body: &[u8]) -> Bytes {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {server}\r\n{signed}Content-Type: application/octet-stream\r\nContent-Length: \
         {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(answer[9], b'2', "{method} {path}: {}", String::from_utf8_lossy(&answer));
    Bytes::from(answer).slice(end..)
}

/// A database whose blobs lie in a bucket.
pub struct WithBucket(pub Arc<dyn Db>, pub Bucket);

#[async_trait]
impl Db for WithBucket {
    fn is_postgres(&self) -> bool {
        self.0.is_postgres()
    }

    fn store(&self) -> Arc<dyn Store> {
        self.0.store()
    }

    async fn another_store(&self) -> Arc<dyn Store> {
        self.0.another_store().await
    }

    async fn store_with_blobs(&self, url: &str, inline_max: u64) -> Arc<dyn Store> {
        self.0.store_with_blobs(url, inline_max).await
    }

    fn bucket(&self) -> Option<Bucket> {
        Some(self.1.clone())
    }

    fn table(&self, name: &str) -> String {
        self.0.table(name)
    }

    async fn execute(&self, sql: &str) -> Result<u64, String> {
        self.0.execute(sql).await
    }

    async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.0.rows(sql).await
    }

    async fn begin(&self) -> Box<dyn OpenTx> {
        self.0.begin().await
    }
}
