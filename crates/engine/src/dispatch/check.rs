//! What is wrong with a route, before anything is sent.

use std::{fmt, time::Duration};

use gatefeed_core::duration;
use url::Url;

use super::{
    HttpOptions, connect, gather, health, resolve,
    target::{InvalidTarget, Target},
};

/// What of a route is at fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// One of its targets.
    Targets,
    /// [`HttpOptions::request_timeout`], `connect_timeout` or `callback_timeout`.
    Times,
    /// [`HttpOptions::spread`].
    Spread,
    /// [`HttpOptions::health_path`].
    HealthPath,
    /// [`HttpOptions::ca`].
    Ca,
    /// [`HttpOptions::public_url`].
    PublicUrl,
}

/// Why a route cannot work. The text never holds a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flaw {
    /// What is at fault.
    pub part: Part,
    /// Why.
    pub message: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl HttpOptions {
    /// Everything that is wrong with these options, for these targets; nothing if they will do. It asks nobody.
    pub fn flaws(&self, targets: &[Url]) -> Vec<Flaw> {
        let checks = [
            (Part::Times, self.check_times()),
            (Part::Spread, self.spread.check(self.request_timeout)),
            (Part::Targets, check_targets(targets, self.deny_private)),
            (Part::HealthPath, health::check_path(targets, self.health_path.as_deref())),
            (Part::Ca, self.ca.as_deref().map_or(Ok(()), connect::check_authorities)),
            (Part::PublicUrl, gather::check_url(self.public_url.as_ref())),
        ];
        let flaw =
            |(part, checked): (Part, Result<(), String>)| checked.err().map(|message| Flaw { part, message });
        checks.into_iter().filter_map(flaw).collect()
    }

    fn check_times(&self) -> Result<(), String> {
        let times = [self.request_timeout, self.connect_timeout, self.callback_timeout];
        if times.iter().any(Duration::is_zero) {
            return Err("a timeout of zero would end every request at once".into());
        }
        times.into_iter().try_for_each(|time| duration::check("a timeout", time))
    }
}

fn check_targets(targets: &[Url], deny_private: bool) -> Result<(), String> {
    if targets.is_empty() {
        return Err("there is no target; expected at least one URL".into());
    }
    for url in targets {
        let target = Target::new(url.clone()).map_err(|InvalidTarget(message)| message)?;
        if deny_private && target.is_private() {
            return Err(format!("the target {} will not do: {}", target.shown, resolve::DENIED));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::dispatch::{Rate, TargetLimits};

    fn limited(by: impl FnOnce(&mut TargetLimits)) -> HttpOptions {
        let mut options = HttpOptions::default();
        by(&mut options.spread.limits);
        options
    }

    #[test]
    fn each_part_that_is_wrong_is_named() {
        let good = HttpOptions::default;
        let targets = ["http://127.0.0.1:9/".parse().unwrap()];
        assert_eq!(good().flaws(&targets), []);
        let bad = HttpOptions {
            request_timeout: Duration::ZERO,
            health_path: Some("//elsewhere/".into()),
            ca: Some("no PEM".into()),
            public_url: Some("mailto:me@example.com".parse().unwrap()),
            deny_private: true,
            ..good()
        };
        let parts: Vec<Part> = bad.flaws(&targets).into_iter().map(|flaw| flaw.part).collect();
        assert_eq!(parts, [Part::Times, Part::Targets, Part::HealthPath, Part::Ca, Part::PublicUrl]);
        for times in [
            HttpOptions { request_timeout: Duration::MAX, ..good() },
            HttpOptions { connect_timeout: Duration::MAX, ..good() },
            HttpOptions { callback_timeout: Duration::MAX, ..good() },
            limited(|limits| limits.breaker.open_max = Duration::MAX),
            limited(|limits| limits.rate = Some(Rate { every: Duration::MAX, burst: NonZeroU32::MIN })),
        ] {
            let flaws = times.flaws(&targets);
            assert!(matches!(&flaws[..], [flaw] if flaw.message.contains("366 days")), "{flaws:?}");
        }
        let none = bad.flaws(&[]);
        assert!(none.iter().any(|flaw| flaw.message.contains("there is no target")), "{none:?}");
    }
}
