use std::{
    future::{Future, poll_fn},
    panic::resume_unwind,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use sessionkit::{ErrorKind, Record, Result, SessionStore, Token};

use super::{case, flt::in_time};
use crate::{
    Case, Context, Failure, Outcome,
    verdict::{describe, ended},
};

pub(super) const CASES: &[Case] = &[
    case!(Canc x01_a_dropped_call_has_taken_effect_or_not [Server]
        "A future may be dropped at any await point. The call has then taken effect or not"
        "A visitor closes the page, and the session is left half written."),
    case!(Canc x02_the_next_call_gets_its_own_answer [Server]
        "the next call on the same handle gets its own answer"
        "One user is served the session of another (as with tiberius #300, diesel_async #198)."),
    case!(Canc x03_a_dropped_call_leaves_the_index_right [Server Subjects]
        "a record is found under the subject of its last write from the `Ok` of that write on"
        "A session that exists is not in the list, and survives `log out everywhere`."),
    case!(Canc x04_dropped_calls_leave_nothing_behind [Server]
        "and what is left over from interrupted writes"
        "Every impatient visitor costs a task, a file or a connection, until there is none left."),
    case!(Canc x05_a_dropped_update_is_not_repeated_unseen [Server CompareAndSwap]
        "[`Conflict`](crate::ErrorKind::Conflict) when the stored revision is another"
        "A change is applied twice, or a panic in one request makes the store useless for all."),
    case!(Canc x40_a_dropped_call_keeps_no_lock_on_its_key [Server]
        "and the next call on the same handle gets its own answer"
        "A visitor closes the page at the wrong moment, and nobody can use that session any more."),
];

/// More polls than any call needs.
pub(super) const MAX_POLLS: usize = 64;

/// Polls a future so many times, whenever it wakes up, and drops it. `None` when it was not ready.
pub(super) async fn drop_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polled = 0;
    poll_fn(|context| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // The last poll is over: nobody waits for the rest.
            Poll::Pending if polled == polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

type Store = Arc<dyn SessionStore>;
type Call<'a> = BoxFuture<'a, Result<()>>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Create,
    Load,
    Update,
    Touch,
    Delete,
    DeleteAtRevision,
    Renew,
    Revoke,
}

const KINDS: [Kind; 6] = [
    Kind::Create,
    Kind::Load,
    Kind::Update,
    Kind::Touch,
    Kind::Delete,
    Kind::DeleteAtRevision,
];

/// A call on a fresh token, and what it holds before the call and after it.
struct Scene {
    kind: Kind,
    token: Token,
    first: Record,
    second: Record,
    before: State,
    after: State,
}

/// The record of the token.
type State = Option<Record>;

impl Scene {
    async fn set(cx: &Context, store: &Store, kind: Kind) -> Outcome<Self> {
        let mut first = cx.record("first");
        first.subject = Some(cx.subject("before"));
        let mut second = cx.changed(&first, "second");
        second.subject = Some(cx.subject("after"));
        let token = cx.token();
        if kind != Kind::Create {
            store.create(token.clone(), &first).await?;
        }
        let touched = Record {
            expires_at: second.expires_at + cx.moment(),
            ..first.clone()
        };
        let (before, after) = match kind {
            Kind::Create => (None, Some(first.clone())),
            Kind::Load => (Some(first.clone()), Some(first.clone())),
            Kind::Update | Kind::Renew => (Some(first.clone()), Some(second.clone())),
            Kind::Touch => (Some(first.clone()), Some(touched)),
            Kind::Delete | Kind::DeleteAtRevision | Kind::Revoke => (Some(first.clone()), None),
        };
        Ok(Self {
            kind,
            token,
            first,
            second,
            before,
            after,
        })
    }

    fn call<'a>(&'a self, store: &'a Store) -> Call<'a> {
        async move {
            let (token, revision) = (&self.token, self.first.revision);
            match self.kind {
                Kind::Create => drop(store.create(token.clone(), &self.first).await?),
                Kind::Load => drop(store.load(token).await?),
                Kind::Update => drop(store.update(token, revision, &self.second).await?),
                Kind::Touch => {
                    let later = self.after.as_ref().unwrap_or(&self.first).expires_at;
                    drop(store.touch(token, later).await?);
                }
                Kind::Delete => ended(store.delete(token, None).await)?,
                Kind::DeleteAtRevision => ended(store.delete(token, Some(revision)).await)?,
                Kind::Renew => drop(store.renew(token, revision, &self.second).await?),
                Kind::Revoke => {
                    let (index, subject) = (store.subjects(), self.first.subject.as_ref());
                    if let (Some(index), Some(subject)) = (index, subject) {
                        ended(index.revoke(subject, &token.key()).await)?;
                    }
                }
            }
            Ok(())
        }
        .boxed()
    }

    async fn state(&self, cx: &Context, store: &Store) -> Outcome<State> {
        cx.ok("load after a dropped call", store.load(&self.token).await)
    }

    /// Reads the state, which is the one before the call or the one after it.
    async fn look(&self, cx: &Context, store: &Store, when: &str) -> Outcome<bool> {
        let state = self.state(cx, store).await?;
        let after = state == self.after;
        cx.check(
            after || state == self.before,
            format_args!(
                "{when}, the state before or after it: {} or {}",
                describe(self.before.as_ref()),
                describe(self.after.as_ref())
            ),
            describe(state.as_ref()),
        )?;
        Ok(after)
    }
}

async fn x01_a_dropped_call_has_taken_effect_or_not(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    for kind in KINDS {
        for polls in 0..MAX_POLLS {
            let scene = Scene::set(cx, &store, kind).await?;
            let when = format!("after a {kind:?} was dropped at poll {polls}");
            let answer = drop_after(polls, scene.call(&store)).await;
            let done = answer.is_some();
            if let Some(answer) = answer {
                cx.ok(&format!("{kind:?} of {polls} polls"), answer)?;
            }
            let seen = scene.look(cx, &store, &when).await?;
            cx.settle().await;
            let later = scene
                .look(cx, &other, &format!("{when}, on another handle"))
                .await?;
            cx.check(
                later || !seen || scene.before == scene.after,
                format_args!("{when}, an effect that lasts"),
                "the state before the call again",
            )?;
            if done {
                cx.check(
                    seen,
                    format_args!("{kind:?} with its answer has taken effect"),
                    "it has not",
                )?;
                break;
            }
        }
    }
    Ok(())
}

async fn x02_the_next_call_gets_its_own_answer(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let mine = cx.record("mine");
    let token = store.create(cx.token(), &mine).await?;
    for kind in KINDS {
        for polls in 1..MAX_POLLS {
            let scene = Scene::set(cx, &store, kind).await?;
            let done = drop_after(polls, scene.call(&store)).await.is_some();
            let when = format!("after a {kind:?} of another token was dropped at poll {polls}");
            cx.holds(&when, &store, &token, &mine).await?;
            cx.absent(&format!("of an unknown token {when}"), &store, &cx.token())
                .await?;
            let again = store.create(token.clone(), &mine).await;
            cx.err(
                &format!("create over a live record {when}"),
                ErrorKind::Exists,
                again,
            )?;
            let touched = store.touch(&token, mine.expires_at).await;
            cx.ok(&format!("touch {when}"), touched)?;
            if done {
                break;
            }
        }
    }
    Ok(())
}

async fn x03_a_dropped_call_leaves_the_index_right(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    for kind in KINDS {
        for polls in 1..MAX_POLLS {
            let scene = Scene::set(cx, &store, kind).await?;
            let done = drop_after(polls, scene.call(&store)).await.is_some();
            let when = format!("after a {kind:?} was dropped at poll {polls}");
            index_agrees(cx, &store, &scene, &when).await?;
            if kind == Kind::Create && !done {
                let created = store.create(scene.token.clone(), &scene.first).await;
                if let Err(error) = created {
                    let call = format!("create once more {when}");
                    cx.err(&call, ErrorKind::Exists, Err::<(), _>(error))?;
                }
                cx.holds(&when, &store, &scene.token, &scene.first).await?;
                index_agrees(cx, &store, &scene, &format!("{when} and repeated")).await?;
            }
            if done {
                break;
            }
        }
    }
    Ok(())
}

/// Every session of the scene is listed under its subject, and under no other.
async fn index_agrees(cx: &Context, store: &Store, scene: &Scene, when: &str) -> Outcome {
    let index = store
        .subjects()
        .ok_or_else(|| Failure::error("the index has disappeared"))?;
    for _ in 0..3 {
        let state = scene.state(cx, store).await?;
        let mut wrong = None;
        for subject in ["before", "after"].map(|name| cx.subject(name)) {
            let listed = cx.ok("list", index.list(&subject, None, 1000).await)?;
            let listed = listed
                .iter()
                .any(|session| session.key == scene.token.key());
            let theirs = state
                .as_ref()
                .is_some_and(|record| record.subject.as_ref() == Some(&subject));
            if listed != theirs {
                wrong = Some((theirs, listed));
            }
        }
        let Some((theirs, listed)) = wrong else {
            return cx.check(true, "", "");
        };
        // A call that was sent may take effect between the load and the list.
        if scene.state(cx, store).await? == state {
            let words = |yes| {
                if yes {
                    "in the list"
                } else {
                    "not in the list"
                }
            };
            return cx.check(
                false,
                format_args!("{when}, a session {}", words(theirs)),
                words(listed),
            );
        }
    }
    Err(Failure::inconclusive(
        "the state goes on changing after a dropped call",
    ))
}

async fn x04_dropped_calls_leave_nothing_behind(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let record = cx.record(vec![b'x'; cx.capabilities().max_data.min(4096)]);
    let token = store.create(cx.token(), &record).await?;
    store.load(&token).await?;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let (tasks_before, files_before) = (tasks(), open_files());
    let raw_before = cx.raw_dump().await.ok();
    for round in 0..1000 {
        let polls = 1 + round % 3;
        let call: Call<'_> = match round % 4 {
            0 => async { store.load(&token).await.map(drop) }.boxed(),
            1 => async { store.touch(&token, record.expires_at).await.map(drop) }.boxed(),
            2 => async {
                store
                    .update(&token, record.revision, &record)
                    .await
                    .map(drop)
            }
            .boxed(),
            _ => async { store.create(token.clone(), &record).await.map(drop) }.boxed(),
        };
        // Whether it was fast enough does not matter.
        let _ = tokio::time::timeout(Duration::from_millis(20), drop_after(polls, call)).await;
    }
    // What is still under way may end.
    let start = Instant::now();
    while tasks() > tasks_before + 20 && start.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = tasks().saturating_sub(tasks_before);
    cx.check(
        left <= 20,
        "no tasks left of 1000 dropped calls",
        format_args!("{left} tasks"),
    )?;
    if let (Some(before), Some(after)) = (files_before, open_files()) {
        let left = after.saturating_sub(before);
        // Other cases open files at the same time, but not one for each dropped call.
        cx.check(
            left <= 250,
            "no open files of 1000 dropped calls",
            format_args!("{left} files"),
        )?;
    }
    cx.holds("after 1000 dropped calls", &store, &token, &record)
        .await?;
    if let Some(before) = raw_before {
        if cx.capabilities().sweep == sessionkit::Sweep::Explicit {
            cx.ok("sweep", store.sweep(1000).await)?;
        }
        let names = |entries: &[crate::RawEntry]| {
            entries.iter().map(|e| e.name.clone()).collect::<Vec<_>>()
        };
        let (before, after) = (names(&before), names(&cx.raw_dump().await?));
        cx.check(
            after == before,
            format_args!(
                "{} stored entries after the calls and a sweep",
                before.len()
            ),
            format_args!("{}", after.len()),
        )?;
    }
    Ok(())
}

