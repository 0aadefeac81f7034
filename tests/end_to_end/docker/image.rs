//! The image as plain processes: its user, its variables and its commands, in a folder that stands for its files.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use gatefeed_tests::{Gatefeed, binary};

use super::dockerfile::{self, Stage};

/// Variables that a container is started with.
pub(super) type Env = BTreeMap<String, String>;

/// The last stage.
pub(super) struct Image {
    root: tempfile::TempDir,
    /// Its instructions.
    pub(super) stage: Stage,
}

impl Image {
    /// Makes the files: runs its steps, copies what it copies.
    pub(super) fn lay_out() -> Self {
        let root = tempfile::tempdir().unwrap();
        // Its user is another than ours, if we are root.
        fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let image = Self { root, stage: dockerfile::stages().1 };
        image.stage.run_steps().iter().for_each(|step| image.carry_out(step));
        let copied = image.stage.one("COPY").split_whitespace().last().unwrap();
        let copied = image.path(copied);
        fs::create_dir_all(copied.parent().unwrap()).unwrap();
        fs::copy(binary(), copied).unwrap();
        image
    }

    /// A path in the image.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.strip_prefix('/').expect("an absolute path"))
    }

    fn carry_out(&self, step: &str) {
        // Debian's packages are for an image; what else there is runs.
        if step.starts_with("apt-get ") {
            return;
        }
        assert!(step.starts_with("install -d "), "a step that no test carries out: {step}");
        let mut words = step.split_whitespace().skip(1);
        let mut install = Command::new("install");
        while let Some(word) = words.next() {
            match word {
                // Only root can give a folder away; anybody else runs the image as himself.
                "-o" | "-g" if !is_root() => _ = words.next(),
                path if path.starts_with('/') => _ = install.arg(self.path(path)),
                word => _ = install.arg(word),
            }
        }
        assert!(install.status().unwrap().success(), "{step}");
    }

    /// A process in the image, as its user.
    pub(super) fn command(&self, words: &[String], env: &Env) -> Command {
        let path = format!("{}:/usr/bin:/bin", self.path("/usr/local/bin").display());
        let mut command = self.as_user();
        command.args(words).env_clear().envs(self.stage.env()).envs(env).env("PATH", path);
        command.current_dir(self.path(self.stage.one("WORKDIR"))).stdin(Stdio::null());
        command
    }

    fn as_user(&self) -> Command {
        if !is_root() {
            return Command::new("env");
        }
        let (user, group) = self.stage.user();
        let mut command = Command::new("setpriv");
        command.arg("--clear-groups").arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
        command.arg("--no-new-privs");
        command
    }

    /// Runs a program of the image to its end; what it prints, if it succeeds.
    pub(super) fn output(&self, words: &[&str], env: &Env) -> Result<String, String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let output = self.command(&words, env).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Starts a container: the entry point with these words, or with the image's own.
    pub(super) fn start(&self, cmd: Option<&[String]>, env: &Env) -> Gatefeed {
        let cmd = cmd.map_or_else(|| self.stage.cmd(), <[String]>::to_vec);
        Gatefeed::start(self.command(&[self.stage.entrypoint(), cmd].concat(), env))
    }

    /// What the engine asks in the container.
    pub(super) fn is_healthy(&self, env: &Env) -> bool {
        let mut check = self.command(&self.stage.health_check(), env);
        check.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Who owns a file that a process has made.
    pub(super) fn expected_owner(&self) -> u32 {
        if is_root() { self.stage.user().0 } else { rustix::process::getuid().as_raw() }
    }
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}
