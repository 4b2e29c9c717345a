//! What is written about the cases is what the cases are.

use std::{collections::HashSet, fs, path::Path};

use sessionkit_conformance::{Group, registry, report};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One line of words, without the marks of comments.
fn words(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.trim();
        line.strip_prefix("///")
            .or_else(|| line.strip_prefix("//!"))
            .unwrap_or(line)
    });
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ")
}

#[test]
fn the_page_shows_the_catalogue() {
    let page = read("../docs/conformance.md");
    let begin = "<!-- generated: sessionkit-conformance --list --format markdown -->\n";
    let end = "<!-- end of the generated part -->";
    let (_, rest) = page
        .split_once(begin)
        .expect("the page has a generated part");
    let (generated, _) = rest.split_once(end).expect("the generated part ends");
    assert!(
        generated.trim() == report::catalogue().trim(),
        "docs/conformance.md is out of date; put in the output of\n  \
         cargo run -p sessionkit-conformance -- --list --format markdown"
    );
}

#[test]
fn every_case_quotes_the_contract() {
    let sources = [
        "store.rs",
        "record.rs",
        "token.rs",
        "error.rs",
        "key.rs",
        "keyring.rs",
        "manager.rs",
        "session.rs",
        "cookie.rs",
    ];
    let contract: String = sources
        .map(|file| words(&read(&format!("../sessions/src/{file}"))))
        .join(" ")
        // The marks of lists.
        .replace(" - **", " **");
    let strangers: Vec<_> = registry()
        .filter(|case| !contract.contains(&words(case.contract)))
        .map(|case| format!("{}: {}", case.id(), case.contract))
        .collect();
    assert!(
        strangers.is_empty(),
        "no sentences of the contract:\n{}",
        strangers.join("\n")
    );
}

#[test]
fn ids_are_unique_and_in_the_order_of_the_groups() {
    let ids: Vec<_> = registry().map(|case| case.id()).collect();
    let different: HashSet<_> = ids.iter().collect();
    assert_eq!(different.len(), ids.len());
    let groups: Vec<_> = registry().map(|case| case.group).collect();
    assert!(groups.windows(2).all(|pair| pair[0] <= pair[1]));
    for group in Group::ALL {
        assert!(groups.contains(&group), "{group} has no case");
    }
    for case in registry() {
        let id = case.id();
        assert!(
            id.as_bytes()[0].is_ascii_uppercase() && id[1..].parse::<u8>().is_ok(),
            "{id}"
        );
        assert!(case.why.ends_with(['.', '?']), "{id}: {}", case.why);
    }
}

macro_rules! names {
    ($($case:ident)*) => {
        const SUITE: &[&str] = &[$(stringify!($case)),*];
    };
}

#[test]
fn the_suite_has_a_test_for_every_case() {
    let names: Vec<_> = registry().map(|case| case.name).collect();
    assert_eq!(SUITE, names);
}

sessionkit_conformance::__suite_names!(names);
