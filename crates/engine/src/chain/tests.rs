use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use gatefeed_core::{answer::Child, circuit::CircuitState, retry::RetryPolicy, share::PeerGroup};
use proptest::prelude::*;
use tokio::time::{advance, sleep};

use super::*;
use crate::step;

fn delivery(data: &str) -> Delivery {
    Delivery {
        feed: "f".into(),
        partition: "p".into(),
        item: "i".into(),
        gate: 2,
        pass: 1,
        attempt: 1,
        epoch: 7,
        content_type: "text/plain".into(),
        data: data.to_owned().into(),
        version: 1,
        born: 0,
        retry: RetryPolicy::default(),
        link: None,
        gathering: None,
    }
}

fn text(data: &[u8]) -> String {
    String::from_utf8(data.to_vec()).unwrap()
}

/// A step that adds a letter to what it gets, as JSON.
fn adds(letter: char) -> Step {
    step(move |delivery: Delivery| async move {
        Ok(Answer::done().with_data(Data::json(format!("{}{letter}", text(&delivery.data)))))
    })
}

fn fails(message: &'static str) -> Step {
    step(move |_| async move { Err(Failure::new(message)) })
}

fn as_it_is(reached: &Reached<'_>) -> Result<Data, Failure> {
    Ok(reached.data())
}

fn names(run: &ChainRun) -> Vec<&str> {
    run.steps.iter().map(|step| &*step.name).collect()
}

/// A step that never ends, and says when it is dropped.
fn hangs() -> (Step, Arc<AtomicU32>, Arc<AtomicU32>) {
    struct Dropped(Arc<AtomicU32>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (began, dropped) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counts = (began.clone(), dropped.clone());
    let step = step(move |_| {
        let (began, dropped) = counts.clone();
        async move {
            began.fetch_add(1, Ordering::SeqCst);
            let _dropped = Dropped(dropped);
            std::future::pending::<Verdict>().await
        }
    });
    (step, began, dropped)
}

#[tokio::test]
async fn a_bridge_turns_an_output_into_the_next_input() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inputs = seen.clone();
    let last = step(move |delivery: Delivery| {
        inputs.lock().unwrap().push((delivery.content_type.to_string(), text(&delivery.data)));
        let same = (delivery.idempotency_key(), delivery.gate, delivery.epoch);
        assert_eq!(same, (super::tests::delivery("").idempotency_key(), 2, 7));
        async { Ok(Answer::to_gate(5)) }
    });
    let chain = Chain::new(adds('a')).then(as_it_is, adds('b')).then(
        |reached: &Reached<'_>| {
            let parts =
                reached.runs.iter().map(|run| text(&run.verdict.clone().unwrap().data.unwrap().bytes));
            let all = parts.chain([text(&reached.delivery.data)]).collect::<Vec<_>>().join("|");
            Ok(Data { bytes: all.into(), content_type: "text/x".into() })
        },
        last,
    );
    assert_eq!(chain.process(delivery("x")).await, Ok(Answer::to_gate(5)));
    assert_eq!(*seen.lock().unwrap(), [("text/x".to_owned(), "xa|xab|x".to_owned())]);
}

#[tokio::test]
async fn data_that_no_step_gave_is_that_of_the_delivery() {
    let chain = Chain::new(step(async |_| Ok(Answer::done()))).then(as_it_is, adds('!'));
    assert_eq!(chain.process(delivery("x")).await.unwrap().data, Some(Data::json("x!")));
}

