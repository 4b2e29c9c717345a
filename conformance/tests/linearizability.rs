//! The checker against histories made by hand and, in `oracle`, against an independent checker.

#[path = "linearizability/oracle.rs"]
mod oracle;

use std::{sync::Arc, time::Duration};

use sessionkit::{
    CookieName, ErrorKind, Label, ManualClock, MemoryStore, Record, Revision, SessionStore,
    StoreKey, Timestamp, Token,
};
use sessionkit_conformance::{
    Random,
    history::{Answer, Call, History, Operation, Recorder, Version},
    linearizability::{Verdict, check, check_within},
};

use Answer::{Done, Ended, Failed, Found, Unknown};

const A: StoreKey = StoreKey::from_bytes([1; 32]);
const B: StoreKey = StoreKey::from_bytes([2; 32]);

/// The record that every test means by the number of its revision.
fn record(revision: u64, expires_at: i64) -> Record {
    Record {
        data: revision.to_string().into(),
        revision: Revision::from_bits(revision),
        created_at: Timestamp::MIN,
        expires_at: Timestamp::from_millis(expires_at),
        subject: None,
        label: Label::default(),
    }
}

fn until(revision: u64, expires_at: i64) -> Version {
    Version::from(&record(revision, expires_at))
}

fn version(revision: u64) -> Version {
    until(revision, i64::MAX)
}

fn update(expected: u64, new: u64) -> Call {
    Call::Update {
        expected: Revision::from_bits(expected),
        new: version(new),
    }
}

const DELETE: Call = Call::Delete(None);

fn delete_at(expected: u64) -> Call {
    Call::Delete(Some(Revision::from_bits(expected)))
}

/// One call between two logical times, with the clock standing at zero.
fn op(client: usize, span: (u64, u64), key: StoreKey, call: Call, answer: Answer) -> Operation {
    Operation {
        client,
        key,
        call,
        answer,
        invoked: span.0,
        returned: if answer == Unknown { u64::MAX } else { span.1 },
        earliest: Timestamp::MIN,
        latest: if answer == Unknown {
            Timestamp::MAX
        } else {
            Timestamp::MIN
        },
    }
}

/// The same with the clock moving between two instants meanwhile.
fn at(clock: (i64, i64), operation: Operation) -> Operation {
    Operation {
        earliest: Timestamp::from_millis(clock.0),
        latest: Timestamp::from_millis(clock.1),
        ..operation
    }
}

fn verdict<const N: usize>(operations: [Operation; N]) -> Verdict {
    check(&operations.into_iter().collect())
}

#[track_caller]
fn assert_passes<const N: usize>(operations: [Operation; N]) {
    assert_eq!(verdict(operations), Verdict::Linearizable);
}

/// Asserts a violation and returns what a person reads.
#[track_caller]
fn assert_fails<const N: usize>(operations: [Operation; N]) -> String {
    match verdict(operations) {
        Verdict::Violation(violation) => violation.to_string(),
        other => panic!("not a violation: {other:?}"),
    }
}

#[test]
fn an_empty_history_is_linearizable() {
    assert_passes([]);
}

#[test]
fn concurrent_calls_may_take_effect_in_either_order() {
    for seen in [1, 2] {
        assert_passes([
            op(0, (1, 2), A, Call::Create(version(1)), Done),
            op(0, (3, 6), A, update(1, 2), Done),
            op(1, (4, 5), A, Call::Load, Found(Some(version(seen)))),
        ]);
    }
}

#[test]
fn a_lost_update_is_a_violation() {
    let text = assert_fails([
        op(0, (1, 2), A, Call::Create(version(1)), Done),
        op(0, (3, 6), A, update(1, 2), Done),
        op(1, (4, 5), A, update(1, 3), Done),
    ]);
    assert!(
        text.contains("client 1: update A from r1 to r3 -> ok"),
        "{text}"
    );
}

#[test]
fn a_session_that_returns_after_its_deletion_is_a_violation() {
    assert_fails([
        op(0, (1, 2), A, Call::Create(version(1)), Done),
        op(0, (3, 4), A, DELETE, Ended(true)),
        op(1, (5, 6), A, update(1, 2), Done),
    ]);
    assert_fails([
        op(0, (1, 2), A, Call::Create(version(1)), Done),
        op(0, (3, 6), A, DELETE, Ended(true)),
        op(1, (4, 5), A, Call::Load, Found(None)),
        op(1, (7, 8), A, Call::Load, Found(Some(version(1)))),
    ]);
}

