//! A Dockerfile, as far as ours goes: comments, continued lines, stages, arrays.

use std::{collections::BTreeMap, fs};

use super::repository;

/// One line, such as `USER 10001`.
#[derive(Debug)]
struct Instruction {
    name: String,
    args: String,
}

impl Instruction {
    fn parse(line: &str) -> Self {
        let (name, args) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        Self { name: name.to_uppercase(), args: args.trim().to_owned() }
    }
}

/// What stands between one FROM and the next.
#[derive(Debug)]
pub(super) struct Stage {
    instructions: Vec<Instruction>,
}

/// The stages of docker/Dockerfile: the one that builds, and the image.
pub(super) fn stages() -> (Stage, Stage) {
    let text = fs::read_to_string(repository().join("docker/Dockerfile")).unwrap();
    let mut stages: Vec<Stage> = Vec::new();
    for line in lines(&text) {
        let instruction = Instruction::parse(&line);
        if instruction.name == "FROM" {
            stages.push(Stage { instructions: Vec::new() });
        }
        stages.last_mut().expect("FROM comes first").instructions.push(instruction);
    }
    let [build, image] = <[Stage; 2]>::try_from(stages).expect("two stages");
    (build, image)
}

/// Lines that end with a backslash go on in the next; comments are left out, also between those.
fn lines(text: &str) -> Vec<String> {
    let (mut lines, mut begun) = (Vec::new(), String::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_suffix('\\') {
            Some(part) => begun.push_str(part),
            None => lines.push(std::mem::take(&mut begun) + line),
        }
    }
    assert!(begun.is_empty(), "the last line is continued");
    lines
}

impl Stage {
    /// The arguments of all instructions of a name.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.instructions.iter().filter(|i| i.name == name).map(|i| i.args.as_str()).collect()
    }

    /// The arguments of an instruction that is there once.
    pub(super) fn one(&self, name: &str) -> &str {
        let [args] = self.all(name)[..] else { panic!("one {name}: {self:?}") };
        args
    }

    /// The image that it begins with.
    pub(super) fn base(&self) -> &str {
        self.one("FROM").split_whitespace().next().unwrap()
    }

    /// What RUN runs, without its mounts.
    pub(super) fn run_steps(&self) -> Vec<String> {
        let is_flag = |word: &&str| word.starts_with("--");
        let step = |args: &str| args.split_whitespace().skip_while(is_flag).collect::<Vec<_>>().join(" ");
        self.all("RUN").into_iter().map(step).collect()
    }

    /// The variables that a process in it has.
    pub(super) fn env(&self) -> BTreeMap<String, String> {
        let pairs = self.all("ENV").into_iter().flat_map(str::split_whitespace);
        pairs.map(|pair| pair.split_once('=').expect("NAME=value")).map(owned).collect()
    }

    /// The user and the group, as numbers.
    pub(super) fn user(&self) -> (u32, u32) {
        let (user, group) = self.one("USER").split_once(':').expect("user:group");
        (user.parse().expect("a number"), group.parse().expect("a number"))
    }

    /// The words of ENTRYPOINT.
    pub(super) fn entrypoint(&self) -> Vec<String> {
        array(self.one("ENTRYPOINT"))
    }

    /// The words of CMD.
    pub(super) fn cmd(&self) -> Vec<String> {
        array(self.one("CMD"))
    }

    /// The command of HEALTHCHECK.
    pub(super) fn health_check(&self) -> Vec<String> {
        let (_, command) = self.one("HEALTHCHECK").split_once("CMD ").expect("options, then CMD");
        array(command)
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// The form without a shell: the process gets the signals itself.
fn array(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no array: {text}: {error}"))
}
