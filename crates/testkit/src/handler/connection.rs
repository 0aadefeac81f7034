//! One connection: requests in, replies out in whatever manner they ask for.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::sleep,
};

use super::{
    Shared,
    reply::{Manner, Reply},
    request::{Reader, Recorded},
};

/// Whether the connection goes on after an answer.
#[derive(Eq, PartialEq)]
enum After {
    Keep,
    Close,
}

/// Errors of a connection are the client's business: the test sees them there.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>, mut drain: watch::Receiver<()>) {
    let _ = stream.set_nodelay(true);
    let mut reader = Reader::new(stream);
    loop {
        let request = tokio::select! {
            request = reader.next() => request,
            _ = drain.changed() => {
                let _ = part(&mut reader.stream).await;
                return;
            }
        };
        let Ok(Some(request)) = request else { return };
        if !matches!(answer(&mut reader.stream, &shared, request).await, Ok(After::Keep)) {
            return;
        }
    }
}

/// Closes our side and waits for the client to close its own.
async fn part(stream: &mut TcpStream) -> io::Result<After> {
    stream.shutdown().await?;
    hang(stream).await
}

async fn answer(stream: &mut TcpStream, shared: &Shared, request: Recorded) -> io::Result<After> {
    let _working = shared.enter();
    shared.record(request.clone());
    let reply = (shared.behaviour)(request).await;
    sleep(reply.delay).await;
    send(stream, &reply).await
}

async fn send(stream: &mut TcpStream, reply: &Reply) -> io::Result<After> {
    match &reply.manner {
        Manner::Proper => proper(stream, reply).await,
        Manner::Hang => hang(stream).await,
        Manner::SlowHead(pause) => slow_head(stream, reply, *pause).await,
        Manner::DripBody(pause) => drip_body(stream, reply, *pause).await,
        Manner::ResetBeforeHead => reset(stream),
        Manner::ResetAfterHead => {
            stream.write_all(&sized(reply)).await?;
            reset(stream)
        }
        Manner::HalfBody => half_body(stream, reply).await,
        Manner::WrongLength(length) => wrong_length(stream, reply, *length).await,
        Manner::Chunked(size) => chunked(stream, reply, *size).await,
        Manner::InformationalFirst => {
            let hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
            stream.write_all(hints).await?;
            proper(stream, reply).await
        }
        Manner::Raw => {
            stream.write_all(&reply.body).await?;
            Ok(After::Close)
        }
        Manner::Huge { bytes, chunked } => huge(stream, reply, *bytes, *chunked).await,
        Manner::CloseUnannounced => {
            proper(stream, reply).await?;
            Ok(After::Close)
        }
    }
}

/// The head with the true length.
fn sized(reply: &Reply) -> Vec<u8> {
    reply.head(&format!("Content-Length: {}", reply.body.len()))
}

async fn proper(stream: &mut TcpStream, reply: &Reply) -> io::Result<After> {
    // A 204 must not have a length.
    let mut answer = if reply.status == 204 { reply.head("Via: 1.1 test") } else { sized(reply) };
    answer.extend_from_slice(&reply.body);
    stream.write_all(&answer).await?;
    Ok(After::Keep)
}

/// Until the client gives up.
async fn hang(stream: &mut TcpStream) -> io::Result<After> {
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(After::Close)
}

async fn slow_head(stream: &mut TcpStream, reply: &Reply, pause: Duration) -> io::Result<After> {
    drip(stream, &sized(reply), pause).await?;
    stream.write_all(&reply.body).await?;
    Ok(After::Keep)
}

async fn drip_body(stream: &mut TcpStream, reply: &Reply, pause: Duration) -> io::Result<After> {
    stream.write_all(&sized(reply)).await?;
    drip(stream, &reply.body, pause).await?;
    Ok(After::Keep)
}

async fn drip(stream: &mut TcpStream, bytes: &[u8], pause: Duration) -> io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        sleep(pause).await;
    }
    Ok(())
}

/// With no lingering, closing sends a reset.
fn reset(stream: &TcpStream) -> io::Result<After> {
    stream.set_zero_linger()?;
    Ok(After::Close)
}

async fn half_body(stream: &mut TcpStream, reply: &Reply) -> io::Result<After> {
    stream.write_all(&sized(reply)).await?;
    stream.write_all(&reply.body[..reply.body.len() / 2]).await?;
    Ok(After::Close)
}

async fn wrong_length(stream: &mut TcpStream, reply: &Reply, length: usize) -> io::Result<After> {
    stream.write_all(&reply.head(&format!("Content-Length: {length}"))).await?;
    stream.write_all(&reply.body).await?;
    Ok(After::Close)
}

async fn chunked(stream: &mut TcpStream, reply: &Reply, size: usize) -> io::Result<After> {
    let mut answer = reply.head("Transfer-Encoding: chunked");
    for part in reply.body.chunks(size.max(1)) {
        push_chunk(&mut answer, part);
    }
    push_chunk(&mut answer, b"");
    stream.write_all(&answer).await?;
    Ok(After::Keep)
}

async fn huge(stream: &mut TcpStream, reply: &Reply, bytes: usize, chunked: bool) -> io::Result<After> {
    let block = vec![b'x'; 64 * 1024];
    let framing =
        if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {bytes}") };
    stream.write_all(&reply.head(&framing)).await?;
    let mut left = bytes;
    while left > 0 {
        let part = &block[..left.min(block.len())];
        let mut framed = Vec::new();
        if chunked {
            push_chunk(&mut framed, part);
        }
        stream.write_all(if chunked { &framed } else { part }).await?;
        left -= part.len();
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    Ok(After::Keep)
}

/// An empty part ends the body.
fn push_chunk(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
    out.extend_from_slice(part);
    out.extend_from_slice(b"\r\n");
}
