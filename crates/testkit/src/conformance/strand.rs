//! No lost wake-up, as a race: producers against an owner who goes idle, closes and advances.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use rand::{Rng, rngs::StdRng};

use super::{
    given::*,
    race::{RACE, STRANDED, dawdle},
    seed,
};

/// No lost wake-up: items that are committed while their partition goes idle, closes or
/// advances are found. Producers insert with plain SQL, on Postgres also under REPEATABLE READ.
pub async fn no_insert_is_stranded(db: TestDb) {
    inserts_against_checkpoints(db, false).await;
}

/// The same with an auto_close that is off: going idle instead of closing.
pub async fn no_insert_is_stranded_in_an_idle_partition(db: TestDb) {
    inserts_against_checkpoints(db, true).await;
}

async fn inserts_against_checkpoints(db: TestDb, stays_open: bool) {
    let mut rng = seed::rng("race::no_insert_is_stranded");
    let values: Vec<_> =
        (0..3).map(|n| format!("('p{n}', {})", if stays_open { "false" } else { "true" })).collect();
    db.run(&format!("INSERT INTO gatefeed_partitions (id, auto_close) VALUES {}", values.join(", "))).await;
    let until = Instant::now() + RACE;
    let mut producers = Vec::new();
    for n in 0..4 {
        let rng = rand::SeedableRng::seed_from_u64(rng.random());
        producers.push(tokio::spawn(produce(db.clone(), n, rng, until)));
    }
    let owners = ["w1", "w2"].map(|owner| tokio::spawn(own_until(db.clone(), owner, until)));
    let mut inserted = HashSet::new();
    while Instant::now() < until {
        assert_eq!(db.count(STRANDED).await, 0, "stranded during the race");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for producer in producers {
        inserted.extend(producer.await.unwrap());
    }
    let mut completed = 0;
    for owner in owners {
        completed += owner.await.unwrap();
    }
    assert_eq!(db.count(STRANDED).await, 0, "stranded after the race");
    completed += drain(&db.store(), "last").await;
    assert!(!inserted.is_empty());
    assert_eq!(completed, inserted.len(), "completed once each");
    let open =
        db.count("SELECT count(*) FROM gatefeed_items WHERE status <> 'complete' OR version <> 1").await;
    assert_eq!(open, 0);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, inserted.len() as i64);
}

/// Inserts one item after the other, sometimes in a long transaction; returns the ids that committed.
async fn produce(db: TestDb, producer: usize, mut rng: StdRng, until: Instant) -> Vec<String> {
    let mut committed = Vec::new();
    for n in 0.. {
        if Instant::now() >= until {
            break;
        }
        let id = format!("{producer}-{n}");
        let partition = rng.random_range(0..3);
        let gate = [0, 0, 0, 1, 3][rng.random_range(0..5)];
        let sql = format!(
            "INSERT INTO gatefeed_items (partition_id, id, gate) VALUES ('p{partition}', '{id}', {gate})"
        );
        let inserted = match rng.random_range(0..3) {
            0 => db.execute(&sql).await,
            isolation => insert_slowly(&db, &sql, isolation == 1, &mut rng).await,
        };
        match inserted {
            Ok(_) => committed.push(id),
            Err(error) if asks_again(&error) => {}
            Err(error) => panic!("{sql}: {error}"),
        }
        dawdle(&mut rng).await;
    }
    committed
}

/// A transaction that has read before it writes, and takes its time.
async fn insert_slowly(db: &TestDb, sql: &str, repeatable: bool, rng: &mut StdRng) -> Result<u64, String> {
    let mut tx = db.begin().await;
    if db.is_postgres() {
        let level = if repeatable { "REPEATABLE READ" } else { "READ COMMITTED" };
        tx.execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}")).await?;
        tx.execute("SELECT count(*) FROM gatefeed_partitions").await?;
        dawdle(rng).await;
    }
    let rows = tx.execute(sql).await?;
    dawdle(rng).await;
    tx.commit().await?;
    Ok(rows)
}

/// Serialization failures, deadlocks, and SQLite's lock.
fn asks_again(error: &str) -> bool {
    ["40001", "40P01", "locked"].iter().any(|sign| error.contains(sign))
}

/// Claims, completes and checkpoints; returns how many items were completed.
async fn own_until(db: TestDb, owner: &'static str, until: Instant) -> usize {
    let store = db.another_store().await;
    let mut completed = 0;
    while Instant::now() < until {
        for grant in claim(&store, owner, 2).await {
            completed += drain_lease(&store, &grant.lease).await;
        }
        tokio::task::yield_now().await;
    }
    completed
}