#[test]
fn two_creates_of_one_token_cannot_both_succeed() {
    assert_fails([
        op(0, (1, 3), A, Call::Create(version(1)), Done),
        op(1, (2, 4), A, Call::Create(version(2)), Done),
    ]);
    assert_passes([
        op(0, (1, 3), A, Call::Create(version(1)), Done),
        op(
            1,
            (2, 4),
            A,
            Call::Create(version(2)),
            Failed(ErrorKind::Exists),
        ),
    ]);
}

#[test]
fn a_stale_load_is_a_violation() {
    assert_fails([
        op(0, (1, 2), A, Call::Create(version(1)), Done),
        op(0, (3, 4), A, update(1, 2), Done),
        op(1, (5, 6), A, Call::Load, Found(Some(version(1)))),
    ]);
}

#[test]
fn a_record_mixed_from_two_writes_is_a_violation() {
    let mixed = Record {
        data: "2".into(),
        ..record(1, i64::MAX)
    };
    let text = assert_fails([
        op(0, (1, 2), A, Call::Create(version(1)), Done),
        op(0, (3, 6), A, update(1, 2), Done),
        op(1, (4, 5), A, Call::Load, Found(Some(Version::from(&mixed)))),
    ]);
    assert!(text.contains("load A -> r1 with other contents"), "{text}");
}

#[test]
fn an_error_that_names_a_wrong_reason_is_a_violation() {
    let created = op(0, (1, 2), A, Call::Create(version(1)), Done);
    assert_fails([
        created,
        op(0, (3, 4), A, update(1, 2), Failed(ErrorKind::Missing)),
    ]);
    assert_fails([
        created,
        op(0, (3, 4), A, update(1, 2), Failed(ErrorKind::Conflict)),
    ]);
    assert_fails([
        created,
        op(0, (3, 4), A, DELETE, Failed(ErrorKind::Missing)),
    ]);
    assert_fails([op(
        0,
        (1, 2),
        A,
        Call::Create(version(1)),
        Failed(ErrorKind::Exists),
    )]);
}

#[test]
fn a_call_that_failed_must_have_changed_nothing() {
    let created = op(0, (1, 2), A, Call::Create(version(1)), Done);
    let failed = op(0, (3, 4), A, update(1, 2), Failed(ErrorKind::Unavailable));
    assert_passes([
        created,
        failed,
        op(0, (5, 6), A, Call::Load, Found(Some(version(1)))),
    ]);
    assert_fails([
        created,
        failed,
        op(0, (5, 6), A, Call::Load, Found(Some(version(2)))),
    ]);
}

#[test]
fn an_ambiguous_call_takes_effect_late_or_never_but_not_twice() {
    let created = op(0, (1, 2), A, Call::Create(version(1)), Done);
    let lost = op(0, (3, 0), A, update(1, 2), Unknown);
    let load = |span, seen| op(1, span, A, Call::Load, Found(seen));
    assert_passes([created, lost]);
    assert_passes([created, lost, load((4, 5), Some(version(1)))]);
    assert_passes([
        created,
        lost,
        load((4, 5), Some(version(1))),
        load((6, 7), Some(version(2))),
    ]);
    assert_fails([
        created,
        lost,
        load((4, 5), Some(version(2))),
        load((6, 7), Some(version(1))),
    ]);
}

#[test]
fn an_ambiguous_call_does_not_take_effect_before_it_begins() {
    assert_fails([
        op(0, (1, 2), A, Call::Create(version(1)), Done),
        op(1, (3, 4), A, Call::Load, Found(Some(version(2)))),
        op(0, (5, 0), A, update(1, 2), Unknown),
    ]);
}

#[test]
fn of_many_deletes_one_ends_the_record() {
    let created = op(0, (1, 2), A, Call::Create(version(1)), Done);
    assert_passes([
        created,
        op(0, (3, 5), A, DELETE, Ended(true)),
        op(1, (4, 6), A, DELETE, Ended(false)),
    ]);
    assert_fails([
        created,
        op(0, (3, 5), A, DELETE, Ended(true)),
        op(1, (4, 6), A, DELETE, Ended(true)),
    ]);
    assert_fails([created, op(0, (3, 4), A, DELETE, Ended(false))]);
    assert_fails([op(0, (1, 2), A, DELETE, Ended(true))]);
    assert_passes([op(0, (1, 2), A, delete_at(1), Ended(false))]);
}

