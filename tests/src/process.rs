//! The binary, as a process that can be killed, stopped and continued.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Database, eventually};

/// A running `gatefeed`; killed when dropped.
pub struct Gatefeed {
    child: Child,
    log: tempfile::TempPath,
}

/// `gatefeed`, as `cargo build` has made it.
pub fn binary() -> PathBuf {
    built("gatefeed")
}

/// Where `cargo build` puts a binary: beside the folder of this test's own.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let binary = profile.join(name);
    assert!(
        binary.exists(),
        "{} does not exist: run ./scripts/test, which builds it first",
        binary.display()
    );
    binary
}

fn command(database: &Database, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env("GATEFEED_DATABASE_URL", database.url()).env("NO_COLOR", "1");
    command
}

/// Runs a command to its end.
pub fn gatefeed(database: &Database, args: &[&str]) -> Output {
    command(database, args).output().unwrap()
}

impl Gatefeed {
    /// Starts `gatefeed run` with these further arguments.
    pub fn run(database: &Database, target: &str, args: &[&str]) -> Self {
        let mut command = command(database, &["run", "--target", target]);
        command.args(args);
        Self::start(command)
    }

    /// Starts a command that was put together elsewhere.
    pub fn start(mut command: Command) -> Self {
        let (log, path) = tempfile::NamedTempFile::new().unwrap().into_parts();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self { child: command.spawn().unwrap(), log: path }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut File::open(&self.log).unwrap(), &mut text).unwrap();
        text
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGKILL, and gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Gatefeed {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the log's end ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
