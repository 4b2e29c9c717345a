//! Stops an operation before each of its steps: by an error, by a cancellation, or to let others
//! look at and change the directory meanwhile.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rustix::io::Errno;
use sessionkit::{ErrorKind, Revision};

use super::{A, NOW, SCENARIOS, call, create, keys_of, load, record, temporaries, tree};
use crate::{call::Call, failpoint::with_hook, tree::Tree};

/// Calls `with` for each scenario and each of its steps, until there are no more steps.
fn for_each_step(mut with: impl FnMut(&super::Scenario, usize) -> bool) {
    for scenario in SCENARIOS {
        let mut step = 0;
        while with(scenario, step) {
            step += 1;
        }
        assert!(step > 1, "{} has steps", scenario.name);
    }
}

#[test]
fn a_failing_step_changes_nothing_or_is_ambiguous() {
    for (errno, kind) in [
        (Errno::DQUOT, ErrorKind::Full),
        (Errno::IO, ErrorKind::Unavailable),
    ] {
        for_each_step(|scenario, failing| {
            let dir = tempfile::tempdir().unwrap();
            let tree = scenario.prepare(dir.path());
            let reached = Rc::new(RefCell::new(None));
            let (seen, mut left) = (Rc::clone(&reached), failing);
            let hook = move |step| {
                if left == 0 {
                    seen.borrow_mut().get_or_insert(step);
                    // The cleaning up that follows is let through, or else nothing is cleaned.
                    left = usize::MAX;
                    return Err(errno);
                }
                left -= 1;
                Ok(())
            };
            let result = with_hook(hook, || (scenario.run)(&tree, &call()));
            let Some(step) = *reached.borrow() else {
                return false;
            };
            let context = format!("{}, {step} failing with {errno}", scenario.name);
            let is_done = scenario.is_done(&tree);
            match result {
                Ok(()) => assert!(is_done, "{context}"),
                Err(error) if error.kind() == ErrorKind::Ambiguous => {
                    assert_eq!((step, is_done), ("sync directory", true), "{context}");
                }
                Err(error) => assert_eq!((error.kind(), is_done), (kind, false), "{context}"),
            }
            assert_eq!(temporaries(dir.path()), 0, "{context}");
            scenario.check_recovery(dir.path(), &tree);
            true
        });
    }
}

#[test]
fn a_call_cancelled_at_any_step_has_happened_or_never_will() {
    for_each_step(|scenario, at| {
        let dir = tempfile::tempdir().unwrap();
        let tree = scenario.prepare(dir.path());
        let call = Arc::new(call());
        let cancelled = Rc::new(Cell::new(None));
        let (theirs, result, mut left) = (Arc::clone(&call), Rc::clone(&cancelled), at);
        let hook = move |_: &str| {
            if left == 0 {
                result.set(Some(theirs.cancel()));
            }
            left = left.wrapping_sub(1);
            Ok(())
        };
        let result = with_hook(hook, || (scenario.run)(&tree, &call));
        let Some(cancelled) = cancelled.get() else {
            return false;
        };
        // What the future was told is what comes true, after it is gone.
        assert_eq!(
            cancelled,
            !scenario.is_done(&tree),
            "{} {at}",
            scenario.name
        );
        assert_eq!(cancelled, result.is_err(), "{} {at}", scenario.name);
        assert_eq!(temporaries(dir.path()), 0, "{} {at}", scenario.name);
        scenario.check_recovery(dir.path(), &tree);
        true
    });
}

#[test]
fn readers_see_the_state_before_or_after_at_every_step() {
    for scenario in SCENARIOS {
        let dir = tempfile::tempdir().unwrap();
        let tree = scenario.prepare(dir.path());
        let reader = (scenario.open)(dir.path());
        let seen = Rc::new(RefCell::new(Vec::new()));
        let states = Rc::clone(&seen);
        let hook = move |_: &str| {
            states.borrow_mut().push(scenario.is_done(&reader));
            Ok(())
        };
        with_hook(hook, || (scenario.run)(&tree, &call())).unwrap();
        let seen = seen.borrow();
        // Once done, it is not undone.
        assert!(seen.is_sorted(), "{}: {seen:?}", scenario.name);
        assert!(!seen[0], "{}", scenario.name);
    }
}

