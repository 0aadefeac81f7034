//! A bounded queue and workers in memory, for jobs that may be lost with the process; all others belong in the database.
//!
//! The work is a [`tower::Service`], so that its layers (timeout, retry, rate and concurrency limits, balancing) go
//! around it as around everything else; `tower::service_fn` makes one of a function.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::{Service, util::Oneshot};

/// Jobs `J` that wait and run, each answered by an `A` or an error `E`. Dropping the pool aborts them.
pub struct Pool<J, A, E> {
    queue: mpsc::Sender<Entry<J, A, E>>,
    workers: watch::Sender<usize>,
    /// Take no more.
    closing: CancellationToken,
    /// Drop what waits and runs.
    abort: CancellationToken,
    /// Nothing is left.
    ended: CancellationToken,
    _abort_on_drop: DropGuard,
}

type Entry<J, A, E> = (J, oneshot::Sender<Result<A, E>>);

/// A pool in the making; see [`builder`].
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    workers: usize,
    queue: usize,
}

/// Why a job was not taken; it comes back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused<J> {
    /// The queue is full, or was for as long as the caller would wait.
    Full(J),
    /// The pool is ending.
    Closed(J),
}

/// Why a job that was taken has no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JobError<E> {
    /// The service's own error.
    #[error(transparent)]
    Failed(E),
    /// It panicked, or the pool ended before it was through.
    #[error("the job panicked, or its pool ended before it was through")]
    Dropped,
}

/// A job that was taken: resolves to its answer. Nobody has to wait for it: an answer that nobody wants is dropped, and
/// holds up nothing.
#[derive(Debug)]
pub struct Job<A, E>(oneshot::Receiver<Result<A, E>>);

/// Begins a pool with a worker for each processor, and 1,000 places in its queue.
pub fn builder() -> Builder {
    Builder { workers: std::thread::available_parallelism().map_or(1, usize::from), queue: 1000 }
}

impl Builder {
    /// At most this many jobs run at a time; at least one.
    pub fn workers(self, workers: usize) -> Self {
        Self { workers: workers.max(1), ..self }
    }

    /// At most this many jobs wait beside those that run; at least one.
    pub fn queue(self, queue: usize) -> Self {
        Self { queue: queue.max(1), ..self }
    }

    /// Starts it, within a Tokio runtime. Each job gets a clone of the service.
    pub fn build<J, S>(self, service: S) -> Pool<J, S::Response, S::Error>
    where
        J: Send + 'static,
        S: Service<J, Response: Send, Error: Send, Future: Send> + Clone + Send + 'static,
    {
        let (queue, jobs) = mpsc::channel(self.queue);
        let (workers, limit) = watch::channel(self.workers);
        let [closing, abort, ended] = std::array::from_fn(|_| CancellationToken::new());
        let pool = Pool {
            queue,
            workers,
            closing: closing.clone(),
            abort: abort.clone(),
            ended: ended.clone(),
            _abort_on_drop: abort.clone().drop_guard(),
        };
        tokio::spawn(async move {
            let _ended = ended.drop_guard();
            let mut running = JoinSet::new();
            let all = run(service, jobs, limit, &closing, &mut running);
            abort.run_until_cancelled(all).await;
            // Waits until they are gone.
            running.shutdown().await;
        });
        pool
    }
}

/// Runs jobs until the queue is closed and empty, and all of them have ended: at most `limit` at a time.
async fn run<J, S>(
    service: S,
    mut jobs: mpsc::Receiver<Entry<J, S::Response, S::Error>>,
    mut limit: watch::Receiver<usize>,
    closing: &CancellationToken,
    running: &mut JoinSet<()>,
) where
    J: Send + 'static,
    S: Service<J, Response: Send, Error: Send, Future: Send> + Clone + Send + 'static,
{
    loop {
        let has_room = running.len() < *limit.borrow_and_update();
        tokio::select! {
            Some(_) = running.join_next() => {}
            // An error means that the pool was dropped, and that this ends at once.
            Ok(()) = limit.changed() => {}
            () = closing.cancelled(), if !jobs.is_closed() => jobs.close(),
            job = jobs.recv(), if has_room => match job {
                Some((job, answer)) => {
                    let work = Oneshot::new(service.clone(), job);
                    running.spawn(async move { _ = answer.send(work.await) });
                }
                None => break,
            },
            else => break,
        }
    }
    while running.join_next().await.is_some() {}
}

impl<J, A, E> Pool<J, A, E> {
    /// Waits for a place in the queue.
    pub async fn submit(&self, job: J) -> Result<Job<A, E>, Refused<J>> {
        let place = self.queue.reserve().await;
        self.put(place, job)
    }

    /// Waits this long for a place; at zero it takes one that is free, or none.
    pub async fn submit_within(&self, limit: Duration, job: J) -> Result<Job<A, E>, Refused<J>> {
        match timeout(limit, self.queue.reserve()).await {
            Ok(place) => self.put(place, job),
            Err(_) => Err(Refused::Full(job)),
        }
    }

    /// Refuses the job if there is no place.
    pub fn try_submit(&self, job: J) -> Result<Job<A, E>, Refused<J>> {
        match self.queue.try_reserve() {
            Err(mpsc::error::TrySendError::Full(())) => Err(Refused::Full(job)),
            place => self.put(place, job),
        }
    }

    fn put<X>(
        &self,
        place: Result<mpsc::Permit<'_, Entry<J, A, E>>, X>,
        job: J,
    ) -> Result<Job<A, E>, Refused<J>> {
        match place {
            Ok(place) if !self.closing.is_cancelled() => {
                let (answer, receiver) = oneshot::channel();
                place.send((job, answer));
                Ok(Job(receiver))
            }
            _ => Err(Refused::Closed(job)),
        }
    }

    /// Changes how many jobs run at a time, at least one. With fewer, those that run go on, and none begins before
    /// enough have ended.
    pub fn resize(&self, workers: usize) {
        self.workers.send_replace(workers.max(1));
    }

    /// Takes no more jobs, and resolves when all that were taken have ended.
    pub async fn drain(&self) {
        self.closing.cancel();
        self.ended.cancelled().await;
    }

    /// Takes no more jobs, drops all that wait or run, and resolves when they are gone.
    pub async fn shutdown(&self) {
        self.closing.cancel();
        self.abort.cancel();
        self.ended.cancelled().await;
    }
}

impl<A, E> Future for Job<A, E> {
    type Output = Result<A, JobError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| match answer {
            Ok(answer) => answer.map_err(JobError::Failed),
            Err(_) => Err(JobError::Dropped),
        })
    }
}

impl<J, A, E> fmt::Debug for Pool<J, A, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("workers", &*self.workers.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
