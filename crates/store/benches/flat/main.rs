//! What claiming and reading a page cost as the tables grow: from 10,000 to 1,000,000 due items, from 10 to 100,000 due
//! partitions, and with 100,000 delayed items in front of due ones. They should not grow with them.
//!
//! ```sh
//! DATABASE_URL=postgres://me@localhost/mydb cargo bench -p gatefeed-store --bench flat
//! ```
//!
//! Without DATABASE_URL (or GATEFEED_TEST_POSTGRES_URL) SQLite alone is measured. On Postgres it makes a schema of its own
//! and drops it.

#![allow(clippy::print_stdout, reason = "a bench prints")]
#![allow(clippy::unwrap_used, reason = "a bench ends where it fails")]

mod tables;

use std::{
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use gatefeed_core::{
    Store,
    lease::{Claim, Lease},
    store::PageRequest,
};
use tables::Tables;

/// How often each is measured; the median counts.
const ROUNDS: usize = 51;
/// Items of a page, as a watcher reads them.
const PAGE: usize = 1_000;
/// Partitions of a claim.
const CLAIM: usize = 10;

#[tokio::main]
async fn main() {
    let url = env::var("DATABASE_URL").or_else(|_| env::var("GATEFEED_TEST_POSTGRES_URL")).ok();
    match url.filter(|url| url.starts_with("postgres")) {
        Some(url) => measure("Postgres", Tables::postgres(&url).await).await,
        None => println!("Postgres: not measured, DATABASE_URL names none"),
    }
    measure("SQLite", Tables::sqlite().await).await;
}

async fn measure(database: &str, mut tables: Tables) {
    let mut pages = Vec::new();
    for items in [10_000, 100_000, 1_000_000] {
        tables.items("p", items, 0, false).await;
        pages.push((format!("{items} due items"), page(&tables.store, "p").await));
        tables.clear().await;
    }
    for items in [10_000, 1_000_000] {
        tables.items("p", items, 0, false).await;
        tables.finish_all_but("p", PAGE).await;
        pages.push((format!("{PAGE} due after {items} finished"), page(&tables.store, "p").await));
        tables.clear().await;
    }
    for delayed in [0, 100_000] {
        tables.items("p", PAGE, 0, false).await;
        tables.items("p", delayed, 9, true).await;
        pages.push((format!("{PAGE} due after {delayed} delayed"), page(&tables.store, "p").await));
        tables.clear().await;
    }
    show(&format!("{database}: a page of {PAGE}"), &pages);
    let mut claims = Vec::new();
    for partitions in [10, 1_000, 100_000] {
        tables.partitions(partitions).await;
        claims.push((format!("{partitions} due partitions"), claim(&tables.store, CLAIM).await));
        tables.clear().await;
    }
    show(&format!("{database}: a claim of {CLAIM} and their release"), &claims);
    tables.drop().await;
}

/// Each beside the first of its kind.
fn show(title: &str, rows: &[(String, Duration)]) {
    println!("{title}");
    let first = rows[0].1.as_secs_f64();
    for (name, time) in rows {
        println!("  {name:<36} {:>8.3} ms  {:>5.2}", time.as_secs_f64() * 1e3, time.as_secs_f64() / first);
    }
}

async fn page(store: &Arc<dyn Store>, partition: &str) -> Duration {
    let lease = grants(store, 1).await.remove(0);
    assert_eq!(&*lease.partition, partition);
    let request = PageRequest { lease: lease.clone(), after: None, limit: PAGE };
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let pages = store.page(std::slice::from_ref(&request)).await.unwrap();
        times.push(started.elapsed());
        assert_eq!(pages[0].items.len(), PAGE);
    }
    store.release(&[lease]).await.unwrap();
    median(times)
}

async fn claim(store: &Arc<dyn Store>, limit: usize) -> Duration {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let leases = grants(store, limit).await;
        assert_eq!(leases.len(), limit);
        store.release(&leases).await.unwrap();
        times.push(started.elapsed());
    }
    median(times)
}

async fn grants(store: &Arc<dyn Store>, limit: usize) -> Vec<Arc<Lease>> {
    let claim = Claim {
        owner: "bench".into(),
        feeds: vec!["default".into()],
        duration: Duration::from_secs(3600),
        limit,
        due_for: Duration::ZERO,
    };
    store.claim(&claim).await.unwrap().into_iter().map(|grant| grant.lease).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
