//! What of a configuration cannot work: found once flags are entered and all levels put together, and told with its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use gatefeed_core::StoreError;
use gatefeed_engine::dispatch::{HttpOptions, Part};
use gatefeed_store::BlobOptions;
use humantime::format_duration;

use super::{
    credentials::Credentials,
    file::{File, Handling},
    findings::Findings,
    origin::Origin,
    plan::{Level, Plan, request_timeout},
    secret::Secrets,
};

/// Keys that do nothing unless one of others is there.
const NEEDS: [(&str, &[&str]); 8] = [
    ("batch_linger", &["batch_size"]),
    ("breaker_open", &["breaker_failures", "breaker_share"]),
    ("breaker_open_max", &["breaker_failures", "breaker_share"]),
    ("hedge_accept", &["hedge_after"]),
    ("hedge_budget", &["hedge_after"]),
    ("hedge_greatest", &["hedge_after"]),
    ("hedge_targets", &["hedge_after"]),
    ("target_burst", &["target_rate_limit"]),
];

/// Whether a key does something.
type Use = fn(&Handling) -> bool;

/// Keys that do nothing where something else is said, and why.
const USES: [(&str, Use, &str); 3] = [
    (
        "callback_timeout",
        is_single,
        "callback_timeout does nothing with batch_size: a batch cannot be answered later",
    ),
    ("hedge_after", has_another, "hedge_after does nothing with a single target: there is no other to ask"),
    (
        "hedge_greatest",
        is_single,
        "hedge_greatest does nothing with batch_size: of batches the first answer wins",
    ),
];

/// Puts together how requests go, of each feed and gate that has a target. Errs with everything that is wrong.
pub(super) fn check(
    plan: &Plan,
    blobs: Option<&BlobOptions>,
) -> Result<BTreeMap<Level, HttpOptions>, StoreError> {
    let file = &plan.file;
    let mut found = Findings::new(file);
    let base = file.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let mut credentials = Credentials::new(Secrets::new(base.to_owned()));
    check_bounds(plan, &mut found);
    let levels: Vec<(Level, Handling)> = plan.feeds.iter().flat_map(|feed| levels(plan, feed)).collect();
    let mut options = BTreeMap::new();
    for (level, handling) in &levels {
        check_pairs(handling, &mut found);
        check_hedging(handling, &mut found);
        check_links(plan, handling, blobs, &mut found);
        check_callbacks(plan, handling, &mut found);
        let credentials = credentials.read(handling, &mut found);
        if let Some(targets) = &handling.targets {
            let own = credentials.enter(http_options(file, handling));
            for flaw in own.flaws(targets) {
                found.at_one_of(handling, keys(flaw.part), flaw.message);
            }
            options.insert(level.clone(), own);
        }
    }
    check_uses(plan, &levels, &mut found);
    check_targets(plan, &levels, &mut found);
    // Also where everybody who would inherit them has some of his own.
    for handling in tables(plan) {
        credentials.read(handling, &mut found);
    }
    found.into_result().map(|()| options)
}

fn levels(plan: &Plan, feed: &str) -> Vec<(Level, Handling)> {
    let named = |(gate, handling)| ((feed.to_owned(), gate), handling);
    plan.levels(feed).into_iter().map(named).collect()
}

/// The tables of what is served, each for itself.
fn tables(plan: &Plan) -> impl Iterator<Item = &Handling> {
    let File { handling, gates, feeds, .. } = &plan.file;
    let served = feeds.iter().filter(|(name, _)| plan.feeds.contains(name));
    let of_feeds = served.flat_map(|(_, feed)| [&feed.handling].into_iter().chain(feed.gates.values()));
    [handling].into_iter().chain(gates.values()).chain(of_feeds)
}

fn check_bounds(plan: &Plan, found: &mut Findings) {
    if let Err(message) = plan.concurrency().check() {
        found.at_one_of(&plan.file.handling, &["min_concurrency", "max_concurrency", "concurrency"], message);
    }
}

/// Of two that are said, the one may not be above the other.
fn check_pairs(handling: &Handling, found: &mut Findings) {
    let spread = &handling.spread;
    let pairs = [
        (["retry_cap", "retry_base"], handling.retry_cap.zip(handling.retry_base)),
        (["breaker_open_max", "breaker_open"], spread.breaker_open_max.zip(spread.breaker_open)),
    ];
    for (keys, pair) in pairs {
        let Some((most, first)) = pair.filter(|(most, first)| most < first) else { continue };
        let [most_key, first_key] = keys;
        let message = format!(
            "{most_key}, {}, is below {first_key}, {}",
            format_duration(most),
            format_duration(first)
        );
        found.at_one_of(handling, &keys, message);
    }
}

fn check_hedging(handling: &Handling, found: &mut Findings) {
    let spread = &handling.spread;
    let is_unknown = handling.is_unread("idempotent", spread.idempotent.is_some());
    if spread.hedge_after.is_some() && has_another(handling) && spread.idempotent != Some(true) && !is_unknown
    {
        let message = "with hedge_after two targets may be at work on the same item: say idempotent = true beside it if \
                       the handler stands that";
        found.at_one_of(handling, &["hedge_after", "idempotent"], message.into());
    }
}

