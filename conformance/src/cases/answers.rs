//! One lost answer, and a backend that is full: what each call may say then.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use sessionkit::{
    ErrorKind, Record, Result, SessionStore, StoreKey, Subject, SubjectIndex, Sweep, Token,
};

use super::{
    case,
    flt::{GONE, in_time, recovered},
};
use crate::{
    Case, Context, Failure, Fault, Outcome,
    verdict::{describe, describe_error, ended},
};

pub(super) const CASES: &[Case] = &[
    case!(Flt e60_a_call_whose_answer_alone_is_lost_says_nothing_false [Server]
        "A store repeats a call by itself only when the repetition cannot take effect twice or report a false `Exists`, `Conflict` or `Missing`."
        "A blind retry meets what the first try has done: a save is taken for a conflict, a sign-out for one that ended nothing."),
    case!(Flt e61_revoking_whose_answer_alone_is_lost_says_nothing_false [Server Subjects]
        "Some of the sessions may have ended; repeating the call is safe."
        "`Log out everywhere` reports that there was nothing to end, and the user believes that nobody was there."),
    case!(Flt e62_a_full_backend_lies_about_no_call [Server]
        "An error other than [`Ambiguous`](crate::ErrorKind::Ambiguous) means that nothing has changed"
        "On a full disk a sign-out is confirmed and the session lives, or a renewal loses it."),
    case!(Flt e63_a_full_backend_revokes_or_says_that_it_does_not [Server Subjects]
        "Ends one session if it belongs to the subject. Returns whether it was live."
        "On a full disk `log out everywhere` is confirmed, and the thief is still logged in."),
];

type Store = Arc<dyn SessionStore>;

/// The calls on one token.
const CALLS: [&str; 6] = [
    "create",
    "update",
    "renew",
    "touch",
    "delete at its revision",
    "delete",
];

/// A token, what is stored for it before a call, and what is after it.
#[derive(Clone)]
struct Scene {
    name: &'static str,
    token: Token,
    first: Record,
    second: Record,
    after: Option<Record>,
}

impl Scene {
    async fn set(cx: &Context, store: &Store, name: &'static str, data: &[u8]) -> Outcome<Self> {
        let mut first = cx.record("first");
        first.subject = Some(cx.subject("alice"));
        let second = cx.changed(&first, data.to_vec());
        let token = cx.token();
        if name != "create" {
            store.create(token.clone(), &first).await?;
        }
        let after = match name {
            "create" | "update" | "renew" => Some(second.clone()),
            "touch" => Some(Record {
                expires_at: first.expires_at + cx.moment(),
                ..first.clone()
            }),
            _ => None,
        };
        Ok(Self {
            name,
            token,
            first,
            second,
            after,
        })
    }

    fn before(&self) -> Option<&Record> {
        (self.name != "create").then_some(&self.first)
    }

    fn call(&self, store: &Store) -> BoxFuture<'static, Result<()>> {
        let (scene, store) = (self.clone(), Arc::clone(store));
        async move {
            let Self {
                token,
                first,
                second,
                ..
            } = &scene;
            let expected = first.revision;
            match scene.name {
                "create" => drop(store.create(token.clone(), second).await?),
                "update" => drop(store.update(token, expected, second).await?),
                "renew" => drop(store.renew(token, expected, second).await?),
                "touch" => {
                    let later = scene.after.as_ref().unwrap_or(first).expires_at;
                    drop(store.touch(token, later).await?);
                }
                "delete" => ended(store.delete(token, None).await)?,
                _ => ended(store.delete(token, Some(expected)).await)?,
            }
            Ok(())
        }
        .boxed()
    }

    /// The answer is one of those that are right, and every handle has the record that it promises.
    async fn judge(
        &self,
        cx: &Context,
        when: &str,
        (answer, refusals): (Result<()>, &[ErrorKind]),
        handles: &[&Store],
    ) -> Outcome {
        let call = format!("{} {when}", self.name);
        let states = match &answer {
            Ok(()) => vec![self.after.as_ref()],
            Err(error) if error.kind() == ErrorKind::Ambiguous => {
                vec![self.before(), self.after.as_ref()]
            }
            Err(_) => vec![self.before()],
        };
        let said = match &answer {
            Ok(()) => "is Ok".to_owned(),
            Err(error) => format!("is {:?}", error.kind()),
        };
        if let Err(error) = answer {
            let right = refusals.contains(&error.kind());
            let expected = format!("{call} is Ok or one of {refusals:?}");
            cx.check(right, expected, describe_error(&error))?;
        }
        cx.settle().await;
        for handle in handles {
            let found = cx.ok(
                &format!("load after {call}"),
                handle.load(&self.token).await,
            )?;
            let words: Vec<_> = states.iter().map(|state| describe(*state)).collect();
            cx.check(
                states.contains(&found.as_ref()),
                format_args!("{call}, which {said}, leaves {}", words.join(" or ")),
                describe(found.as_ref()),
            )?;
        }
        Ok(())
    }
}

