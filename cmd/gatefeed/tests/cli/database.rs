//! Which database, and its tables.

use crate::place::{Done, Place};

#[test]
fn the_database_comes_from_the_flag_then_ours_then_the_common_variable() {
    let place = Place::new();
    let migrated = |args: &[&str], variables: &[(&str, &str)], file: &str| {
        let mut command = place.command(args);
        command.envs(variables.iter().copied());
        assert_eq!(Done::from(command.output().unwrap()).code, Some(0));
        assert!(place.path().join(file).exists(), "{file} was not made");
    };
    let common = ("DATABASE_URL", "sqlite://common.db");
    let ours = ("GATEFEED_DATABASE_URL", "sqlite://ours.db");
    migrated(&["migrate"], &[common], "common.db");
    migrated(&["migrate"], &[common, ours], "ours.db");
    migrated(&["migrate"], &[("GATEFEED_DATABASE_URL", ""), ("DATABASE_URL", "")], "gatefeed.db");
    migrated(&["--database-url", "sqlite://flag.db", "migrate"], &[common, ours], "flag.db");
}

#[test]
fn migrating_twice_is_once() {
    let place = Place::new();
    assert!(place.succeeds(&["migrate"]).starts_with("made gatefeed's tables"));
    assert!(place.succeeds(&["migrate"]).contains("already"));
}
