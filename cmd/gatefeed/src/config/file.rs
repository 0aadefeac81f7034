//! What may stand in the file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Command, CommandFactory};
use gatefeed_engine::dispatch::{Access, parse_target};
use toml::de::DeValue;
use url::Url;

use super::{
    document::{self, Document, Problem, Section, TOP},
    meant::spelt,
    origin::Origins,
    secret::Source,
    spread::Spreading,
};
use crate::{args::Cli, parse};

/// The file as it was written; what is not in it is `None`.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    /// For feeds and gates that do not say otherwise.
    pub(crate) handling: Handling,
    pub(crate) gates: BTreeMap<i32, Handling>,
    pub(crate) feeds: BTreeMap<String, Feed>,
    pub(crate) min_concurrency: Option<usize>,
    pub(crate) max_concurrency: Option<usize>,
    pub(crate) max_payload: Option<u64>,
    pub(crate) gather_max: Option<u64>,
    pub(crate) lease_duration: Option<Duration>,
    pub(crate) poll_interval: Option<Duration>,
    pub(crate) grace: Option<Duration>,
    pub(crate) listen: Option<String>,
    pub(crate) public_url: Option<Url>,
    pub(crate) name: Option<String>,
    /// What it was read from, if it was.
    pub(super) path: Option<PathBuf>,
    /// What of it could not be read.
    pub(super) problems: Vec<Problem>,
}

/// `[feeds.NAME]`
#[derive(Clone, Debug, Default)]
pub(crate) struct Feed {
    pub(crate) handling: Handling,
    /// `[[feeds.NAME.gates]]`
    pub(crate) gates: BTreeMap<i32, Handling>,
}

/// How items are handled: of all feeds, of one, or at a gate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handling {
    pub(crate) targets: Option<Vec<Url>>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) target_health: Option<String>,
    pub(crate) max_answer: Option<u64>,
    pub(crate) callback_timeout: Option<Duration>,
    pub(crate) max_retries: Option<i64>,
    pub(crate) retry_base: Option<Duration>,
    pub(crate) retry_cap: Option<Duration>,
    /// Of the whole watcher, of a feed with its gates, or of a gate: a bound at each of these levels.
    pub(crate) concurrency: Option<usize>,
    pub(crate) spread: Spreading,
    pub(crate) batch_size: Option<usize>,
    pub(crate) batch_linger: Option<Duration>,
    pub(crate) blob_links: Option<bool>,
    /// Signing secrets.
    pub(crate) signing: Option<Source>,
    pub(crate) access: AccessKeys,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) deny_private: Option<bool>,
    /// Where each of these stands.
    pub(crate) origins: Origins,
}

/// What a target wants to see with each request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct AccessKeys {
    pub(crate) bearer: Option<Source>,
    /// `user:password`
    pub(crate) basic: Option<Source>,
    pub(crate) headers: Vec<(String, HeaderText)>,
}

/// The value of a header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum HeaderText {
    Plain(String),
    Secret(Source),
}

impl Handling {
    /// What this says, and where it says nothing what `wider` says. A bound on deliveries stays where it was set, and what
    /// gives access stays with the target that it stands beside: another one is not to see it.
    pub(crate) fn or(&self, wider: &Self) -> Self {
        Self {
            targets: self.targets.clone().or_else(|| wider.targets.clone()),
            request_timeout: self.request_timeout.or(wider.request_timeout),
            connect_timeout: self.connect_timeout.or(wider.connect_timeout),
            target_health: self.target_health.clone().or_else(|| wider.target_health.clone()),
            max_answer: self.max_answer.or(wider.max_answer),
            callback_timeout: self.callback_timeout.or(wider.callback_timeout),
            max_retries: self.max_retries.or(wider.max_retries),
            retry_base: self.retry_base.or(wider.retry_base),
            retry_cap: self.retry_cap.or(wider.retry_cap),
            concurrency: self.concurrency,
            batch_size: self.batch_size.or(wider.batch_size),
            batch_linger: self.batch_linger.or(wider.batch_linger),
            blob_links: self.blob_links.or(wider.blob_links),
            signing: self.signing.clone().or_else(|| wider.signing.clone()),
            access: match self.targets.is_some() || self.access != AccessKeys::default() {
                true => self.access.clone(),
                false => wider.access.clone(),
            },
            ca_file: self.ca_file.clone().or_else(|| wider.ca_file.clone()),
            // What is denied for all, a feed or gate does not allow.
            deny_private: wider
                .deny_private
                .filter(|denied| *denied)
                .or(self.deny_private)
                .or(wider.deny_private),
            spread: self.spread.or(&wider.spread),
            origins: self.origins.or(&wider.origins),
        }
    }

