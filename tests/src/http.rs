//! Requests to gatefeed's own port, by hand.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use crate::DEADLINE;

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head's lines after the first, in lower case.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body, which is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// `POST` to a URL of this machine, on a connection of its own; `headers` are lines, each with its end. `None` where nobody
/// answers.
pub fn try_post(url: &str, headers: &str, body: &[u8]) -> Option<Answer> {
    try_send("POST", url, headers, body)
}

fn try_send(method: &str, url: &str, headers: &str, body: &[u8]) -> Option<Answer> {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    // One that is refused before it was read to its end may be cut.
    _ = stream.write_all(body);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    Some(Answer { status, head: head.to_ascii_lowercase(), body: answer[end + 4..].to_vec() })
}

/// As [`try_post`], of somebody who answers.
pub fn post(url: &str, headers: &str, body: &[u8]) -> Answer {
    try_post(url, headers, body).unwrap_or_else(|| panic!("nobody answers at {url}"))
}

/// `GET` from somebody who is there; a chunked body comes with its chunks' lengths.
pub fn get(url: &str) -> Answer {
    try_send("GET", url, "", b"").unwrap_or_else(|| panic!("nobody answers at {url}"))
}
