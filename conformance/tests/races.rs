//! A check and the write that depends on it come apart by no more than a yield, a lock that is
//! taken twice, or a task on another thread, in a store whose calls take microseconds: the kit finds
//! it with every seed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sessionkit_conformance::{
    Group, Harness, MakeHarness, Options, Verdict,
    broken::{BUGS, BrokenHarness},
    find_case, run_case,
};

const SEEDS: u64 = 20;

fn broken(name: &'static str) -> MakeHarness {
    Arc::new(move || {
        Box::pin(async move { Ok(Arc::new(BrokenHarness::new(name)?) as Arc<dyn Harness>) })
    })
}

/// The ids of cases and the bugs that fall into the window of one step.
fn pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    let races = BUGS.iter().filter(|bug| bug.is_split());
    races.flat_map(|bug| bug.cases.iter().map(|id| (*id, bug.name)))
}

#[test]
fn a_window_of_one_step_is_found_with_twenty_seeds() {
    let mut missed = Vec::new();
    for (id, bug) in pairs() {
        let case = find_case(id).expect("the table names cases that exist");
        assert!(matches!(case.group, Group::Conc | Group::Flow), "{id}");
        let begun = Instant::now();
        let caught = (1..=SEEDS).filter(|&seed| {
            let options = Options {
                seed,
                watchdog: Duration::from_secs(20),
            };
            let verdict = run_case(case, &broken(bug), &options).verdict;
            matches!(verdict, Verdict::Fail { .. })
        });
        let caught = caught.count();
        println!(
            "{id}  {bug:40}  {caught:2} of {SEEDS}  {:.1?}",
            begun.elapsed() / 20
        );
        if caught < SEEDS as usize {
            missed.push(format!("{id} {bug}"));
        }
    }
    assert!(missed.is_empty(), "not with every seed: {missed:?}");
}
