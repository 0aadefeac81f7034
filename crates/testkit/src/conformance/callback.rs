//! Callbacks: an item waits for an answer that comes later, and through whatever process it comes, once is all.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use gatefeed_core::{
    Store, StoreError,
    answer::{Answer, Child, Failure, Verdict},
    callback::{Callback, CalledBack, Heartbeat, Refusal, TIMED_OUT, Ticket},
    dependency::Dependencies,
    item::{Data, DueItem, ItemStatus, NewItem},
    lease::Lease,
    nested::Nested,
    outcome::{Completion, Settled, decide},
    partition::{NewPartition, PartitionStatus},
    retry::RetryPolicy,
    store::{Checkpointed, RetryFilter},
};

use super::{
    given::*,
    race::{RACE, dawdle},
    renew::forgeries,
    seed,
};

/// How long items of these tests wait, unless they are about that.
const HOUR: Duration = Duration::from_secs(3600);

/// What goes with the delivery of an item of "p".
pub(super) fn ticket(item: &DueItem, timeout: Duration) -> Ticket {
    Ticket {
        partition: "p".into(),
        item: item.id.clone(),
        version: item.version,
        born: item.born,
        timeout,
        retry: RetryPolicy::default(),
        max_answer: 1024,
    }
}

/// The outcome of a handler that says: later.
pub(super) fn later(lease: &Arc<Lease>, item: &DueItem, within: Duration) -> Completion {
    let verdict = Ok(Answer::by_callback(within));
    let (change, ..) = decide("p", item, verdict, &RetryPolicy::default(), 0.5);
    completion(lease, item, change)
}

/// The outcome of an item whose time is over, as its owner makes it.
fn timed_out(lease: &Arc<Lease>, item: &DueItem) -> Completion {
    let verdict = Err(Failure::new(TIMED_OUT));
    let (change, ..) = decide("p", item, verdict, &RetryPolicy::default(), 0.0);
    completion(lease, item, change)
}

/// The items of "p", leased by "w", of which the first waits for its callback: its ticket.
async fn parked(db: &TestDb, items: &[(&str, i32)], within: Duration) -> (Arc<Lease>, Ticket) {
    let (lease, due) = leased(db, "p", items).await;
    park(&db.store(), &lease, &due[0], within).await;
    (lease, ticket(&due[0], within))
}

async fn park(store: &Arc<dyn Store>, lease: &Arc<Lease>, item: &DueItem, within: Duration) {
    let settled = complete_patiently(store, &[later(lease, item, within)]).await;
    assert_eq!(settled, [Settled::Written]);
}

async fn answer(store: &Arc<dyn Store>, ticket: &Ticket, verdict: Verdict) -> CalledBack {
    let callback = Callback { ticket: ticket.clone(), verdict, jitter: 0.5 };
    patiently(|| store.call_back(&callback)).await
}

pub(super) async fn done_by(store: &Arc<dyn Store>, ticket: &Ticket) -> CalledBack {
    answer(store, ticket, Ok(Answer::done())).await
}

pub(super) const DONE: CalledBack = CalledBack::Written { status: ItemStatus::Complete, gate: 0 };
const USED: CalledBack = CalledBack::Refused(Refusal::Used);
const EXPIRED: CalledBack = CalledBack::Refused(Refusal::Expired);