const LOST: &str = "whose answer alone is lost";

async fn e60_a_call_whose_answer_alone_is_lost_says_nothing_false(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    for name in CALLS {
        // The second time with connections that are known to be good.
        for _ in 0..2 {
            let scene = Scene::set(cx, &store, name, b"second").await?;
            other.load(&scene.token).await?;
            cx.fault(Fault::LoseReply).await?;
            let answer = in_time(cx, name, scene.call(&store)).await?;
            cx.fault(Fault::None).await?;
            recovered(cx, &store, &scene.token).await?;
            recovered(cx, &other, &scene.token).await?;
            scene
                .judge(cx, LOST, (answer, &GONE), &[&store, &other])
                .await?;
        }
    }
    reads_may_be_repeated(cx, &store).await
}

const SWEEPS: [&str; 2] = ["sweep", "try_sweep"];

/// How many records a sweep of either kind says that it has removed.
async fn swept_by(store: &Store, name: &str) -> Result<u64> {
    match name {
        "sweep" => store.sweep(100).await,
        _ => store.try_sweep(100).await.map(Option::unwrap_or_default),
    }
}

/// A load and a sweep may be made once more, and say what is true then.
async fn reads_may_be_repeated(cx: &Context, store: &Store) -> Outcome {
    let live = cx.record("live");
    let token = store.create(cx.token(), &live).await?;
    cx.fault(Fault::LoseReply).await?;
    match in_time(cx, "load", store.load(&token)).await? {
        Ok(found) => cx.check(
            found.as_ref() == Some(&live),
            format_args!("load {LOST} is {}", describe(Some(&live))),
            describe(found.as_ref()),
        )?,
        Err(error) => cx.err_in(&format!("load {LOST}"), &GONE, Err::<(), _>(error))?,
    }
    cx.fault(Fault::None).await?;
    recovered(cx, store, &token).await?;
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..cx.record("stale")
    };
    for name in SWEEPS {
        if cx.capabilities().sweep != Sweep::Explicit {
            break;
        }
        for _ in 0..3 {
            store.create(cx.token(), &stale).await?;
        }
        cx.fault(Fault::LoseReply).await?;
        match in_time(cx, name, swept_by(store, name)).await? {
            Ok(swept) => cx.check(swept <= 3, format_args!("{name} {LOST} counts 3"), swept)?,
            Err(error) => cx.err_in(&format!("{name} {LOST}"), &GONE, Err::<(), _>(error))?,
        }
        cx.fault(Fault::None).await?;
        recovered(cx, store, &token).await?;
        cx.ok("sweep after that", store.sweep(100).await)?;
    }
    cx.holds("after that", store, &token, &live).await
}

/// Three sessions of a subject.
struct Owner {
    alice: Subject,
    sessions: Vec<(Token, Record)>,
}

impl Owner {
    async fn set(cx: &Context, store: &Store) -> Outcome<Self> {
        let alice = cx.subject(&format!("alice{}", cx.random().next()));
        let mut sessions = Vec::new();
        for number in 0..3 {
            let mut record = cx.record(format!("session {number}"));
            record.subject = Some(alice.clone());
            sessions.push((store.create(cx.token(), &record).await?, record));
        }
        Ok(Self { alice, sessions })
    }

    fn key(&self, number: usize) -> StoreKey {
        self.sessions[number].0.key()
    }

