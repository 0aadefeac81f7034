//! Who may do what: bearer tokens with a role, for one feed or all; or, on a machine of one's own, everybody who can
//! connect.

use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use chrono::Utc;
use gatefeed_core::{
    Result, Store,
    inspect::PartitionRow,
    partition::elsewhere,
    token::{Role, Token},
};
use tokio::sync::Mutex;

use crate::{app::App, problem::Problem, secret};

/// How long tokens are remembered: a new or revoked one counts after this time at the latest.
const REMEMBERED: Duration = Duration::from_secs(2);

/// For how long they are where the database has no answer.
const REMEMBERED_MAX: Duration = Duration::from_secs(60);

/// Who may use the API as long as no token has ever been made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Openness {
    /// Nobody.
    #[default]
    Closed,
    /// Whoever connects to this machine by a name of its own, and no page of another site.
    Local,
    /// Whoever connects, and no page of another site.
    Anybody,
}

/// What the database knows of tokens.
#[derive(Debug)]
struct Known {
    at: Instant,
    tokens: HashMap<String, Token>,
}

/// The tokens, remembered.
#[derive(Debug)]
pub(crate) struct Access {
    store: Arc<dyn Store>,
    openness: Openness,
    known: RwLock<Option<Arc<Known>>>,
    /// Held by the one that asks the database.
    asking: Mutex<()>,
}

impl Access {
    pub(crate) fn new(store: Arc<dyn Store>, openness: Openness) -> Self {
        Self { store, openness, known: RwLock::default(), asking: Mutex::default() }
    }

    /// Who sends these headers.
    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let known = self.known().await?;
        if known.tokens.is_empty() {
            self.check_open(headers)?;
            return Ok(Caller { role: Role::Operate, feed: None });
        }
        let text = bearer(headers)?;
        let token =
            secret::id_of(text).and_then(|id| known.tokens.get(id)).filter(|token| secret::is(token, text));
        match token {
            Some(token) if token.holds(Utc::now()) => {
                Ok(Caller { role: token.role, feed: token.feed.clone() })
            }
            _ => Err(Problem::unauthorized(
                "this token is unknown, revoked or expired: `gatefeed token create` makes one",
            )),
        }
    }

    fn check_open(&self, headers: &HeaderMap) -> Result<(), Problem> {
        match self.openness {
            Openness::Closed => Err(Problem::unauthorized(
                "there is no token yet: make one with `gatefeed token create` and send it as Authorization: Bearer",
            )),
            Openness::Local if !is_local(headers) => Err(Problem::forbidden(
                "without a token the API answers to localhost and to addresses of this machine only, not to other names",
            )),
            _ if is_cross_site(headers) => {
                Err(Problem::forbidden("without a token the API does not answer to pages of other sites"))
            }
            _ => Ok(()),
        }
    }

    async fn known(&self) -> Result<Arc<Known>, Problem> {
        let seen = self.remembered();
        if let Some(known) = seen.as_ref().filter(|known| known.at.elapsed() < REMEMBERED) {
            return Ok(Arc::clone(known));
        }
        let _asking = match (self.asking.try_lock(), seen) {
            (Ok(asking), _) => asking,
            // Somebody else asks: what was known will do meanwhile.
            (Err(_), Some(known)) if known.at.elapsed() < REMEMBERED_MAX => return Ok(known),
            (Err(_), _) => self.asking.lock().await,
        };
        match self.remembered().filter(|known| known.at.elapsed() < REMEMBERED) {
            Some(known) => Ok(known),
            None => self.ask().await,
        }
    }

    async fn ask(&self) -> Result<Arc<Known>, Problem> {
        let at = Instant::now();
        match self.store.tokens().await {
            Ok(tokens) => {
                let tokens = tokens.into_iter().map(|token| (token.id.clone(), token)).collect();
                let known = Arc::new(Known { at, tokens });
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&known));
                Ok(known)
            }
            Err(error) => match self.remembered().filter(|known| known.at.elapsed() < REMEMBERED_MAX) {
                Some(known) => Ok(known),
                None => Err(error.into()),
            },
        }
    }

    fn remembered(&self) -> Option<Arc<Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || Problem::unauthorized("send a token as Authorization: Bearer gf_…");
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?.to_str().map_err(|_| missing())?;
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(missing()) }
}

