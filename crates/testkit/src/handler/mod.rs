//! A programmable handler on 127.0.0.1, written on raw TCP so that it can misbehave in every way a real one
//! does: hang, drip, reset, lie about lengths, talk nonsense.

mod connection;
mod reply;
mod request;

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

pub use self::{
    reply::{Manner, Reply},
    request::Recorded,
};

/// How long [`Handler::received`] waits before it holds the test to be stuck.
const PATIENCE: Duration = Duration::from_secs(20);

type Behaviour = Box<dyn Fn(Recorded) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// A running handler; it stops when dropped.
pub struct Handler {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<Running>,
}

/// A listener whose queue is full: nobody accepts, and the machine lets nobody in any more.
pub struct FullQueue {
    listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl FullQueue {
    /// Fills it; panics where that does not come to an end.
    pub async fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket can be had");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port can be had");
        let listener = socket.listen(1).expect("a bound socket listens");
        let address = listener.local_addr().expect("a bound listener has an address");
        let mut waiting = Vec::new();
        // Whoever is let in is so at once; the others are told nothing.
        while let Ok(connected) = timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
            waiting.push(connected.expect("a listener refuses nobody"));
            assert!(waiting.len() < 100, "the queue is never full");
        }
        Self { listener, _waiting: waiting }
    }

    /// `http://127.0.0.1:PORT/`
    pub fn url(&self) -> String {
        let address = self.listener.local_addr().expect("a bound listener has an address");
        format!("http://{address}/")
    }
}

/// The task that accepts, and how to ask it to end well.
struct Running {
    task: JoinHandle<()>,
    draining: watch::Sender<()>,
}

/// What the connections have in common.
struct Shared {
    behaviour: Behaviour,
    requests: Mutex<Vec<Recorded>>,
    arrived: Notify,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
}

impl Handler {
    /// Starts on a free port; `behaviour` is asked for a reply to each request that has been read whole.
    /// Panics where no port can be had.
    pub async fn start<F, Fut>(behaviour: F) -> Self
    where
        F: Fn(Recorded) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            behaviour: Box::new(move |request| Box::pin(behaviour(request))),
            requests: Mutex::default(),
            arrived: Notify::new(),
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            in_flight_max: AtomicUsize::new(0),
        });
        let listener = listen(([127, 0, 0, 1], 0).into()).await;
        let address = listener.local_addr().expect("a bound listener has an address");
        let running = Some(Running::start(listener, Arc::clone(&shared)));
        Self { address, shared, running }
    }

    /// Starts with the same reply to every request.
    pub async fn always(reply: Reply) -> Self {
        Self::start(move |_| std::future::ready(reply.clone())).await
    }

    /// `http://127.0.0.1:PORT/`; the port stays the same over restarts.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every request, once there are `count`; panics if that takes longer than any test should.
    pub async fn received(&self, count: usize) -> Vec<Recorded> {
        let enough = async {
            loop {
                let arrived = self.shared.arrived.notified();
                let requests = self.requests();
                if requests.len() >= count {
                    return requests;
                }
                arrived.await;
            }
        };
        match timeout(PATIENCE, enough).await {
            Ok(requests) => requests,
            Err(_) => panic!("{} of {count} requests after {PATIENCE:?}", self.requests().len()),
        }
    }

    /// How many connections have been accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The most requests that were in work at the same time.
    pub fn in_flight_max(&self) -> usize {
        self.shared.in_flight_max.load(Ordering::SeqCst)
    }

    /// Stops listening and cuts every connection; from then on connections are refused.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.task.abort();
            // Once the task is gone, so are its sockets.
            let _ = running.task.await;
        }
    }

    /// Stops listening, answers what is in work, closes the connections and waits until their clients have
    /// closed them too; from then on connections are refused. Panics if a client keeps one.
    pub async fn drain(&mut self) {
        if let Some(running) = self.running.take() {
            running.draining.send_replace(());
            let drained = timeout(PATIENCE, running.task).await;
            drained.expect("clients close drained connections").expect("connections do not panic");
        }
    }

    /// Stops, if it runs, and starts again on the same port with the same behaviour.
    pub async fn restart(&mut self) {
        self.stop().await;
        let listener = listen(self.address).await;
        self.running = Some(Running::start(listener, Arc::clone(&self.shared)));
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.task.abort();
        }
    }
}

impl Running {
    fn start(listener: TcpListener, shared: Arc<Shared>) -> Self {
        let (draining, drain) = watch::channel(());
        Self { task: tokio::spawn(accept(listener, shared, drain)), draining }
    }
}

impl Shared {
    fn record(&self, request: Recorded) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        self.arrived.notify_waiters();
    }

    /// Counts a request as in work until the guard is dropped.
    fn enter(&self) -> Working<'_> {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.in_flight_max.fetch_max(now, Ordering::SeqCst);
        Working(self)
    }
}

struct Working<'a>(&'a Shared);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).await.unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"))
}

/// The connections live in this task's set, so that aborting the task closes them.
async fn accept(listener: TcpListener, shared: Arc<Shared>, mut drain: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = drain.changed() => break,
        };
        let Ok((stream, _)) = accepted else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(connection::serve(stream, Arc::clone(&shared), drain.clone()));
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