    /// Whether it has this key, though its value could not be read.
    pub(super) fn is_unread(&self, key: &str, is_read: bool) -> bool {
        !is_read && self.origins.of(key).is_some()
    }
}

/// Keys that stand at the top of the file only: after a `[feeds.…]` they are in that table, as TOML goes.
const TOP_ONLY: [&str; 10] = [
    "min_concurrency",
    "max_concurrency",
    "max_payload",
    "gather_max",
    "lease_duration",
    "poll_interval",
    "grace",
    "listen",
    "public_url",
    "name",
];

/// Reads the text of a file, with what is wrong with its values. Errs where it is no TOML; all that is wrong is in order.
pub(super) fn read(bytes: &[u8]) -> Result<File, Vec<Problem>> {
    let text = document::text(bytes).map_err(|problem| vec![problem])?;
    let document = Document::new(text);
    let table = document.parse();
    let file = table.as_ref().map(|table| {
        let top = Section::new(&document, "the file".to_owned(), table, 0..0, TOP);
        read_file(top)
    });
    drop(table);
    let problems = document.into_problems();
    match file {
        Some(file) => Ok(File { problems, ..file }),
        None => Err(problems),
    }
}

fn read_file(mut top: Section<'_, '_>) -> File {
    let file = File {
        handling: read_handling(&mut top),
        gates: read_gates(&mut top, "[[gates]]"),
        feeds: top.tables("feeds").into_iter().filter_map(|(name, feed)| read_feed(name, feed)).collect(),
        min_concurrency: top.value("min_concurrency", parse::concurrency),
        max_concurrency: top.value("max_concurrency", parse::concurrency),
        max_payload: top.value("max_payload", parse::bytes),
        gather_max: top.value("gather_max", parse::bytes),
        lease_duration: top.value("lease_duration", parse::lease_duration),
        poll_interval: top.value("poll_interval", parse::poll_interval),
        grace: top.value("grace", parse::duration),
        listen: top.value("listen", parse::address),
        public_url: top.value("public_url", url),
        name: top.value("name", parse::name),
        path: None,
        problems: Vec::new(),
    };
    top.finish(advice);
    file
}

fn read_feed(name: &str, mut feed: Section<'_, '_>) -> Option<(String, Feed)> {
    let checked = parse::name(name);
    if let Err(message) = &checked {
        feed.problem(format!("the feed's name: {message}"));
    }
    let handling = read_handling(&mut feed);
    let gates = read_gates(&mut feed, &format!("[[feeds.{name}.gates]]"));
    feed.finish(misplaced);
    Some((checked.ok()?, Feed { handling, gates }))
}

fn read_gates(section: &mut Section<'_, '_>, shown: &str) -> BTreeMap<i32, Handling> {
    let mut gates = BTreeMap::new();
    for mut section in section.array("gates", shown) {
        let gate = section.value("gate", parse::gate);
        let handling = read_handling(&mut section);
        match gate {
            // One that could not be read has been told of.
            None if section.has("gate") => {}
            None => section.problem(format!("{shown} needs a gate, such as gate = 1")),
            Some(gate) if gates.contains_key(&gate) => {
                section.problem_at("gate", format!("gate {gate} is there twice"));
            }
            Some(gate) => _ = gates.insert(gate, handling),
        }
        section.finish(misplaced);
    }
    gates
}

/// A secret does not stand in the file.
fn inline_secret(key: &str) -> Option<String> {
    let secret = match key {
        "signing_secret" | "secret" | "signing_key" => "signing_secret",
        "bearer" | "bearer_token" | "token" => "bearer",
        "basic" | "password" | "basic_auth" => "basic",
        _ => return None,
    };
    Some(format!(
        "a secret does not stand in this file: name where it is with {secret}_file = \"path\" or {secret}_env = \"VARIABLE\""
    ))
}

/// Of a table below the top.
fn misplaced(key: &str) -> Option<String> {
    match TOP_ONLY.contains(&key) {
        true => Some("it stands at the top of the file, before the first [table]".to_owned()),
        false => advice(key),
    }
}

