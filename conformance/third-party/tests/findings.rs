//! What the kit finds in published stores, exactly: a finding that vanishes fails as well as a new
//! one. The reasons are in `docs/conformance-findings.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    thread,
};

use sessionkit_conformance::{
    Case, Group, Harness, MakeHarness, Options, Verdict, registry, run_case,
};
use sessionkit_conformance_third_party::{Caching, Memory, Moka, Sqlite};

const DOCS: &str = include_str!("../../../docs/conformance-findings.md");

const LOCK: &str = "nobody panics with the lock";

/// A store and what is wrong with it.
struct Expected {
    /// The title of its section in the documentation.
    title: &'static str,
    /// The cases that always fail.
    findings: &'static [&'static str],
    /// The cases that fail in a moment that nobody can force from outside: when two calls meet, or
    /// when the machine is busy.
    races: &'static [&'static str],
}

/// Runs every case and compares what failed with what is expected.
fn assert_findings<H: Harness>(make: fn() -> H, expected: &Expected) {
    let make: MakeHarness =
        Arc::new(move || Box::pin(async move { Ok(Arc::new(make()) as Arc<dyn Harness>) }));
    let verdicts = run_all(&make);
    let mut failed = BTreeMap::new();
    for (case, verdict) in &verdicts {
        match verdict {
            Verdict::Pass | Verdict::Skip(_) => {}
            Verdict::Fail { .. } => drop(failed.insert(case.id(), verdict.reason())),
            other => panic!("{} {}: {}", case.name, other.word(), other.reason()),
        }
    }
    for (id, reason) in &failed {
        println!("{id} {reason}");
    }
    let races: BTreeSet<String> = expected.races.iter().map(|id| (*id).into()).collect();
    let found: BTreeSet<String> = failed
        .into_keys()
        .filter(|id| !races.contains(id))
        .collect();
    let findings: BTreeSet<String> = expected.findings.iter().map(|id| (*id).into()).collect();
    assert_eq!(found, findings, "the findings are others than expected");
    assert_explained(expected);
}

fn run_all(make: &MakeHarness) -> Vec<(&'static Case, Verdict)> {
    let waiting = Mutex::new(registry());
    let verdicts = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect(LOCK).next();
                    let Some(case) = next else {
                        return;
                    };
                    let verdict = run_conclusively(case, make);
                    verdicts.lock().expect(LOCK).push((case, verdict));
                }
            });
        }
    });
    verdicts.into_inner().expect(LOCK)
}

/// These stores go by the clock of the operating system, so that cases wait for real, and a busy
/// machine can make one miss its moment. A verdict about time counts when it comes back.
fn run_conclusively(case: &'static Case, make: &MakeHarness) -> Verdict {
    let run = || run_case(case, make, &Options::default()).verdict;
    let doubtful = |verdict: &Verdict| match verdict {
        Verdict::Inconclusive(_) => true,
        Verdict::Fail { .. } => case.group == Group::Time,
        _ => false,
    };
    let mut verdict = run();
    for _ in 0..4 {
        if !doubtful(&verdict) {
            break;
        }
        verdict = run();
    }
    verdict
}

/// Every finding is explained in the section of its store, and nothing else is.
fn assert_explained(expected: &Expected) {
    let heading = format!("## {}\n", expected.title);
    let section = DOCS
        .split_once(&heading)
        .expect("the store has a section")
        .1;
    let section = section.split("\n## ").next().unwrap_or_default();
    let explained: BTreeSet<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("- **")?.split_once("**"))
        .flat_map(|(ids, _)| ids.split(", "))
        .collect();
    let known: BTreeSet<&str> = [expected.findings, expected.races]
        .concat()
        .into_iter()
        .collect();
    assert_eq!(explained, known, "the section explains other cases");
}

#[test]
fn tower_sessions_memory_store() {
    let expected = Expected {
        title: "`tower_sessions::MemoryStore`",
        findings: &[
            "C02", "C03", "C05", "C12", "C14", "C15", "C16", "C40", "C41", "C42", "C43", "C44",
            "C45", "C46", "C47", "K50", "L52", "R05", "R06", "R07", "R10", "S04", "S40", "S41",
            "T13",
        ],
        races: &[],
    };
    assert_findings(Memory::new, &expected);
}

#[test]
fn tower_sessions_moka_store() {
    let expected = Expected {
        title: "`tower_sessions_moka_store::MokaStore`",
        findings: &[
            "C02", "C03", "C05", "C12", "C14", "C15", "C16", "C41", "C42", "C43", "C44", "C45",
            "C46", "C47", "R05", "R06", "R07", "R10", "S04", "S40", "S41",
        ],
        races: &["C01", "C40"],
    };
    assert_findings(Moka::new, &expected);
}

#[test]
fn tower_sessions_sqlx_store_on_sqlite() {
    let expected = Expected {
        title: "`tower_sessions_sqlx_store::SqliteStore`",
        findings: &[
            "B03", "C02", "C03", "C05", "C12", "C14", "C15", "C16", "C40", "C41", "C42", "C43",
            "C44", "C45", "C46", "C47", "K50", "L52", "R05", "R06", "R07", "R10", "T13",
        ],
        races: &["C01"],
    };
    assert_findings(Sqlite::new, &expected);
}

#[test]
fn tower_sessions_caching_store() {
    let expected = Expected {
        title: "`tower_sessions::CachingSessionStore`",
        findings: &[
            "B03", "C02", "C03", "C05", "C09", "C11", "C12", "C14", "C15", "C16", "C40", "C41",
            "C42", "C43", "C44", "C45", "C46", "C47", "F09", "F40", "F41", "K09", "K50", "L04",
            "L09", "L11", "L12", "L40", "L52", "R01", "R03", "R04", "R05", "R06", "R07", "R10",
            "R11", "S04", "S40", "S41", "T13",
        ],
        races: &["C01", "X01"],
    };
    assert_findings(Caching::new, &expected);
}