#[test]
fn a_delete_at_a_revision_ends_no_other() {
    let created = op(0, (1, 2), A, Call::Create(version(1)), Done);
    let conflict = Failed(ErrorKind::Conflict);
    assert_passes([created, op(0, (3, 4), A, delete_at(1), Ended(true))]);
    assert_passes([created, op(0, (3, 4), A, delete_at(2), conflict)]);
    assert_fails([created, op(0, (3, 4), A, delete_at(2), Ended(true))]);
    assert_fails([created, op(0, (3, 4), A, delete_at(1), conflict)]);
    assert_fails([created, op(0, (3, 4), A, DELETE, conflict)]);
}

#[test]
fn an_update_and_a_delete_at_one_revision_do_not_both_succeed() {
    let created = op(0, (1, 2), A, Call::Create(version(1)), Done);
    let conflict = Failed(ErrorKind::Conflict);
    assert_passes([
        created,
        op(0, (3, 5), A, update(1, 2), Done),
        op(1, (4, 6), A, delete_at(1), conflict),
    ]);
    let text = assert_fails([
        created,
        op(0, (3, 5), A, update(1, 2), Done),
        op(1, (4, 6), A, delete_at(1), Ended(true)),
    ]);
    assert!(text.contains("client 1: delete A at r1 -> ended"), "{text}");
}

#[test]
fn a_lost_delete_ends_its_revision_or_nothing() {
    let created = op(0, (1, 2), A, Call::Create(version(1)), Done);
    let lost = op(0, (3, 0), A, delete_at(1), Unknown);
    let load = |span, seen| op(1, span, A, Call::Load, Found(seen));
    assert_passes([created, lost, load((4, 5), Some(version(1)))]);
    assert_passes([created, lost, load((4, 5), None)]);
    assert_fails([
        created,
        lost,
        op(1, (4, 5), A, update(1, 2), Done),
        load((6, 7), None),
    ]);
}

#[test]
fn a_record_vanishes_at_its_expiry_not_before_and_not_after() {
    let created = op(0, (1, 2), A, Call::Create(until(1, 100)), Done);
    let load = |clock, seen| at(clock, op(0, (3, 4), A, Call::Load, Found(seen)));
    let live = Some(until(1, 100));
    assert_passes([created, load((99, 99), live)]);
    assert_fails([created, load((99, 99), None)]);
    assert_passes([created, load((100, 100), None)]);
    assert_fails([created, load((100, 100), live)]);
    assert_passes([created, load((99, 100), live)]);
    assert_passes([created, load((99, 100), None)]);
}

#[test]
fn an_expired_record_does_not_return() {
    let load = |span, seen| at((90, 110), op(1, span, A, Call::Load, Found(seen)));
    assert_fails([
        op(0, (1, 2), A, Call::Create(until(1, 100)), Done),
        load((3, 4), None),
        load((5, 6), Some(until(1, 100))),
    ]);
    let touched = at(
        (90, 110),
        op(0, (5, 6), A, Call::Touch(Timestamp::from_millis(900)), Done),
    );
    assert_fails([
        op(0, (1, 2), A, Call::Create(until(1, 100)), Done),
        load((3, 4), None),
        touched,
    ]);
}

#[test]
fn a_touch_moves_the_expiry_and_nothing_else() {
    let created = op(0, (1, 2), A, Call::Create(until(1, 100)), Done);
    let touched = op(0, (3, 4), A, Call::Touch(Timestamp::from_millis(200)), Done);
    let load = |seen| at((150, 150), op(1, (5, 6), A, Call::Load, Found(seen)));
    assert_passes([created, touched, load(Some(until(1, 200)))]);
    assert_fails([created, touched, load(None)]);
    assert_fails([created, touched, load(Some(until(1, 100)))]);
}

#[test]
fn time_runs_in_one_direction_through_the_order() {
    // The first call shows that 100 has passed, so the second one, which began when the first was
    // over, cannot find what expires then, although its own two instants would allow it.
    assert_fails([
        op(0, (1, 2), A, Call::Create(until(1, 100)), Done),
        at((0, 120), op(1, (3, 4), A, Call::Load, Found(None))),
        at(
            (0, 120),
            op(0, (5, 6), A, Call::Create(until(2, 100)), Done),
        ),
        at(
            (0, 99),
            op(1, (7, 8), A, Call::Load, Found(Some(until(2, 100)))),
        ),
    ]);
}

