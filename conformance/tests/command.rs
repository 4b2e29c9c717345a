//! The command as a person or a CI server runs it.

#![cfg(feature = "cli")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sessionkit-conformance"))
        .args(arguments)
        .output()
        .expect("the command starts")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("the command was not killed")
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("a report is text")
}

fn report(arguments: &[&str]) -> (i32, Value) {
    let output = run(&[arguments, &["--format", "json"]].concat());
    let report = serde_json::from_str(&text(&output)).expect("the report is JSON");
    (status(&output), report)
}

#[test]
fn stores_that_conform_exit_with_0() {
    let output = run(&["memory:", "cookie:", "--group", "life", "--seed", "5"]);
    assert_eq!(status(&output), 0);
    let text = text(&output);
    assert!(text.contains("L01 create then load is equal"), "{text}");
    assert!(text.contains("seed 5"), "{text}");
}

/// Names that the store refuses included, with which nothing was opened.
#[test]
fn stores_on_a_disk_conform_and_are_left_empty() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sessions = dir.path().join("sessions");
    let file = format!("sqlite:{}", dir.path().join("sessions.db").display());
    let output = run(&[&file, &format!("fs://{}", sessions.display())]);
    assert_eq!(status(&output), 0, "{}", text(&output));
    let left = fs::read_dir(sessions).map_or(0, Iterator::count);
    assert_eq!(left, 0, "directories are left behind");
}

#[test]
fn a_broken_store_exits_with_1_and_says_how_to_see_it_again() {
    let output = run(&["broken:create-overwrites", "--case", "L06", "--seed", "5"]);
    assert_eq!(status(&output), 1);
    let text = text(&output);
    for words in [
        "L06 fail",
        "expected: create over a live record is Exists",
        "actual:   Ok",
        "why:      Two users share one session",
        "again:    sessionkit-conformance 'broken:create-overwrites' --case L06 --seed 5",
    ] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
}

#[test]
fn what_cannot_be_run_exits_with_2() {
    for arguments in [
        &[][..],
        &["nothing://localhost"],
        &["broken:no-such-bug"],
        &["memory:", "--case", "Z99"],
        &["memory:", "--waivers", "no-such-file"],
        &["memory:", "--jobs", "0"],
    ] {
        assert_eq!(status(&run(arguments)), 2, "{arguments:?}");
    }
}

