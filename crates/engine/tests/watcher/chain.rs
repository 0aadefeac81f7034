//! Chains, whose steps have limits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gatefeed_core::{
    answer::{Answer, Verdict},
    share::Peers,
};
use gatefeed_engine::{
    Chain, Delivery, Processor,
    dispatch::{HttpOptions, HttpProcessor, parse_target},
    step,
};
use gatefeed_testkit::handler::{Handler, Reply};
use tokio_util::sync::CancellationToken;

use crate::db::{Db, watcher, within};

on_both! { what_limits_a_step_holds_for_all_watchers }

/// Takes note of over how many its limits are split.
struct Split(Arc<AtomicUsize>);

impl Processor for Split {
    async fn process(&self, _: Delivery) -> Verdict {
        Ok(Answer::done())
    }

    fn is_split(&self) -> bool {
        true
    }

    fn split(&self, peers: &Peers) {
        self.0.store(peers.share(|feed| feed == "default").watchers(), Ordering::SeqCst);
    }
}

/// 4 to the target, 2 of each of two, whatever is due.
async fn what_limits_a_step_holds_for_all_watchers(db: Arc<Db>) {
    let handler = Handler::always(Reply::ok().after(Duration::from_millis(20))).await;
    let shutdown = CancellationToken::new();
    let (mut known, mut runs) = (vec![], vec![]);
    for owner in ["v", "w"] {
        let mut options = HttpOptions::default();
        options.spread.limits.max_in_flight = Some(4);
        let http = HttpProcessor::new(vec![parse_target(&handler.url()).unwrap()], options).unwrap();
        let watchers = Arc::new(AtomicUsize::new(0));
        let chain =
            Chain::new(step(http)).then(|reached| Ok(reached.data()), step(Split(Arc::clone(&watchers))));
        known.push(watchers);
        let builder =
            watcher(db.another().await).owner(owner).until_idle(false).shutdown(shutdown.child_token());
        runs.push(tokio::spawn(builder.processor(chain).run()));
    }
    let met = async {
        while known.iter().any(|watchers| watchers.load(Ordering::SeqCst) != 2) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("knowing each other", met).await;
    for partition in ["a", "b", "c", "d"] {
        db.push_many(partition, 25).await;
    }
    handler.received(100).await;
    shutdown.cancel();
    for run in runs {
        within("stop", run).await.unwrap().unwrap();
    }
    assert!(handler.in_flight_max() <= 4, "{}", handler.in_flight_max());
}
