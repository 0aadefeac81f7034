//! Limits and circuits in the flags and the file of `run`.

use std::fs;

use crate::place::Place;

fn check(text: &str) -> (Option<i32>, String) {
    let place = Place::new();
    fs::write(place.path().join("gatefeed.toml"), text).unwrap();
    let done = place.run(&["config", "check", "gatefeed.toml"]);
    (done.code, done.out + &done.err)
}

#[test]
fn a_file_with_all_of_them_is_valid() {
    let (code, said) = check(
        "target = [\"http://a/\", \"http://b/\"]\nmin_concurrency = 2\nmax_concurrency = 50\nbalance = \"turns\"\n\
         rate_limit = 100\nburst = 5\ntarget_rate_limit = \"30/m\"\ntarget_burst = 2\ntarget_max_in_flight = 4\n\
         breaker_failures = 5\nbreaker_share = \"50%\"\nbreaker_open = \"5s\"\nbreaker_open_max = \"1m\"\n\
         [feeds.a]\nidempotent = true\nhedge_after = \"p95\"\nhedge_targets = 2\nhedge_budget = \"5%\"\n\
         hedge_greatest = \"/version\"\nhedge_accept = [200, 204]\n[[feeds.a.gates]]\ngate = 1\nrate_limit = \"0.5\"\n",
    );
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn what_cannot_work_is_refused_with_its_place() {
    for (text, expected) in [
        ("rate_limit = 0", ":1:14: rate_limit: expected a rate above zero"),
        ("rate_limit = \"5/d\"", ":1:14: rate_limit: expected a rate above zero"),
        ("rate_limit = \"-1\"", ":1:14: rate_limit: expected a rate above zero"),
        ("burst = 5", ":1:1: burst needs a rate_limit beside it"),
        ("breaker_failures = 0", ":1:20: breaker_failures: expected a whole number from 1"),
        ("breaker_share = 0.5", ":1:17: breaker_share: expected a share from \"1%\""),
        ("breaker_open = \"0s\"", ":1:16: breaker_open: expected more than zero"),
        ("hedge_after = \"0s\"", ":1:15: hedge_after: expected a time"),
        ("hedge_after = \"p100\"", ":1:15: hedge_after: expected a time"),
        ("hedge_targets = 1", ":1:17: hedge_targets: expected a whole number from 2"),
        ("hedge_greatest = \"version\"", ":1:18: hedge_greatest: expected a JSON pointer"),
        ("hedge_accept = [200, 404]", ":1:22: hedge_accept: expected statuses from 200 to 299"),
        ("balance = \"random\"", ":1:11: balance: expected \"least-loaded\" or \"turns\""),
        ("idempotent = \"yes\"", ":1:14: idempotent: expected true or false"),
        ("brekaer_failures = 5", "did you mean \"breaker_failures\"?"),
        ("hedge_after = \"1s\"\ntarget = [\"http://a/\", \"http://b/\"]", "say idempotent = true"),
        ("hedge_after = \"2m\"\nidempotent = true\ntarget = \"http://a/\"", "below the request timeout"),
        ("min_concurrency = 5\nmax_concurrency = 4\ntarget = \"http://a/\"", "5, is above the greatest, 4"),
    ] {
        let (code, said) = check(text);
        assert_eq!(code, Some(2), "{text}: {said}");
        assert!(said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn flags_are_checked_too() {
    let place = Place::new();
    for (args, expected) in [
        (["--rate-limit", "0"].as_slice(), "expected a rate above zero"),
        (&["--burst", "5"], "--rate-limit"),
        (&["--min-concurrency", "9", "--max-concurrency", "3"], "9, is above the greatest, 3"),
        (&["--max-concurrency", "0"], "expected a whole number from 1"),
        (&["--target-max-in-flight", "0"], "expected a whole number from 1"),
    ] {
        let done = place.run(&[&["run", "--target", "http://127.0.0.1:9/", "--until-idle"], args].concat());
        assert_eq!(done.code, Some(2), "{args:?}: {}", done.err);
        assert!(done.err.contains(expected), "{args:?}: {}", done.err);
    }
}
