//! Ends a process with SIGKILL before each step of each operation, and looks at what it leaves.

use std::{
    cell::Cell,
    env,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    rc::Rc,
};

use rustix::process::{Signal, getpid, kill_process};

use super::{SCENARIOS, Scenario, call};
use crate::failpoint::with_hook;

const CHILD: &str = "SESSIONKIT_FS_CRASH_TEST";

/// The steps of a scenario, and one more for its end.
fn count_steps(scenario: &Scenario) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let tree = scenario.prepare(dir.path());
    let steps = Rc::new(Cell::new(0));
    let counted = Rc::clone(&steps);
    let hook = move |_: &str| {
        counted.set(counted.get() + 1);
        Ok(())
    };
    with_hook(hook, || (scenario.run)(&tree, &call())).unwrap();
    assert!(scenario.is_done(&tree));
    steps.get()
}

fn crash_before(step: usize, scenario: usize, path: &Path) {
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", "tests::crash::child", "--ignored", "--nocapture"])
        .env(CHILD, format!("{scenario} {step} {}", path.display()))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(
        status.signal(),
        Some(9),
        "the child was not killed: {status}"
    );
}

#[test]
#[ignore = "the process that `a_process_may_be_killed_before_any_step` kills"]
fn child() {
    let task = env::var(CHILD).expect("started by a_process_may_be_killed_before_any_step");
    let mut task = task.splitn(3, ' ');
    let scenario = &SCENARIOS[task.next().unwrap().parse::<usize>().unwrap()];
    let mut left: usize = task.next().unwrap().parse().unwrap();
    let tree = (scenario.open)(Path::new(task.next().unwrap()));
    let hook = move |_: &str| {
        if left == 0 {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        left -= 1;
        Ok(())
    };
    with_hook(hook, || (scenario.run)(&tree, &call())).unwrap();
}

#[test]
fn a_process_may_be_killed_before_any_step() {
    let (mut before, mut after) = (0, 0);
    for (number, scenario) in SCENARIOS.iter().enumerate() {
        let steps = count_steps(scenario);
        for step in 0..steps {
            let dir = tempfile::tempdir().unwrap();
            drop(scenario.prepare(dir.path()));
            crash_before(step, number, dir.path());
            let survivor = (scenario.open)(dir.path());
            match scenario.is_done(&survivor) {
                false => before += 1,
                true => after += 1,
            }
            scenario.check_recovery(dir.path(), &survivor);
        }
    }
    println!("{before} crashes left the state before, {after} the state after");
    assert!(before > 0 && after > 0);
}
