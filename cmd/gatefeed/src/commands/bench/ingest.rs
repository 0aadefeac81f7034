//! `gatefeed bench ingest`.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{self, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use gatefeed_api::{ApiOptions, CONNECTIONS_MAX, Openness};
use gatefeed_core::{Store, StoreError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    IngestArgs,
    figures::{Ingest, per_second},
    place::Place,
    work,
};
use crate::{database::DatabaseArgs, output};

/// How long each round posts, and how long the first one, which warms up.
const ROUND: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_secs(1);

/// Rows of one INSERT of the limit.
const BLOCK: usize = 1_000;

/// Rows of the limit's rounds, at most.
const LIMIT_ROWS: usize = 100_000;

/// What the API would refuse is told before anything is made.
pub(crate) fn check_args(args: &IngestArgs) -> Result<()> {
    let options = ApiOptions::default();
    let refused = if args.connections > CONNECTIONS_MAX {
        format!("the API takes {CONNECTIONS_MAX} connections at a time: --connections is at most that")
    } else if args.payload > options.payload_max as u64 {
        format!("the API takes items of up to {} bytes: --payload is at most that", options.payload_max)
    } else if args.payload * args.connections as u64 > options.in_flight_max as u64 {
        format!(
            "the API holds up to {} bytes of requests at a time: fewer --connections, or a smaller --payload",
            options.in_flight_max
        )
    } else {
        return Ok(());
    };
    Err(StoreError::Config(refused).into())
}

/// The API and the plain INSERT in turn, on the same tables.
pub(crate) async fn ingest(place: &Place, args: &IngestArgs) -> Result<Ingest> {
    let store = place.open().await?;
    let mut limit = place.limit().await?;
    let server = Server::start(place)?;
    let mut figures = Ingest::new(place, args);
    let mut left = args.run.duration;
    let mut is_warm = false;
    loop {
        let time = if is_warm { ROUND } else { WARM_UP };
        let posted = post(server.address, args, time).await?;
        check(&*store, posted.latencies.len()).await?;
        limit.clear().await?;
        let rows = posted.latencies.len().clamp(1, LIMIT_ROWS);
        let data = work::payload(args.payload);
        let by_itself = limit.insert_all(args.partitions, rows, &data, BLOCK).await?;
        limit.clear().await?;
        limit.vacuum().await?;
        if std::mem::replace(&mut is_warm, true) {
            left = left.saturating_sub(posted.took);
            figures.round(posted.took, &posted.latencies, per_second(rows as u64, by_itself));
            if left.is_zero() {
                return Ok(figures);
            }
        }
    }
}

/// Every 202 is a row.
async fn check(store: &dyn Store, answered: usize) -> Result<()> {
    let rows: i64 = store.status().await?.iter().map(|feed| feed.items.available).sum();
    ensure!(
        rows == answered as i64,
        "{answered} requests were answered with 202, and there are {rows} items"
    );
    Ok(())
}

/// What a round came to.
struct Posted {
    took: Duration,
    latencies: Vec<Duration>,
}

/// Posts on so many connections, each the next item once the one before was answered.
async fn post(address: SocketAddr, args: &IngestArgs, time: Duration) -> Result<Posted> {
    let started = Instant::now();
    let end = started + time;
    let connections = (0..args.connections).map(|number| {
        let partition = number % args.partitions;
        tokio::spawn(post_until(address, end, request(address, partition, &work::payload(args.payload))))
    });
    let mut latencies = Vec::new();
    for connection in connections.collect::<Vec<_>>() {
        latencies.extend(connection.await??);
    }
    Ok(Posted { took: started.elapsed(), latencies })
}

fn request(address: SocketAddr, partition: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/partitions/bench-{partition}/items HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

async fn post_until(address: SocketAddr, end: Instant, request: Vec<u8>) -> Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::new();
    let mut answer = vec![0; 4096];
    while Instant::now() < end {
        let sent = Instant::now();
        stream.write_all(&request).await?;
        read_answer(&mut stream, &mut answer).await?;
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}

/// One whole answer, which has to be a 202.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut length = 0;
    loop {
        let read = stream.read(&mut buffer[length..]).await?;
        ensure!(read > 0, "the API closed a connection");
        length += read;
        if let Some(whole) = whole_length(&buffer[..length]) {
            if !buffer.starts_with(b"HTTP/1.1 202 ") || whole != length {
                bail!("the API answered {}", String::from_utf8_lossy(&buffer[..length]));
            }
            return Ok(());
        }
        ensure!(length < buffer.len(), "the API's answer has no end");
    }
}

/// How long an answer is, if it is all there.
fn whole_length(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).ok()?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let whole = head + length.trim().parse::<usize>().ok()?;
    (answer.len() >= whole).then_some(whole)
}

/// The API in a process of its own, as it is in use; ended when dropped.
struct Server {
    child: process::Child,
    address: SocketAddr,
}

impl Server {
    fn start(place: &Place) -> Result<Self> {
        let binary = std::env::current_exe().context("cannot find this binary, to start the server")?;
        let mut command = process::Command::new(binary);
        command.args(["bench", "server"]).envs(place.variables());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the server")?;
        let mut address = String::new();
        let stdout = child.stdout.take().context("the server has no stdout")?;
        BufReader::new(stdout).read_line(&mut address).context("the server does not say its address")?;
        let address = address.trim().parse().context("the server does not say its address")?;
        Ok(Self { child, address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Serves the API until stdin ends, which it does with the process that started it.
pub(crate) async fn serve(database: &DatabaseArgs) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let store = database.open_migrated().await?;
    let options = ApiOptions { openness: Openness::Local, ..ApiOptions::default() };
    output::line(&listener.local_addr()?.to_string())?;
    let orphaned = async { _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await };
    gatefeed_api::serve(listener, gatefeed_api::api(Arc::clone(&store), options), orphaned).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::whole_length;

    #[test]
    fn an_answer_has_an_end() {
        let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(whole_length(answer), Some(answer.len()));
        for end in 0..answer.len() {
            assert_eq!(whole_length(&answer[..end]), None, "{end}");
        }
    }
}
