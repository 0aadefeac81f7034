//! The SQL contract: what a plain INSERT may not do.

use super::given::*;

/// Values that would make a partition unusable are refused.
pub async fn bad_partitions_are_refused(db: TestDb) {
    let long = "é".repeat(257);
    let bad = [
        ("id", "''"),
        ("id", "NULL"),
        ("id", "'line\nbreak'"),
        ("id", "'del\u{7f}'"),
        ("id", "'c1\u{85}'"),
        ("id", &format!("'{long}'")),
        ("feed", "''"),
        ("feed", "'tab\t'"),
        ("feed", "NULL"),
        ("status", "'running'"),
        ("status", "NULL"),
        ("gate", "-1"),
        ("gate", "'first'"),
        ("gate", "NULL"),
        ("priority", "'high'"),
        ("max_in_flight", "0"),
        ("max_in_flight", "-3"),
        ("failure_policy", "'101%'"),
        ("failure_policy", "'5.%'"),
        ("failure_policy", "'1.234%'"),
        ("failure_policy", "'-1'"),
        ("failure_policy", "'1000000000'"),
        ("failure_policy", "'10%%'"),
        ("failure_policy", "NULL"),
        ("auto_close", "NULL"),
        ("manual_checkpoint", "'maybe'"),
        ("epoch", "NULL"),
        ("next_run_at", "'soon'"),
    ];
    for (column, value) in bad {
        let sql = if column == "id" {
            format!("INSERT INTO gatefeed_partitions (id) VALUES ({value})")
        } else {
            format!("INSERT INTO gatefeed_partitions (id, {column}) VALUES ('p', {value})")
        };
        db.refused(&sql).await;
    }
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, 0);
    let longest = "x".repeat(512);
    db.run(&format!("INSERT INTO gatefeed_partitions (id, feed) VALUES ('{longest}', '{longest}')")).await;
}

/// Names and content types are UTF-8. What is, is taken, however odd.
pub async fn text_that_is_not_utf8_is_refused(db: TestDb) {
    let text = |hex: &str| match db.is_postgres() {
        true => format!("convert_from('\\x{hex}', 'UTF8')"),
        false => format!("CAST(x'{hex}' AS TEXT)"),
    };
    let partition = |id: &str| format!("INSERT INTO gatefeed_partitions (id) VALUES ({id})");
    let feed = |feed: &str| format!("INSERT INTO gatefeed_partitions (id, feed) VALUES ('other', {feed})");
    let item = |id: &str| format!("INSERT INTO gatefeed_items (partition_id, id) VALUES ('p', {id})");
    let kind =
        |kind: &str| format!("INSERT INTO gatefeed_items (partition_id, content_type) VALUES ('p', {kind})");
    let change =
        |table: &str, column: &str, text: &str| format!("UPDATE gatefeed_{table} SET {column} = {text}");
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    db.run("INSERT INTO gatefeed_items (partition_id, id) VALUES ('p', 'i')").await;
    // Latin-1 (the last byte of two is one of those that continue others), cut off, too long, a surrogate, too high.
    for hex in [
        "4dfc6c6c6572",
        "a7",
        "41b5",
        "c3a9e9a9",
        "e381",
        "c3",
        "c1bf",
        "c3a9a9",
        "e09fbf",
        "eda080",
        "f4908080",
    ] {
        let text = text(hex);
        let all = [partition(&text), feed(&text), item(&text), kind(&text)];
        let all = all
            .into_iter()
            .chain([change("partitions", "feed", &text), change("items", "content_type", &text)]);
        for sql in all {
            let message = db.refused(&sql).await;
            assert!(message.contains("not UTF-8") || db.is_postgres(), "{sql}: {message}");
        }
    }
    let taken =
        ["4dc3bc6c6c6572", "c2a0", "efbfbd", "efbfbdc2b5", "efbfbe", "efbfbf", "f09f9880", "f48fbfbf"];
    for hex in taken {
        let text = text(hex);
        db.run(&partition(&text)).await;
        db.run(&item(&text)).await;
        db.run(&kind(&text)).await;
        db.run(&change("partitions", "feed", &text)).await;
        db.run(&change("items", "content_type", &text)).await;
    }
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 1 + 2 * taken.len() as i64);
}

/// A lease is an owner, a lease id and an end, or nothing.
pub async fn half_a_lease_is_refused(db: TestDb) {
    let until = db.in_secs(60.0);
    let lease_id = "'00000000-0000-4000-8000-000000000001'";
    for (columns, values) in [
        ("owner", "'w'".to_owned()),
        ("lease_id", lease_id.to_owned()),
        ("until", until.clone()),
        ("owner, lease_id", format!("'w', {lease_id}")),
        ("owner, until", format!("'w', {until}")),
        ("lease_id, until", format!("{lease_id}, {until}")),
    ] {
        db.refused(&format!("INSERT INTO gatefeed_partitions (id, {columns}) VALUES ('p', {values})")).await;
    }
}

