//! Items that arrive one by one, from many callers at once, and are written together.

use crate::{error::StoreError, item::NewItem, request::Request};

/// The most items of one call.
pub const ARRIVALS_MAX: usize = 2_000;

/// An item, and what its partition is to be should it be missing.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The feed of its partition, if that has to be made.
    pub feed: String,
    /// Its caller may touch this feed alone: a partition that exists in another one is as none.
    pub own_feed_only: bool,
    /// The item. It may depend on nothing and gather nothing.
    pub item: NewItem,
    /// Its request, if that has an idempotency key, of which its digest is another one too.
    pub request: Option<Request>,
}

/// What became of an arrival.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrived {
    /// It was added.
    Added,
    /// An item of this id was there, made without an idempotency key or asked for without one; it was left as it is.
    Existing,
    /// The very same request made an item of this id before.
    Replayed,
    /// An item of this id was there, made by a request with an idempotency key that was another one, or asked for
    /// something else; or a request that adds many items had the key before.
    Conflict,
}

impl Arrival {
    /// What its request asks for; `None`: it has no key.
    pub fn digest(&self) -> Option<&[u8]> {
        self.request.as_ref().map(|request| request.digest.as_slice())
    }
}

impl Arrived {
    /// What an arrival comes to that found an item with this digest, or whose key a request that adds many items has
    /// (`is_key_taken`). Without a key on either side only the id counts.
    pub fn found(arrival: &Arrival, there: Option<&[u8]>, is_key_taken: bool) -> Self {
        match (arrival.digest(), there) {
            (Some(asked), Some(there)) if asked == there => Self::Replayed,
            (Some(_), _) if is_key_taken => Self::Conflict,
            (Some(_), Some(_)) => Self::Conflict,
            _ => Self::Existing,
        }
    }
}

/// Errs where an arrival is more than one statement can write, or there are too many.
pub fn check(arrivals: &[Arrival]) -> Result<(), StoreError> {
    if arrivals.len() > ARRIVALS_MAX {
        return Err(StoreError::Refused(format!(
            "{} items arrive at once, over {ARRIVALS_MAX}",
            arrivals.len()
        )));
    }
    let rich = arrivals.iter().map(|a| &a.item).find(|i| !i.dependencies.is_empty() || i.gather.is_some());
    rich.map_or(Ok(()), |item| {
        Err(StoreError::Refused(format!("item {:?} depends on others or gathers: push it", item.id)))
    })
}