/// What is overdue of one partition.
async fn overdue(store: &Arc<dyn Store>, lease: &Arc<Lease>) -> Vec<DueItem> {
    let mut all = patiently(|| store.overdue(std::slice::from_ref(lease), 100)).await;
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// Waits until something is.
async fn until_overdue(store: &Arc<dyn Store>, lease: &Arc<Lease>) -> Vec<DueItem> {
    loop {
        let items = overdue(store, lease).await;
        if !items.is_empty() {
            return items;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All processes sign and read alike, and no other database does.
pub async fn a_key_is_made_once(db: TestDb) {
    let (_, due) = leased(&db, "p", &[("i", 0)]).await;
    let ticket = ticket(&due[0], HOUR);
    let (one, other) = (db.store(), db.another_store().await);
    let keys = tokio::join!(patiently(|| one.callback_key()), patiently(|| other.callback_key()));
    let token = keys.0.sign(&ticket);
    assert_eq!(keys.1.read(&token), Some(ticket.clone()));
    assert_eq!(patiently(|| other.callback_key()).await.sign(&ticket), token);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_keys WHERE name = 'callbacks'").await, 1);
    db.run("DELETE FROM gatefeed_keys").await;
    assert_eq!(one.callback_key().await.unwrap().read(&token), None, "a new key");
}

/// An operator may change what waits; only one that takes it out of that state ends the wait.
pub async fn what_is_changed_while_it_waits_goes_on_waiting(db: TestDb) {
    let store = db.store();
    let (_, ticket) = parked(&db, &[("i", 0)], HOUR).await;
    for change in ["priority = 5", "gate = 2", "data = '{}'", "pass = 7", "error_messages = 'x'"] {
        db.run(&format!("UPDATE gatefeed_items SET {change}")).await;
    }
    assert!(matches!(patiently(|| store.heartbeat(&ticket)).await, Heartbeat::Extended(_)));
    assert!(matches!(done_by(&store, &ticket).await, CalledBack::Written { .. }));
}

/// Moved by hand, and then its time is over: it fails where it is now.
pub async fn what_was_moved_while_it_waited_stays_there(db: TestDb) {
    let store = db.store();
    let (lease, _) = parked(&db, &[("i", 0)], Duration::ZERO).await;
    let seen = until_overdue(&store, &lease).await;
    db.run("UPDATE gatefeed_items SET gate = 2, pass = 7").await;
    let settled = complete_patiently(&store, &[timed_out(&lease, &seen[0])]).await;
    assert_eq!(settled, [Settled::Written]);
    let is = "status = 'available' AND gate = 2 AND pass = 7 AND retry_count = 1";
    assert!(db.item_is("p", "i", is).await);
}

/// Ended by hand.
pub async fn what_is_ended_while_it_waits_takes_no_callback(db: TestDb) {
    let (_, ticket) = parked(&db, &[("i", 0)], HOUR).await;
    db.run("UPDATE gatefeed_items SET status = 'cancelled'").await;
    assert_eq!(done_by(&db.store(), &ticket).await, USED);
    assert!(db.item_is("p", "i", "status = 'cancelled'").await);
}

/// Nothing of it changes but that it waits, and until when; its partition sleeps until then.
pub async fn an_item_waits_as_it_is(db: TestDb) {
    let store = db.store();
    let (lease, ticket) = parked(&db, &[("i", 0)], HOUR).await;
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.status, row.gate, row.pass, row.retry_count), (ItemStatus::Waiting, 0, 0, 0));
    assert_eq!((row.version, row.data.as_deref()), (ticket.version + 1, Some(&b"{\"id\":\"i\"}"[..])));
    let when = format!("waiting_until BETWEEN {} AND {}", db.in_secs(3500.0), db.in_secs(3600.0));
    assert!(db.item_is("p", "i", &when).await);
    assert!(due_ids(&store, &lease).await.is_empty());
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Slept);
    let sleeper = partition(&store, "p").await;
    assert_eq!((sleeper.owner, sleeper.next_run_at), (None, row.waiting_until));
    let facts = store.why("p", Some("i")).await.unwrap();
    assert_eq!(facts.item.unwrap().waiting_until, row.waiting_until);
    assert!(!store.idleness(&["default".to_owned()]).await.unwrap().idle);
}

/// Through any process: data, pass and gate become what they would have become at once, and the partition goes on.
pub async fn an_answer_that_comes_later(db: TestDb) {
    let (lease, ticket) = parked(&db, &[("i", 0)], HOUR).await;
    let store = db.another_store().await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Slept);
    let verdict = Ok(Answer::to_gate(1).with_data(Data::json("\"new\"")));
    let written = answer(&store, &ticket, verdict).await;
    assert_eq!(written, CalledBack::Written { status: ItemStatus::Available, gate: 1 });
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.gate, row.pass, row.data.as_deref()), (1, 1, Some(&b"\"new\""[..])));
    assert_eq!((row.waiting_until, row.version), (None, ticket.version + 2));
    let again = super::given::lease(&store, "v", "p").await;
    assert_eq!(checkpoint(&store, &again).await, Checkpointed::Advanced(1));
    assert_eq!(drain_lease(&store, &again).await, 1);
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Complete);
}

/// Then it is done with, and what its owner writes afterwards changes nothing.
pub async fn it_may_come_before_the_item_waits(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    let ticket = ticket(&due[0], HOUR);
    assert_eq!(store.heartbeat(&ticket).await.unwrap(), Heartbeat::InFlight);
    assert_eq!(done_by(&store, &ticket).await, DONE);
    let late = later(&lease, &due[0], HOUR);
    assert_eq!(complete_patiently(&store, &[late]).await, [Settled::Stale]);
    assert!(db.item_is("p", "i", "status = 'complete' AND waiting_until IS NULL").await);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Closed);
}

