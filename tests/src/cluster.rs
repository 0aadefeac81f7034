//! A Postgres cluster of a test's own, which it may stop, kill and start again.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
};

/// A throw-away cluster on a free port of 127.0.0.1; gone when dropped.
pub struct Cluster {
    bin: PathBuf,
    dir: tempfile::TempDir,
    /// Its port.
    pub port: u16,
}

impl Cluster {
    /// Makes and starts one, from the binaries that `scripts/test` found.
    pub fn start() -> Self {
        let bin =
            std::env::var("GATEFEED_TEST_POSTGRES_BIN").expect("run ./scripts/test, which finds Postgres");
        // Not $TMPDIR: the path of a Unix socket may have 107 bytes only.
        let dir = tempfile::Builder::new().prefix("gatefeed-e2e.").tempdir_in("/tmp").unwrap();
        if is_root() {
            assert!(Command::new("chown").arg("postgres").arg(dir.path()).status().unwrap().success());
        }
        let cluster = Self { bin: bin.into(), dir, port: free_port() };
        let data = cluster.data();
        let data = data.to_str().unwrap();
        cluster.run("initdb", &["-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"]);
        cluster.up();
        cluster
    }

    /// Starts it (again) and waits until it answers.
    pub fn up(&self) {
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 -c max_connections=100",
            self.port,
            self.dir.path().display()
        );
        let log = self.dir.path().join("log");
        let (data, log) = (self.data(), log.to_str().unwrap().to_owned());
        self.run("pg_ctl", &["start", "-w", "-D", data.to_str().unwrap(), "-l", &log, "-o", &options]);
    }

    /// Stops it as a crash would: no checkpoint, connections cut.
    pub fn stop_immediately(&self) {
        self.run("pg_ctl", &["stop", "-w", "-m", "immediate", "-D", self.data().to_str().unwrap()]);
    }

    /// The URL of its database `postgres`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// A client program: beside the server's, or wherever the user has it.
    pub fn program(&self, name: &str) -> PathBuf {
        let beside = self.bin.join(name);
        if beside.exists() { beside } else { name.into() }
    }

    /// A session that has run this in a transaction and leaves it open until it is dropped.
    pub fn hold_open(&self, sql: &str) -> OpenTransaction {
        let mut command = Command::new(self.program("psql"));
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).arg(self.url());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "BEGIN;\n{sql};\n\\echo locked").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "locked");
        OpenTransaction { child, _input: input }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let output =
            as_owner(&self.bin.join(program)).args(args).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

/// A psql whose transaction is open.
pub struct OpenTransaction {
    child: Child,
    _input: ChildStdin,
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.data();
        let stop = ["stop", "-m", "immediate", "-D", data.to_str().unwrap_or_default()];
        _ = as_owner(&self.bin.join("pg_ctl")).args(stop).output();
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// Postgres refuses to run as root.
fn as_owner(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

/// A port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
