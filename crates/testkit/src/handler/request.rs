//! Reading one HTTP/1.1 request.

use std::{io, time::Instant};

use tokio::{io::AsyncReadExt, net::TcpStream};

/// The longest head that is read; tests send nothing near it.
const HEAD_BYTES_MAX: usize = 256 * 1024;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// `POST`, as sent.
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    /// Names as sent and raw values, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body, without its transfer coding.
    pub body: Vec<u8>,
    /// When it had been read whole.
    pub at: Instant,
}

impl Recorded {
    /// The raw value of the first header of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_slice())
    }

    /// The same as text; an absent header is empty.
    pub fn header_text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.header(name).unwrap_or_default()).into_owned()
    }
}

/// A connection's stream and what has been read beyond the current request.
pub(super) struct Reader {
    pub(super) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Reader {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The next request; `None` when the client has closed the connection between two.
    pub(super) async fn next(&mut self) -> io::Result<Option<Recorded>> {
        let Some(head) = self.head().await? else { return Ok(None) };
        let mut request = parse_head(&head)?;
        request.body = self.body(&request).await?;
        request.at = Instant::now();
        Ok(Some(request))
    }

    async fn head(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                return Ok(Some(self.buffer.drain(..end + 4).collect()));
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(invalid("the head is too long"));
            }
            if !self.fill().await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(cut()) };
            }
        }
    }

    async fn body(&mut self, request: &Recorded) -> io::Result<Vec<u8>> {
        if request.header_text("transfer-encoding").eq_ignore_ascii_case("chunked") {
            return self.chunks().await;
        }
        match request.header("content-length") {
            None => Ok(Vec::new()),
            Some(_) => {
                let length = request.header_text("content-length").parse();
                self.exactly(length.map_err(|_| invalid("content-length"))?).await
            }
        }
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| invalid("chunk size"))?;
            body.extend(self.exactly(size).await?);
            self.exactly(2).await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.fill().await? {
                return Err(cut());
            }
        }
    }

    async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.fill().await? {
                return Err(cut());
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Reads on; false at the end of the stream.
    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(8 * 1024);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}

fn parse_head(head: &[u8]) -> io::Result<Recorded> {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut words = first.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(invalid("request line"));
    };
    let headers = lines.map(parse_header).collect::<io::Result<_>>()?;
    Ok(Recorded { method: method.into(), path: path.into(), headers, body: Vec::new(), at: Instant::now() })
}

fn parse_header(line: &[u8]) -> io::Result<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| invalid("header"))?;
    let name = String::from_utf8_lossy(&line[..colon]).into_owned();
    Ok((name, line[colon + 1..].trim_ascii().to_vec()))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn cut() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
