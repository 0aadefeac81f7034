//! The items of one request while they are read. Each takes its room before it is made, so that a body of many small ones
//! cannot take more than there is.

use std::future::Future;

use gatefeed_core::item::NewItem;
use tokio::runtime::Handle;

use crate::{
    body,
    budget::{ITEM_BYTES, Taken},
    problem::{ERRORS_MAX, Problem, Wrong},
};

/// A body of more bytes is read on a thread beside the runtime's, which have others to answer meanwhile.
const READ_HERE_MAX: usize = 64 * 1024;

/// Items so far, and what is wrong with the others.
pub(crate) struct Pile<'t> {
    taken: &'t mut Taken,
    payload_max: usize,
    items: Vec<NewItem>,
    /// The first of those that will not do.
    wrong: Vec<Wrong>,
    wrong_count: usize,
    has_too_large: bool,
}

impl<'t> Pile<'t> {
    /// Takes its room from `taken`; an item may have `payload_max` bytes of data.
    pub(crate) fn new(taken: &'t mut Taken, payload_max: usize) -> Self {
        Self {
            taken,
            payload_max,
            items: Vec::new(),
            wrong: Vec::new(),
            wrong_count: 0,
            has_too_large: false,
        }
    }

    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Room for the next item beside its data. Errs where there is none, which ends the reading.
    pub(crate) fn make_room(&mut self) -> Result<(), Problem> {
        body::take(self.taken, ITEM_BYTES)
    }

    /// Adds an item, or notes what is wrong with it.
    pub(crate) fn add(&mut self, read: Result<NewItem, String>, wrong: impl FnOnce(String) -> Wrong) {
        let bytes = read.as_ref().map_or(0, |item| item.data.bytes.len());
        let read = match bytes > self.payload_max {
            true => {
                self.has_too_large = true;
                Err(format!("has {bytes} bytes of data, an item may have {}", self.payload_max))
            }
            false => read,
        };
        match read {
            Ok(item) => self.items.push(item),
            Err(detail) => {
                self.wrong_count += 1;
                if self.wrong.len() < ERRORS_MAX {
                    self.wrong.push(wrong(detail));
                }
            }
        }
    }

    /// The items, if nothing is wrong with any; `noun` is what they came as.
    pub(crate) fn end(self, noun: &str) -> Result<Vec<NewItem>, Problem> {
        if self.wrong_count == 0 {
            return Ok(self.items);
        }
        let (plural, verb) = if self.wrong_count == 1 { ("", "is") } else { ("s", "are") };
        let detail = format!("{} {noun}{plural} {verb} no item; nothing was added", self.wrong_count);
        let problem =
            if self.has_too_large { Problem::too_large(detail) } else { Problem::unprocessable(detail) };
        Err(problem.with(self.wrong))
    }
}

/// Reads a body of so many bytes, where that keeps nobody from being answered. What `read` does takes time, but it waits
/// for nothing.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: usize,
    read: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    if bytes <= READ_HERE_MAX {
        return read.await;
    }
    let runtime = Handle::current();
    let read = tokio::task::spawn_blocking(move || runtime.block_on(read)).await;
    read.unwrap_or_else(|_| Err(Problem::busy("this server is about to end: ask again")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a runtime of one thread could not be.
    #[tokio::test]
    async fn a_large_body_is_read_beside_the_runtime() {
        let here = std::thread::current().id();
        let reader = |bytes| aside(bytes, async { Ok(std::thread::current().id()) });
        assert_eq!(reader(READ_HERE_MAX).await.unwrap(), here);
        assert_ne!(reader(READ_HERE_MAX + 1).await.unwrap(), here);
    }
}