fn open_files() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

async fn x05_a_dropped_update_is_not_repeated_unseen(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    for polls in 1..MAX_POLLS {
        let scene = Scene::set(cx, &store, Kind::Update).await?;
        let done = drop_after(polls, scene.call(&store)).await.is_some();
        let third = cx.changed(&scene.first, "third");
        let retried = store
            .update(&scene.token, scene.first.revision, &third)
            .await;
        let state = cx.ok("load", store.load(&scene.token).await)?;
        let call = format!("a repeated update, the first of which was dropped at poll {polls},");
        match retried {
            Ok(_) => cx.check(
                state.as_ref() == Some(&third),
                format_args!("{call} is stored"),
                describe(state.as_ref()),
            )?,
            Err(error) => {
                cx.err(&call, ErrorKind::Conflict, Err::<(), _>(error))?;
                cx.check(
                    state.as_ref() == Some(&scene.second),
                    format_args!("{call} changes nothing after a Conflict"),
                    describe(state.as_ref()),
                )?;
            }
        }
        if done {
            break;
        }
    }
    panics_do_no_harm(cx, &store).await
}

/// Tasks that panic in the middle of a call leave a store that works.
async fn panics_do_no_harm(cx: &Context, store: &Store) -> Outcome {
    for polls in 1..4 {
        let (handle, token, record) = (Arc::clone(store), cx.token(), cx.record("hello"));
        let task = tokio::spawn(async move {
            let mut create = handle.create(token, &record);
            let _ = drop_after(polls, &mut create).await;
            // Not by `panic!`, which would print a message about an error that is none.
            resume_unwind(Box::new("a handler panics"));
        });
        cx.check(task.await.is_err(), "a panic", "none")?;
        let record = cx.record("hello");
        let created = store.create(cx.token(), &record).await;
        let token = cx.ok("create after a caller panicked", created)?;
        cx.holds("after a caller panicked", store, &token, &record)
            .await?;
    }
    Ok(())
}