#[test]
fn a_password_is_not_repeated() {
    let output = run(&["nothing://user:secret@localhost"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("secret"));
}

#[test]
fn waivers_turn_a_failure_into_0_and_a_pass_into_3() {
    let directory = tempfile::tempdir().expect("a directory");
    let waivers = |line: &str| {
        let path = directory.path().join("waivers");
        fs::write(&path, line).expect("a file");
        path.to_str().expect("a path of text").to_owned()
    };
    let store = ["broken:create-overwrites", "--case", "L06", "--waivers"];
    let known = waivers("L06 broken: 9999-12-31 https://example.org/1 known since May");
    let (code, waived) = report(&[&store[..], &[&known]].concat());
    assert_eq!(code, 0);
    let case = &waived["stores"][0]["cases"][0];
    assert_eq!(case["verdict"], "waived");
    assert!(case["reason"].to_string().contains("known since May"));

    let over = waivers("L06 broken: 2020-12-31 https://example.org/1 known since May");
    assert_eq!(report(&[&store[..], &[&over]].concat()).0, 3);
    let stale = waivers("L06 * 9999-12-31 https://example.org/1 known since May");
    let (code, unneeded) = report(&["memory:", "--case", "L06", "--waivers", &stale]);
    assert_eq!(code, 3);
    assert_eq!(unneeded["status"], 3);
    assert_eq!(unneeded["stores"][0]["cases"][0]["verdict"], "error");
}

#[test]
fn json_is_what_the_schema_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.json");
    let schema = fs::read_to_string(path).expect("the schema is there");
    let schema: Value = serde_json::from_str(&schema).expect("the schema is JSON");
    for arguments in [
        &["memory:", "cookie:", "--group", "meta", "--group", "sec"][..],
        &[
            "broken:create-overwrites",
            "--group",
            "life",
            "--group",
            "conc",
        ],
    ] {
        let (_, report) = report(arguments);
        let mut errors = Vec::new();
        validate(&schema, &schema, &report, "report", &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
    }
}

#[test]
fn junit_has_a_suite_for_each_store() {
    let output = run(&[
        "memory:",
        "broken:create-overwrites",
        "--group",
        "life",
        "--format",
        "junit",
    ]);
    let text = text(&output);
    assert_eq!(text.matches("<testsuite ").count(), 2, "{text}");
    assert_eq!(text.matches("<failure ").count(), 1, "{text}");
    assert!(text.contains("failures=\"1\""), "{text}");
}

#[test]
fn the_matrix_is_printed() {
    let output = run(&["--matrix"]);
    assert_eq!(text(&output), sessionkit_conformance::report::matrix());
}

#[test]
fn a_badge_has_the_level_or_the_failures() {
    let badge = |arguments: &[&str]| -> (i32, Value) {
        let output = run(&[&["--format", "badge"], arguments].concat());
        let badge = serde_json::from_str(&text(&output)).expect("a badge is JSON");
        (status(&output), badge)
    };
    let (status, of_one) = badge(&["--case", "l01", "memory:"]);
    assert_eq!(
        (status, &of_one["message"]),
        (0, &"none".into()),
        "{of_one}"
    );
    assert_eq!(of_one["schemaVersion"], 1);
    let (status, failed) = badge(&["--case", "l04", "memory:", "broken:delete-does-nothing"]);
    assert_eq!(
        (status, &failed["message"]),
        (1, &"1 case fails".into()),
        "{failed}"
    );
    assert_eq!(failed["color"], "red");
}

#[test]
fn the_list_names_every_case() {
    let output = run(&["--list"]);
    assert_eq!(status(&output), 0);
    assert!(text(&output).lines().count() > 100);
    let some = text(&run(&["--list", "--group", "canc"]));
    assert!(some.contains("X01") && !some.contains("L01"), "{some}");
}

/// Checks a value against a schema, which may use only what is handled here.
fn validate(root: &Value, schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let holds = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let path = rule
                    .as_str()
                    .and_then(|path| path.strip_prefix('#'))
                    .expect("a reference");
                let target = root.pointer(path).expect("a schema that exists");
                validate(root, target, value, at, errors);
                true
            }
            "const" => value == rule,
            "enum" => rule.as_array().expect("a list").contains(value),
            "type" => match rule.as_array() {
                Some(kinds) => kinds.iter().any(|kind| is(value, kind)),
                None => is(value, rule),
            },
            "minimum" => value.as_f64() >= rule.as_f64(),
            "pattern" => value.is_null() || matches(rule.as_str(), value.as_str()),
            "items" => {
                for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(root, rule, item, &format!("{at}[{number}]"), errors);
                }
                true
            }
            "required" => {
                let names = rule
                    .as_array()
                    .expect("a list")
                    .iter()
                    .filter_map(Value::as_str);
                value.is_null() || names.into_iter().all(|name| value.get(name).is_some())
            }
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = rule.get(name) {
                        validate(root, schema, member, &format!("{at}.{name}"), errors);
                    }
                }
                true
            }
            "additionalProperties" => match (rule, value.as_object()) {
                (Value::Bool(false), Some(members)) => members
                    .keys()
                    .all(|name| schema["properties"].get(name).is_some()),
                (Value::Bool(_), _) | (_, None) => true,
                (rule, Some(members)) => {
                    for (name, member) in members {
                        validate(root, rule, member, &format!("{at}.{name}"), errors);
                    }
                    true
                }
            },
            other => panic!("the schema uses {other}, which this test does not know"),
        };
        if !holds {
            errors.push(format!("{at}: {keyword} {rule} does not hold for {value}"));
        }
    }
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().expect("a name of a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the schema uses the type {other}, which this test does not know"),
    }
}

/// The two patterns of the schema.
fn matches(pattern: Option<&str>, value: Option<&str>) -> bool {
    let value = value.unwrap_or_default();
    match pattern {
        Some("^[A-Z][0-9]{2}$") => {
            let (letter, digits) = value.split_at(value.len().min(1));
            letter.bytes().all(|byte| byte.is_ascii_uppercase())
                && digits.len() == 2
                && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        Some("^[0-9a-f]{16}$") => {
            value.len() == 16
                && value
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        }
        other => panic!("the schema uses the pattern {other:?}, which this test does not know"),
    }
}
