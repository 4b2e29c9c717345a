//! What a suite in somebody's tests shows, and what its environment changes. Each test here starts this
//! program again as `cargo test` does, output held back, with one test of the suite below.

use std::{env, process::Command};

mod stranger {
    use sessionkit_conformance::MemoryHarness;

    sessionkit_conformance::suite!(MemoryHarness::new());
}

const SKIPPED: &str = "stranger::s01_a_copy_of_the_backend_opens_no_session";
const RACE: &str = "stranger::c01_of_many_creates_of_one_token_one_succeeds";
const CORE: &str = "stranger::l01_create_then_load_is_equal";

/// Whether the test passes, and everything that the run prints.
fn run(test: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let this = env::current_exe().expect("the tests are a program");
    let output = Command::new(this)
        .args(["--exact", test])
        .env_remove("RUST_TEST_NOCAPTURE")
        .envs(variables.iter().copied())
        .output()
        .expect("the program starts");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        text.contains("1 test") || text.contains("1 failed"),
        "{text}"
    );
    (output.status.success(), text)
}

#[test]
fn a_skip_is_shown_with_its_reason_though_output_is_captured() {
    let (passed, text) = run(SKIPPED, &[]);
    assert!(passed, "{text}");
    assert!(
        text.contains("S01 skip: the harness has no hook raw_dump"),
        "{text}"
    );
}

#[test]
fn a_level_leaves_out_what_is_above_it() {
    for (level, test, runs) in [
        ("core", CORE, true),
        ("core", RACE, false),
        ("Concurrent", RACE, true),
        ("concurrent", SKIPPED, false),
    ] {
        let (passed, text) = run(test, &[("SESSIONKIT_CONFORMANCE_LEVEL", level)]);
        assert!(passed, "{text}");
        let skip = format!("skip: it is above the level {}", level.to_lowercase());
        assert_eq!(text.contains(&skip), !runs, "{text}");
    }
}

#[test]
fn a_variable_with_a_value_that_means_nothing_fails_the_test() {
    for (variable, value, words) in [
        (
            "SESSIONKIT_CONFORMANCE_LEVEL",
            "all",
            "core, concurrent, faults or secure",
        ),
        (
            "SESSIONKIT_CONFORMANCE_LEVEL",
            "",
            "core, concurrent, faults or secure",
        ),
        (
            "SESSIONKIT_CONFORMANCE_LEVEL",
            "none",
            "core, concurrent, faults or secure",
        ),
        (
            "SESSIONKIT_CONFORMANCE_WATCHDOG",
            "0",
            "a number of seconds from 1 on",
        ),
        (
            "SESSIONKIT_CONFORMANCE_WATCHDOG",
            "1m",
            "a number of seconds from 1 on",
        ),
        ("SESSIONKIT_CONFORMANCE_SEED", "-1", "a number from 0 to"),
    ] {
        let (passed, text) = run(CORE, &[(variable, value)]);
        assert!(!passed, "{text}");
        assert!(text.contains(variable) && text.contains(words), "{text}");
    }
}

#[test]
fn the_watchdog_waits_as_long_as_it_is_told() {
    let (passed, text) = run(CORE, &[("SESSIONKIT_CONFORMANCE_WATCHDOG", "3600")]);
    assert!(passed, "{text}");
}