#[tokio::test]
async fn an_error_of_a_bridge_ends_the_chain_with_that_error() {
    let chain =
        Chain::new(adds('a')).then(|_: &Reached<'_>| Err(Failure::final_("no such colour")), adds('b'));
    let run = chain.run(&delivery("x")).await;
    assert_eq!((run.verdict.clone(), names(&run)), (Err(Failure::final_("no such colour")), vec!["step 1"]));
}

#[tokio::test(start_paused = true)]
async fn each_steps_response_and_time_are_kept() {
    let slow = |secs, letter| {
        let adds = adds(letter);
        step(move |delivery| {
            let adds = adds.clone();
            async move {
                sleep(Duration::from_secs(secs)).await;
                adds.run(delivery).await.verdict
            }
        })
    };
    let told = Arc::new(Mutex::new(None));
    let tell = told.clone();
    let chain = Chain::new(slow(2, 'a').name("fetch"))
        .then_all(as_it_is, [slow(5, 'b').name("store"), slow(3, 'c').name("tell")])
        .then(|reached: &Reached<'_>| Ok(reached.last[1].verdict.clone()?.data.unwrap()), slow(1, 'd'))
        .observe(move |of, run| *tell.lock().unwrap() = Some((of.item.to_string(), run.clone())));
    let run = chain.run(&delivery("x")).await;
    let kept: Vec<_> = run
        .steps
        .iter()
        .map(|s| (&*s.name, s.took.as_secs(), text(&s.verdict.clone().unwrap().data.unwrap().bytes)))
        .collect();
    let expected = [("fetch", 2, "xa"), ("store", 5, "xab"), ("tell", 3, "xac"), ("step 3", 1, "xacd")];
    assert_eq!(kept, expected.map(|(name, secs, data)| (name, secs, data.to_owned())));
    assert_eq!(run.took, Duration::from_secs(8), "the two ran at the same time");
    assert_eq!(*told.lock().unwrap(), Some(("i".to_owned(), run)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_ends_its_stage_and_drops_the_others() {
    let (hanging, began, dropped) = hangs();
    let chain = Chain::new(adds('a')).then_all(as_it_is, [hanging, fails("down").name("mail"), adds('c')]);
    let run = chain.run(&delivery("x")).await;
    assert_eq!(run.verdict, Err(Failure::new("mail: down")));
    assert!(names(&run).contains(&"mail") && !names(&run).contains(&"step 2.1"), "{run:?}");
    assert_eq!((began.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn cancellation_reaches_the_running_steps() {
    let ((one, began, dropped), (other, other_began, other_dropped)) = (hangs(), hangs());
    let chain = Chain::new(adds('a')).then_all(as_it_is, [one, other]);
    let mut running = Box::pin(chain.process(delivery("x")));
    assert!((&mut running).now_or_never().is_none());
    let counts = [&began, &other_began, &dropped, &other_dropped];
    assert_eq!(counts.map(|count| count.load(Ordering::SeqCst)), [1, 1, 0, 0]);
    drop(running);
    assert_eq!(counts.map(|count| count.load(Ordering::SeqCst)), [1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_takes_too_long_is_dropped_and_tried_again() {
    let (hanging, began, dropped) = hangs();
    let limit = Duration::from_secs(5);
    let run = Chain::new(hanging.timeout(limit).retry(2)).run(&delivery("x")).await;
    assert_eq!(run.verdict, Err(Failure::new("step 1: no answer within 5s")));
    assert_eq!(
        (began.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst), run.steps[0].attempts),
        (3, 3, 3)
    );
    assert!(run.took >= 3 * limit && run.took < 3 * limit + Duration::from_millis(310), "{:?}", run.took);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_succeeds_at_last_goes_on() {
    let tries = Arc::new(AtomicU32::new(0));
    let flaky = step(move |_| {
        let nth = tries.fetch_add(1, Ordering::SeqCst);
        async move { if nth < 2 { Err(Failure::new("not yet")) } else { Ok(Answer::to_gate(nth as i32)) } }
    });
    let run = Chain::new(flaky.retry(5)).run(&delivery("x")).await;
    assert_eq!((run.verdict, run.steps[0].attempts), (Ok(Answer::to_gate(2)), 3));
}

#[tokio::test(start_paused = true)]
async fn what_asks_for_time_or_does_not_count_waits_in_the_database() {
    let hour = Duration::from_secs(3600);
    for failure in [
        Failure::final_("never"),
        Failure::delayed("unreachable", None),
        Failure { retry_after: Some(hour), ..Failure::new("later") },
    ] {
        let expected = Failure { message: format!("step 1: {}", failure.message), ..failure.clone() };
        let chain = Chain::new(
            step(move |_| {
                let failure = failure.clone();
                async move { Err(failure) }
            })
            .retry(5),
        );
        let run = chain.run(&delivery("x")).await;
        assert_eq!((run.verdict, run.steps[0].attempts), (Err(expected), 1));
    }
}

#[tokio::test]
#[should_panic = "timeout of zero"]
async fn a_timeout_of_zero_is_refused() {
    _ = adds('a').timeout(Duration::ZERO);
}

#[tokio::test]
async fn answers_of_several_last_steps_are_put_together() {
    let child = |id: &str| Child {
        id: Some(id.to_owned()),
        gate: None,
        priority: 0,
        partition: None,
        data: Data::json("1"),
        dependencies: Default::default(),
        gather: None,
    };
    let with = |answer: Answer| {
        step(move |_| {
            let answer = answer.clone();
            async move { Ok(answer) }
        })
    };
    let (one, two) = (Answer::to_gate(3).with_item(child("1")), Answer::done().with_item(child("2")));
    let chain = Chain::new(adds('a')).then_all(as_it_is, [with(one.clone()), with(two), adds('b')]);
    let whole = Answer { data: Some(Data::json("xab")), ..one.with_item(child("2")) };
    assert_eq!(chain.process(delivery("x")).await, Ok(whole));

    let both_steer = Chain::new(with(Answer::done()))
        .then_all(as_it_is, [with(Answer::to_gate(1)), with(Answer::to_gate(1))]);
    let both_give = Chain::new(with(Answer::done())).then_all(as_it_is, [adds('a'), adds('b')]);
    for (chain, what) in [(both_steer, "where the item goes"), (both_give, "give data")] {
        let failure = chain.process(delivery("x")).await.unwrap_err();
        assert!(failure.no_retry && failure.message.contains(what), "{failure:?}");
    }
}

proptest! {
    /// However many steps fail how often: a chain runs each of them no more than once and its retries, in order, and none
    /// after one that has failed for good.
    #[test]
    fn no_step_runs_more_often_than_it_may(failures in prop::collection::vec(0u32..5, 1..6), retries in 0u32..4) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let steps = failures.iter().enumerate().map(|(place, &fails)| {
            let log = log.clone();
            step(move |_| {
                let mut log = log.lock().unwrap();
                log.push(place);
                let before = log.iter().filter(|ran| **ran == place).count() as u32;
                let verdict = if before <= fails { Err(Failure::new("x")) } else { Ok(Answer::done()) };
                async move { verdict }
            })
            .retry_policy(RetryPolicy { max_retries: Some(retries), ..RetryPolicy::default() })
        });
        let chain = steps.fold(None, |chain: Option<Chain>, step| Some(match chain {
            None => Chain::new(step),
            Some(chain) => chain.then(as_it_is, step),
        }));
        let run = runtime.block_on(chain.unwrap().run(&delivery("x")));
        let mut expected = Vec::new();
        for (place, &fails) in failures.iter().enumerate() {
            expected.extend(std::iter::repeat_n(place, fails.min(retries) as usize + 1));
            if fails > retries {
                break;
            }
        }
        prop_assert_eq!(&*log.lock().unwrap(), &expected);
        prop_assert_eq!(run.verdict.is_ok(), failures.iter().all(|fails| *fails <= retries));
        let attempts: u32 = run.steps.iter().map(|step| step.attempts).sum();
        prop_assert_eq!(attempts as usize, expected.len());
    }
}

/// A step that leaves targets alone, and is told of other watchers.
struct Limited {
    is_down: bool,
    circuits: Vec<Circuit>,
    told: Arc<Mutex<Vec<Peers>>>,
}

impl Processor for Limited {
    async fn process(&self, _: Delivery) -> Verdict {
        Ok(Answer::done())
    }

    fn is_down(&self, feed: &str) -> bool {
        self.is_down && feed == "f"
    }

    fn circuits(&self, _: &str) -> Vec<Circuit> {
        self.circuits.clone()
    }

    fn is_split(&self) -> bool {
        true
    }

    fn split(&self, peers: &Peers) {
        self.told.lock().unwrap().push(peers.clone());
    }
}

/// At whatever step, and in a chain within a chain.
#[test]
fn what_holds_of_a_step_holds_of_the_chain() {
    let told: Arc<Mutex<Vec<Peers>>> = Arc::default();
    let limited = |is_down, circuits| step(Limited { is_down, circuits, told: told.clone() });
    let chain = |last: Step| Chain::new(step(Chain::new(adds('a')).then(as_it_is, last)));
    let free = chain(adds('b'));
    assert!(!free.is_split() && !free.is_down("f") && free.circuits("f").is_empty());

    let is_down = |is_down| chain(limited(is_down, vec![])).is_down("f");
    assert!(is_down(true) && !is_down(false));
    let peers = Peers::new(vec![PeerGroup { feeds: vec!["f".into()], watchers: 2, before: 1 }]);
    let split = chain(limited(false, vec![]));
    assert!(split.is_split());
    split.split(&peers);
    assert_eq!(*told.lock().unwrap(), [peers]);

    let circuit = |target: &str, state| {
        let (target, gate) = (target.to_owned(), None);
        Circuit { target, gate, state, for_secs: 1.0, next_try_secs: 1.0, targets_left: 0 }
    };
    let [open, half] = [CircuitState::Open, CircuitState::HalfOpen];
    let several = [vec![circuit("z", half)], vec![circuit("z", open), circuit("a", half)]];
    let several = several.map(|circuits| limited(false, circuits));
    let chain = Chain::new(adds('a')).then_all(as_it_is, several);
    assert_eq!(chain.circuits("f"), [circuit("a", half), circuit("z", open)], "each once, as it is at worst");
}

#[tokio::test(start_paused = true)]
async fn pauses_between_tries_have_a_bound() {
    let chain = Chain::new(fails("x").retry(20));
    let mut running = Box::pin(chain.process(delivery("x")));
    let mut waited = 0;
    while (&mut running).now_or_never().is_none() {
        advance(Duration::from_secs(1)).await;
        waited += 1;
    }
    assert!(waited <= 5 * 20, "{waited} s");
}