/// The same answer again is told that it is not the first.
pub async fn once_is_all(db: TestDb) {
    let store = db.store();
    let (_, ticket) = parked(&db, &[("i", 0)], HOUR).await;
    assert_eq!(done_by(&store, &ticket).await, DONE);
    assert_eq!(done_by(&store, &ticket).await, USED);
    assert_eq!(store.heartbeat(&ticket).await.unwrap(), Heartbeat::Refused(Refusal::Used));
    let elsewhere = Ticket { partition: "q".into(), ..ticket.clone() };
    assert_eq!(done_by(&store, &elsewhere).await, USED);
    assert_eq!(store.heartbeat(&elsewhere).await.unwrap(), Heartbeat::Refused(Refusal::Used));
    assert!(db.item_is("p", "i", &format!("version = {}", ticket.version + 2)).await);
}

/// A token is for one attempt. That goes for one which was answered at once, too.
pub async fn another_attempt_takes_no_earlier_token(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    let first = ticket(&due[0], HOUR);
    let failed =
        answer(&store, &first, Err(Failure { retry_after: Some(Duration::ZERO), ..Failure::new("no") }));
    assert_eq!(failed.await, CalledBack::Written { status: ItemStatus::Available, gate: 0 });
    let again = super::given::due(&store, &lease).await.remove(0);
    assert_eq!(again.retry_count, 1);
    assert_eq!(done_by(&store, &first).await, USED);
    park(&store, &lease, &again, HOUR).await;
    assert_eq!(done_by(&store, &first).await, USED);
    assert_eq!(done_by(&store, &ticket(&again, HOUR)).await, DONE);
}

/// One that was removed and made again, as rewinds and people do, begins with the same version.
pub async fn another_item_of_the_same_name(db: TestDb) {
    let store = db.store();
    let (_, ticket) = parked(&db, &[("i", 0)], HOUR).await;
    db.run("DELETE FROM gatefeed_items").await;
    assert_eq!(done_by(&store, &ticket).await, USED);
    let insert = "INSERT INTO gatefeed_items (partition_id, id, status, waiting_until, version, created_at)";
    let (until, born) = (db.in_secs(60.0), db.in_secs(1.0));
    db.run(&format!("{insert} VALUES ('p', 'i', 'waiting', {until}, 1, {born})")).await;
    assert_eq!(done_by(&store, &ticket).await, USED);
    assert_eq!(store.heartbeat(&ticket).await.unwrap(), Heartbeat::Refused(Refusal::Used));
}

/// The attempt has failed, and a callback that comes then is told so, before its owner has written that and after it.
pub async fn an_item_that_waits_too_long(db: TestDb) {
    let store = db.store();
    let (lease, ticket) = parked(&db, &[("i", 0)], Duration::from_millis(1)).await;
    let mut items = until_overdue(&store, &lease).await;
    let item = items.remove(0);
    assert_eq!((&*item.id, item.version, item.retry_count), ("i", ticket.version + 1, 0));
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Overdue);
    assert_eq!(done_by(&store, &ticket).await, EXPIRED);
    assert_eq!(store.heartbeat(&ticket).await.unwrap(), Heartbeat::Refused(Refusal::Expired));
    let outcome = timed_out(&lease, &item);
    assert_eq!(complete_patiently(&store, std::slice::from_ref(&outcome)).await, [Settled::Written]);
    assert_eq!(complete_patiently(&store, &[outcome]).await, [Settled::Stale]);
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.status, row.retry_count, row.pass), (ItemStatus::Available, 1, 0));
    assert_eq!((row.waiting_until, row.error_messages.as_deref()), (None, Some(TIMED_OUT)));
    assert_eq!(done_by(&store, &ticket).await, EXPIRED);
    assert_eq!(store.heartbeat(&ticket).await.unwrap(), Heartbeat::Refused(Refusal::Expired));
    assert!(overdue(&store, &lease).await.is_empty());
    let again = due(&store, &lease).await.remove(0);
    assert_eq!(
        complete_patiently(&store, &[completion(&lease, &again, done(&again))]).await,
        [Settled::Written]
    );
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Closed);
}

