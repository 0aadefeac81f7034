//! Values of flags: what they may be. Each error says what was expected, since that is what people need next.

use std::{num::NonZeroU32, time::Duration};

use gatefeed_core::{duration::DURATION_MAX, id, inspect, lease, partition::FailurePolicy};
use gatefeed_engine::dispatch::parse_target;
use tracing_subscriber::EnvFilter;
use url::Url;

const POLL_INTERVAL_MIN: Duration = Duration::from_millis(10);

const WATCH_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// More deliveries at a time than a process has ports and memory for.
const CONCURRENCY_MAX: usize = 1_000_000;

/// The largest item that is measured.
const PAYLOAD_MAX: u64 = 100_000_000;

/// What the variable of a flag without a value says, in the words that clap takes for it elsewhere. A word that is none of
/// them says nothing: `GATEFEED_INSECURE=off` with a typing error must not open anything.
pub(crate) fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Zero to a year: `200ms`, `30s`, `5m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| "expected a duration such as 200ms, 30s or 5m".to_owned())?;
    if duration > DURATION_MAX { Err("expected at most 366 days".to_owned()) } else { Ok(duration) }
}

/// A timeout: zero would fire at once and is nobody's wish, and clocks here know no less than a millisecond.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() {
        return Err("expected more than zero, such as 200ms, 30s or 5m".to_owned());
    }
    if !duration.as_nanos().is_multiple_of(1_000_000) {
        return Err("expected whole milliseconds, such as 200ms, 30s or 5m".to_owned());
    }
    Ok(duration)
}

/// How often to ask the database.
pub(crate) fn poll_interval(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < POLL_INTERVAL_MIN {
        return Err(format!("expected at least {POLL_INTERVAL_MIN:?}"));
    }
    Ok(duration)
}

/// How often a listing is shown again: not so often that looking keeps the database busy.
pub(crate) fn watch_interval(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < WATCH_INTERVAL_MIN {
        return Err(format!("expected at least {WATCH_INTERVAL_MIN:?}"));
    }
    Ok(duration)
}

/// How long a lease lasts.
pub(crate) fn lease_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    lease::check_duration(duration).map_err(|error| error.to_string())?;
    Ok(duration)
}

/// A number of bytes, at least one: `1048576`, `1MiB`, `1MB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let bytes = number
        .parse::<u64>()
        .ok()
        .zip(unit_bytes(unit.trim()))
        .and_then(|(number, unit)| number.checked_mul(unit))
        .filter(|bytes| i64::try_from(*bytes).is_ok());
    match bytes {
        Some(0) => Err("expected at least one byte".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("expected a number of bytes such as 500000, 64KiB, 16MiB or 1GB".to_owned()),
    }
}

fn unit_bytes(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    })
}

/// How many deliveries at a time.
pub(crate) fn concurrency(text: &str) -> Result<usize, String> {
    number_within(text, 1, CONCURRENCY_MAX)
}

/// How many items of a batch: their outcomes are written together.
pub(crate) fn batch_size(text: &str) -> Result<usize, String> {
    number_within(text, 1, 1_000)
}

/// How many items or partitions a bench makes.
pub(crate) fn amount(text: &str) -> Result<usize, String> {
    number_within(text, 1, 100_000_000)
}

/// The bytes of a bench's item: a round has ten at least, in memory and in the database.
pub(crate) fn payload(text: &str) -> Result<u64, String> {
    let payload = bytes(text)?;
    if payload > PAYLOAD_MAX { Err("expected at most 100MB".to_owned()) } else { Ok(payload) }
}

/// How many rows. One less than a store lists, since one more is read to know whether there are more.
pub(crate) fn limit(text: &str) -> Result<usize, String> {
    number_within(text, 1, inspect::LIMIT_MAX - 1)
}

/// How many documents the demo shows; its ranking has to fit into an answer.
pub(crate) fn top(text: &str) -> Result<usize, String> {
    number_within(text, 1, 1000)
}

