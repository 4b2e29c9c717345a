use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use sessionkit::{Error, ErrorKind, Record, Result, SessionStore, Sweep, Token};

use super::case;
use crate::{Case, Context, Failure, Fault, Outcome, verdict::ended};

pub(super) const CASES: &[Case] = &[
    case!(Flt e01_a_backend_that_is_down_is_an_error_never_none [Server]
        "A failing backend is an error, never `Ok(None)`."
        "While the database is away everybody is logged out, and overwritten afterwards (Jetty, CVE-2021-34428)."),
    case!(Flt e02_opening_without_a_backend_is_an_error_in_time [Server]
        "The backend did not answer or refused, and nothing was changed: the call may be repeated."
        "An application starts, looks healthy, and fails with its first user; or it hangs at the start."),
    case!(parallel Flt e03_after_a_crash_the_same_handle_works_and_nothing_acknowledged_is_lost [Server]
        "Dropping a store closes what it opened and loses no acknowledged write."
        "A restart of the database takes the application with it, or loses sessions it had confirmed."),
    case!(parallel Flt e04_every_call_ends_when_the_server_hangs [Server]
        "Each call ends within the deadline that the store was opened with, five seconds unless configured otherwise, also when the server hangs."
        "One hanging server makes every request of the application hang."),
    case!(Flt e05_a_lost_answer_is_ambiguous_and_not_repeated_blindly [Server]
        "A store repeats a call by itself only when the repetition cannot take effect twice or report a false `Exists`, `Conflict` or `Missing`."
        "A save that succeeded is reported as a conflict, or one that is reported as failed has succeeded."),
    case!(parallel Flt e06_a_slow_network_changes_no_answer [Server]
        "A record comes back as it was given, byte for byte"
        "Answers that arrive in pieces are cut or mixed up."),
    case!(Flt e07_a_closed_connection_is_replaced_without_an_error [Server]
        "A store repeats a call by itself only when the repetition cannot take effect twice"
        "The first requests after a quiet night fail (actix-session, #235)."),
    case!(Flt e08_a_full_backend_refuses_and_keeps_what_it_has [Server]
        "The store has reached its configured size, or its disk or memory is full. Nothing was stored, and what was there before is intact."
        "A full disk ends sessions, or stores half of them."),
    case!(Flt e09_a_read_only_backend_refuses_writes_and_answers_reads [Server]
        "An error other than [`Ambiguous`](crate::ErrorKind::Ambiguous) means that nothing has changed"
        "During a failover nobody can even read the session."),
    case!(parallel Flt e10_a_busy_backend_is_no_conflict [Server]
        "Each call ends within the deadline that the store was opened with"
        "A lock that somebody else holds is taken for a change of the session, and the save is dropped."),
    case!(Flt e12_ping_tells_whether_the_backend_answers [Server]
        "[`Unavailable`](crate::ErrorKind::Unavailable) when it does not, a server that only reads included"
        "A health check keeps a host in service whose backend is gone, or that writes to a demoted server."),
    case!(Flt e13_a_sweep_ends_when_the_server_hangs [Server ExplicitSweep]
        "Each call ends within the deadline that the store was opened with, five seconds unless configured otherwise, also when the server hangs."
        "The task that sweeps hangs for ever, and nothing is removed any more."),
    case!(Flt e14_calls_of_the_index_end_when_the_server_hangs [Server Subjects]
        "Each call ends within the deadline that the store was opened with, five seconds unless configured otherwise, also when the server hangs."
        "Logging out everywhere hangs, and the page with it."),
];

type Store = Arc<dyn SessionStore>;
type Call = BoxFuture<'static, Result<()>>;

/// The calls of a [`Target`] that write.
const WRITES: [&str; 5] = [
    "create",
    "update",
    "touch",
    "delete at its revision",
    "delete",
];

/// A token with a record, the calls of which are to fail or not.
#[derive(Clone)]
struct Target {
    token: Token,
    fresh: Token,
    first: Record,
    second: Record,
}