/// Runs `other` in another process's place before a step of a scenario. It gives up at once where it
/// would have to wait for a lock.
fn interleave(
    scenario: &str,
    at: usize,
    other: impl Fn(&Tree, &Call) -> sessionkit::Result<()> + 'static,
) -> Option<(
    sessionkit::Result<()>,
    sessionkit::Result<()>,
    Tree,
    tempfile::TempDir,
)> {
    let scenario = SCENARIOS.iter().find(|s| s.name == scenario).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let first = scenario.prepare(dir.path());
    let second = (scenario.open)(dir.path());
    let outcome = Rc::new(RefCell::new(None));
    let (done, mut left) = (Rc::clone(&outcome), at);
    let hook = move |_: &str| {
        if left == 0 {
            let give_up = |step| match step {
                "wait for a lock" => Err(Errno::AGAIN),
                _ => Ok(()),
            };
            let result = with_hook(give_up, || other(&second, &call()));
            *done.borrow_mut() = Some(result);
        }
        left = left.wrapping_sub(1);
        Ok(())
    };
    let result = with_hook(hook, || (scenario.run)(&first, &call()));
    let other = outcome.borrow_mut().take()?;
    Some((result, other, (scenario.open)(dir.path()), dir))
}

fn kind(result: &sessionkit::Result<()>) -> Option<ErrorKind> {
    result.as_ref().err().map(sessionkit::Error::kind)
}

#[test]
fn a_deleted_session_stays_deleted_whatever_was_under_way() {
    for scenario in ["update", "update that changes the subject"] {
        let mut waited = 0;
        for at in 0.. {
            let delete = |tree: &Tree, call: &Call| {
                assert!(tree.delete(call, &A, None)?);
                Ok(())
            };
            let Some((result, deleted, tree, _dir)) = interleave(scenario, at, delete) else {
                break;
            };
            let is_there = load(&tree, &A).unwrap().is_some();
            match (kind(&result), kind(&deleted)) {
                // Deleted first.
                (Some(ErrorKind::Missing), None) => assert!(!is_there, "{scenario} {at}"),
                // It had to wait, and gave up.
                (None, Some(ErrorKind::Unavailable)) => {
                    waited += 1;
                    assert!(is_there, "{scenario} {at}");
                }
                // Deleted after the first step that showed.
                (None, None) => assert!(!is_there, "{scenario} {at}"),
                other => panic!("{scenario} {at}: {other:?}"),
            }
        }
        assert!(waited > 0, "{scenario}");
    }
}

