//! The kit, and nothing else, against a store whose sources `scripts/mutants` changes.

use std::time::Duration;

use sessionkit_conformance::{MakeHarness, Options, Verdict, registry, run_case};

/// Cases that take long for what they find: the last to run.
const SLOW: [&str; 5] = ["F09", "K05", "X04", "Y07", "C12"];

/// One test, which ends with the first case that fails: most changes are found by a cheap one.
#[test]
fn the_store_keeps_the_contract() {
    let options = Options {
        watchdog: Duration::from_secs(20),
        ..Options::default()
    };
    let harnesses: Vec<MakeHarness> = subject::harnesses();
    for cost in 0..3 {
        for make in &harnesses {
            for case in registry() {
                let slow = SLOW.contains(&case.id().as_str());
                let its_cost = if slow { 2 } else { usize::from(!case.sequential) };
                if its_cost != cost {
                    continue;
                }
                let verdict = run_case(case, make, &options).verdict;
                let kept = matches!(verdict, Verdict::Pass | Verdict::Skip(_));
                assert!(kept, "{} {}: {}", case.id(), verdict.word(), verdict.reason());
            }
        }
    }
}