    /// Each of the first `ended` sessions is absent when the call said so, and as before when it
    /// said that nothing has changed; the others are as before.
    async fn judge(
        &self,
        cx: &Context,
        call: &str,
        store: &Store,
        (ended, said): (usize, Option<bool>),
    ) -> Outcome {
        cx.settle().await;
        for (number, (token, record)) in self.sessions.iter().enumerate() {
            let said = if number < ended { said } else { Some(false) };
            match said {
                Some(true) => cx.absent(&format!("after {call}"), store, token).await?,
                Some(false) => {
                    cx.holds(&format!("after {call}"), store, token, record)
                        .await?;
                }
                None => {
                    let found = store.load(token).await;
                    let found = cx.ok(&format!("load after {call}"), found)?;
                    cx.check(
                        found.is_none() || found.as_ref() == Some(record),
                        format_args!("after {call}, the session or none"),
                        describe(found.as_ref()),
                    )?;
                }
            }
        }
        Ok(())
    }
}

fn index(store: &Store) -> Outcome<&dyn SubjectIndex> {
    store
        .subjects()
        .ok_or_else(|| Failure::error("the index has disappeared"))
}

/// What an error says of the effect of a call: nothing where it is `Ambiguous`.
fn unchanged(error: &sessionkit::Error) -> Option<bool> {
    (error.kind() != ErrorKind::Ambiguous).then_some(false)
}

async fn e61_revoking_whose_answer_alone_is_lost_says_nothing_false(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    for _ in 0..2 {
        let owner = Owner::set(cx, &store).await?;
        let (alice, key) = (&owner.alice, owner.key(0));
        cx.fault(Fault::LoseReply).await?;
        let listed = in_time(cx, "list", index(&store)?.list(alice, None, 10)).await?;
        cx.fault(Fault::None).await?;
        recovered(cx, &store, &owner.sessions[0].0).await?;
        match listed {
            Ok(listed) => cx.equal(
                &format!("the length of a list {LOST} is"),
                &listed.len(),
                &3,
            )?,
            Err(error) => cx.err_in(&format!("list {LOST}"), &GONE, Err::<(), _>(error))?,
        }
        cx.fault(Fault::LoseReply).await?;
        let revoked = in_time(cx, "revoke", index(&store)?.revoke(alice, &key)).await?;
        cx.fault(Fault::None).await?;
        recovered(cx, &store, &owner.sessions[0].0).await?;
        let call = format!("revoke {LOST}");
        let said = match revoked {
            Ok(live) => {
                cx.equal(&format!("the answer of a {call} is"), &live, &true)?;
                Some(true)
            }
            Err(error) => {
                let said = unchanged(&error);
                cx.err_in(&call, &GONE, Err::<(), _>(error))?;
                said
            }
        };
        owner.judge(cx, &call, &store, (1, said)).await?;

        let owner = Owner::set(cx, &store).await?;
        let (alice, except) = (&owner.alice, owner.key(2));
        cx.fault(Fault::LoseReply).await?;
        let revoke = index(&store)?.revoke_all(alice, Some(&except));
        let revoked = in_time(cx, "revoke_all", revoke).await?;
        cx.fault(Fault::None).await?;
        recovered(cx, &store, &owner.sessions[2].0).await?;
        let call = format!("revoke_all {LOST}");
        let said = match revoked {
            Ok(count) => {
                cx.equal(&format!("the answer of a {call} is"), &count, &2)?;
                Some(true)
            }
            // Some of the sessions may have ended, whatever the error.
            Err(error) => {
                cx.err_in(&call, &GONE, Err::<(), _>(error))?;
                None
            }
        };
        owner.judge(cx, &call, &store, (2, said)).await?;
        let again = index(&store)?.revoke_all(alice, Some(&except)).await;
        cx.ok(&format!("revoke_all, repeated after a {call},"), again)?;
        let call = "revoke_all was repeated";
        owner.judge(cx, call, &store, (2, Some(true))).await?;
    }
    Ok(())
}

const FULL: &str = "in a full backend";

/// How a full backend may refuse.
const NO_ROOM: [ErrorKind; 2] = [ErrorKind::Full, ErrorKind::Unavailable];

