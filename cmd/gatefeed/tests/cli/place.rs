//! A folder in which gatefeed runs, processes, and a handler.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gatefeed_core::{
    item::{Data, NewItem},
    partition::NewPartition,
};
use gatefeed_store::Options;
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use serde_json::Value;
use tempfile::TempDir;

/// Nothing that a test waits for takes this long, even on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A folder of its own in which gatefeed runs, without the environment's settings.
pub(crate) struct Place {
    dir: TempDir,
}

/// What a finished process left.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A place whose database has the tables.
    pub(crate) fn migrated() -> Self {
        let place = Self::new();
        place.succeeds(&["migrate"]);
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatefeed"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null());
        let settings = std::env::vars_os().map(|(name, _)| name);
        for name in settings.filter(|name| name.to_string_lossy().contains("GATEFEED_")) {
            command.env_remove(name);
        }
        command.env_remove("DATABASE_URL");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        Done::from(self.command(args).output().unwrap())
    }

    pub(crate) fn succeeds(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "{args:?}: {}{}", done.out, done.err);
        done.out
    }

    /// Asserts the exit code and that stderr has each text, and no panic.
    pub(crate) fn fails(&self, args: &[&str], code: i32, texts: &[&str]) {
        let done = self.run(args);
        assert_eq!(done.code, Some(code), "{args:?}: {}{}", done.out, done.err);
        for text in texts {
            assert!(done.err.contains(text), "{args:?}: {:?} is not in {:?}", text, done.err);
        }
        assert!(!done.err.contains("panicked"), "{}", done.err);
    }

    /// Adds items, and the partition if it is missing.
    pub(crate) fn push(&self, partition: NewPartition, items: &[(&str, i32, &[u8])]) {
        let url = format!("sqlite://{}", self.path().join("gatefeed.db").display());
        let item = |(id, gate, data): &(&str, i32, &[u8])| NewItem {
            gate: *gate,
            ..NewItem::new(&partition.id, *id, Data::json(data.to_vec()))
        };
        let items: Vec<_> = items.iter().map(item).collect();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let store = gatefeed_store::connect(&url, &Options::default()).await.unwrap();
            store.push(&partition, &items).await.unwrap();
        });
    }

    /// Runs SQL on the database, as anybody may.
    pub(crate) fn sql(&self, sql: &str) {
        let file = self.path().join("gatefeed.db");
        let done =
            Command::new("sqlite3").args(["-cmd", ".timeout 5000"]).arg(file).arg(sql).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// `number` items in the partition `p`.
    pub(crate) fn fill(&self, number: usize) {
        let ids: Vec<_> = (0..number).map(|n| format!("item-{n:05}")).collect();
        let items: Vec<_> = ids.iter().map(|id| (id.as_str(), 0, &b"{}"[..])).collect();
        self.push(NewPartition::new("p"), &items);
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A process that is killed when a test ends early.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Reads stderr until a line has this text, and returns the line.
    pub(crate) fn wait_for_log(&mut self, text: &str) -> String {
        let stderr = self.0.stderr.take().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        // Goes on reading afterwards, so that the process never meets a full or closed pipe.
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let started = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(started.elapsed());
            let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("no log line with {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the process does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process on a terminal of its own.
pub(crate) struct OnTerminal {
    running: Running,
    shown: Arc<Mutex<String>>,
}

impl OnTerminal {
    /// Starts it on a terminal with so many columns and 24 rows.
    pub(crate) fn start(command: Command, columns: u16) -> Self {
        Self::start_with(command, columns, &[])
    }

    /// The same, with variables.
    pub(crate) fn start_with(mut command: Command, columns: u16, variables: &[(&str, &str)]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).and_then(|()| unlockpt(&ours)).unwrap();
        let path = ptsname(&ours, Vec::new()).unwrap();
        let theirs = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        tcsetwinsize(&theirs, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        command.env("TERM", "xterm").env_remove("NO_COLOR").envs(variables.iter().copied());
        command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
        let running = Running(command.spawn().unwrap());
        let shown = Arc::<Mutex<String>>::default();
        let reader = Arc::clone(&shown);
        std::thread::spawn(move || {
            let (mut ours, mut part) = (File::from(ours), [0; 4096]);
            while let Ok(length @ 1..) = ours.read(&mut part) {
                reader.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..length]));
            }
        });
        Self { running, shown }
    }

    /// Waits until all of these have been shown since the last call, in any order, and returns what was shown.
    pub(crate) fn wait_for(&self, texts: &[&str]) -> String {
        let started = Instant::now();
        loop {
            let mut shown = self.shown.lock().unwrap();
            if texts.iter().all(|text| shown.contains(text)) {
                return std::mem::take(&mut shown);
            }
            assert!(started.elapsed() < DEADLINE, "{texts:?} is not in {shown:?}");
            drop(shown);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        self.running.signal(name);
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.running.wait()
    }
}

/// A handler that answers every request with this status line; headers and a body may follow it, as in HTTP.
pub(crate) fn handler(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.unwrap(), status));
        }
    });
    url
}

fn answer(mut stream: TcpStream, status: &str) {
    let mut seen = Vec::new();
    let mut part = [0; 4096];
    while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(length) => seen.extend_from_slice(&part[..length]),
        }
    }
    let (head, body) = status.split_once("\r\n\r\n").unwrap_or((status, ""));
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
}

/// A plain GET; the status and the body.
pub(crate) fn get(address: &str, path: &str, method: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}