/// A watcher reads some at a time, and only of what it holds and may work on. Items that wait for partitions, or for
/// longer, are not among them.
pub async fn what_is_overdue_is_bounded_and_fenced(db: TestDb) {
    let store = db.store();
    let (lease, due) = leased(&db, "p", &[("a", 0), ("b", 0), ("c", 0), ("d", 0)]).await;
    for item in &due[..2] {
        park(&store, &lease, item, Duration::ZERO).await;
    }
    park(&store, &lease, &due[2], HOUR).await;
    let waits = completion(&lease, &due[3], with_status(&due[3], ItemStatus::Waiting));
    assert_eq!(complete_patiently(&store, &[waits]).await, [Settled::Written]);
    let read = |lease: Arc<Lease>, limit| {
        let store = store.clone();
        async move { patiently(|| store.overdue(std::slice::from_ref(&lease), limit)).await.remove(0).len() }
    };
    while read(lease.clone(), 100).await < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(read(lease.clone(), 100).await, 2);
    assert_eq!(read(lease.clone(), 1).await, 1);
    for forgery in forgeries(&lease) {
        assert_eq!(read(forgery, 100).await, 0);
    }
    // The limit is one for all.
    let (other, more) = leased(&db, "q", &[("a", 0), ("b", 0)]).await;
    for item in &more {
        park(&store, &other, item, Duration::ZERO).await;
    }
    while read(other.clone(), 100).await < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let both = [lease.clone(), other];
    for (limit, expected) in [(3, 3), (100, 4)] {
        let found = patiently(|| store.overdue(&both, limit)).await;
        assert_eq!(found.iter().map(Vec::len).sum::<usize>(), expected);
        assert!(found.len() == 2 && found.iter().all(|items| !items.is_empty()));
    }
    store.pause("p").await.unwrap();
    assert_eq!(read(lease.clone(), 100).await, 0, "while it is paused nothing becomes of it");
    let two = [lease.clone(), lease];
    assert_eq!(store.overdue(&two, 100).await.unwrap().len(), 2);
    assert!(store.overdue(&[], 100).await.unwrap().is_empty());
}

/// Whoever claims it then settles that: its owner may be dead.
pub async fn a_sleeper_wakes_when_an_items_time_is_over(db: TestDb) {
    let store = db.store();
    let (lease, _) = parked(&db, &[("i", 0)], Duration::from_millis(600)).await;
    let step = store.checkpoint(std::slice::from_ref(&lease), Duration::ZERO).await.unwrap();
    assert!(matches!(step[..], [Checkpointed::Slept | Checkpointed::Overdue]), "{step:?}");
    if step == [Checkpointed::Overdue] {
        store.release(&[lease]).await.unwrap();
    }
    let mut granted = claim(&store, "v", 10).await;
    while granted.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        granted = claim(&store, "v", 10).await;
    }
    assert_eq!(until_overdue(&store, &granted[0].lease).await.len(), 1);
}

/// It extends the time and nothing else, and never shortens it.
pub async fn a_heartbeat_extends(db: TestDb) {
    let store = db.store();
    let (_, ticket) = parked(&db, &[("i", 0)], Duration::from_secs(60)).await;
    let before = item_row(&store, "p", "i").await;
    let longer = Ticket { timeout: HOUR, ..ticket.clone() };
    let Heartbeat::Extended(until) = store.heartbeat(&longer).await.unwrap() else { panic!("not extended") };
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.waiting_until, row.version), (Some(until), before.version));
    assert!(row.waiting_until > before.waiting_until);
    assert_eq!(store.heartbeat(&ticket).await.unwrap(), Heartbeat::Extended(until), "not shortened");
    assert_eq!(done_by(&store, &ticket).await, DONE);
}

/// Between the look and the outcome that its time is over a heartbeat may come: who was told of more time has it.
pub async fn what_was_extended_has_not_waited_for_too_long(db: TestDb) {
    let store = db.store();
    let (lease, _) = parked(&db, &[("i", 0)], Duration::from_millis(20)).await;
    let overdue = until_overdue(&store, &lease).await.remove(0);
    let later = db.in_secs(60.0);
    db.run(&format!("UPDATE gatefeed_items SET waiting_until = {later}")).await;
    let outcome = || completion(&lease, &overdue, with_status(&overdue, ItemStatus::Failed));
    assert_eq!(complete_patiently(&store, &[outcome()]).await, [Settled::Stale]);
    assert_eq!(item_row(&store, "p", "i").await.status, ItemStatus::Waiting);
    let past = db.in_secs(-1.0);
    db.run(&format!("UPDATE gatefeed_items SET waiting_until = {past}")).await;
    assert_eq!(complete_patiently(&store, &[outcome()]).await, [Settled::Written]);
    assert_eq!(item_row(&store, "p", "i").await.status, ItemStatus::Failed);
}

