//! Reading bodies: bounded in bytes, over all requests together too, and in time.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    budget::{Budget, ITEM_BYTES, Taken},
    problem::Problem,
};

/// For how long a client may send nothing in the middle of its body.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How long a body may take.
const BODY_MAX: Duration = Duration::from_secs(60);

/// A body, and the room it takes until it is written.
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    pub(crate) taken: Taken,
}

/// Reads a body of at most `max` bytes. What is declared takes no room, only what has come: a client that sends slowly
/// holds up nobody.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    max: usize,
    budget: &Budget,
) -> Result<Held, Problem> {
    if declared(headers).is_some_and(|length| length > max as u64) {
        return Err(too_large(max));
    }
    let mut taken = budget.none();
    take(&mut taken, ITEM_BYTES)?;
    let (mut body, end) = (body, Instant::now() + BODY_MAX);
    let mut whole = Bytes::new();
    let mut pieces: Vec<u8> = Vec::new();
    while let Some(piece) = next(&mut body, end).await? {
        if whole.len() + pieces.len() + piece.len() > max {
            return Err(too_large(max));
        }
        take(&mut taken, piece.len())?;
        if whole.is_empty() && pieces.is_empty() {
            // Nearly every body comes in one piece, which is not copied.
            whole = piece;
            continue;
        }
        if pieces.is_empty() {
            pieces.extend_from_slice(&std::mem::take(&mut whole));
        }
        pieces.extend_from_slice(&piece);
    }
    let bytes = if pieces.is_empty() { whole } else { pieces.into() };
    Ok(Held { bytes, taken })
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Takes room. Errs where there is none: 503, or 413 where no waiting would help.
pub(crate) fn take(taken: &mut Taken, bytes: usize) -> Result<(), Problem> {
    if taken.grow(bytes) {
        return Ok(());
    }
    if taken.is_never(bytes) {
        return Err(Problem::too_large(format!(
            "this request takes more room than --max-uncommitted has for all together, {ITEM_BYTES} bytes for each item \
             beside its data: send fewer at a time"
        )));
    }
    Err(Problem::busy("more bodies are in flight than there is room for: send this again in a moment"))
}

fn too_large(max: usize) -> Problem {
    Problem::too_large(format!("a body may have {max} bytes here"))
}

async fn next(body: &mut Body, end: Instant) -> Result<Option<Bytes>, Problem> {
    loop {
        let frame = timeout_at(end, timeout(SILENCE_MAX, body.frame())).await;
        let frame = frame.ok().and_then(Result::ok);
        let frame = frame.ok_or_else(|| Problem::too_slow("the body came too slowly and was given up"))?;
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(Problem::bad_request("the body ended before its end")),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use futures_util::stream;

    async fn read_pieces(pieces: &[&'static str], max: usize, budget: &Budget) -> Result<Held, u16> {
        let pieces: Vec<Result<&str, std::io::Error>> = pieces.iter().map(|piece| Ok(*piece)).collect();
        let body = Body::from_stream(stream::iter(pieces));
        let held = read(&HeaderMap::new(), body, max, budget).await;
        held.map_err(|problem| problem.into_response().status().as_u16())
    }

    #[tokio::test]
    async fn pieces_are_put_together_within_the_bounds() {
        let budget = Budget::new(10 + ITEM_BYTES);
        assert_eq!(read_pieces(&["ab", "", "c", "def"], 6, &budget).await.unwrap().bytes, "abcdef");
        assert_eq!(read_pieces(&[], 6, &budget).await.unwrap().bytes, "");
        assert_eq!(read_pieces(&["abcd", "efg"], 6, &budget).await.err(), Some(413));
        let held = read_pieces(&["abcdef"], 6, &budget).await.unwrap();
        assert_eq!(read_pieces(&["abcde"], 6, &budget).await.err(), Some(503));
        drop(held);
        assert!(read_pieces(&["abcdefghij"], 10, &budget).await.is_ok());
        assert_eq!(read_pieces(&["abcdefghijk"], 20, &budget).await.err(), Some(413), "it never fits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_finishes_is_given_up() {
        let budget = Budget::new(10_000);
        let silent = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let trickle = stream::unfold((), |()| async {
            tokio::time::sleep(SILENCE_MAX / 2).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        for (body, time) in [(silent, SILENCE_MAX), (Body::from_stream(trickle), BODY_MAX)] {
            let started = Instant::now();
            let problem = read(&HeaderMap::new(), body, 1_000, &budget).await.err().unwrap();
            assert_eq!(problem.into_response().status(), 408);
            assert_eq!(started.elapsed().as_secs(), time.as_secs());
            assert!(budget.none().grow(10_000), "it holds nothing any more");
        }
    }
}