/// How many items of a transaction.
pub(crate) fn chunk(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number >= 1);
    number.ok_or_else(|| "expected a whole number from 1".to_owned())
}

fn number_within(text: &str, min: usize, max: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("expected a whole number from {min} to {max}"))
}

/// A number of retries, or `None` for ever, which is written as -1.
pub(crate) fn max_retries(text: &str) -> Result<i64, String> {
    let number = text.parse().ok().filter(|number| (-1..=i64::from(i32::MAX)).contains(number));
    number.ok_or_else(|| "expected 0 or a positive whole number, or -1 for ever".to_owned())
}

/// A number above zero.
pub(crate) fn count(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("expected a whole number from 1 to {}", u32::MAX))
}

/// How many at once.
pub(crate) fn burst(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("expected a whole number from 1 to {}", u32::MAX))
}

/// A share, in hundredths.
pub(crate) fn share(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').and_then(|text| text.trim_end().parse().ok());
    number
        .filter(|number| (1..=100).contains(number))
        .ok_or_else(|| "expected a share from \"1%\" to \"100%\"".to_owned())
}

/// A rate, by second unless it says otherwise: the time from one to the next.
pub(crate) fn rate(text: &str) -> Result<Duration, String> {
    let expected = || "expected a rate above zero, such as 100 (a second), 0.5, 30/m or 1000/h".to_owned();
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let unit = match unit.trim() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected()),
    };
    let number: f64 = number.trim().parse().map_err(|_| expected())?;
    let every = Duration::try_from_secs_f64(unit / number).map_err(|_| expected())?;
    // Between a thousand million a second and one in a year.
    let is_sensible = number > 0.0 && every >= Duration::from_nanos(1) && every <= DURATION_MAX;
    if is_sensible { Ok(every) } else { Err(expected()) }
}

/// A gate.
pub(crate) fn gate(text: &str) -> Result<i32, String> {
    let gate = text.parse().ok().filter(|gate| *gate >= 0);
    gate.ok_or_else(|| format!("expected a whole number from 0 to {}", i32::MAX))
}

/// A gate and where its items go: `1=http://127.0.0.1:8000/`.
pub(crate) fn gate_target(text: &str) -> Result<(i32, Url), String> {
    let expected = "expected a gate and a URL, such as 1=http://127.0.0.1:8000/";
    let (number, url) = text.split_once('=').ok_or(expected)?;
    let number = gate(number).map_err(|error| format!("{expected}; of the gate: {error}"))?;
    Ok((number, parse_target(url).map_err(|error| error.to_string())?))
}

/// What failed items mean.
pub(crate) fn failure_policy(text: &str) -> Result<FailurePolicy, String> {
    text.parse().map_err(|_| "expected stop, continue, a number such as 10 or a share such as 5%".to_owned())
}

/// A duration that is stored in whole seconds.
pub(crate) fn whole_seconds(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.as_secs() == 0 || duration.subsec_nanos() > 0 {
        return Err("expected whole seconds, such as 30s, 15m or 2h".to_owned());
    }
    Ok(duration)
}

/// A feed's name, a watcher's name.
pub(crate) fn name(text: &str) -> Result<String, String> {
    id::check_id("the name", text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// One feed. A comma separates several where a watcher is told which to serve, so that none could be told this one.
pub(crate) fn feed(text: &str) -> Result<String, String> {
    match text.contains(',') {
        true => Err("expected one feed: a comma separates several, which only `run` takes".to_owned()),
        false => name(text),
    }
}

/// A path on a handler.
pub(crate) fn path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic() && c != '#');
    if is_path { Ok(text.to_owned()) } else { Err("expected a path such as /healthz".to_owned()) }
}

/// Where to listen.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let expected = || "expected an address and a port such as 127.0.0.1:8080, [::]:8080 or :8080".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    let is_host = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    if port.parse::<u16>().is_err() || !is_host {
        return Err(expected());
    }
    Ok(if host.is_empty() { format!("0.0.0.0:{port}") } else { text.to_owned() })
}

