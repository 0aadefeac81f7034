//! The pure code that runs once an item: reading an answer, deciding what it comes to, the idempotency key.
//!
//! ```sh
//! cargo bench -p gatefeed-core --bench decisions
//! ```

#![allow(missing_docs, reason = "criterion's macros make public functions without")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gatefeed_core::{
    answer::{Answer, Failure, parse},
    id::{JSON, idempotency_key},
    item::DueItem,
    outcome::decide,
    retry::RetryPolicy,
};

fn item() -> DueItem {
    DueItem {
        id: "page-000000001".into(),
        gate: 0,
        pass: 0,
        retry_count: 0,
        suspect_count: 0,
        version: 1,
        content_type: JSON.into(),
        size: 100,
        data: None,
        error_messages: None,
        gather: None,
        born: 0,
        reference: None,
    }
}

fn answers(criterion: &mut Criterion) {
    let with_items = format!(
        r#"{{"gate": 1, "items": [{}]}}"#,
        [r#"{"id": "child", "gate": 1, "data": {"text": "some words of it"}}"#; 10].join(",")
    );
    let bodies = [
        ("empty object", "{}"),
        ("next gate", r#"{"gate": 1}"#),
        (
            "data",
            r#"{"data": {"score": 0.93, "words": ["one", "two", "three"], "id": 12345678901234567890}}"#,
        ),
        ("error", r#"{"error": {"message": "no such file", "no_retry": true}}"#),
        ("ten items", with_items.as_str()),
    ];
    for (name, body) in bodies {
        criterion
            .bench_function(&format!("answer: {name}"), |b| b.iter(|| parse(black_box(body.as_bytes()))));
    }
}

fn outcomes(criterion: &mut Criterion) {
    let (item, policy) = (item(), RetryPolicy::default());
    criterion.bench_function("outcome: done", |b| {
        b.iter(|| decide("folder/42", black_box(&item), Ok(Answer::done()), &policy, 0.5));
    });
    criterion.bench_function("outcome: a failed attempt", |b| {
        b.iter(|| decide("folder/42", black_box(&item), Err(Failure::new("no answer")), &policy, 0.5));
    });
    criterion.bench_function("idempotency key", |b| {
        b.iter(|| idempotency_key(black_box("folder/42"), black_box("page-000000001"), 0));
    });
}

criterion_group!(benches, answers, outcomes);
criterion_main!(benches);
