//! An example's handler, as a process.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
};

use gatefeed_tests::{DEADLINE, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// A file or folder under `examples`.
pub(crate) fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path).canonicalize().unwrap()
}

/// A running handler, in a folder of its own; killed when dropped.
pub(crate) struct Service {
    child: Child,
    /// Where it listens.
    pub(super) address: String,
    _dir: tempfile::TempDir,
}

impl Service {
    /// A script under `examples`.
    pub(super) fn script(interpreter: &str, script: &str, args: &[&str]) -> Self {
        let mut command = Command::new(interpreter);
        // Else Python would write beside the examples.
        command.arg(example(script)).env("PYTHONDONTWRITEBYTECODE", "1");
        Self::start(command, args)
    }

    /// Starts it on a free port and waits until it says where it listens.
    pub(crate) fn start(mut command: Command, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        command.arg("0").args(args).current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (said, heard) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || _ = said.send(BufReader::new(stdout).lines().next()));
        let line = heard.recv_timeout(DEADLINE).ok().flatten().and_then(Result::ok).unwrap_or_default();
        let address = line.strip_prefix("listening on http://").and_then(|rest| rest.strip_suffix('/'));
        let address = address.unwrap_or_else(|| panic!("{command:?} said {line:?}")).to_owned();
        Self { child, address, _dir: dir }
    }

    /// For `--target`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    pub(super) async fn ended(mut self) -> ExitStatus {
        let mut status = None;
        eventually("the handler ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