#[test]
fn the_granularity_widens_the_expiry_in_both_directions() {
    let history = |clock: i64, seen| -> History {
        [
            op(0, (1, 2), A, Call::Create(until(1, 100)), Done),
            at((clock, clock), op(0, (3, 4), A, Call::Load, Found(seen))),
        ]
        .into_iter()
        .collect()
    };
    let passes = |clock, seen| {
        let history = history(clock, seen).with_granularity(Duration::from_millis(10));
        check(&history) == Verdict::Linearizable
    };
    let live = Some(until(1, 100));
    assert!(!passes(89, None) && passes(89, live));
    assert!(passes(90, None) && passes(90, live));
    assert!(passes(109, None) && passes(109, live));
    assert!(passes(110, None) && !passes(110, live));
}

#[test]
fn within_the_granularity_a_record_that_was_missing_stays_missing() {
    let load = |span, seen| at((100, 100), op(1, span, A, Call::Load, Found(seen)));
    let history: History = [
        op(0, (1, 2), A, Call::Create(until(1, 100)), Done),
        load((3, 4), None),
        load((5, 6), Some(until(1, 100))),
    ]
    .into_iter()
    .collect();
    let verdict = check(&history.with_granularity(Duration::from_millis(10)));
    assert!(matches!(verdict, Verdict::Violation(_)), "{verdict:?}");
}

#[test]
fn an_exhausted_budget_is_inconclusive_and_never_a_pass() {
    // Twelve calls at once that may all have happened, and a load that none of them explains.
    let mut operations: Vec<Operation> = (0..12)
        .map(|client| {
            op(
                client,
                (1, 0),
                A,
                Call::Create(version(client as u64)),
                Unknown,
            )
        })
        .collect();
    operations.extend((12..24).map(|client| op(client, (1, 0), A, DELETE, Unknown)));
    operations.push(op(99, (2, 3), A, Call::Load, Found(Some(version(77)))));
    let history: History = operations.into_iter().collect();
    assert_eq!(check_within(&history, 500), Verdict::Inconclusive(500));
}

#[test]
fn a_violation_under_one_key_is_found_beside_an_inconclusive_one() {
    let mut operations: Vec<Operation> = (0..12)
        .map(|client| {
            op(
                client,
                (1, 0),
                A,
                Call::Create(version(client as u64)),
                Unknown,
            )
        })
        .collect();
    operations.push(op(99, (2, 3), A, Call::Load, Found(Some(version(77)))));
    operations.push(op(99, (4, 5), B, Call::Load, Found(Some(version(78)))));
    let verdict = check_within(&operations.into_iter().collect(), 5);
    assert!(matches!(verdict, Verdict::Violation(_)), "{verdict:?}");
}

#[test]
fn a_report_shows_the_shortest_beginning_that_fails_and_no_onlookers() {
    let text = assert_fails([
        op(0, (1, 2), A, Call::Create(version(1)), Done),
        op(1, (3, 4), A, Call::Load, Found(Some(version(1)))),
        op(0, (5, 7), A, update(1, 2), Done),
        op(1, (6, 8), A, update(1, 3), Done),
        op(2, (9, 10), A, Call::Load, Found(Some(version(3)))),
        op(2, (11, 12), A, DELETE, Ended(true)),
        op(2, (13, 14), B, DELETE, Ended(false)),
        op(2, (15, 16), A, update(1, 4), Failed(ErrorKind::Missing)),
    ]);
    let expected = "\
no order of these calls explains their answers (3 of 7 recorded; each took effect between its two times)
     #1    1 ..   2  client 0: create A = r1 -> ok
     #2    5 ..   7  client 0: update A from r1 to r2 -> ok
     #3    6 ..   8  client 1: update A from r1 to r3 -> ok
the longest order that fits is #1 #2
it leaves A = r2
and then these cannot have been answered so:
  #3 client 1: update A from r1 to r3 -> ok";
    assert_eq!(text, expected);
}

/// Rounds in which eight clients update the same revision at once: one succeeds.
fn contended_rounds(rounds: u64) -> Vec<Operation> {
    let mut operations = vec![op(0, (1, 2), A, Call::Create(version(0)), Done)];
    for round in 0..rounds {
        let start = 100 * (round + 1);
        for client in 0..8 {
            let new = (round + 1) * 8 + client;
            let expected = if round == 0 { 0 } else { round * 8 + 3 };
            let answer = match client {
                3 => Done,
                _ => Failed(ErrorKind::Conflict),
            };
            let span = (start + client, start + 20 + (client * 5) % 8);
            operations.push(op(client as usize, span, A, update(expected, new), answer));
        }
    }
    operations
}

