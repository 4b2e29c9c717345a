//! The matrix has a cell for every sentence of the contract, every method that the sentence speaks
//! of and every state; and the cases that a cell names do what it says.

mod contract;
mod observer;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use sessionkit_conformance::{
    Verdict, find_case,
    matrix::{Cell, DESCRIPTIONS, Sentence, contract},
    report,
};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn no_lines(what: &str, lines: &[String]) {
    assert!(
        lines.is_empty(),
        "{} {what}:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn every_sentence_of_the_contract_has_a_place() {
    let sentences = contract::sentences(&read("../sessions/src/store.rs"));
    assert!(sentences.len() > 70, "only {} sentences", sentences.len());
    let with_cells = contract().map(|sentence| (sentence.item, sentence.text));
    let without = DESCRIPTIONS
        .iter()
        .map(|sentence| (sentence.item, sentence.text));
    let mut places: Vec<_> = with_cells.chain(without).collect();
    let mut lost = Vec::new();
    for (item, text) in &sentences {
        match places.iter().position(|place| *place == (item, text)) {
            Some(place) => drop(places.swap_remove(place)),
            None => lost.push(format!("{item}: {text}")),
        }
    }
    no_lines("sentences of the contract have no place", &lost);
    let strangers: Vec<_> = places
        .iter()
        .map(|(item, text)| format!("{item}: {text}"))
        .collect();
    no_lines("places are of no sentence of the contract", &strangers);
}

/// The cells of all sentences, each with its name.
fn cells() -> impl Iterator<Item = (String, Call, Option<Cell>)> {
    contract().flat_map(|sentence| {
        sentence.cells().map(|(method, state, cell)| {
            let name = format!(
                "{}, {method}, {state}: {:.60}",
                sentence.item, sentence.text
            );
            (name, (method, state), cell)
        })
    })
}

type Call = (
    sessionkit_conformance::matrix::Method,
    sessionkit_conformance::matrix::State,
);

fn ids(cell: Option<Cell>) -> impl Iterator<Item = &'static str> {
    let cases = match cell {
        Some(Cell::Cases(cases)) => cases,
        _ => "",
    };
    cases.split_whitespace()
}

#[test]
fn no_cell_is_empty() {
    let empty: Vec<_> = cells()
        .filter(|(_, _, cell)| match cell {
            Some(Cell::Cases(cases)) => cases.trim().is_empty(),
            Some(Cell::Reason(reason)) => reason.trim().is_empty(),
            None => true,
        })
        .map(|(name, _, _)| name)
        .collect();
    no_lines("cells have neither a case nor a reason", &empty);
}

#[test]
fn every_row_counts_somewhere() {
    let idle = |sentence: &'static Sentence| {
        let rows = sentence.rows.iter().enumerate();
        rows.filter_map(move |(number, row)| {
            let counts = row.named().any(|(method, state)| {
                sentence.methods.contains(&method)
                    && !sentence.rows[number + 1..]
                        .iter()
                        .any(|later| later.named().any(|cell| cell == (method, state)))
            });
            (!counts).then(|| format!("{}, row {number}: {}", sentence.item, sentence.text))
        })
    };
    let idle: Vec<_> = contract().flat_map(idle).collect();
    no_lines("rows are hidden by later ones", &idle);
}

#[test]
fn every_cell_names_cases_that_make_its_call() {
    let unknown: Vec<_> = cells()
        .flat_map(|(name, _, cell)| ids(cell).map(move |id| (name.clone(), id)))
        .filter(|(_, id)| find_case(id).is_none_or(|case| case.id() != *id))
        .map(|(name, id)| format!("{id} in {name}"))
        .collect();
    no_lines("cases do not exist", &unknown);

    // Where tasks race, a state that comes up in most runs may not in one of them.
    let mut open: BTreeMap<&str, Vec<(String, Call)>> = BTreeMap::new();
    for (name, call, cell) in cells() {
        for id in ids(cell) {
            open.entry(id).or_default().push((name.clone(), call));
        }
    }
    for seed in 1..=4 {
        let observed = observe_all(open.keys().copied().collect(), seed);
        open.retain(|id, calls| {
            calls.retain(|(_, call)| !observed[id].contains(call));
            !calls.is_empty()
        });
    }
    let idle: Vec<_> = open
        .iter()
        .flat_map(|(id, calls)| calls.iter().map(move |(name, _)| format!("{id} in {name}")))
        .collect();
    no_lines("cells name a case that makes no such call", &idle);
}

/// What these cases call on the correct stores, server-side and client-side.
fn observe_all(cases: Vec<&'static str>, seed: u64) -> HashMap<&'static str, observer::Calls> {
    let left = Mutex::new(cases);
    let observed = Mutex::new(HashMap::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(id) = lock(&left).pop() else { break };
                    let case = find_case(id).expect("the test has looked whether the case exists");
                    let mut calls = observer::Calls::new();
                    for store in ["", "client"] {
                        let (verdict, made) = observer::observe(case, store, seed);
                        match verdict {
                            Verdict::Pass => calls.extend(made),
                            Verdict::Skip(_) => {}
                            other => panic!("{id} on {store:?}: {}", other.reason()),
                        }
                    }
                    lock(&observed).insert(id, calls);
                }
            });
        }
    });
    observed
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_page_shows_the_matrix() {
    let page = read("../docs/contract-matrix.md");
    let begin = "<!-- generated: sessionkit-conformance --matrix -->\n";
    let end = "<!-- end of the generated part -->";
    let (_, rest) = page
        .split_once(begin)
        .expect("the page has a generated part");
    let (generated, _) = rest.split_once(end).expect("the generated part ends");
    assert!(
        generated.trim() == report::matrix().trim(),
        "docs/contract-matrix.md is out of date; put in the output of\n  \
         cargo run -p sessionkit-conformance -- --matrix"
    );
}