/// Why there is no such key.
fn advice(key: &str) -> Option<String> {
    let known = match key {
        "database_url" | "database" | "schema" => {
            "the database is named by --database-url or DATABASE_URL, since its URL may hold a password"
        }
        "feed" => "each feed is a table of its own: [feeds.NAME]",
        "gate_target" => "it is the target of [[gates]] or [[feeds.NAME.gates]]",
        _ => return inline_secret(key).or_else(|| flag_only(key)),
    };
    Some(known.to_owned())
}

/// What `gatefeed run` takes on the command line, or from a variable, and not in the file: whatever has a flag and no key.
fn flag_only(key: &str) -> Option<String> {
    let command = Cli::command();
    let run = command.find_subcommand("run").into_iter().flat_map(Command::get_arguments);
    let mut flags = run.chain(command.get_arguments());
    let flag = flags.find(|flag| flag.get_long().is_some_and(|long| spelt(long) == key))?;
    let variable = flag.get_env()?.to_string_lossy();
    Some(format!("it is a flag only: --{} or {variable}", flag.get_long()?))
}

fn read_handling(section: &mut Section<'_, '_>) -> Handling {
    let handling = Handling {
        targets: section.list("target", target),
        request_timeout: section.value("request_timeout", parse::timeout),
        connect_timeout: section.value("connect_timeout", parse::timeout),
        target_health: section.value("target_health", parse::path),
        max_answer: section.value("max_answer", parse::bytes),
        callback_timeout: section.value("callback_timeout", parse::timeout),
        max_retries: section.value("max_retries", parse::max_retries),
        retry_base: section.value("retry_base", parse::timeout),
        retry_cap: section.value("retry_cap", parse::timeout),
        concurrency: section.value("concurrency", parse::concurrency),
        batch_size: section.value("batch_size", parse::batch_size),
        batch_linger: section.value("batch_linger", parse::duration),
        blob_links: section.flag("blob_links"),
        signing: source(section, "signing_secret_file", "signing_secret_env"),
        access: read_access(section),
        ca_file: section.value("ca_file", path),
        deny_private: section.flag("deny_private"),
        spread: Spreading::read(section),
        origins: Origins::default(),
    };
    Handling { origins: section.origins(), ..handling }
}

fn read_access(section: &mut Section<'_, '_>) -> AccessKeys {
    let bearer = source(section, "bearer_file", "bearer_env");
    let basic = source(section, "basic_file", "basic_env");
    if let Some(basic) = basic.as_ref().filter(|_| bearer.is_some()) {
        let key = basic.key("basic_file", "basic_env");
        section.problem_at(key, format!("{key} stands beside a bearer token: a target has one credential"));
    }
    AccessKeys { bearer, basic, headers: section.pairs("headers", header) }
}

/// Where a secret is: in a file, or in a variable.
fn source(section: &mut Section<'_, '_>, file: &'static str, variable: &'static str) -> Option<Source> {
    let in_file = section.value(file, path).map(Source::File);
    let in_variable = section.value(variable, |name| Ok(name.to_owned())).map(Source::Variable);
    if in_file.is_some() && in_variable.is_some() {
        section
            .problem_at(variable, format!("{file} and {variable} are both there: a secret is in one place"));
    }
    in_file.or(in_variable)
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected a path".to_owned()) } else { Ok(Path::new(text).to_owned()) }
}

/// A header that is not free is refused here, where its line is known; what a secret holds is not known yet.
fn header(name: &str, value: &DeValue<'_>) -> Result<(String, HeaderText), String> {
    let expected = || format!("{name}: expected a string, {{ env = \"VARIABLE\" }} or {{ file = \"path\" }}");
    let text = match value {
        DeValue::String(text) => HeaderText::Plain(text.to_string()),
        DeValue::Table(table) if table.len() == 1 => {
            let (key, value) = table.iter().next().ok_or_else(expected)?;
            let value = value.get_ref().as_str().filter(|value| !value.is_empty()).ok_or_else(expected)?;
            match &**key.get_ref() {
                "env" => HeaderText::Secret(Source::Variable(value.to_owned())),
                "file" => HeaderText::Secret(Source::File(value.into())),
                _ => return Err(expected()),
            }
        }
        _ => return Err(expected()),
    };
    let shown = if let HeaderText::Plain(text) = &text { text } else { "" };
    Access::default().header(name, shown).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), text))
}