#[test]
fn a_long_contended_history_is_checked_within_the_budget() {
    let mut operations = contended_rounds(125);
    assert_eq!(
        check(&operations.iter().copied().collect()),
        Verdict::Linearizable
    );
    let stale = Found(Some(version(8 + 3)));
    operations.push(op(9, (99_998, 99_999), A, Call::Load, stale));
    match check(&operations.into_iter().collect()) {
        Verdict::Violation(violation) => assert_eq!(violation.unexplained().count(), 1),
        other => panic!("not a violation: {other:?}"),
    }
}

fn token(number: u8) -> Token {
    let cookie = CookieName::new("id").expect("a valid name");
    Token::from_bytes(vec![number; Token::LEN], &cookie)
}

#[tokio::test]
async fn a_recorded_store_remembers_calls_answers_and_dropped_futures() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(5)));
    let recorder = Recorder::new(clock.clone());
    let store = recorder.client(7, Arc::new(MemoryStore::new().with_clock(clock.clone())));
    let (old, new) = (token(1), token(2));
    store.create(old.clone(), &record(1, 100)).await.unwrap();
    clock.advance(Duration::from_millis(1));
    store.load(&new).await.unwrap();
    let stale = Revision::from_bits(9);
    let conflict = store.update(&old, stale, &record(2, 100)).await;
    conflict.unwrap_err();
    drop(store.delete(&old, None));
    drop(recorder.invoke(8, old.key(), DELETE));
    let history = recorder.history();
    let calls: Vec<_> = history
        .operations()
        .iter()
        .map(|o| (o.client, o.answer, o.invoked, o.earliest.as_millis()))
        .collect();
    let expected = [
        (7, Done, 1, 5),
        (7, Found(None), 3, 6),
        (7, Failed(ErrorKind::Conflict), 5, 6),
        (8, Unknown, 7, 6),
    ];
    assert_eq!(calls, expected);
    assert_eq!(check(&history), Verdict::Linearizable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_reference_store_is_linearizable_with_real_threads() {
    let clock = Arc::new(ManualClock::new(Timestamp::MIN));
    let store = Arc::new(MemoryStore::new().with_clock(clock.clone()));
    let mut overlaps = 0;
    for seed in 0..50 {
        let recorder = Recorder::new(clock.clone());
        let clients = (0..4).map(|client| {
            let (recorder, store) = (recorder.clone(), store.clone());
            let random = Random::new(seed * 4 + client as u64);
            tokio::spawn(async move {
                let token = token(seed as u8);
                for _ in 0..8 {
                    random_call(&recorder, client, &store, &token, &random).await;
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        let history = recorder.history();
        overlaps += history.overlaps();
        match check(&history) {
            Verdict::Linearizable => {}
            Verdict::Violation(violation) => panic!("seed {seed}: {violation}"),
            Verdict::Inconclusive(steps) => panic!("seed {seed}: gave up after {steps} steps"),
        }
    }
    assert!(
        overlaps > 1_000,
        "only {overlaps} calls ran at the same time"
    );
}

/// A call that gives way to the others after its beginning and before its end.
async fn random_call(
    recorder: &Recorder,
    client: usize,
    store: &MemoryStore,
    token: &Token,
    random: &Random,
) {
    let new = record(random.next(), i64::MAX);
    let current = store.load(token).await.expect("a load in memory");
    let expected = current.map_or(new.revision, |current| current.revision);
    let call = match random.below(9) {
        0..2 => Call::Create(Version::from(&new)),
        2 => DELETE,
        8 => Call::Delete(Some(expected)),
        3 => Call::Load,
        4 => Call::Touch(Timestamp::from_millis(1 + random.below(1_000) as i64)),
        _ => Call::Update {
            expected,
            new: Version::from(&new),
        },
    };
    let pending = recorder.invoke(client, token.key(), call);
    tokio::task::yield_now().await;
    let result = match call {
        Call::Create(_) => store.create(token.clone(), &new).await.map(|_| Done),
        Call::Delete(expected) => store.delete(token, expected).await.map(Ended),
        Call::Touch(expires_at) => store.touch(token, expires_at).await.map(|_| Done),
        Call::Update { .. } => store.update(token, expected, &new).await.map(|_| Done),
        Call::Load => store
            .load(token)
            .await
            .map(|found| Found(found.as_ref().map(Version::from))),
    };
    tokio::task::yield_now().await;
    pending.returned(result.unwrap_or_else(|error| Failed(error.kind())));
}