/// Whatever a program asks for: no item waits longer than a year, and none for ever.
pub async fn no_time_is_too_long(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("a", 0), ("b", 0)]).await;
    let store = db.store();
    let a_year = |moment: Option<DateTime<Utc>>, since: DateTime<Utc>| {
        let days = (moment.unwrap() - since).num_days();
        assert!((365..=367).contains(&days), "{moment:?}");
    };
    park(&store, &lease, &due[0], Duration::MAX).await;
    let row = item_row(&store, "p", "a").await;
    a_year(row.waiting_until, row.created_at);
    let ticket = ticket(&due[0], Duration::MAX);
    let Heartbeat::Extended(until) = store.heartbeat(&ticket).await.unwrap() else { panic!("not extended") };
    a_year(Some(until), row.created_at);
    let verdict = Err(Failure::delayed("later", Some(Duration::MAX)));
    let (change, ..) = decide("p", &due[1], verdict.clone(), &RetryPolicy::default(), 0.0);
    let settled = complete_patiently(&store, &[completion(&lease, &due[1], change)]).await;
    assert_eq!(settled, [Settled::Written]);
    assert!(matches!(answer(&store, &ticket, verdict).await, CalledBack::Written { .. }));
    for id in ["a", "b"] {
        let row = item_row(&store, "p", id).await;
        a_year(Some(row.available_at), row.created_at);
    }
}

fn child(id: &str, depends_on: &[&str]) -> Child {
    Child {
        id: Some(id.to_owned()),
        gate: None,
        priority: 0,
        partition: None,
        data: Data::json("1"),
        dependencies: Dependencies::on(depends_on.to_vec()),
        gather: None,
    }
}

/// In the same transaction, as with an answer that comes at once; the item may then wait for partitions.
pub async fn children_and_partitions_come_with_it(db: TestDb) {
    let store = db.store();
    let (_, ticket) = parked(&db, &[("i", 0)], HOUR).await;
    let elsewhere = Child { partition: Some("elsewhere".into()), ..child("there", &[]) };
    let nested = Nested { id: Some("inside".into()), feed: None, items: vec![child("c", &[])] };
    let verdict = Answer::done().with_item(child("a", &[])).with_item(elsewhere).with_partition(nested);
    let written = answer(&store, &ticket, Ok(verdict)).await;
    assert_eq!(written, CalledBack::Written { status: ItemStatus::Waiting, gate: 0 });
    assert!(db.item_is("p", "i", "status = 'waiting' AND waiting_until IS NULL AND pass = 1").await);
    assert_eq!(done_by(&store, &ticket).await, USED, "it waits for something else now");
    assert_eq!(item_ids(&store, "p").await, ["a", "i"]);
    assert!(db.item_is("p", "a", "creator_id = 'i'").await);
    assert_eq!(item_ids(&store, "elsewhere").await, ["there"]);
    assert_eq!(partition(&store, "inside").await.parent_item_id.as_deref(), Some("i"));
}

/// What depends on the item is due with its callback.
pub async fn dependents_come_free(db: TestDb) {
    let store = db.store();
    let dependent = NewItem { dependencies: Dependencies::on(vec!["i"]), ..item("p", "next", 0) };
    store.push(&NewPartition::new("p"), &[item("p", "i", 0), dependent]).await.unwrap();
    let lease = lease(&store, "w", "p").await;
    let first = due(&store, &lease).await.remove(0);
    park(&store, &lease, &first, HOUR).await;
    assert!(due_ids(&store, &lease).await.is_empty());
    assert_eq!(done_by(&store, &ticket(&first, HOUR)).await, DONE);
    assert_eq!(due_ids(&store, &lease).await, ["next"]);
}