impl Target {
    async fn create(cx: &Context, store: &Store) -> Outcome<Self> {
        let first = cx.record("first");
        let token = store.create(cx.token(), &first).await?;
        let (fresh, second) = (cx.token(), cx.changed(&first, "second"));
        Ok(Self {
            token,
            fresh,
            first,
            second,
        })
    }

    /// The writes, each by its name.
    fn writes(&self, store: &Store) -> Vec<(&'static str, Call)> {
        WRITES
            .into_iter()
            .map(|name| (name, self.write(name, store)))
            .collect()
    }

    fn write(&self, name: &'static str, store: &Store) -> Call {
        let (target, store) = (self.clone(), Arc::clone(store));
        async move {
            let Self {
                token,
                fresh,
                first,
                second,
            } = target;
            match name {
                "create" => store.create(fresh, &second).await.map(drop),
                "update" => store
                    .update(&token, first.revision, &second)
                    .await
                    .map(drop),
                "touch" => store.touch(&token, first.expires_at).await.map(drop),
                "delete at its revision" => ended(store.delete(&token, Some(first.revision)).await),
                _ => ended(store.delete(&token, None).await),
            }
        }
        .boxed()
    }

    /// Nothing has changed, and both handles know it.
    async fn intact(&self, cx: &Context, when: &str, store: &Store) -> Outcome {
        cx.holds(when, store, &self.token, &self.first).await?;
        cx.absent(&format!("of the other token {when}"), store, &self.fresh)
            .await
    }
}

pub(super) const GONE: [ErrorKind; 2] = [ErrorKind::Unavailable, ErrorKind::Ambiguous];

/// What the deadline allows, and what a machine that is ten times slower needs on top.
pub(super) fn patience(cx: &Context) -> Duration {
    2 * cx.harness().deadline() + Duration::from_secs(5)
}

pub(super) async fn in_time<T>(
    cx: &Context,
    what: &str,
    call: impl Future<Output = T>,
) -> Outcome<T> {
    let limit = patience(cx);
    let late = format!("{what} ends within {:?}", cx.harness().deadline());
    let mut call = pin!(call);
    match tokio::time::timeout(limit, &mut call).await {
        Ok(answer) => Ok(answer),
        Err(_) => Err(Failure::new(
            late,
            format!("after {limit:?} {}", cx.meter().unfinished()),
        )),
    }
}