/// A URL with another one behind a comma, as flags and variables have lists, would be valid, and its path wrong.
fn target(text: &str) -> Result<Url, String> {
    let begins_url = |part: &str| {
        let part = part.trim_start().to_ascii_lowercase();
        part.starts_with("http://") || part.starts_with("https://")
    };
    match text.split(',').skip(1).any(begins_url) {
        true => {
            Err("several targets are a list here: [\"http://a/\", \"http://b/\"]; a comma of a URL is %2C"
                .into())
        }
        false => url(text),
    }
}

fn url(text: &str) -> Result<Url, String> {
    parse_target(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let problems = read(text.as_bytes()).map_or_else(|problems| problems, |file| file.problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_chain_of_handlers_is_read() {
        let file = read(
            br#"
            concurrency = 50
            lease_duration = "10s"
            target = ["http://a/", "http://b/?of=c,d"]

            [feeds.scans]
            target = "http://ocr/"
            max_retries = -1
            max_answer = 500000

            [[feeds.scans.gates]]
            gate = 1
            target = "http://classify/"
            request_timeout = "5m"
            concurrency = 2

            [feeds."odd name"]
            "#,
        )
        .unwrap();
        assert_eq!((file.handling.concurrency, file.handling.targets.unwrap().len()), (Some(50), 2));
        let scans = &file.feeds["scans"];
        assert_eq!((scans.handling.max_retries, scans.handling.max_answer), (Some(-1), Some(500_000)));
        assert_eq!(scans.gates[&1].request_timeout, Some(Duration::from_secs(300)));
        let gate = scans.gates[&1].or(&scans.handling);
        assert_eq!((gate.concurrency, gate.max_retries), (Some(2), Some(-1)));
        assert_eq!(gate.targets.unwrap()[0].as_str(), "http://classify/");
        assert!(file.feeds.contains_key("odd name"));
    }

    #[test]
    fn credentials_stay_with_the_target_that_they_stand_beside() {
        let file = read(
            b"target = \"http://a/\"\nbearer_env = \"A\"\nsigning_secret_env = \"S\"\nheaders = { X = { file = \"x\" } }\n\
             [feeds.same]\nmax_retries = 1\n[feeds.own]\ntarget = \"http://b/\"\n",
        );
        let file = file.unwrap();
        let handling = |feed: &str| file.feeds[feed].handling.or(&file.handling);
        assert_eq!(handling("same").access.bearer, Some(Source::Variable("A".into())));
        assert_eq!(handling("same").access.headers.len(), 1);
        assert_eq!(handling("own").access, AccessKeys::default());
        assert_eq!(
            handling("own").signing,
            Some(Source::Variable("S".into())),
            "a signature shows nothing of it"
        );
    }

    #[test]
    fn what_is_denied_for_all_no_feed_allows() {
        let file = read(b"deny_private = true\n[feeds.a]\ndeny_private = false\n").unwrap();
        assert_eq!(file.feeds["a"].handling.or(&file.handling).deny_private, Some(true));
        let file = read(b"deny_private = false\n[feeds.a]\ndeny_private = true\n").unwrap();
        assert_eq!(file.feeds["a"].handling.or(&file.handling).deny_private, Some(true));
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place_and_the_nearest_key() {
        let text = "concurency = 5\n[feeds.a]\n  request-timeout = \"5s\"\nmax_retries = true\n\
                    [[feeds.a.gates]]\ntarget = \"http://x/\"\n[[feeds.a.gates]]\ngate = -1\n\"hüte\" = 1\n\
                    [[feeds.a.gates]]\ngate = 2\n[[feeds.a.gates]]\ngate = 2\n";
        let expected = [
            "1:1: unknown key \"concurency\" in the file; did you mean \"concurrency\"?",
            "3:3: unknown key \"request-timeout\" in [feeds.a]; did you mean \"request_timeout\"?",
            "4:15: max_retries: expected a string or a number, not boolean",
            "5:1: [[feeds.a.gates]] needs a gate, such as gate = 1",
            "8:8: gate: expected a whole number from 0 to 2147483647",
            "9:1: unknown key \"hüte\" in [[feeds.a.gates]]",
            "13:1: gate 2 is there twice",
        ];
        assert_eq!(problems(text), expected);
    }

    #[test]
    fn what_is_not_text_is_told_with_its_place() {
        let place = |bytes: &[u8]| read(bytes).unwrap_err()[0].to_string();
        assert!(
            place(b"# h\xc3\xbcte\nname = \"\xc3\xbc\xff\"\n").starts_with("2:10: the file is not UTF-8")
        );
        assert!(place(b"\xff\xfen\0").starts_with("1:1: the file is not UTF-8"));
    }

    /// Every flag of `run` is a key, or is told to be none.
    #[test]
    fn what_is_a_flag_only_is_told() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap().get_arguments().chain(command.get_arguments());
        for flag in run.filter_map(clap::Arg::get_long).filter(|flag| !["help", "version"].contains(flag)) {
            let told = problems(&format!("{} = 1\n", spelt(flag)));
            let is_unknown = told.iter().any(|problem| problem.contains("unknown key"));
            assert!(!is_unknown || told[0].contains("; ") && !told[0].contains("did you mean"), "{told:?}");
        }
        for (key, flag) in [
            ("until_idle", "--until-idle or GATEFEED_UNTIL_IDLE"),
            ("no-migrate", "--no-migrate"),
            ("blob_store", "--blob-store"),
            ("inline_max", "--inline-max"),
            ("log_level", "--log-level"),
            ("tls_cert", "--tls-cert"),
            ("tls_key", "--tls-key"),
            ("insecure", "--insecure"),
            ("config", "--config"),
        ] {
            for (table, line, shown) in [("", 1, "the file"), ("[feeds.a]\n", 2, "[feeds.a]")] {
                let expected = format!("{line}:1: unknown key {key:?} in {shown}; it is a flag only: {flag}");
                let told = problems(&format!("{table}{key} = 1\n"));
                assert!(told[0].starts_with(&expected), "{told:?} instead of {expected}");
            }
        }
        assert!(
            problems("gate_target = 1\n")[0].ends_with("the target of [[gates]] or [[feeds.NAME.gates]]")
        );
    }

    #[test]
    fn values_are_those_of_the_flags() {
        for (text, expected) in [
            ("request_timeout = \"0s\"", "1:19: request_timeout: expected more than zero"),
            ("request_timeout = \"-5s\"", "1:19: request_timeout: expected a duration"),
            ("connect_timeout = 0", "1:19: connect_timeout: expected"),
            ("target = [\"http://a/\", \"ftp://b/\"]", "1:24: target: the target's scheme is \"ftp\""),
            ("target = \"http://a/,http://b/\"", "1:10: target: several targets are a list here"),
            (
                "target = [\"http://a/\", \"http://b/, HTTPS://c/\"]",
                "1:24: target: several targets are a list",
            ),
            ("target = []", "1:10: target: expected at least one"),
            ("concurrency = 0", "1:15: concurrency: expected"),
            ("lease_duration = \"1ms\"", "1:18: lease_duration: a lease duration"),
            ("feeds = 1", "1:9: feeds: expected tables such as [feeds.NAME]"),
            ("[feeds]\na = 1", "2:5: expected a table such as [feeds.a]"),
            ("gates = 1", "1:9: gates: expected tables, each written as [[gates]]"),
            ("[feeds.\"\"]", "1:1: the feed's name"),
            ("[feeds.a]\nlisten = \":1\"", "2:1: unknown key \"listen\" in [feeds.a]; it stands at the top"),
            (
                "database_url = \"postgres://me:hunter2@h/\"",
                "1:1: unknown key \"database_url\" in the file; the database",
            ),
            ("x = \n", "1:5: "),
            (
                "signing_secret = \"whsec_hunter2\"",
                "1:1: unknown key \"signing_secret\" in the file; a secret does not",
            ),
            (
                "[feeds.a]\nbearer = \"hunter2\"",
                "2:1: unknown key \"bearer\" in [feeds.a]; a secret does not",
            ),
            ("bearer_file = \"a\"\nbearer_env = \"B\"", "2:1: bearer_file and bearer_env are both there"),
            ("headers = { Host = \"hunter2\" }", "1:20: headers: the header Host is not free"),
            ("bearer_file = \"a\"\nbasic_env = \"B\"", "2:1: basic_env stands beside a bearer token"),
            ("headers = { X = \"1\", Y = \"2\", x = \"3\" }", "1:31: headers: x is there twice"),
            ("headers = { X = 5 }", "1:17: headers: X: expected a string"),
            ("headers = { X = { path = \"a\" } }", "1:17: headers: X: expected a string"),
            ("deny_private = \"yes\"", "1:16: deny_private: expected true or false"),
        ] {
            let problems = problems(text);
            assert!(problems[0].starts_with(expected), "{text}: {problems:?}");
            assert!(!problems[0].contains("hunter2"));
        }
    }
}