/// The calls that may hold a lock for their key.
const LOCKING: [Kind; 7] = [
    Kind::Create,
    Kind::Update,
    Kind::Renew,
    Kind::Touch,
    Kind::Delete,
    Kind::DeleteAtRevision,
    Kind::Revoke,
];

async fn x40_a_dropped_call_keeps_no_lock_on_its_key(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    for kind in LOCKING {
        if kind == Kind::Revoke && store.subjects().is_none() {
            continue;
        }
        for polls in 1..MAX_POLLS {
            let scene = Scene::set(cx, &store, kind).await?;
            let done = drop_after(polls, scene.call(&store)).await.is_some();
            let when = format!("after a {kind:?} of its token was dropped at poll {polls}");
            goes_on(cx, &scene, &store, &when).await?;
            goes_on(cx, &scene, &other, &format!("on another handle {when}")).await?;
            let deleted = in_time(cx, "delete", other.delete(&scene.token, None)).await?;
            cx.ok(&format!("delete {when}"), deleted)?;
            if done {
                break;
            }
        }
    }
    Ok(())
}

/// Every write of the token ends, and with an answer that says nothing but how the record is.
async fn goes_on(cx: &Context, scene: &Scene, store: &Store, when: &str) -> Outcome {
    use ErrorKind::{Conflict, Exists, Missing};
    let (token, first) = (&scene.token, &scene.first);
    let third = cx.changed(first, "third");
    let answered = |call: &str, refusals: &[ErrorKind], answer: Result<Token>| match answer {
        Ok(_) => cx.check(true, "", ""),
        Err(error) => cx.err_in(&format!("{call} {when}"), refusals, Err::<(), _>(error)),
    };
    let touch = store.touch(token, first.expires_at);
    let touched = in_time(cx, &format!("touch {when}"), touch).await?;
    answered("touch", &[Missing], touched)?;
    let update = store.update(token, first.revision, &third);
    let updated = in_time(cx, &format!("update {when}"), update).await?;
    answered("update", &[Conflict, Missing], updated)?;
    let create = store.create(token.clone(), first);
    let created = in_time(cx, &format!("create {when}"), create).await?;
    answered("create", &[Exists], created)
}