#[test]
fn of_an_update_and_a_delete_of_one_revision_one_succeeds() {
    let (mut deleted, mut refused) = (0, 0);
    for at in 0.. {
        let delete = |tree: &Tree, call: &Call| {
            assert!(tree.delete(call, &A, Some(Revision::from_bits(1)))?);
            Ok(())
        };
        let Some((update, delete, tree, _dir)) = interleave("update", at, delete) else {
            break;
        };
        let found = load(&tree, &A)
            .unwrap()
            .map(|found| found.revision.to_bits());
        match (kind(&update), kind(&delete)) {
            (Some(ErrorKind::Missing), None) => {
                deleted += 1;
                assert_eq!(found, None, "{at}");
            }
            (None, Some(ErrorKind::Conflict | ErrorKind::Unavailable)) => {
                refused += 1;
                assert_eq!(found, Some(2), "{at}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
    assert!(deleted > 0 && refused > 0, "{deleted} {refused}");
}

#[test]
fn of_two_deletes_one_ends_the_session() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    create(&tree, &call(), &A, &record(1, Some("alice"))).unwrap();
    let first = Some(Revision::from_bits(1));
    let other = tree.delete(&call(), &A, Some(Revision::from_bits(2)));
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(tree.delete(&call(), &A, first).unwrap());
    assert!(!tree.delete(&call(), &A, first).unwrap());
    assert!(!tree.delete(&call(), &A, None).unwrap());
}

#[test]
fn of_two_updates_that_expect_one_revision_one_conflicts() {
    let mut conflicts = 0;
    for at in 0.. {
        let Some((first, second, tree, _dir)) = interleave("update", at, |tree, call| {
            tree.update(call, &A, Revision::from_bits(1), &record(3, None))
        }) else {
            break;
        };
        let revision = load(&tree, &A).unwrap().unwrap().revision.to_bits();
        match (kind(&first), kind(&second)) {
            (Some(ErrorKind::Conflict), None) => {
                conflicts += 1;
                assert_eq!(revision, 3);
            }
            (None, Some(ErrorKind::Conflict | ErrorKind::Unavailable)) => assert_eq!(revision, 2),
            other => panic!("{at}: {other:?}"),
        }
    }
    assert!(conflicts > 0);
}

/// What takes no lock, against everything that takes one and finds the place empty or expired.
#[test]
fn of_two_creations_of_one_key_one_succeeds() {
    let plain = |tree: &Tree, call: &Call| create(tree, call, &A, &record(3, None));
    let indexed = |tree: &Tree, call: &Call| create(tree, call, &A, &record(3, Some("bob")));
    for (what, other) in [
        (
            "create",
            plain as fn(&Tree, &Call) -> sessionkit::Result<()>,
        ),
        ("create with a subject", indexed),
    ] {
        let (mut won, mut lost) = (0, 0);
        for at in 0.. {
            let Some((created, other, tree, _dir)) = interleave("create without a lock", at, other)
            else {
                break;
            };
            let found = load(&tree, &A).unwrap().unwrap();
            match (kind(&created), kind(&other)) {
                (None, Some(ErrorKind::Exists)) => assert_eq!(found, record(2, None), "{what}"),
                (Some(ErrorKind::Exists), None) => assert_ne!(found, record(2, None), "{what}"),
                other => panic!("{what} {at}: {other:?}"),
            }
            won += usize::from(created.is_ok());
            lost += usize::from(created.is_err());
            let bobs = usize::from(found.subject == record(0, Some("bob")).subject);
            assert_eq!(keys_of(&tree, "bob").len(), bobs, "{what} {at}");
        }
        assert!(won > 0 && lost > 0, "{what}: {won} {lost}");
    }
}

#[test]
fn a_creation_does_not_replace_what_was_created_meanwhile() {
    let mut refused = 0;
    for at in 0.. {
        let Some((created, other, tree, _dir)) =
            interleave("create without a quota", at, |tree, call| {
                create(tree, call, &A, &record(3, None))
            })
        else {
            break;
        };
        let found = load(&tree, &A).unwrap().unwrap();
        match (kind(&created), kind(&other)) {
            (Some(ErrorKind::Exists), None) => {
                refused += 1;
                assert_eq!(found, record(3, None), "{at}");
            }
            (None, Some(ErrorKind::Exists)) => {
                assert_eq!(found, record(2, Some("alice")), "{at}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
    assert!(refused > 3, "{refused}");
}

/// The end of a session takes the record and its entry in the index in one step, as seen by whoever
/// creates it anew.
#[test]
fn a_session_created_beside_its_end_is_listed() {
    for scenario in ["delete", "revoke", "revoke all"] {
        let (mut created, mut waited) = (0, 0);
        for at in 0.. {
            let again =
                |tree: &Tree, call: &Call| create(tree, call, &A, &record(3, Some("alice")));
            let Some((ended, again, tree, _dir)) = interleave(scenario, at, again) else {
                break;
            };
            assert_eq!(kind(&ended), None, "{scenario} {at}");
            match kind(&again) {
                None => created += 1,
                Some(ErrorKind::Unavailable) => waited += 1,
                other => panic!("{scenario} {at}: {other:?}"),
            }
            let is_there = load(&tree, &A).unwrap().is_some();
            assert_eq!(is_there, again.is_ok(), "{scenario} {at}");
            let is_listed = keys_of(&tree, "alice").contains(&A);
            assert_eq!(is_listed, is_there, "{scenario} {at}");
        }
        assert!(created > 0 && waited > 0, "{scenario}: {created} {waited}");
    }
}

#[test]
fn a_touch_beside_an_update_loses_neither() {
    let later = NOW + Duration::from_secs(9999);
    for at in 0.. {
        let Some((update, touch, tree, _dir)) =
            interleave("update", at, move |tree, call| tree.touch(call, &A, later))
        else {
            break;
        };
        let found = load(&tree, &A).unwrap().unwrap();
        // The update sets the expiry too, so it is the later one that remains.
        assert_eq!(update.map_err(|e| e.kind()), Ok(()), "{at}");
        assert_eq!(found.revision.to_bits(), 2, "{at}");
        match kind(&touch) {
            None => assert!([later, record(2, None).expires_at].contains(&found.expires_at)),
            kind => assert_eq!(kind, Some(ErrorKind::Unavailable), "{at}"),
        }
    }
}

#[test]
fn a_sweep_at_any_step_takes_nothing_that_is_in_use() {
    for_each_step(|scenario, at| {
        let name = scenario.name;
        let Some((result, swept, tree, dir)) =
            interleave(name, at, |tree, call| tree.sweep(call, 100).map(drop))
        else {
            return false;
        };
        assert_eq!(kind(&result), None, "{name} {at}");
        assert!(
            matches!(kind(&swept), None | Some(ErrorKind::Unavailable)),
            "{name} {at}"
        );
        assert!(scenario.is_done(&tree), "{name} {at}");
        scenario.check_recovery(dir.path(), &tree);
        true
    });
}

#[test]
fn contents_reach_the_disk_before_the_name_and_the_name_before_the_answer() {
    let steps = |scenario: &str| {
        let scenario = SCENARIOS.iter().find(|s| s.name == scenario).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tree = scenario.prepare(dir.path());
        let steps = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&steps);
        let hook = move |step| {
            seen.borrow_mut().push(step);
            Ok(())
        };
        with_hook(hook, || (scenario.run)(&tree, &call())).unwrap();
        steps.take()
    };
    let write = ["create file", "write", "sync file"];
    assert_eq!(
        steps("update"),
        [&write[..], &["rename", "sync directory"]].concat()
    );
    assert_eq!(
        steps("create beside another"),
        [
            &write[..],
            // The index comes first.
            &["create file", "sync directory"],
            &["rename", "sync directory"],
        ]
        .concat()
    );
    assert_eq!(
        steps("update at login, beside another"),
        [
            &write[..],
            &["create file", "sync directory"],
            &["rename", "sync directory"],
        ]
        .concat()
    );
    assert_eq!(
        steps("delete"),
        ["remove file", "remove file", "sync directory"]
    );
}

#[test]
fn the_kind_of_an_error_tells_what_to_do() {
    for (errno, expected) in [
        (Errno::NOSPC, ErrorKind::Full),
        (Errno::DQUOT, ErrorKind::Full),
        (Errno::FBIG, ErrorKind::Full),
        (Errno::ROFS, ErrorKind::Unavailable),
        (Errno::ACCESS, ErrorKind::Unavailable),
        (Errno::MFILE, ErrorKind::Unavailable),
    ] {
        assert_eq!(crate::failure::error(errno).kind(), expected);
    }
}

/// A clock that moves on between two looks at it.
#[derive(Debug)]
struct Ticking(std::sync::atomic::AtomicI64);

impl sessionkit::Clock for Ticking {
    fn now(&self) -> sessionkit::Timestamp {
        let ticks = self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        if ticks > 0 {
            NOW
        } else {
            sessionkit::Timestamp::MAX
        }
    }
}

#[test]
fn what_expires_during_a_call_does_not_come_back() {
    for looks in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path())
            .create(&call(), &A, &record(1, None))
            .unwrap();
        let clock = Arc::new(Ticking(looks.into()));
        let slow = crate::FsOptions::new().clock(clock.clone());
        let slow = Tree::open(dir.path(), &slow).unwrap();
        let touched = slow.touch(&call(), &A, sessionkit::Timestamp::MAX);
        let in_time = clock.0.load(std::sync::atomic::Ordering::SeqCst) >= 0;
        assert_eq!(touched.is_ok(), in_time, "{looks}");
        assert_eq!(touched.is_ok(), looks >= 2, "{looks}");
    }
}

/// Whoever reads after the expiry waits for a writer that looked at the clock before it.
#[test]
fn what_was_found_expired_does_not_come_back() {
    type Read = fn(&Tree) -> sessionkit::Result<bool>;
    let load: Read = |tree| Ok(load(tree, &A)?.is_some());
    let update: Read = |tree| {
        let new = record(2, None);
        match tree.update(&call(), &A, Revision::from_bits(1), &new) {
            Err(error) if error.kind() == ErrorKind::Missing => Ok(false),
            updated => updated.map(|()| true),
        }
    };
    let list: Read = |tree| Ok(!super::list(tree, "alice")?.is_empty());
    for (what, read) in [("load", load), ("update", update), ("list", list)] {
        let (mut gone, mut waited) = (0, 0);
        for at in 0_usize.. {
            let dir = tempfile::tempdir().unwrap();
            let clock = Arc::new(sessionkit::ManualClock::new(NOW));
            let options = crate::FsOptions::new().clock(clock.clone());
            let [writer, reader] = [(); 2].map(|()| Tree::open(dir.path(), &options).unwrap());
            let old = record(1, Some("alice"));
            writer.create(&call(), &A, &old).unwrap();
            let seen = Rc::new(RefCell::new(None));
            let (answer, mut left) = (Rc::clone(&seen), at);
            let hook = move |_: &str| {
                if left == 0 {
                    clock.set(old.expires_at);
                    let give_up = |step| match step {
                        "wait for a lock" => Err(Errno::AGAIN),
                        _ => Ok(()),
                    };
                    *answer.borrow_mut() = Some(with_hook(give_up, || read(&reader)));
                }
                left = left.wrapping_sub(1);
                Ok(())
            };
            let touch = || writer.touch(&call(), &A, sessionkit::Timestamp::MAX);
            let touched = with_hook(hook, touch);
            match seen.borrow_mut().take() {
                None => break,
                Some(Ok(false)) => {
                    gone += 1;
                    assert_eq!(kind(&touched), Some(ErrorKind::Missing), "{what} {at}");
                }
                Some(Ok(true)) => assert_eq!(kind(&touched), None, "{what} {at}"),
                Some(Err(error)) => {
                    waited += 1;
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{what} {at}");
                }
            }
        }
        assert!(gone > 0 && waited > 0, "{what}: {gone} {waited}");
    }
}