/// What to log. A single word has to be a level: tracing would take a misspelt one for a module's name and then
/// log nothing.
pub(crate) fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_known = |part: &str| part.contains('=') || LEVELS.contains(&part.to_ascii_lowercase().as_str());
    if text.split(',').all(|part| is_known(part.trim())) && EnvFilter::try_new(text).is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!("expected one of {}, or by part as in info,sqlx=debug", LEVELS.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_with_units_of_both_kinds() {
        for (text, expected) in
            [("1", 1), ("16MiB", 16 << 20), ("1MB", 1_000_000), ("64 kib", 65536), ("2g", 2_000_000_000)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for bad in ["", "0", "0MiB", "MiB", "-1", "1.5MB", "1TB", "99999999999GiB", "9223372036854775808"] {
            assert!(bytes(bad).unwrap_err().starts_with("expected"), "{bad}");
        }
    }

    #[test]
    fn words_that_are_neither_true_nor_false_are_refused() {
        for (word, expected) in [("1", true), ("Yes", true), ("ON", true), ("f", false), ("no", false)] {
            assert_eq!(truth(word), Ok(expected), "{word}");
        }
        for bad in ["", "maybe", "truee", "2", " true", "none"] {
            assert!(truth(bad).unwrap_err().contains("true or false"), "{bad}");
        }
    }

    #[test]
    fn durations_are_bounded_on_both_sides() {
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(timeout("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["0s", "0ms", "30", "soon", "-1s", "", "9999y"] {
            assert!(timeout(bad).unwrap_err().contains("expected"), "{bad}");
        }
        for bad in ["200us", "1500us", "1ms 1ns"] {
            assert!(timeout(bad).unwrap_err().contains("whole milliseconds"), "{bad}");
        }
        assert!(poll_interval("9ms").is_err() && poll_interval("10ms").is_ok());
        assert!(watch_interval("99ms").is_err() && watch_interval("100ms").is_ok());
        assert!(lease_duration("999ms").is_err() && lease_duration("1s").is_ok());
    }

    #[test]
    fn a_partition_is_in_one_feed() {
        assert_eq!(feed("video"), Ok("video".to_owned()));
        assert!(feed("a,b").unwrap_err().contains("one feed"));
        assert!(feed("").is_err());
    }

    #[test]
    fn addresses_need_a_port() {
        assert_eq!(address(":80").as_deref(), Ok("0.0.0.0:80"));
        assert_eq!(address("[::1]:80").as_deref(), Ok("[::1]:80"));
        for bad in ["", "localhost", "8080", "::1", "h:99999", "http://h:80"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for good in ["info", "WARN", "info,sqlx=debug", "gatefeed_engine=trace,off"] {
            assert!(log_level(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,loud", "sqlx=loud"] {
            assert!(log_level(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_stay_in_their_range() {
        assert_eq!((max_retries("-1"), max_retries("0")), (Ok(-1), Ok(0)));
        assert!(max_retries("-2").is_err() && max_retries("x").is_err());
        assert!(limit("0").is_err() && limit("10000").is_err() && limit("9999").is_ok());
        assert!(concurrency("0").is_err());
        assert!(chunk("0").is_err() && chunk("-1").is_err() && chunk("1") == Ok(1));
        assert!(gate("-1").is_err() && gate("0").is_ok());
        assert_eq!(
            gate_target("2=http://h/?a=b").map(|(gate, url)| (gate, url.to_string())),
            Ok((2, "http://h/?a=b".to_owned()))
        );
        for bad in ["http://h/", "x=http://h/", "-1=http://h/", "1=h", "1="] {
            assert!(gate_target(bad).is_err(), "{bad}");
        }
        assert!(failure_policy("5%").is_ok() && failure_policy("5 %").unwrap_err().contains("expected"));
        assert!(
            whole_seconds("90m").is_ok() && whole_seconds("1500ms").is_err() && whole_seconds("0s").is_err()
        );
        assert!(path("healthz").is_err() && path("/healthz?full=1").is_ok());
    }
}
