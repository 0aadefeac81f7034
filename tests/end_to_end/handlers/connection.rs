//! Requests by hand, over one TCP connection.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use gatefeed_tests::DEADLINE;
use serde_json::Value;

/// A connection that is kept.
pub(super) struct Connection(BufReader<TcpStream>);

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: Vec<String>,
    pub(super) body: Vec<u8>,
}

impl Connection {
    pub(super) fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// A whole exchange. `headers` are lines, each with its end.
    pub(super) fn post(&mut self, headers: &str, body: &[u8]) -> Answer {
        self.begin(headers, body.len());
        self.0.get_mut().write_all(body).unwrap();
        self.answer().expect("the connection was closed")
    }

    /// The body of a request that was begun, and its answer; `None` where the connection was closed.
    pub(super) fn finish(mut self, body: &[u8]) -> Option<Answer> {
        self.0.get_mut().write_all(body).ok()?;
        self.answer()
    }

    /// The head of a request whose body does not follow.
    pub(super) fn begin(&mut self, headers: &str, length: usize) {
        let head = format!("POST / HTTP/1.1\r\nHost: handler\r\nContent-Length: {length}\r\n{headers}\r\n");
        self.0.get_mut().write_all(head.as_bytes()).unwrap();
    }

    fn answer(&mut self) -> Option<Answer> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let status = head[0].strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        answer.body = vec![0; answer.header("Content-Length").unwrap().parse().unwrap()];
        self.0.read_exact(&mut answer.body).unwrap();
        Some(answer)
    }
}

impl Answer {
    /// The value of a header, in whatever case its name is.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.iter().filter_map(|line| line.split_once(':'));
        headers.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// The body, which is JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}
