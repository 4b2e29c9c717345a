use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use sessionkit::{ErrorKind, Record, Revision, SessionStore, Token};
use tokio::task::yield_now;

use super::{
    case,
    history::c12_random_histories_are_linearizable,
    rounds::{Rounds, Store, as_ref, winner},
};
use crate::{Case, Context, Failure, Outcome, Random, verdict::describe};

pub(super) const CASES: &[Case] = &[
    case!(parallel Conc c01_of_many_creates_of_one_token_one_succeeds [Server]
        "Of any number of concurrent calls with one token exactly one succeeds."
        "Two users get one session: each sees the other's data."),
    case!(parallel Conc c02_of_many_updates_of_one_revision_one_succeeds [Server CompareAndSwap]
        "[`Conflict`](crate::ErrorKind::Conflict) when the stored revision is another"
        "Two requests of one user save, and the changes of one of them are lost silently."),
    case!(parallel Conc c03_no_increment_is_lost [Server CompareAndSwap]
        "Replaces a live record whose revision is `expected` in one step, all of its fields"
        "Counters, carts and rate limits lose changes under load."),
    case!(parallel Conc c04_no_reader_sees_half_of_a_write [Server]
        "No reader sees half of a write."
        "A session mixed of two versions: the rights of one with the name of another."),
    case!(parallel Conc c05_an_update_does_not_bring_a_deleted_record_back [Server]
        "Never inserts."
        "A request that was on its way logs the user in again (CVE-2025-46336)."),
    case!(parallel Conc c09_a_revision_is_not_met_again [Server CompareAndSwap]
        "a revision is never met again, not even after a session was deleted and created anew"
        "A change made for an earlier session is applied to a later one (ABA)."),
    case!(parallel Conc c10_a_sweep_spares_what_is_prolonged_in_time [Server ExplicitSweep]
        "a record whose expiry is extended in time survives"
        "The user is active, and logged out by the cleaner."),
    case!(parallel Conc c11_what_was_deleted_is_not_loaded_by_anybody [Server]
        "After `Ok` no handle, cache or host returns the record."
        "A cache puts the session back that was deleted while it was being read."),
    case!(parallel Conc c12_random_histories_are_linearizable [Server CompareAndSwap Fresh]
        "Each call takes effect at one instant or not at all, as seen by every handle, process and host that shares the namespace."
        "Whatever nobody thought of, when many requests come at the same time."),
    case!(parallel Conc c13_64_tasks_share_a_handle [Server]
        "Each call ends within the deadline"
        "Under load, requests wait for each other for ever."),
    case!(parallel Conc c14_a_touch_does_not_bring_a_deleted_record_back [Server]
        "No call stores anything for such a token except `create`"
        "A logout is undone by the next request that prolongs the session."),
    case!(parallel Conc c15_of_many_deletes_of_one_record_one_is_true [Server]
        "of any number of concurrent calls for one record exactly one says `true`"
        "Two requests are both told that they have ended the session, and both act on it."),
    case!(parallel Conc c16_an_update_and_a_delete_at_one_revision_do_not_both_succeed [Server CompareAndSwap]
        "With `Some`, a live record goes only if that is its revision, in one step."
        "A renewal is acknowledged and the session is gone, or a sign-out is and the session lives."),
];

async fn c01_of_many_creates_of_one_token_one_succeeds(cx: &Context) -> Outcome {
    let mut rounds = Rounds::new(cx).await?;
    while rounds.next() {
        let token = cx.token();
        let records: Vec<_> = (0..32)
            .map(|number| cx.record(format!("{number}")))
            .collect();
        let calls = records.iter().enumerate();
        let calls = calls.map(|(number, record)| rounds.create(number, &token, record));
        let answers = rounds.race(calls.collect()).await?;
        let won = winner(cx, "creates of one token", &answers, &[ErrorKind::Exists])?;
        rounds
            .kept("after the creates", &token, &records[won])
            .await?;
    }
    Ok(())
}

async fn c02_of_many_updates_of_one_revision_one_succeeds(cx: &Context) -> Outcome {
    let mut rounds = Rounds::new(cx).await?;
    while rounds.next() {
        let (token, first) = rounds.start().await?;
        let records: Vec<_> = (0..8)
            .map(|number| cx.changed(&first, format!("{number}")))
            .collect();
        let calls = records.iter().enumerate();
        let calls =
            calls.map(|(number, record)| rounds.update(number, &token, first.revision, record));
        let answers = rounds.race(calls.collect()).await?;
        let won = winner(
            cx,
            "updates of one revision",
            &answers,
            &[ErrorKind::Conflict],
        )?;
        rounds
            .kept("after the updates", &token, &records[won])
            .await?;
    }
    Ok(())
}