/// Whether the name that was connected to can only be this machine. A page of another site can let its own name lead
/// here (DNS rebinding), and would then read and write as if it were ours.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let name = without_port(host);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Whether a browser sends it for a page of another site.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site") {
        return true;
    }
    let host = text("host").unwrap_or("");
    text("origin").is_some_and(|origin| origin.split_once("://").is_none_or(|(_, from)| from != host))
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    role: Role,
    /// Its only feed; `None`: every feed.
    pub(crate) feed: Option<String>,
}

impl Caller {
    /// Errs for a partition of another feed: to this caller there is none.
    pub(crate) async fn check_partition(&self, app: &App, partition: &str) -> Result<(), Problem> {
        let Some(own) = &self.feed else { return Ok(()) };
        // Not as it is remembered: it may have been deleted, and made again in another feed.
        match app.store.glance(partition).await? {
            Some(glance) if glance.feed == *own => Ok(()),
            _ => Err(elsewhere(partition).into()),
        }
    }

    /// Whether partitions of this feed are any to this caller.
    pub(crate) fn may_see(&self, feed: &str) -> bool {
        self.feed.as_deref().is_none_or(|own| own == feed)
    }

    /// The feed of a partition that this caller makes; `asked` is where it wants it. Whether one that exists is its own is
    /// looked at where items are added: [`NewPartition::own_feed_only`].
    ///
    /// [`NewPartition::own_feed_only`]: gatefeed_core::partition::NewPartition::own_feed_only
    pub(crate) fn feed_for(&self, asked: Option<&str>) -> Result<String, Problem> {
        Ok(self.check_feed(asked)?.unwrap_or(gatefeed_core::id::DEFAULT_FEED).to_owned())
    }

    /// Whether partitions of other feeds are none to this caller.
    pub(crate) fn has_own_feed_only(&self) -> bool {
        self.feed.is_some()
    }

    /// Errs for the row of a partition of another feed.
    pub(crate) fn check_row(&self, row: &PartitionRow) -> Result<(), Problem> {
        if self.may_see(&row.feed) { Ok(()) } else { Err(elsewhere(&row.id).into()) }
    }

    /// The feed that is asked for, or the only one of this caller. Errs for another than that.
    pub(crate) fn check_feed<'a>(&'a self, asked: Option<&'a str>) -> Result<Option<&'a str>, Problem> {
        match (asked, self.feed.as_deref()) {
            (Some(asked), Some(own)) if asked != own => {
                Err(Problem::forbidden(format!("this token is for the feed {own:?}")))
            }
            (asked, own) => Ok(asked.or(own)),
        }
    }
}

/// What an operation takes.
pub(crate) trait Needs: Send + Sync {
    /// At least this role.
    const ROLE: Role;
}

/// Looking.
pub(crate) struct Looks;
/// Pushing.
pub(crate) struct Pushes;
/// Operating.
pub(crate) struct Operates;

impl Needs for Looks {
    const ROLE: Role = Role::Read;
}
impl Needs for Pushes {
    const ROLE: Role = Role::Push;
}
impl Needs for Operates {
    const ROLE: Role = Role::Operate;
}

/// A caller that may do what an operation does. An operation has it as its first argument after the state, so that
/// nothing is read, let alone done, for others.
pub(crate) struct May<N>(pub(crate) Caller, pub(crate) PhantomData<N>);

impl<N: Needs> FromRequestParts<App> for May<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Self::check(app, &parts.headers).await
    }
}

impl<N: Needs> May<N> {
    /// Whoever sends these headers. What takes long asks again and again: a token may be revoked meanwhile.
    pub(crate) async fn check(app: &App, headers: &HeaderMap) -> Result<Self, Problem> {
        let caller = app.access.caller(headers).await?;
        if caller.role < N::ROLE {
            return Err(Problem::forbidden(format!(
                "this token has the role {}, and this takes {}",
                caller.role,
                N::ROLE
            )));
        }
        Ok(Self(caller, PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:8080", "[::1]", "192.168.1.5:1"] {
            assert!(is_local(&headers(&[("host", host)])), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8080", "", "127.0.0.1.evil.example"] {
            assert!(!is_local(&headers(&[("host", host)])), "{host}");
        }
        assert!(!is_local(&HeaderMap::new()));
    }

    #[test]
    fn pages_of_other_sites_are_told_from_our_own() {
        let own = ("host", "localhost:8080");
        assert!(!is_cross_site(&headers(&[own])));
        assert!(!is_cross_site(&headers(&[
            own,
            ("origin", "http://localhost:8080"),
            ("sec-fetch-site", "same-origin")
        ])));
        for other in [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
        {
            assert!(is_cross_site(&headers(&[own, other])), "{other:?}");
        }
    }
}