/// Values that would make an item undeliverable are refused.
pub async fn bad_items_are_refused(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    let long = "é".repeat(257);
    let bad = [
        ("id", "''"),
        ("id", "NULL"),
        ("id", "'line\nbreak'"),
        ("id", "'del\u{7f}'"),
        ("id", "'c1\u{9f}'"),
        ("id", &format!("'{long}'")),
        ("gate", "-1"),
        ("gate", "'first'"),
        ("status", "'in flight'"),
        ("status", "NULL"),
        ("priority", "NULL"),
        ("pass", "'x'"),
        ("available_at", "NULL"),
        ("available_at", "'soon'"),
        ("available_at", "'2024-13-01 00:00:00'"),
        ("available_at", "'2023-02-29 00:00:00'"),
        ("content_type", "''"),
        ("content_type", "'text/plain\nX-Injected: 1'"),
        ("data", "NULL"),
    ];
    for (column, value) in bad {
        db.refused(&format!("INSERT INTO gatefeed_items (partition_id, {column}) VALUES ('p', {value})"))
            .await;
    }
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 0);
    assert!(db.partition_is("p", "next_run_at IS NULL").await);
}

/// What only one of the databases would let through.
pub async fn bad_values_of_its_own_are_refused(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    let sqlite = [
        ("id", "'nul' || char(0) || 'inside'"),
        ("id", "x'61'"),
        ("gate", "1.5"),
        ("gate", "2147483648"),
        ("data", "17"),
        ("available_at", "'2024-01-01T00:00:00'"),
        ("available_at", "'2024-01-01 00:00:00Z'"),
        ("available_at", "'2024-01-01 00:00:00+01:00'"),
        ("available_at", "'2024-01-01'"),
        ("available_at", "'2024-01-01 24:00:00'"),
        ("available_at", "'2024-01-01 00:00'"),
        ("available_at", "'now'"),
        ("available_at", "1700000000"),
        ("available_at", "2460000.5"),
    ];
    let postgres = [("available_at", "'infinity'"), ("available_at", "'-infinity'"), ("gate", "2147483648")];
    let bad = if db.is_postgres() { &postgres[..] } else { &sqlite[..] };
    for (column, value) in bad {
        db.refused(&format!("INSERT INTO gatefeed_items (partition_id, {column}) VALUES ('p', {value})"))
            .await;
    }
    let timestamp = if db.is_postgres() { "infinity" } else { "2024-01-01T00:00:00" };
    db.refused(&format!("UPDATE gatefeed_partitions SET next_run_at = '{timestamp}'")).await;
    let good = "('p', 'a', '2024-02-29 23:59:59'), ('p', 'b', '2024-02-29 23:59:59.123')";
    db.run(&format!("INSERT INTO gatefeed_items (partition_id, id, available_at) VALUES {good}")).await;
}

/// An item without a partition would never be delivered: the whole statement is refused.
pub async fn a_missing_partition_is_refused(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    let error = db.refused("INSERT INTO gatefeed_items (partition_id) VALUES ('p'), ('nowhere')").await;
    assert!(error.contains("does not exist"), "{error}");
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 0);
    assert!(db.partition_is("p", "next_run_at IS NULL").await);
}

/// What an operator has ended takes nothing more.
pub async fn a_cancelled_partition_is_refused(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id, status) VALUES ('p', 'available'), ('c', 'cancelled')")
        .await;
    let error = db.refused("INSERT INTO gatefeed_items (partition_id) VALUES ('p'), ('c')").await;
    assert!(error.contains("cancelled"), "{error}");
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 0);
}

/// Names stand in leases, handlers and logs: they do not change under a row.
pub async fn names_do_not_change(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p'), ('q')").await;
    db.run("INSERT INTO gatefeed_items (partition_id, id) VALUES ('p', 'i')").await;
    db.refused("UPDATE gatefeed_partitions SET id = 'other' WHERE id = 'p'").await;
    db.refused("UPDATE gatefeed_items SET partition_id = 'q'").await;
}

/// Nor does it get past what an operator has done meanwhile.
pub async fn an_old_snapshot_does_not_pass_a_cancellation(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        push(&db.store(), level, &[("i", 0)]).await;
        let mut producer = db.begin().await;
        producer.execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}")).await.unwrap();
        producer.execute("SELECT count(*) FROM gatefeed_partitions").await.unwrap();
        let cancel = format!("UPDATE gatefeed_partitions SET status = 'cancelled' WHERE id = '{level}'");
        assert_eq!(db.run(&cancel).await, 1);
        let insert = format!("INSERT INTO gatefeed_items (partition_id, id) VALUES ('{level}', 'late')");
        let error = producer.execute(&insert).await.expect_err(level);
        assert!(error.contains("cancelled") || error.starts_with("40001"), "{level}: {error}");
        producer.rollback().await;
    }
}
