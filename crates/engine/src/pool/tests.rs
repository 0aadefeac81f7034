use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    task::yield_now,
    time::{Instant, advance, sleep},
};
use tower::{BoxError, ServiceBuilder, service_fn};

use super::*;

type Numbers = Pool<u32, u32, Infallible>;

/// Work that waits for a permit each, and counts what runs.
#[derive(Clone, Default)]
struct Work {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    through: Arc<AtomicUsize>,
    permits: Arc<Permits>,
}

struct Permits(Semaphore);

impl Default for Permits {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Work {
    fn pool(&self, workers: usize, queue: usize) -> Numbers {
        let work = self.clone();
        builder().workers(workers).queue(queue).build(service_fn(move |job| work.clone().work(job)))
    }

    async fn work(self, job: u32) -> Result<u32, Infallible> {
        struct Running(Arc<AtomicUsize>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(self.running.clone());
        self.most.fetch_max(running, Ordering::SeqCst);
        self.permits.0.acquire().await.unwrap().forget();
        self.through.fetch_add(1, Ordering::SeqCst);
        Ok(job)
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Waits until so many run, which has to come by itself.
    async fn until_running(&self, count: usize) {
        for _ in 0..1000 {
            if self.running() == count {
                return;
            }
            yield_now().await;
        }
        panic!("{} run, not {count}", self.running());
    }
}

#[tokio::test]
async fn jobs_are_answered() {
    let work = Work::default();
    let pool = work.pool(2, 10);
    let jobs = [pool.submit(1).await.unwrap(), pool.submit(2).await.unwrap()];
    work.permits.0.add_permits(2);
    let [one, two] = jobs;
    assert_eq!((one.await, two.await), (Ok(1), Ok(2)));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_submitters_wait_refuses_or_times_out() {
    let work = Work::default();
    let pool = work.pool(2, 3);
    for job in 0..2 {
        pool.submit(job).await.unwrap();
    }
    work.until_running(2).await;
    for job in 2..5 {
        pool.submit(job).await.unwrap();
    }
    assert_eq!(pool.try_submit(5).err(), Some(Refused::Full(5)));
    let started = Instant::now();
    let limit = Duration::from_secs(7);
    assert_eq!(pool.submit_within(limit, 6).await.err(), Some(Refused::Full(6)));
    assert_eq!(started.elapsed(), limit);
    let mut waiting = Box::pin(pool.submit(7));
    assert!((&mut waiting).now_or_never().is_none());
    work.permits.0.add_permits(1);
    let job = waiting.await.unwrap();
    work.permits.0.add_permits(10);
    assert_eq!(job.await, Ok(7));
    assert_eq!(work.most.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_still_takes_a_free_place() {
    let pool = Work::default().pool(1, 1);
    assert!(pool.submit_within(Duration::ZERO, 1).await.is_ok());
}

#[tokio::test]
async fn errors_that_nobody_reads_hold_up_nothing() {
    let fails = service_fn(
        async |job: u32| if job.is_multiple_of(2) { panic!("on purpose") } else { Err::<u32, _>(job) },
    );
    let pool = builder().workers(2).queue(2).build(fails);
    for job in 0..1000 {
        drop(pool.submit(job).await.unwrap());
    }
    assert_eq!(pool.submit(1).await.unwrap().await, Err(JobError::Failed(1)));
    assert_eq!(pool.submit(2).await.unwrap().await, Err(JobError::Dropped));
    pool.drain().await;
}

#[tokio::test]
async fn draining_takes_no_more_and_ends_what_was_taken() {
    let work = Work::default();
    let pool = work.pool(2, 10);
    let jobs: Vec<_> = (0..8).map(|job| pool.try_submit(job).unwrap()).collect();
    let mut draining = Box::pin(pool.drain());
    assert!((&mut draining).now_or_never().is_none());
    assert_eq!(pool.try_submit(9).err(), Some(Refused::Closed(9)));
    assert_eq!(pool.submit(9).await.err(), Some(Refused::Closed(9)));
    work.permits.0.add_permits(100);
    draining.await;
    assert_eq!(work.through.load(Ordering::SeqCst), 8);
    for (n, job) in jobs.into_iter().enumerate() {
        assert_eq!(job.now_or_never(), Some(Ok(n as u32)));
    }
}

#[tokio::test]
async fn no_task_is_left_after_a_shutdown_or_a_drain_or_a_drop() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for end in 0..3 {
        let work = Work::default();
        let pool = work.pool(4, 10);
        let jobs: Vec<_> = (0..10).map(|job| pool.try_submit(job).unwrap()).collect();
        work.until_running(4).await;
        match end {
            0 => pool.shutdown().await,
            1 => {
                work.permits.0.add_permits(10);
                pool.drain().await;
            }
            _ => {
                drop(pool);
                for job in jobs {
                    assert_eq!(job.await, Err(JobError::Dropped));
                }
            }
        }
        work.until_running(0).await;
        // The last of them has said that it is ending.
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!(tasks(), before, "way {end} of ending");
    }
}

#[tokio::test]
async fn a_job_that_waits_is_no_task() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let (before, work) = (tasks(), Work::default());
    let pool = work.pool(3, 500);
    let jobs: Vec<_> = (0..400).map(|job| pool.try_submit(job).unwrap()).collect();
    work.until_running(3).await;
    assert!(tasks() <= before + 5, "{} tasks for three workers and 400 jobs", tasks() - before);
    work.permits.0.add_permits(400);
    for job in jobs {
        job.await.unwrap();
    }
}

#[tokio::test]
async fn more_and_fewer_workers() {
    let work = Work::default();
    let pool = work.pool(2, 100);
    let jobs: Vec<_> = (0..50).map(|job| pool.try_submit(job).unwrap()).collect();
    work.until_running(2).await;
    pool.resize(6);
    work.until_running(6).await;
    pool.resize(1);
    work.permits.0.add_permits(5);
    work.until_running(1).await;
    for _ in 0..100 {
        yield_now().await;
        assert_eq!(work.running(), 1, "none begins before enough have ended");
    }
    pool.resize(0);
    work.permits.0.add_permits(100);
    for job in jobs {
        job.await.unwrap();
    }
    assert_eq!(work.most.load(Ordering::SeqCst), 6);
}

#[tokio::test(start_paused = true)]
async fn towers_layers_go_around_the_work() {
    let never = service_fn(async |()| std::future::pending::<Result<(), BoxError>>().await);
    let limit = Duration::from_secs(3);
    let pool = builder().workers(1).queue(1).build(ServiceBuilder::new().timeout(limit).service(never));
    let error = pool.submit(()).await.unwrap().await.unwrap_err();
    assert!(
        matches!(&error, JobError::Failed(error) if error.is::<tower::timeout::error::Elapsed>()),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is submitted, resized and ended when: no more run than may, and each job is run once or its caller knows.
    #[test]
    fn no_job_is_lost_or_doubled(
        workers in 1usize..5,
        queue in 1usize..5,
        acts in prop::collection::vec((0u8..4, 0u64..20), 1..60),
        is_drained in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (runs, running, limit) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(workers)));
            let counts = (runs.clone(), running.clone(), limit.clone());
            let pool = builder().workers(workers).queue(queue).build(service_fn(move |ms: u64| {
                let (runs, running, limit) = counts.clone();
                async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    assert!(running.fetch_add(1, Ordering::SeqCst) < limit.load(Ordering::SeqCst));
                    sleep(Duration::from_millis(ms)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(ms)
                }
            }));
            let mut taken = Vec::new();
            for (act, ms) in acts {
                match act {
                    0 => taken.extend(pool.try_submit(ms).ok()),
                    1 => taken.extend(pool.submit_within(Duration::from_millis(ms / 2), ms).await.ok()),
                    2 => {
                        // Only ever more, since what runs may be more than a smaller limit.
                        let more = limit.fetch_add(1, Ordering::SeqCst) + 1;
                        pool.resize(more);
                    }
                    _ => advance(Duration::from_millis(ms)).await,
                }
            }
            let count = taken.len();
            if is_drained { pool.drain().await } else { pool.shutdown().await }
            let mut answered = 0;
            for job in taken {
                let answer = job.now_or_never();
                prop_assert!(answer.is_some(), "nobody waits for ever");
                answered += usize::from(answer.unwrap().is_ok());
            }
            prop_assert!(answered == count || !is_drained && answered < count);
            prop_assert!(answered <= runs.load(Ordering::SeqCst) && runs.load(Ordering::SeqCst) <= count);
            Ok(())
        })?;
    }
}
