//! Answers with data that whoever asked has not read yet, counted in bytes, with a bound: many who read slowly would fill the
//! memory.

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;

use crate::{app::App, budget::Taken, problem::Problem};

/// What is smaller is not counted.
const SMALL: usize = 64 << 10;

/// Room for answers of so many bytes; for one that would never find any, all there is.
pub(crate) fn room(app: &App, bytes: usize) -> Result<Taken, Problem> {
    let mut room = app.answers.none();
    match room.grow(bytes.min(app.options.answers_max)) {
        true => Ok(room),
        false => {
            Err(Problem::busy("too many answers with much data are being read just now: ask again soon"))
        }
    }
}

/// An answer with this body, as soon as there is room for it.
pub(crate) fn answer(app: &App, bytes: impl Into<Bytes>) -> Result<Response, Problem> {
    let bytes = bytes.into();
    if bytes.len() <= SMALL {
        return Ok(bytes.into_response());
    }
    let room = room(app, bytes.len())?;
    let length = HeaderValue::from(bytes.len());
    // In pieces, so that what the connection has not asked for is still here, and with it the room.
    let pieces = stream::unfold((bytes, room), |(mut bytes, room)| async move {
        let piece = bytes.split_to(bytes.len().min(SMALL));
        (!piece.is_empty()).then_some((Ok::<_, std::convert::Infallible>(piece), (bytes, room)))
    });
    Ok(([(header::CONTENT_LENGTH, length)], Body::from_stream(pieces)).into_response())
}
