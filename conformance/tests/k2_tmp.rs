use sessionkit_conformance::{
    Harness, MakeHarness, Options, Verdict,
    broken::{BUGS, BrokenHarness},
    find_case, registry, run_case,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    thread,
};
fn broken(name: &'static str) -> MakeHarness {
    Arc::new(move || {
        Box::pin(async move { Ok(Arc::new(BrokenHarness::new(name)?) as Arc<dyn Harness>) })
    })
}
#[test]
fn matrix() {
    let only = std::env::var("K2_NEW_ONLY").is_ok();
    let isnew =
        |id: &str| b"NWSI".contains(&id.as_bytes()[0]) && (b'4'..b'8').contains(&id.as_bytes()[1]);
    let slow = [
        "X04", "K05", "E03", "E06", "E10", "C12", "C13", "E04", "X01", "X02",
    ];
    let mut jobs = VecDeque::new();
    for bug in BUGS.iter().filter(|b| isnew(b.cases[0])) {
        for case in registry() {
            let id = case.id();
            if bug.cases.contains(&&*id) || (!only && !isnew(&id) && !slow.contains(&&*id)) {
                jobs.push_back((bug, id));
            }
        }
    }
    let jobs = Mutex::new(jobs);
    thread::scope(|s| {
        for _ in 0..6 {
            s.spawn(|| {
                loop {
                    let Some((bug, id)) = jobs.lock().unwrap().pop_front() else {
                        break;
                    };
                    let r = run_case(
                        find_case(&id).unwrap(),
                        &broken(bug.name),
                        &Options::default(),
                    );
                    let want = bug.cases.contains(&&*id);
                    match (&r.verdict, want) {
                        (Verdict::Fail { .. }, true) => {
                            let ok = id != bug.cases[0] || r.verdict.reason().contains(bug.words);
                            println!(
                                "{} {} by {}: {}",
                                if ok { "caught" } else { "WORDS" },
                                bug.name,
                                id,
                                r.verdict.reason()
                            );
                        }
                        (v, true) => {
                            println!("MISS {} by {}: {} {}", bug.name, id, v.word(), v.reason())
                        }
                        (Verdict::Fail { .. } | Verdict::Error(_), false) => {
                            println!("OLD {} by {}: {}", bug.name, id, r.verdict.reason())
                        }
                        _ => {}
                    }
                }
            });
        }
    });
}