async fn c03_no_increment_is_lost(cx: &Context) -> Outcome {
    let rounds = Rounds::new(cx).await?;
    let (token, record) = (cx.token(), cx.record("0"));
    rounds.handles[0].create(token.clone(), &record).await?;
    let entropy = Arc::new(Random::new(cx.random().next()));
    let workers = (0..8).map(|number| {
        let (store, token, entropy) = (rounds.handle(number), token.clone(), Arc::clone(&entropy));
        async move { increment(&*store, &token, &entropy, 25).await }
    });
    for conflicts in cx.together(workers).await? {
        for _ in 0..conflicts? {
            cx.contended();
        }
    }
    cx.settle().await;
    let found = rounds.handles[1].load(&token).await?;
    let value = found.map(|found| String::from_utf8_lossy(&found.data).into_owned());
    cx.equal("200 increments give", &value, &Some("200".into()))
}

/// Adds one to a number, `times` times; returns how often somebody else was faster.
async fn increment(
    store: &dyn SessionStore,
    token: &Token,
    entropy: &Random,
    times: usize,
) -> Outcome<usize> {
    let (mut done, mut conflicts) = (0, 0);
    while done < times {
        let Some(record) = store.load(token).await? else {
            return Err(Failure::new(
                "a record that nobody deletes stays",
                "load is None",
            ));
        };
        let text = String::from_utf8_lossy(&record.data);
        let Ok(value) = text.parse::<u64>() else {
            return Err(Failure::new("a number that was stored", text));
        };
        // Gives the others the chance to be in between.
        yield_now().await;
        let next = Record {
            data: (value + 1).to_string().into(),
            revision: Revision::from_bits(entropy.next()),
            ..record.clone()
        };
        match store.update(token, record.revision, &next).await {
            Ok(_) => done += 1,
            // Somebody else's update each time, and there are only so many.
            Err(error) if error.kind() == ErrorKind::Conflict && conflicts < 1000 => conflicts += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(conflicts)
}

async fn c04_no_reader_sees_half_of_a_write(cx: &Context) -> Outcome {
    let mut rounds = Rounds::new(cx).await?;
    let size = cx.capabilities().max_data.min(256 << 10);
    let (token, first) = (cx.token(), letters(cx, b'a', size));
    rounds.handles[0].create(token.clone(), &first).await?;
    while rounds.next() {
        let mut tasks: Vec<BoxFuture<'static, Outcome>> = Vec::new();
        for number in 0..2_u8 {
            let letter = (rounds.round * 2 + usize::from(number)) % 26;
            let record = letters(cx, b'a' + letter as u8, size);
            let (store, token) = (rounds.handle(number.into()), token.clone());
            tasks.push(replace(store, token, record).boxed());
        }
        for number in 0..4 {
            tasks.push(read_whole(rounds.handle(number), token.clone(), size).boxed());
        }
        for outcome in cx.race(tasks).await? {
            outcome?;
        }
        cx.check(true, "", "")?;
    }
    Ok(())
}

/// A record of one letter, which its revision names.
fn letters(cx: &Context, letter: u8, size: usize) -> Record {
    let revision = Revision::from_bits(cx.revision().to_bits() << 8 | u64::from(letter));
    Record {
        revision,
        ..cx.record(vec![letter; size])
    }
}

/// Replaces the record, whatever its revision.
async fn replace(store: Store, token: Token, record: Record) -> Outcome {
    for attempt in 0.. {
        let Some(stored) = store.load(&token).await? else {
            return Err(Failure::new("a record that nobody deletes", "load is None"));
        };
        match store.update(&token, stored.revision, &record).await {
            Ok(_) => break,
            // There is one other writer, which replaces the record once.
            Err(error) if error.kind() == ErrorKind::Conflict && attempt < 100 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn read_whole(store: Store, token: Token, size: usize) -> Outcome {
    for _ in 0..4 {
        let found = store.load(&token).await?;
        let whole = found.as_ref().is_some_and(|found| {
            let letter = found.revision.to_bits() as u8;
            found.data == vec![letter; size]
        });
        if !whole {
            let expected = format!("{size} times the letter that the revision names");
            return Err(Failure::new(expected, describe(found.as_ref())));
        }
        yield_now().await;
    }
    Ok(())
}

async fn c05_an_update_does_not_bring_a_deleted_record_back(cx: &Context) -> Outcome {
    let mut rounds = Rounds::new(cx).await?;
    while rounds.next() {
        let (token, first) = rounds.start().await?;
        let loaded = rounds.handles[0]
            .load(&token)
            .await?
            .unwrap_or_else(|| first.clone());
        let second = cx.changed(&loaded, "second");
        if rounds.round % 2 == 0 {
            rounds.handles[1].delete(&token, None).await?;
            let updated = rounds.handles[0]
                .update(&token, loaded.revision, &second)
                .await;
            cx.err(
                "update after another handle deleted",
                ErrorKind::Missing,
                updated,
            )?;
        } else {
            let calls = vec![
                rounds.update(0, &token, loaded.revision, &second),
                rounds.delete(1, &token, None),
            ];
            let mut answers = rounds.race(calls).await?;
            cx.ok("delete during an update", answers.remove(1))?;
            if let Err(error) = answers.remove(0) {
                cx.err(
                    "update during a delete",
                    ErrorKind::Missing,
                    Err::<(), _>(error),
                )?;
            }
        }
        rounds.gone("after update and delete", &token).await?;
    }
    Ok(())
}

async fn c09_a_revision_is_not_met_again(cx: &Context) -> Outcome {
    let rounds = Rounds::new(cx).await?;
    for _ in 0..32 {
        let (token, first) = rounds.start().await?;
        rounds.handles[1].delete(&token, None).await?;
        let second = cx.record("second");
        rounds.handles[1].create(token.clone(), &second).await?;
        let late = cx.changed(&first, "late");
        let updated = rounds.handles[0]
            .update(&token, first.revision, &late)
            .await;
        cx.err(
            "update with the revision of an earlier record",
            ErrorKind::Conflict,
            updated,
        )?;
        let deleted = rounds.handles[0].delete(&token, Some(first.revision)).await;
        cx.err(
            "delete at the revision of an earlier record",
            ErrorKind::Conflict,
            deleted,
        )?;
        cx.contended();
        rounds.kept("after they failed", &token, &second).await?;
    }
    Ok(())
}

async fn c10_a_sweep_spares_what_is_prolonged_in_time(cx: &Context) -> Outcome {
    let Some(clock) = cx.manual_clock() else {
        return Err(cx.without_clock());
    };
    let mut rounds = Rounds::new(cx).await?;
    while rounds.next() {
        let record = cx.record_for("hello", cx.moment());
        let past = Record {
            expires_at: cx.now() - cx.moment(),
            ..record.clone()
        };
        let (mut touched, mut recreated) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            touched.push(rounds.handles[0].create(cx.token(), &record).await?);
            recreated.push(rounds.handles[0].create(cx.token(), &past).await?);
        }
        clock.set(record.expires_at - cx.margin() - Duration::from_millis(1));
        let later = Record {
            expires_at: record.expires_at + cx.moment(),
            ..record.clone()
        };
        let touches = touched
            .iter()
            .map(|token| rounds.touch(0, token, later.expires_at));
        let creates = recreated
            .iter()
            .map(|token| rounds.create(0, token, &later));
        let mut calls: Vec<_> = touches.chain(creates).collect();
        let (store, clock, token) = (rounds.handle(1), Arc::clone(&clock), cx.token());
        let expired = record.expires_at + cx.margin();
        calls.push(
            async move {
                clock.set(expired);
                store.sweep(100).await.map(|_| token)
            }
            .boxed(),
        );
        let mut answers = rounds.race(calls).await?.into_iter();
        for (token, answer) in touched.iter().zip(&mut answers) {
            match answer {
                Ok(_) => {
                    rounds
                        .kept("of a record that was touched in time", token, &later)
                        .await?
                }
                Err(error) => {
                    cx.err(
                        "touch during a sweep",
                        ErrorKind::Missing,
                        Err::<(), _>(error),
                    )?;
                    rounds
                        .gone("of a record that was touched too late", token)
                        .await?;
                }
            }
        }
        for (token, answer) in recreated.iter().zip(&mut answers) {
            cx.ok("create over an expired record during a sweep", answer)?;
            rounds
                .kept(
                    "of a record that was created over an expired one",
                    token,
                    &later,
                )
                .await?;
        }
    }
    Ok(())
}

async fn c11_what_was_deleted_is_not_loaded_by_anybody(cx: &Context) -> Outcome {
    let mut rounds = Rounds::new(cx).await?;
    while rounds.next() {
        let (token, _) = rounds.start().await?;
        let mut calls = vec![rounds.delete(0, &token, None)];
        for number in 0..6 {
            let (store, token) = (rounds.handle(number), token.clone());
            calls.push(async move { store.load(&token).await.map(|_| token) }.boxed());
        }
        for answer in rounds.race(calls).await? {
            cx.ok("load or delete", answer)?;
        }
        rounds
            .gone("after delete, which loads ran beside", &token)
            .await?;
    }
    Ok(())
}

async fn c13_64_tasks_share_a_handle(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let mut rounds = Rounds::new(cx).await?;
    while rounds.next() {
        let (token, record) = rounds.start().await?;
        let calls = (0..64).map(|_| {
            let (store, token, next) = (
                Arc::clone(&store),
                token.clone(),
                cx.changed(&record, "next"),
            );
            async move {
                let Some(stored) = store.load(&token).await? else {
                    return Err(ErrorKind::Missing.into());
                };
                match store.update(&token, stored.revision, &next).await {
                    Err(error) if error.kind() == ErrorKind::Conflict => Ok(token),
                    other => other,
                }
            }
        });
        for answer in cx.race(calls).await? {
            cx.ok("load and update by one of 64 tasks", answer)?;
        }
    }
    Ok(())
}

async fn c14_a_touch_does_not_bring_a_deleted_record_back(cx: &Context) -> Outcome {
    let mut rounds = Rounds::new(cx).await?;
    while rounds.next() {
        let (token, first) = rounds.start().await?;
        let expected = (rounds.round % 4 == 0).then_some(first.revision);
        let mut calls = vec![rounds.delete(1, &token, expected)];
        for number in 0..3 {
            calls.push(rounds.touch(number, &token, first.expires_at + cx.moment()));
        }
        let mut answers = rounds.race(calls).await?;
        cx.ok("delete during a touch", answers.remove(0))?;
        for error in answers.into_iter().filter_map(Result::err) {
            cx.err(
                "touch during a delete",
                ErrorKind::Missing,
                Err::<(), _>(error),
            )?;
        }
        rounds.gone("after touch and delete", &token).await?;
    }
    Ok(())
}

async fn c15_of_many_deletes_of_one_record_one_is_true(cx: &Context) -> Outcome {
    let mut rounds = Rounds::new(cx).await?;
    while rounds.next() {
        let (token, first) = rounds.start().await?;
        let calls = (0..32).map(|number| {
            // Pairs, because the two handles take turns.
            let expected = (number / 2 % 2 == 0).then_some(first.revision);
            rounds.delete(number, &token, expected)
        });
        let answers = rounds.race(calls.collect()).await?;
        winner(cx, "deletes of one record", &answers, &[ErrorKind::Missing])?;
        rounds.gone("after the deletes", &token).await?;
    }
    Ok(())
}

async fn c16_an_update_and_a_delete_at_one_revision_do_not_both_succeed(cx: &Context) -> Outcome {
    let mut rounds = Rounds::new(cx).await?;
    while rounds.next() {
        let (token, first) = rounds.start().await?;
        let second = cx.changed(&first, "second");
        let calls = vec![
            rounds.update(0, &token, first.revision, &second),
            rounds.delete(1, &token, Some(first.revision)),
        ];
        let answers = rounds.race(calls).await?;
        let kinds = [ErrorKind::Missing, ErrorKind::Conflict];
        if winner(cx, "calls, an update and a delete,", &answers, &kinds)? == 0 {
            cx.err(
                "delete after the update",
                ErrorKind::Conflict,
                as_ref(&answers[1]),
            )?;
            rounds.kept("after the update won", &token, &second).await?;
        } else {
            cx.err(
                "update after the delete",
                ErrorKind::Missing,
                as_ref(&answers[0]),
            )?;
            rounds.gone("after the delete won", &token).await?;
        }
    }
    Ok(())
}
