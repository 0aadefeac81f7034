//! What the handler answers, and how badly.

use std::time::Duration;

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Headers, in order; `Content-Length` is added by the manner of sending.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
    /// How long the work takes before anything is sent.
    pub delay: Duration,
    /// How it is sent.
    pub manner: Manner,
}

/// How an answer is sent.
#[derive(Clone, Debug, Default)]
pub enum Manner {
    /// As it should be, keeping the connection.
    #[default]
    Proper,
    /// Not at all: the connection stays open and silent.
    Hang,
    /// One byte of the head at a time, with this pause in between.
    SlowHead(Duration),
    /// The head at once, then one byte of the body at a time, with this pause in between.
    DripBody(Duration),
    /// TCP reset instead of an answer.
    ResetBeforeHead,
    /// The head, then a TCP reset.
    ResetAfterHead,
    /// Half of the body, then the connection is closed.
    HalfBody,
    /// The body, but with this `Content-Length`; then the connection is closed.
    WrongLength(usize),
    /// In chunks of this many bytes.
    Chunked(usize),
    /// `100 Continue` and `103 Early Hints` first.
    InformationalFirst,
    /// The body alone, in place of an HTTP answer; then the connection is closed.
    Raw,
    /// A body of this many bytes in place of the one given, its length announced or, if `chunked`, not.
    Huge {
        /// How many bytes.
        bytes: usize,
        /// Whether it is sent in chunks, without a length.
        chunked: bool,
    },
    /// As it should be, and then the connection is closed although nothing announced it.
    CloseUnannounced,
}

impl Reply {
    /// An empty answer with this status.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            delay: Duration::ZERO,
            manner: Manner::default(),
        }
    }

    /// 200 without a body.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// 200 with JSON.
    pub fn json(body: impl Into<Vec<u8>>) -> Self {
        Self::ok().header("Content-Type", "application/json").body(body)
    }

    /// 302 to somewhere; with the handler's own URL, a loop.
    pub fn redirect(location: &str) -> Self {
        Self::status(302).header("Location", location)
    }

    /// 200 with `{}`, compressed although nobody asked for it.
    pub fn gzip() -> Self {
        let body = [31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 171, 174, 5, 0, 67, 191, 166, 163, 2, 0, 0, 0];
        Self::ok().header("Content-Encoding", "gzip").body(body)
    }

    /// 200 with so many zeros, compressed to a two-hundredth of that although nobody asked for it.
    pub fn gzip_bomb(bytes: usize) -> Self {
        Self::ok().header("Content-Encoding", "gzip").body(gzip_of_zeros(bytes))
    }

    /// With a header more.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// With this status.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With this body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// After this long.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sent in this manner.
    pub fn manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    /// The head, with a line for the length of the body unless that is unknown.
    pub(super) fn head(&self, framing: &str) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status)).into_bytes();
        for (name, value) in &self.headers {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(framing.as_bytes());
        head.extend_from_slice(b"\r\n\r\n");
        head
    }
}

/// One zero, and then "the last byte, 258 times more", by the fixed codes of RFC 1951. The checksum is wrong, which nobody
/// who keeps to a limit comes to see.
fn gzip_of_zeros(bytes: usize) -> Vec<u8> {
    // A block that is the last one, of fixed codes; the byte 0; each code with its first bit first.
    let mut bits: Vec<u8> = vec![1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0];
    let (repeat, end) = ([1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0], [0; 7]);
    (0..bytes / 258).for_each(|_| bits.extend(repeat));
    bits.extend(end);
    bits.resize(bits.len().next_multiple_of(8), 0);
    let mut packed = vec![31, 139, 8, 0, 0, 0, 0, 0, 0, 3];
    packed.extend(bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |byte, bit| byte << 1 | bit)));
    packed.extend([0; 8]);
    packed
}

/// The client goes by the number; the words only make a capture readable.
fn reason(status: u16) -> &'static str {
    match status {
        200..=299 => "Fine",
        300..=399 => "Elsewhere",
        _ => "Trouble",
    }
}