async fn e62_a_full_backend_lies_about_no_call(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let large = vec![b'x'; cx.capabilities().max_data.min(64 << 10)];
    let mut scenes = Vec::new();
    for name in ["touch", "renew", "delete at its revision", "delete"] {
        scenes.push(Scene::set(cx, &store, name, &large).await?);
    }
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..cx.record("stale")
    };
    for _ in 0..3 {
        store.create(cx.token(), &stale).await?;
    }
    cx.fault(Fault::Full).await?;
    let mut answers = Vec::new();
    for scene in &scenes {
        let answer = in_time(cx, scene.name, scene.call(&store)).await?;
        let refusals: &[_] = match scene.name {
            "renew" => &NO_ROOM[..1],
            _ => &NO_ROOM,
        };
        let kind = answer.as_ref().err().map(sessionkit::Error::kind);
        answers.push((kind, refusals));
        let judged = (answer, refusals);
        scene.judge(cx, FULL, judged, &[&store, &other]).await?;
    }
    let mut swept = 0;
    for name in SWEEPS {
        if cx.capabilities().sweep != Sweep::Explicit {
            break;
        }
        match in_time(cx, name, swept_by(&store, name)).await? {
            Ok(count) => swept += count,
            Err(error) => cx.err_in(&format!("{name} {FULL}"), &NO_ROOM, Err::<(), _>(error))?,
        }
    }
    cx.fault(Fault::None).await?;
    recovered(cx, &store, &scenes[0].token).await?;
    for (scene, (kind, refusals)) in scenes.iter().zip(answers) {
        let answer = kind.map_or(Ok(()), |kind| Err(kind.into()));
        let when = format!("{FULL}, when there is room again");
        let judged = (answer, refusals);
        scene.judge(cx, &when, judged, &[&store, &other]).await?;
    }
    if cx.capabilities().sweep == Sweep::Explicit {
        swept += cx.ok("sweep when there is room again", store.sweep(100).await)?;
        let expected = format!("at most 3 records swept {FULL} and after it");
        cx.check(swept <= 3, expected, swept)?;
    }
    Ok(())
}

async fn e63_a_full_backend_revokes_or_says_that_it_does_not(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let owners = [Owner::set(cx, &store).await?, Owner::set(cx, &store).await?];
    cx.fault(Fault::Full).await?;
    let listed = index(&store)?.list(&owners[0].alice, None, 10);
    let listed = cx.ok(&format!("list {FULL}"), in_time(cx, "list", listed).await?)?;
    cx.equal(
        &format!("the length of a list {FULL} is"),
        &listed.len(),
        &3,
    )?;

    let (alice, key) = (&owners[0].alice, owners[0].key(0));
    let revoked = in_time(cx, "revoke", index(&store)?.revoke(alice, &key)).await?;
    let call = format!("revoke {FULL}");
    let one = match revoked {
        Ok(live) => {
            cx.equal(&format!("the answer of a {call} is"), &live, &true)?;
            Some(true)
        }
        Err(error) => {
            cx.err_in(&call, &NO_ROOM, Err::<(), _>(error))?;
            Some(false)
        }
    };
    owners[0].judge(cx, &call, &store, (1, one)).await?;

    let (alice, except) = (&owners[1].alice, owners[1].key(2));
    let revoke = index(&store)?.revoke_all(alice, Some(&except));
    let revoked = in_time(cx, "revoke_all", revoke).await?;
    let call = format!("revoke_all {FULL}");
    let all = match revoked {
        Ok(count) => {
            cx.equal(&format!("the answer of a {call} is"), &count, &2)?;
            Some(true)
        }
        Err(error) => {
            cx.err_in(&call, &NO_ROOM, Err::<(), _>(error))?;
            None
        }
    };
    owners[1].judge(cx, &call, &store, (2, all)).await?;
    cx.fault(Fault::None).await?;
    recovered(cx, &store, &owners[0].sessions[1].0).await?;
    let call = format!("revoking {FULL}, when there is room again");
    owners[0].judge(cx, &call, &store, (1, one)).await?;
    owners[1].judge(cx, &call, &store, (2, all)).await?;
    let again = index(&store)?.revoke_all(alice, Some(&except)).await;
    cx.ok(&format!("revoke_all, repeated after one {FULL},"), again)?;
    let call = "revoke_all was repeated";
    owners[1].judge(cx, call, &store, (2, Some(true))).await
}