/// Nothing of it is written, and the handler may send a better one.
pub async fn what_is_refused_leaves_the_token_good(db: TestDb) {
    let store = db.store();
    let (_, ticket) = parked(&db, &[("i", 0)], HOUR).await;
    let bad = Answer::done().with_item(child("a", &[])).with_item(child("b", &["nobody"]));
    let callback = Callback { ticket: ticket.clone(), verdict: Ok(bad), jitter: 0.5 };
    let refused = store.call_back(&callback).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Data(why) if why.contains("nobody")), "{refused}");
    assert_eq!(item_ids(&store, "p").await, ["i"]);
    assert!(db.item_is("p", "i", "status = 'waiting' AND waiting_until IS NOT NULL").await);
    assert_eq!(done_by(&store, &ticket).await, DONE);
}

/// Whoever takes the call does not know the watcher's settings.
pub async fn failed_attempts_follow_the_ticket(db: TestDb) {
    let store = db.store();
    let (lease, due) = leased(&db, "p", &[("a", 0), ("b", 0), ("c", 0)]).await;
    let once = RetryPolicy { max_retries: Some(0), ..RetryPolicy::default() };
    let once = Ticket { retry: once, ..ticket(&due[0], HOUR) };
    let last = answer(&store, &once, Err(Failure::new("boom"))).await;
    assert_eq!(last, CalledBack::Written { status: ItemStatus::Failed, gate: 0 });
    let slow = RetryPolicy { base: HOUR, cap: HOUR, max_retries: None };
    let slow = Ticket { retry: slow, ..ticket(&due[1], HOUR) };
    answer(&store, &slow, Err(Failure::new("boom"))).await;
    let row = item_row(&store, "p", "b").await;
    assert_eq!((row.status, row.retry_count), (ItemStatus::Available, 1));
    assert_eq!(row.error_messages.as_deref(), Some("boom"));
    let when = format!("available_at BETWEEN {} AND {}", db.in_secs(1700.0), db.in_secs(1800.0));
    assert!(db.item_is("p", "b", &when).await);
    let gone = answer(&store, &ticket(&due[2], HOUR), Err(Failure::final_("gone"))).await;
    assert_eq!(gone, CalledBack::Written { status: ItemStatus::Failed, gate: 0 });
    assert!(due_ids(&store, &lease).await.is_empty());
}

/// Pausing sends nothing more, but what is under way ends. A failed partition is somebody's to decide about: until then
/// the token stays good.
pub async fn paused_partitions_take_it_and_failed_ones_do_not(db: TestDb) {
    let store = db.store();
    let (lease, due) = leased(&db, "p", &[("a", 0), ("b", 0), ("c", 0)]).await;
    for item in &due[..2] {
        park(&store, &lease, item, HOUR).await;
    }
    store.pause("p").await.unwrap();
    assert_eq!(done_by(&store, &ticket(&due[0], HOUR)).await, DONE);
    assert!(db.partition_is("p", "status = 'paused' AND next_run_at IS NOT NULL").await);
    for status in [PartitionStatus::Failed, PartitionStatus::Complete] {
        db.run(&format!("UPDATE gatefeed_partitions SET status = '{}'", status.as_str())).await;
        let closed = CalledBack::Refused(Refusal::Closed(status));
        assert_eq!(done_by(&store, &ticket(&due[1], HOUR)).await, closed);
        assert_eq!(done_by(&store, &ticket(&due[2], HOUR)).await, closed, "in flight");
    }
    assert!(db.item_is("p", "b", "status = 'waiting' AND waiting_until IS NOT NULL").await);
    db.run("UPDATE gatefeed_partitions SET status = 'available'").await;
    assert_eq!(done_by(&store, &ticket(&due[1], HOUR)).await, DONE);
}