/// Tries until the backend has recovered, within the deadline and a bit.
pub(super) async fn recovered(cx: &Context, store: &Store, token: &Token) -> Outcome {
    let begun = Instant::now();
    loop {
        match store.load(token).await {
            Ok(_) => return cx.check(true, "", ""),
            Err(error) if begun.elapsed() > patience(cx) + Duration::from_secs(3) => {
                return cx.ok(
                    "load on the same handle, when the backend works again",
                    Err(error),
                );
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn e01_a_backend_that_is_down_is_an_error_never_none(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let target = Target::create(cx, &store).await?;
    cx.fault(Fault::Down).await?;
    for token in [&target.token, &target.fresh] {
        let loaded = in_time(cx, "load", store.load(token)).await?;
        cx.err(
            "load from a backend that is down",
            ErrorKind::Unavailable,
            loaded,
        )?;
    }
    for (name, call) in target.writes(&store) {
        let answer = in_time(cx, name, call).await?;
        cx.err_in(&format!("{name} on a backend that is down"), &GONE, answer)?;
    }
    if cx.capabilities().sweep == Sweep::Explicit {
        let swept = in_time(cx, "sweep", store.sweep(10)).await?;
        cx.err_in("sweep of a backend that is down", &GONE, swept)?;
    }
    if let Some(index) = store.subjects() {
        let subject = cx.subject("alice");
        let listed = in_time(cx, "list", index.list(&subject, None, 10)).await?;
        cx.err(
            "list of a backend that is down",
            ErrorKind::Unavailable,
            listed,
        )?;
        let revoked = in_time(cx, "revoke", index.revoke(&subject, &target.token.key())).await?;
        cx.err_in("revoke on a backend that is down", &GONE, revoked)?;
        let revoked = in_time(cx, "revoke_all", index.revoke_all(&subject, None)).await?;
        cx.err_in("revoke_all on a backend that is down", &GONE, revoked)?;
    }
    cx.fault(Fault::None).await?;
    recovered(cx, &store, &target.token).await?;
    target.intact(cx, "when the backend is back", &store).await
}

async fn e02_opening_without_a_backend_is_an_error_in_time(cx: &Context) -> Outcome {
    for fault in [Fault::Down, Fault::Vanished] {
        let made = cx.fault(fault).await;
        if fault == Fault::Vanished && made.is_err() {
            break;
        }
        made?;
        let opened = in_time(cx, "open", cx.try_open_in(cx.namespace())).await?;
        // A store may connect with its first call.
        let answer = match opened {
            Ok(store) => in_time(cx, "load", store.load(&cx.token())).await?,
            Err(error) => Err(error),
        };
        let call = format!("open and load with the backend {fault:?}");
        cx.err_in(
            &call,
            &[ErrorKind::Unavailable, ErrorKind::InvalidConfig],
            answer,
        )?;
        cx.fault(Fault::None).await?;
    }
    Ok(())
}

async fn e03_after_a_crash_the_same_handle_works_and_nothing_acknowledged_is_lost(
    cx: &Context,
) -> Outcome {
    let store = cx.open().await?;
    let record = cx.record("hello");
    let mut acknowledged = Vec::new();
    for _ in 0..16 {
        acknowledged.push(store.create(cx.token(), &record).await?);
    }
    let calls = (0..16).map(|_| {
        let (store, token, record) = (Arc::clone(&store), cx.token(), record.clone());
        async move { store.create(token, &record).await }
    });
    let calls = cx.together(calls.collect::<Vec<_>>());
    let (made, answers) = tokio::join!(cx.fault(Fault::Crash), in_time(cx, "create", calls));
    made?;
    for answer in answers?? {
        match answer {
            Ok(token) => acknowledged.push(token),
            Err(error) => cx.err_in("create during a crash", &GONE, Err::<(), _>(error))?,
        }
    }
    recovered(cx, &store, &acknowledged[0]).await?;
    if cx.capabilities().durability > sessionkit::Durability::Process {
        for token in &acknowledged {
            cx.holds("after a crash", &store, token, &record).await?;
        }
    }
    let created = store.create(cx.token(), &record).await;
    cx.ok("create after a crash", created).map(drop)
}

async fn e04_every_call_ends_when_the_server_hangs(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let target = Target::create(cx, &store).await?;
    cx.fault(Fault::Hang).await?;
    let mut calls = target.writes(&store);
    for _ in 0..32 {
        let (store, token) = (Arc::clone(&store), target.token.clone());
        calls.push((
            "load",
            async move { store.load(&token).await.map(drop) }.boxed(),
        ));
    }
    let (names, calls): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    let answers = in_time(cx, "every one of 37 calls at once", cx.together(calls)).await??;
    for (name, answer) in names.into_iter().zip(answers) {
        cx.err_in(&format!("{name} on a server that hangs"), &GONE, answer)?;
    }
    cx.fault(Fault::None).await?;
    recovered(cx, &store, &target.token).await?;
    let created = store.create(cx.token(), &target.first).await;
    cx.ok("create when the server answers again", created)
        .map(drop)
}

async fn e05_a_lost_answer_is_ambiguous_and_not_repeated_blindly(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    for name in WRITES {
        let target = Target::create(cx, &store).await?;
        cx.fault(Fault::LoseReplies).await?;
        let answer = in_time(cx, name, target.write(name, &store)).await?;
        cx.fault(Fault::None).await?;
        recovered(cx, &store, &target.token).await?;
        let call = format!("{name} whose answer is lost");
        match answer {
            // Repeating it has settled what the first call did.
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Ambiguous => {}
            Err(error) => {
                cx.err(&call, ErrorKind::Unavailable, Err::<(), _>(error))?;
                let when = format!("after a {name} that is reported to have changed nothing");
                target.intact(cx, &when, &store).await?;
            }
        }
        cx.check(true, "", "")?;
    }
    Ok(())
}

async fn e06_a_slow_network_changes_no_answer(cx: &Context) -> Outcome {
    cx.fault(Fault::Slow).await?;
    let store = cx.open().await?;
    for size in [0, 1, 5000.min(cx.capabilities().max_data)] {
        let first = cx.record(cx.random().bytes(size));
        let token = cx.ok("create, slowly", store.create(cx.token(), &first).await)?;
        cx.holds("slowly", &store, &token, &first).await?;
        let exists = store.create(token.clone(), &first).await;
        cx.err(
            "create over a live record, slowly",
            ErrorKind::Exists,
            exists,
        )?;
        let second = cx.changed(&first, cx.random().bytes(size));
        let updates = (0..2).map(|_| {
            let (store, token) = (Arc::clone(&store), token.clone());
            let (expected, second) = (first.revision, second.clone());
            async move { store.update(&token, expected, &second).await }
        });
        let answers = cx.together(updates.collect::<Vec<_>>()).await?;
        let won = answers.iter().filter(|answer| answer.is_ok()).count();
        cx.check(
            won == 1,
            "1 of 2 updates succeeds, slowly",
            format_args!("{won} succeed"),
        )?;
        cx.holds("after update, slowly", &store, &token, &second)
            .await?;
        let deleted = store.delete(&token, None).await;
        cx.ok("delete, slowly", ended(deleted))?;
        cx.absent("after delete, slowly", &store, &token).await?;
    }
    cx.fault(Fault::None).await
}

async fn e07_a_closed_connection_is_replaced_without_an_error(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let target = Target::create(cx, &store).await?;
    for _ in 0..3 {
        cx.fault(Fault::CloseConnections).await?;
        // The client is told by its system, which takes a moment.
        tokio::time::sleep(Duration::from_millis(100)).await;
        cx.holds(
            "after the server closed idle connections",
            &store,
            &target.token,
            &target.first,
        )
        .await?;
        cx.fault(Fault::CloseConnections).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let created = store.create(cx.token(), &target.first).await;
        cx.ok("create after the server closed idle connections", created)?;
    }
    Ok(())
}

async fn e08_a_full_backend_refuses_and_keeps_what_it_has(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let target = Target::create(cx, &store).await?;
    let large = cx.capabilities().max_data.min(64 << 10);
    let second = cx.changed(&target.first, vec![b'x'; large]);
    cx.fault(Fault::Full).await?;
    let created = in_time(cx, "create", store.create(target.fresh.clone(), &second)).await?;
    cx.err("create in a full backend", ErrorKind::Full, created)?;
    let update = store.update(&target.token, target.first.revision, &second);
    let updated = in_time(cx, "update", update).await?;
    cx.err("update in a full backend", ErrorKind::Full, updated)?;
    target.intact(cx, "in a full backend", &store).await?;
    cx.ok(
        "delete in a full backend",
        ended(store.delete(&target.token, None).await),
    )?;
    cx.absent("after delete in a full backend", &store, &target.token)
        .await?;
    cx.fault(Fault::None).await?;
    let created = store.create(cx.token(), &second).await;
    cx.ok("create when there is room again", created).map(drop)
}

async fn e09_a_read_only_backend_refuses_writes_and_answers_reads(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let target = Target::create(cx, &store).await?;
    cx.fault(Fault::ReadOnly).await?;
    for (name, call) in target.writes(&store) {
        let answer = in_time(cx, name, call).await?;
        cx.err(
            &format!("{name} on a read-only backend"),
            ErrorKind::Unavailable,
            answer,
        )?;
        target
            .intact(cx, "from a read-only backend", &store)
            .await?;
    }
    cx.fault(Fault::None).await?;
    recovered(cx, &store, &target.token).await?;
    for (name, call) in target.writes(&store).into_iter().take(2) {
        cx.ok(
            &format!("{name} when writes are possible again"),
            call.await,
        )?;
    }
    Ok(())
}

async fn e10_a_busy_backend_is_no_conflict(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let target = Target::create(cx, &store).await?;
    cx.fault(Fault::Busy).await?;
    let writes = target.writes(&store).into_iter().take(3);
    let (names, calls): (Vec<_>, Vec<_>) = writes.unzip();
    let answers = in_time(cx, "every one of 3 writes", cx.together(calls)).await??;
    cx.fault(Fault::None).await?;
    recovered(cx, &store, &target.token).await?;
    let mut changed = false;
    for (name, answer) in names.into_iter().zip(answers) {
        match answer {
            Ok(()) => changed = true,
            Err(error) => {
                changed |= error.kind() == ErrorKind::Ambiguous;
                let call = format!("{name} on a backend where somebody else holds the locks");
                cx.err_in(&call, &GONE, Err::<(), Error>(error))?;
            }
        }
    }
    if !changed {
        target
            .intact(cx, "when the locks are free again", &store)
            .await?;
    }
    let updated = in_time(cx, "touch", target.write("touch", &store)).await?;
    cx.ok("touch when the locks are free again", updated)
}

async fn e12_ping_tells_whether_the_backend_answers(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let target = Target::create(cx, &store).await?;
    cx.ok("ping", store.ping().await)?;
    let mut missing = Vec::new();
    for fault in [Fault::Down, Fault::Hang, Fault::ReadOnly] {
        if let Err(hook) = cx.fault(fault).await {
            missing.push(hook);
            continue;
        }
        let answer = in_time(cx, "ping", store.ping()).await?;
        let call = format!("ping of a backend with the fault {fault:?}");
        cx.err(&call, ErrorKind::Unavailable, answer)?;
        cx.fault(Fault::None).await?;
        recovered(cx, &store, &target.token).await?;
        cx.ok("ping when the backend works again", store.ping().await)?;
    }
    match missing.pop() {
        Some(hook) if missing.len() == 2 => Err(hook),
        _ => Ok(()),
    }
}

async fn e13_a_sweep_ends_when_the_server_hangs(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let target = Target::create(cx, &store).await?;
    cx.fault(Fault::Hang).await?;
    for limit in [10, 1_000_000] {
        let swept = in_time(cx, "sweep", store.sweep(limit)).await?;
        cx.err_in("sweep on a server that hangs", &GONE, swept)?;
    }
    let swept = in_time(cx, "try_sweep", store.try_sweep(10)).await?;
    cx.err_in("try_sweep on a server that hangs", &GONE, swept)?;
    cx.fault(Fault::None).await?;
    recovered(cx, &store, &target.token).await?;
    let swept = store.sweep(10).await;
    cx.ok("sweep when the server answers again", swept)
        .map(drop)
}

async fn e14_calls_of_the_index_end_when_the_server_hangs(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let target = Target::create(cx, &store).await?;
    let alice = cx.subject("alice");
    let mut owned = cx.record("alice's");
    owned.subject = Some(alice.clone());
    let token = store.create(cx.token(), &owned).await?;
    let index = || {
        store
            .subjects()
            .ok_or_else(|| Failure::error("the index has disappeared"))
    };
    cx.fault(Fault::Hang).await?;
    let listed = in_time(cx, "list", index()?.list(&alice, None, 10)).await?;
    cx.err(
        "list on a server that hangs",
        ErrorKind::Unavailable,
        listed,
    )?;
    let revoked = in_time(cx, "revoke", index()?.revoke(&alice, &token.key())).await?;
    cx.err_in("revoke on a server that hangs", &GONE, revoked)?;
    let revoked = in_time(cx, "revoke_all", index()?.revoke_all(&alice, None)).await?;
    cx.err_in("revoke_all on a server that hangs", &GONE, revoked)?;
    cx.fault(Fault::None).await?;
    recovered(cx, &store, &target.token).await?;
    let revoked = index()?.revoke_all(&alice, None).await;
    cx.ok("revoke_all when the server answers again", revoked)?;
    cx.absent("after revoke_all", &store, &token).await?;
    cx.holds("of another session", &store, &target.token, &target.first)
        .await
}
