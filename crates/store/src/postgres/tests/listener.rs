//! The connection that listens.

use std::time::Duration;

use gatefeed_core::{partition::NewPartition, store::Wakeups};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use url::Url;

use super::{run, store};
use crate::{
    Options,
    postgres::{
        Postgres,
        pool::Lane,
        wake::{Hint, Patience},
    },
};

const LONG: Duration = Duration::from_secs(60);

/// Leads connections on to the database of the tests, until it forgets those that it has, without a word to either side.
struct Router {
    url: String,
    /// How often it has forgotten.
    forgets: watch::Sender<u32>,
    /// How many connections there were.
    count: watch::Receiver<u32>,
}

impl Router {
    async fn start() -> Self {
        let mut url =
            Url::parse(&std::env::var("GATEFEED_TEST_POSTGRES_URL").expect("run ./scripts/test")).unwrap();
        let server = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let (forgets, forgotten) = watch::channel(0);
        let (counts, count) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut server = TcpStream::connect(&server).await.unwrap();
                let mut forgotten = forgotten.clone();
                forgotten.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        // Both stay open, and nothing goes through.
                        Ok(()) = forgotten.changed() => std::future::pending().await,
                    }
                });
                counts.send_modify(|count| *count += 1);
            }
        });
        Self { url: url.to_string(), forgets, count }
    }

    fn forget_all(&self) {
        self.forgets.send_modify(|times| *times += 1);
    }
}

async fn heard(listening: &mut dyn Wakeups, what: &str) {
    timeout(LONG, listening.next()).await.unwrap_or_else(|_| panic!("{what}: nothing was heard"));
}

#[tokio::test]
async fn a_listener_whose_connection_was_forgotten_makes_another_one() {
    let store = store().await;
    let router = Router::start().await;
    let options = Options {
        schema: Some(store.sql.schema.clone()),
        listen_url: Some(router.url.clone()),
        ..Options::default()
    };
    let url = std::env::var("GATEFEED_TEST_POSTGRES_URL").expect("run ./scripts/test");
    let far = Postgres::connect(&url, &options).await.unwrap();
    // An answer that is late on a busy machine costs this test another connection and nothing else.
    let patience = Patience { silence_max: Duration::from_millis(100), answer_max: Duration::from_secs(2) };
    let mut listening = far.listen_with(patience, far.sql.channel.clone(), &["a".to_owned()]);
    heard(listening.as_mut(), "connecting").await;
    store.announce(vec![Hint::Due("a".to_owned())]).await;
    heard(listening.as_mut(), "a notification").await;

    let mut count = router.count.clone();
    let before = *count.borrow_and_update();
    router.forget_all();
    heard(listening.as_mut(), "it waits on a connection that is gone").await;
    let again = timeout(LONG, count.wait_for(|count| *count > before)).await;
    again.expect("it makes no other connection").unwrap();
    drop(listening);
    run(&store, "DROP SCHEMA {schema} CASCADE").await;
}

/// A push may take a quarter of an hour, and so would be waited for on a connection that is gone.
#[tokio::test]
async fn connections_that_were_forgotten_are_replaced() {
    let store = store().await;
    let router = Router::start().await;
    let options = Options { schema: Some(store.sql.schema.clone()), ..Options::default() };
    let far = Postgres::connect(&router.url, &options).await.unwrap();
    let mut taken = Vec::new();
    for lane in [Lane::Push, Lane::Push, Lane::Push, Lane::Act] {
        taken.push(far.begin(lane, LONG).await.unwrap());
    }
    for tx in taken {
        tx.commit().await.unwrap();
    }
    router.forget_all();
    let push = timeout(LONG, far.push_whole(&NewPartition::new("p"), &[])).await;
    push.expect("it waits on a connection that is gone").unwrap();
    assert_eq!(far.lanes.connections(Lane::Act), 0, "it lies idle, and is gone as well");
    run(&store, "DROP SCHEMA {schema} CASCADE").await;
}