/// What an operator has decided about the item counts.
pub async fn cancelled_and_rewound_ones_do_not(db: TestDb) {
    let store = db.store();
    let keeping = NewPartition { keep_history: true, ..NewPartition::new("p") };
    push_to(&store, &keeping, &[("i", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    let first = due(&store, &lease).await.remove(0);
    park(&store, &lease, &first, HOUR).await;
    store.rewind("p", 0).await.unwrap();
    assert!(db.item_is("p", "i", "status = 'available' AND waiting_until IS NULL").await);
    assert_eq!(done_by(&store, &ticket(&first, HOUR)).await, USED);
    let again = super::given::lease(&store, "w", "p").await;
    let second = due(&store, &again).await.remove(0);
    park(&store, &again, &second, HOUR).await;
    assert_eq!(store.cancel("p").await.unwrap(), 1);
    assert!(db.item_is("p", "i", "status = 'cancelled' AND waiting_until IS NULL").await);
    assert_eq!(done_by(&store, &ticket(&second, HOUR)).await, USED);
}

/// Retrying is for failed items: one that waits has not failed yet.
pub async fn a_retry_leaves_what_waits_alone(db: TestDb) {
    let store = db.store();
    let (_, ticket) = parked(&db, &[("i", 0)], HOUR).await;
    let this = RetryFilter { item: Some("i".into()), gate: None };
    assert_eq!(store.retry("p", &this).await.unwrap(), 0);
    assert_eq!(store.retry("p", &RetryFilter::default()).await.unwrap(), 0);
    assert_eq!(done_by(&store, &ticket).await, DONE);
}

/// For a rewind to the gate at which it waited.
pub async fn what_it_replaces_is_kept(db: TestDb) {
    let store = db.store();
    let keeping = NewPartition { keep_history: true, ..NewPartition::new("p") };
    push_to(&store, &keeping, &[("i", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    let first = due(&store, &lease).await.remove(0);
    park(&store, &lease, &first, HOUR).await;
    let verdict = Ok(Answer::to_gate(1).with_data(Data::json("\"new\"")));
    answer(&store, &ticket(&first, HOUR), verdict).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1));
    store.rewind("p", 0).await.unwrap();
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.gate, row.data.as_deref()), (0, Some(&b"{\"id\":\"i\"}"[..])));
}

/// Somebody's open transaction does not swallow a callback: it says that it was not taken.
pub async fn a_locked_partition_is_told(db: TestDb) {
    let store = db.store();
    let (_, ticket) = parked(&db, &[("i", 0)], HOUR).await;
    let mut other = db.begin().await;
    other.execute("UPDATE gatefeed_partitions SET priority = 1").await.unwrap();
    let callback = Callback { ticket: ticket.clone(), verdict: Ok(Answer::done()), jitter: 0.5 };
    let told = promptly("a callback", store.call_back(&callback)).await.unwrap_err();
    assert!(told.is_retryable(), "{told}");
    other.rollback().await;
    assert_eq!(done_by(&store, &ticket).await, DONE);
}

/// However many processes take it, one outcome is written.
pub async fn of_many_at_once_one_is_written(db: TestDb) {
    let (_, ticket) = parked(&db, &[("i", 0)], HOUR).await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (store, ticket) = (db.another_store().await, ticket.clone());
        let verdict = Ok(Answer::done().with_item(child(&format!("made by {n}"), &[])));
        calls.spawn(async move { answer(&store, &ticket, verdict).await });
    }
    let all = calls.join_all().await;
    assert_eq!(all.iter().filter(|called| **called == DONE).count(), 1, "{all:?}");
    assert_eq!(all.iter().filter(|called| **called == USED).count(), 7, "{all:?}");
    assert_eq!(item_ids(&db.store(), "p").await.len(), 2, "the children of one");
}

/// A callback at the very end of an item's time is its outcome, or the owner's failed attempt is: never both, and never
/// neither.
pub async fn callbacks_against_timeouts(db: TestDb) {
    let mut rng = seed::rng("callback::callbacks_against_timeouts");
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    let until = Instant::now() + RACE;
    let mut in_time = 0;
    while Instant::now() < until {
        let item = due(&store, &lease).await.remove(0);
        let ticket = ticket(&item, Duration::from_millis(3));
        park(&store, &lease, &item, ticket.timeout).await;
        let call = {
            let (db, ticket) = (db.clone(), ticket.clone());
            tokio::spawn(async move { done_by(&db.store(), &ticket).await })
        };
        dawdle(&mut rng).await;
        let mut settled = Settled::Stale;
        while db.item_is("p", "i", "status = 'waiting'").await {
            for item in overdue(&store, &lease).await {
                settled = complete_patiently(&store, &[timed_out(&lease, &item)]).await[0];
            }
        }
        let called = call.await.unwrap();
        match settled {
            Settled::Written => assert_eq!(called, EXPIRED),
            _ => assert_eq!(called, DONE),
        }
        in_time += i32::from(called == DONE);
        let attempts = if called == DONE { "status = 'complete'" } else { "status = 'available'" };
        assert!(db.item_is("p", "i", attempts).await);
        let past = db.in_secs(-1.0);
        db.run(&format!(
            "UPDATE gatefeed_items SET status = 'available', retry_count = 0, version = version + 1, available_at = {past}"
        ))
        .await;
    }
    eprintln!("{in_time} callbacks came in time");
}