/// A link that leads nowhere would fail every delivery.
fn check_links(plan: &Plan, handling: &Handling, blobs: Option<&BlobOptions>, found: &mut Findings) {
    if handling.blob_links != Some(true) {
        return;
    }
    let message = match blobs {
        None => "blob_links needs --blob-store, where the data lies that is linked to",
        Some(blobs) if blobs.is_folder() && !plan.is_reached() => {
            "blob_links with a folder needs --listen, where handlers fetch the data"
        }
        Some(_) => return,
    };
    found.at_key(handling, "blob_links", message.into());
}

fn check_callbacks(plan: &Plan, handling: &Handling, found: &mut Findings) {
    if handling.callback_timeout.is_some() && !plan.is_reached() {
        let message = "callback_timeout needs --listen or --public-url, where handlers call back";
        found.at_key(handling, "callback_timeout", message.into());
    }
}

fn check_uses(plan: &Plan, levels: &[(Level, Handling)], found: &mut Findings) {
    let is_other = |feed: &&String| !plan.feeds.contains(feed);
    let others: Vec<_> =
        plan.file.feeds.keys().filter(is_other).flat_map(|feed| self::levels(plan, feed)).collect();
    let mut check = |key: &str, is_of_use: &dyn Fn(&Handling) -> bool, message: &str| {
        for origin in useless(key, is_of_use, levels, &others) {
            found.at(origin, message.to_owned());
        }
    };
    for (key, needed) in NEEDS {
        let is_of_use =
            |handling: &Handling| needed.iter().any(|needed| handling.origins.of(needed).is_some());
        check(key, &is_of_use, &format!("{key} does nothing without {}", needed.join(" or ")));
    }
    for (key, is_of_use, message) in USES {
        check(key, &is_of_use, message);
    }
}

/// Where a key stands that is of use to none of those that inherit it: of the `served` ones, and of the `others` in the file,
/// which another watcher may serve.
fn useless(
    key: &str,
    is_of_use: &dyn Fn(&Handling) -> bool,
    served: &[(Level, Handling)],
    others: &[(Level, Handling)],
) -> BTreeSet<Origin> {
    let mut origins: BTreeSet<Origin> =
        served.iter().filter_map(|(_, handling)| handling.origins.of(key)).collect();
    for (_, handling) in served.iter().chain(others).filter(|(_, handling)| is_of_use(handling)) {
        handling.origins.of(key).map(|origin| origins.remove(&origin));
    }
    origins
}

/// Whether there is another target to ask. How many a flag names may differ from machine to machine, with the same file.
fn has_another(handling: &Handling) -> bool {
    let is_flag = handling.origins.of("target").is_some_and(|origin| origin.place.is_none());
    is_flag || handling.targets.as_ref().is_none_or(|targets| targets.len() > 1)
}

fn is_single(handling: &Handling) -> bool {
    handling.batch_size.is_none()
}

/// A feed without any target is delivered nowhere.
fn check_targets(plan: &Plan, levels: &[(Level, Handling)], found: &mut Findings) {
    if plan.file.handling.is_unread("feeds", !plan.file.feeds.is_empty()) {
        return;
    }
    for feed in &plan.feeds {
        let mut own = levels.iter().filter(|((name, _), _)| name == feed).map(|(_, handling)| handling);
        let widest = own.clone().next();
        // One that could not be read has been told of.
        let has_target =
            own.any(|handling| handling.targets.is_some() || handling.origins.of("target").is_some());
        if let Some(widest) = widest.filter(|_| !has_target) {
            let message = format!(
                "feed {feed:?} has no handler: name one with --target URL or --gate-target GATE=URL, or in the file of \
                 --config"
            );
            found.at_table(widest, message);
        }
    }
}

/// How a request goes, but for what needs a secret.
fn http_options(file: &File, handling: &Handling) -> HttpOptions {
    let defaults = HttpOptions::default();
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let or = |time: Option<Duration>, default| time.unwrap_or(default);
    HttpOptions {
        request_timeout: request_timeout(handling),
        connect_timeout: or(handling.connect_timeout, defaults.connect_timeout),
        max_answer: handling.max_answer.map_or(defaults.max_answer, bytes),
        callback_timeout: or(handling.callback_timeout, defaults.callback_timeout),
        health_path: handling.target_health.clone(),
        gather_max: file.gather_max.map_or(defaults.gather_max, bytes),
        spread: handling.spread.spread(Vec::new()),
        public_url: file.public_url.clone(),
        deny_private: handling.deny_private.unwrap_or(defaults.deny_private),
        ..defaults
    }
}

/// Which keys say it.
fn keys(part: Part) -> &'static [&'static str] {
    match part {
        Part::Targets => &["target"],
        Part::Times => &["request_timeout", "connect_timeout", "callback_timeout"],
        Part::Spread => &["hedge_after", "request_timeout"],
        Part::HealthPath => &["target_health", "target"],
        Part::Ca => &["ca_file"],
        Part::PublicUrl => &["public_url"],
    }
}
