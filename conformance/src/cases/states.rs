//! Calls in states that the other cases do not bring them into, found by the matrix of the contract.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use sessionkit::{
    ErrorKind, Record, Result, Revision, SessionStore, Subject, SubjectIndex, Sweep, Token,
};

use super::{
    canc::{MAX_POLLS, drop_after},
    case,
    flt::{GONE, in_time, recovered},
    iso::sweeps_the_other,
};
use crate::{
    Case, Context, Failure, Fault, Outcome, RawEntry,
    verdict::{describe, ended},
};

pub(super) const LIFE: &[Case] = &[
    case!(Life l50_a_call_on_an_unreadable_value_does_what_it_says_or_nothing [Server]
        "An error other than [`Ambiguous`](crate::ErrorKind::Ambiguous) means that nothing has changed"
        "What could be repaired is thrown away by the next request, or a session is made of it."),
    case!(Life l51_calls_without_a_record_leave_no_trace [Server]
        "No call stores anything for such a token except `create`, and `create` sees nothing of a record that was there before."
        "Requests with old cookies fill the store, or bring a session back on another host."),
    case!(Life l52_an_expired_record_can_follow_an_old_one [Server]
        "A record whose expiry has passed is accepted and is not visible."
        "A session that begins too late is reported as a collision, or hides the next one."),
    case!(Life l53_a_delete_takes_away_what_has_expired [Server]
        "With `None`, whatever is there goes: live, expired or unreadable."
        "What a user has deleted stays in the database until somebody sweeps."),
];

pub(super) const KEY: &[Case] = &[
    case!(Key k50_every_call_goes_by_the_key_alone [Server CompareAndSwap]
        "Tokens of one key name one record, whatever else differs in them."
        "After a login the old secret still changes the session, or the new one does not."),
];

pub(super) const TIME: &[Case] = &[case!(Time t60_no_call_goes_by_a_time_zone [Server]
        "The time zone of a process, a database or its sessions never matters."
        "A session is prolonged by five hours too many, or logging out everywhere spares the last hours.")];

pub(super) const CANC: &[Case] = &[
    case!(Canc x60_a_dropped_call_of_any_kind_is_whole_or_not_made [Server]
        "The call has then taken effect or not, and the next call on the same handle gets its own answer."
        "A page of sessions that nobody waited for is shown to the next user."),
];

pub(super) const ISO: &[Case] = &[
    case!(Iso i50_no_call_reaches_into_another_namespace [Server]
        "Two namespaces (prefix, table, directory) never see or change each other's records"
        "One tenant renews, ends or sweeps the sessions of another."),
];

pub(super) const FLT: &[Case] = &[
    case!(Flt e40_a_renewal_fails_as_an_update_does [Server CompareAndSwap]
        "On a server there is one record and no copy: this is `update`, as provided."
        "A login hangs with the server, or is taken for done although it was not."),
    case!(Flt e41_a_handle_that_is_dropped_while_the_backend_fails_loses_nothing [Server]
        "Dropping a store closes what it opened and loses no acknowledged write."
        "An application that restarts because its database is away loses the last minute."),
    case!(Flt e42_a_store_says_the_same_of_itself_while_the_backend_fails [Server]
        "The answer never changes during the life of a store, and is the same for every handle of one namespace."
        "An application that asks at a bad moment does without the index, or without the comparison."),
    case!(Flt e43_opening_ends_when_the_server_hangs [Server]
        "Each call ends within the deadline that the store was opened with, five seconds unless configured otherwise, also when the server hangs."
        "A deployment waits for ever at its start, and no log says for what."),
];

pub(super) const CLIENT: &[Case] = &[
    case!(Client y60_a_delete_is_refused_whatever_the_token_is [Client]
        "[`Unsupported`](crate::ErrorKind::Unsupported) from a client-side store that cannot take back what the client holds."
        "A logout is reported as done for a token that the store has not even looked at."),
    case!(Client y61_a_store_knows_the_tokens_that_it_has_made [Client]
        "a client-side store checks the seal or signature, and asks nobody"
        "A cookie that another application has set under the same name is removed, or hides the session."),
];

type Store = Arc<dyn SessionStore>;

fn with_secret(cx: &Context, token: &Token) -> Token {
    let other = cx.token();
    let (id, secret) = (
        &token.expose()[..Token::ID_LEN],
        &other.expose()[Token::ID_LEN..],
    );
    Token::from_bytes([id, secret].concat(), cx.cookie())
}

fn index(store: &Store) -> Outcome<&dyn SubjectIndex> {
    store
        .subjects()
        .ok_or_else(|| Failure::error("the index has disappeared"))
}

/// What a delete says of itself.
async fn deletes(
    cx: &Context,
    call: &str,
    store: &Store,
    (token, expected): (&Token, Option<Revision>),
    was_live: bool,
) -> Outcome {
    let answer = cx.ok(call, store.delete(token, expected).await)?;
    cx.equal(
        &format!("whether {call} ended a record is"),
        &answer,
        &was_live,
    )
}

/// Every call but `create` says that there is nothing, the two kinds of a delete in this order.
async fn nothing_there(
    cx: &Context,
    what: &str,
    store: &Store,
    (token, record): (&Token, &Record),
    deletes_at_revision: [bool; 2],
) -> Outcome {
    let (missing, revision) = (ErrorKind::Missing, record.revision);
    cx.absent(&format!("of {what}"), store, token).await?;
    let updated = store.update(token, revision, record).await;
    cx.err(&format!("update of {what}"), missing, updated)?;
    let renewed = store.renew(token, revision, record).await;
    cx.err(&format!("renew of {what}"), missing, renewed)?;
    let touched = store.touch(token, record.expires_at).await;
    cx.err(&format!("touch of {what}"), missing, touched)?;
    for at_revision in deletes_at_revision {
        let expected = at_revision.then_some(revision);
        let call = match expected {
            Some(_) => format!("delete of {what} at a revision"),
            None => format!("delete of {what}"),
        };
        deletes(cx, &call, store, (token, expected), false).await?;
    }
    cx.absent(&format!("of {what} after all calls"), store, token)
        .await
}

/// Stores a record and finds the raw entry that holds it: the one that is not there without it.
async fn stored_entry(
    cx: &Context,
    store: &Store,
    token: &Token,
    record: &Record,
) -> Outcome<RawEntry> {
    let before = cx.raw_dump().await?;
    store.create(token.clone(), record).await?;
    let after = cx.raw_dump().await?;
    after
        .into_iter()
        .find(|entry| before.iter().all(|other| other.name != entry.name))
        .ok_or_else(|| Failure::error("a new record is no new entry"))
}

async fn entry_named(cx: &Context, name: &[u8]) -> Outcome<Option<RawEntry>> {
    let entries = cx.raw_dump().await?;
    Ok(entries.into_iter().find(|entry| entry.name == name))
}

async fn l50_a_call_on_an_unreadable_value_does_what_it_says_or_nothing(cx: &Context) -> Outcome {
    let (store, token) = (cx.open().await?, cx.token());
    let first = cx.record("hello, this is what will be damaged");
    let entry = stored_entry(cx, &store, &token, &first).await?;
    let damaged = RawEntry {
        name: entry.name,
        value: b"no record of any version".to_vec(),
    };
    let second = cx.changed(&first, "second");
    for name in ["load", "create", "update", "renew", "touch", "delete"] {
        cx.raw_write(&damaged).await?;
        // As the backend shows it, which may be in another form than it was given.
        let as_it_stands = entry_named(cx, &damaged.name).await?;
        // A handle that has not read the record while it was whole.
        let fresh = cx.open().await?;
        let answer = match name {
            "load" => fresh.load(&token).await.map(drop),
            "create" => fresh.create(token.clone(), &second).await.map(drop),
            "update" => fresh
                .update(&token, first.revision, &second)
                .await
                .map(drop),
            "renew" => fresh.renew(&token, first.revision, &second).await.map(drop),
            "touch" => fresh.touch(&token, first.expires_at).await.map(drop),
            _ => ended(fresh.delete(&token, Some(first.revision)).await),
        };
        let call = format!("{name} over an unreadable value");
        match answer {
            // The store could tell what the call needs, such as the revision, from what is left.
            Ok(()) => {
                let written = matches!(name, "create" | "update" | "renew");
                cx.check(
                    written || name == "touch",
                    format_args!("{call} is an error"),
                    "Ok",
                )?;
                if written {
                    cx.holds(&format!("after {call}"), &fresh, &token, &second)
                        .await?;
                    continue;
                }
            }
            Err(error) => cx.check(
                error.kind() != ErrorKind::Ambiguous,
                format_args!("{call} is answered"),
                crate::verdict::describe_error(&error),
            )?,
        }
        let loaded = cx.open().await?.load(&token).await;
        cx.err(&format!("load after {call}"), ErrorKind::Corrupt, loaded)?;
        if name != "touch" {
            let left = entry_named(cx, &damaged.name).await?;
            cx.check(
                left == as_it_stands,
                format_args!("after {call}, the value as it was"),
                "another one, or none",
            )?;
        }
    }
    cx.raw_write(&damaged).await?;
    let deleted = cx.open().await?.delete(&token, None).await;
    cx.ok("delete of an unreadable value", deleted)?;
    cx.absent("after delete of an unreadable value", &store, &token)
        .await
}

async fn l51_calls_without_a_record_leave_no_trace(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let brief = cx.record_for("brief", cx.moment());
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let [unknown, deleted, expired] = [(); 3].map(|()| cx.token());
        store.create(deleted.clone(), &brief).await?;
        store.delete(&deleted, None).await?;
        store.create(expired.clone(), &brief).await?;
        tokens.push([
            ("an unknown token", unknown),
            ("a deleted record", deleted),
            ("an expired record", expired),
        ]);
    }
    cx.pass_until(brief.expires_at + cx.margin()).await;
    let before = cx.raw_dump().await.ok();
    let record = Record {
        revision: brief.revision,
        ..cx.record("what would be stored")
    };
    let ways = [(&store, [true, false]), (&other, [false, true])];
    for ((handle, order), tokens) in ways.into_iter().zip(&tokens) {
        for (what, token) in tokens {
            nothing_there(cx, what, handle, (token, &record), order).await?;
            for handle in [&store, &other] {
                cx.absent(&format!("of {what}, on every handle"), handle, token)
                    .await?;
            }
        }
    }
    if let Some(before) = before {
        // What has expired may have gone meanwhile.
        let new = cx.raw_dump().await?;
        let new = new.iter().find(|entry| !before.contains(entry));
        cx.check(
            new.is_none(),
            "no new entry after calls without a record",
            format_args!("{new:?}"),
        )?;
    }
    for (handle, tokens) in [&other, &store].into_iter().zip(&tokens) {
        for (what, token) in tokens {
            let new = cx.record("new");
            let created = handle.create(token.clone(), &new).await;
            cx.ok(&format!("create in the place of {what}"), created)?;
            cx.holds(&format!("in the place of {what}"), handle, token, &new)
                .await?;
        }
    }
    Ok(())
}

async fn l52_an_expired_record_can_follow_an_old_one(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let stale = |data: &'static str| Record {
        expires_at: cx.now() - cx.moment(),
        ..cx.record(data)
    };
    let (deleted, expired) = (cx.token(), cx.token());
    store.create(deleted.clone(), &cx.record("deleted")).await?;
    store.delete(&deleted, None).await?;
    store.create(expired.clone(), &stale("expired")).await?;
    for (what, token) in [
        ("a deleted record", &deleted),
        ("an expired record", &expired),
    ] {
        let created = store.create(token.clone(), &stale("late")).await;
        let given = cx.ok(&format!("create of an expired record over {what}"), created)?;
        cx.check(
            given == *token,
            "create returns the token it was given",
            "another token",
        )?;
        cx.absent(&format!("of an expired record over {what}"), &store, token)
            .await?;
        let live = cx.record("live");
        let created = store.create(token.clone(), &live).await;
        cx.ok("create of a live record after that", created)?;
        cx.holds("after that", &store, token, &live).await?;
    }
    Ok(())
}

async fn l53_a_delete_takes_away_what_has_expired(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let live = cx.record("live");
    let kept = store.create(cx.token(), &live).await?;
    let before = cx.raw_dump().await?;
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..cx.record("stale")
    };
    for handle in [&store, &other] {
        let token = store.create(cx.token(), &stale).await?;
        let call = "delete of an expired record";
        deletes(cx, call, handle, (&token, None), false).await?;
        let after = cx.raw_dump().await?;
        let left = after
            .iter()
            .filter(|entry| before.iter().all(|other| other.name != entry.name));
        cx.equal(
            &format!("after {call}, the entries of it are"),
            &left.count(),
            &0,
        )?;
    }
    cx.holds("of another record", &store, &kept, &live).await
}

async fn k50_every_call_goes_by_the_key_alone(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let first = cx.token();
    let [second, third] = [(); 2].map(|()| with_secret(cx, &first));
    let own = |call: &str, given: &Token, answer: Result<Token>| {
        let token = cx.ok(&format!("{call} by another secret"), answer)?;
        cx.check(
            token == *given,
            format_args!("{call} returns the token it was given"),
            "another token",
        )
    };
    let what = "another secret of an id without a record";
    let record = cx.record("first");
    nothing_there(cx, what, &other, (&second, &record), [true, false]).await?;

    store.create(first.clone(), &record).await?;
    let again = other.create(second.clone(), &cx.record("again")).await;
    cx.err("create by another secret", ErrorKind::Exists, again)?;
    let later = record.expires_at + cx.moment();
    own("touch", &second, other.touch(&second, later).await)?;
    let touched = Record {
        expires_at: later,
        ..record
    };
    cx.settle().await;
    cx.holds("after touch by another secret", &store, &first, &touched)
        .await?;
    let updated = cx.changed(&touched, "updated");
    let answer = other.update(&third, touched.revision, &updated).await;
    own("update", &third, answer)?;
    cx.settle().await;
    cx.holds("after update by another secret", &store, &second, &updated)
        .await?;

    let renewed = cx.changed(&updated, "renewed");
    for (handle, token) in [(&store, &first), (&other, &third)] {
        let (conflict, former) = (ErrorKind::Conflict, touched.revision);
        let answer = handle.update(token, former, &renewed).await;
        cx.err("update at a former revision", conflict, answer)?;
        let answer = handle.renew(token, former, &renewed).await;
        cx.err("renew at a former revision", conflict, answer)?;
        let answer = handle.delete(token, Some(former)).await;
        cx.err("delete at a former revision", conflict, answer)?;
    }
    own(
        "renew",
        &second,
        store.renew(&second, updated.revision, &renewed).await,
    )?;
    cx.settle().await;
    cx.holds("after renew by another secret", &other, &first, &renewed)
        .await?;
    let call = "delete by another secret at its revision";
    deletes(cx, call, &store, (&third, Some(renewed.revision)), true).await?;
    cx.settle().await;
    let what = "another secret of a deleted record";
    nothing_there(cx, what, &other, (&first, &renewed), [false, true]).await?;

    let brief = cx.record_for("brief", cx.moment());
    own("create", &third, store.create(third.clone(), &brief).await)?;
    let call = "delete by another secret";
    deletes(cx, call, &other, (&first, None), true).await?;
    for deletes_at_revision in [Some([true, false]), Some([false, true]), None] {
        let brief = cx.record_for("brief", cx.moment());
        let created = store.create(second.clone(), &brief).await;
        own("create", &second, created)?;
        cx.pass_until(brief.expires_at + cx.margin()).await;
        if let Some(order) = deletes_at_revision {
            let what = "another secret of an expired record";
            nothing_there(cx, what, &other, (&third, &brief), order).await?;
        }
    }
    let last = cx.record("last");
    own("create", &first, store.create(first.clone(), &last).await)?;
    cx.settle().await;
    cx.holds("at last", &other, &third, &last).await
}

async fn t60_no_call_goes_by_a_time_zone(cx: &Context) -> Outcome {
    cx.fault(Fault::TimeZone).await?;
    let (store, alice) = (cx.open().await?, cx.subject("alice"));
    let half_an_hour = Duration::from_secs(1800);
    let owned = |expires_at| Record {
        expires_at,
        subject: Some(alice.clone()),
        ..cx.record("hello")
    };
    let (past, soon) = (cx.now() - half_an_hour, cx.now() + half_an_hour);
    for order in [[true, false], [false, true]] {
        let stale = owned(past);
        let token = store.create(cx.token(), &stale).await?;
        let what = "a record that expired half an hour ago";
        let live = owned(soon);
        let after = Record {
            revision: stale.revision,
            ..live.clone()
        };
        if let Some(index) = store.subjects() {
            let revoked = cx.ok("revoke", index.revoke(&alice, &token.key()).await)?;
            cx.equal(&format!("whether {what} was revoked is"), &revoked, &false)?;
            store.create(token.clone(), &stale).await?;
        }
        nothing_there(cx, what, &store, (&token, &after), order).await?;

        store.create(token.clone(), &owned(past)).await?;
        let what = "a record that expires in half an hour";
        let created = store.create(token.clone(), &live).await;
        cx.ok("create over an expired record", created)?;
        let again = store.create(token.clone(), &live).await;
        cx.err(&format!("create over {what}"), ErrorKind::Exists, again)?;
        let updated = cx.changed(&live, "updated");
        let answer = store.update(&token, live.revision, &updated).await;
        cx.ok(&format!("update of {what}"), answer)?;
        cx.holds("after update", &store, &token, &updated).await?;
        let touched = Record {
            expires_at: soon + half_an_hour,
            ..updated
        };
        let answer = store.touch(&token, touched.expires_at).await;
        cx.ok(&format!("touch of {what}"), answer)?;
        cx.holds("after touch", &store, &token, &touched).await?;
        let renewed = cx.changed(&touched, "renewed");
        let answer = store.renew(&token, touched.revision, &renewed).await;
        cx.ok(&format!("renew of {what}"), answer)?;
        cx.holds("after renew", &store, &token, &renewed).await?;
        if let Some(index) = store.subjects() {
            store.create(cx.token(), &owned(past)).await?;
            let listed = cx.ok("list", index.list(&alice, None, 10).await)?;
            let ends: Vec<_> = listed.iter().map(|session| session.expires_at).collect();
            cx.equal("the ends in the list are", &ends, &vec![renewed.expires_at])?;
            store.create(cx.token(), &renewed).await?;
            let revoked = cx.ok("revoke", index.revoke(&alice, &token.key()).await)?;
            cx.equal(&format!("whether {what} was revoked is"), &revoked, &true)?;
            let revoked = cx.ok("revoke_all", index.revoke_all(&alice, None).await)?;
            cx.equal("the sessions that were revoked are", &revoked, &1)?;
            store.create(token.clone(), &renewed).await?;
        }
        let expected = order[0].then_some(renewed.revision);
        deletes(
            cx,
            &format!("delete of {what}"),
            &store,
            (&token, expected),
            true,
        )
        .await?;
    }
    if cx.capabilities().sweep == Sweep::Explicit {
        store.sweep(100).await?;
        let kept = store.create(cx.token(), &owned(soon)).await?;
        let stored = cx.stored_names().await;
        store.create(cx.token(), &owned(past)).await?;
        let swept = cx.ok("try_sweep", store.try_sweep(100).await)?;
        let swept = (swept.unwrap_or(0), 1);
        let what = "the records that try_sweep removed are";
        cx.swept(what, swept, stored.as_ref()).await?;
        let found = cx.ok("load", store.load(&kept).await)?;
        cx.check(found.is_some(), "a live record after try_sweep", "None")?;
    }
    cx.fault(Fault::None).await
}

/// The calls of a handle, all of which may be dropped.
const KINDS: [&str; 13] = [
    "create",
    "load",
    "update",
    "renew",
    "touch",
    "delete",
    "delete at its revision",
    "sweep",
    "try_sweep",
    "ping",
    "list",
    "revoke",
    "revoke_all",
];

/// Sessions of a subject that one handle has stored, and calls about them on another.
struct Scene {
    subject: Subject,
    target: (Token, Record),
    beside: (Token, Record),
    fresh: Token,
    changed: Record,
}

impl Scene {
    async fn set(cx: &Context, store: &Store, number: usize) -> Outcome<Self> {
        let subject = cx.subject(&format!("alice{number}"));
        let mut record = cx.record("target");
        record.subject = Some(subject.clone());
        let target = store.create(cx.token(), &record).await?;
        let neighbour = cx.changed(&record, "beside");
        let beside = store.create(cx.token(), &neighbour).await?;
        Ok(Self {
            subject,
            changed: cx.changed(&record, "changed"),
            target: (target, record),
            beside: (beside, neighbour),
            fresh: cx.token(),
        })
    }

    fn call<'a>(&'a self, kind: &'a str, store: &'a Store) -> BoxFuture<'a, Result<()>> {
        let (token, record) = &self.target;
        let revision = record.revision;
        match kind {
            "create" => store
                .create(self.fresh.clone(), &self.changed)
                .map(|answer| answer.map(drop))
                .boxed(),
            "load" => store.load(token).map(|answer| answer.map(drop)).boxed(),
            "update" => store
                .update(token, revision, &self.changed)
                .map(|answer| answer.map(drop))
                .boxed(),
            "renew" => store
                .renew(token, revision, &self.changed)
                .map(|answer| answer.map(drop))
                .boxed(),
            "touch" => store
                .touch(token, record.expires_at)
                .map(|answer| answer.map(drop))
                .boxed(),
            "delete" => store.delete(token, None).map(ended).boxed(),
            "delete at its revision" => store.delete(token, Some(revision)).map(ended).boxed(),
            "sweep" => store.sweep(100).map(|answer| answer.map(drop)).boxed(),
            "try_sweep" => store.try_sweep(100).map(|answer| answer.map(drop)).boxed(),
            "ping" => store.ping().boxed(),
            _ => async move { self.call_index(kind, store).await }.boxed(),
        }
    }

    async fn call_index(&self, kind: &str, store: &Store) -> Result<()> {
        let index = store.subjects().ok_or(ErrorKind::Unsupported)?;
        match kind {
            "list" => index.list(&self.subject, None, 100).await.map(drop),
            "revoke" => ended(index.revoke(&self.subject, &self.target.0.key()).await),
            _ => index.revoke_all(&self.subject, None).await.map(drop),
        }
    }

    /// The records are as they were before the call or as they are after it, and the answers are
    /// those to the calls that are made now.
    async fn look(&self, cx: &Context, kind: &str, store: &Store, when: &str) -> Outcome {
        cx.absent(&format!("of an unknown token {when}"), store, &cx.token())
            .await?;
        let (token, record) = &self.target;
        let found = cx.ok(&format!("load {when}"), store.load(token).await)?;
        let whole = match &found {
            None => matches!(
                kind,
                "delete" | "delete at its revision" | "revoke" | "revoke_all"
            ),
            Some(found) if found == record => true,
            Some(found) => matches!(kind, "update" | "renew") && *found == self.changed,
        };
        let expected = format!("the state before or after a {kind} {when}");
        cx.check(whole, expected, describe(found.as_ref()))?;
        let (token, record) = &self.beside;
        let beside = cx.ok(&format!("load {when}"), store.load(token).await)?;
        let same = beside.as_ref() == Some(record) || kind == "revoke_all" && beside.is_none();
        cx.check(
            same,
            format_args!("the record beside {when}"),
            describe(beside.as_ref()),
        )
    }

    async fn lists(&self, cx: &Context, store: &Store, when: &str) -> Outcome {
        if store.subjects().is_none() {
            return Ok(());
        }
        let strangers = cx.subject("a stranger");
        let listed = index(store)?.list(&strangers, None, 100).await;
        let listed = cx.ok(&format!("list {when}"), listed)?;
        cx.equal(
            &format!("{when}, the sessions of nobody are"),
            &listed.len(),
            &0,
        )?;
        let listed = index(store)?.list(&self.subject, None, 100).await;
        let listed = cx.ok(&format!("list {when}"), listed)?;
        let own = [self.target.0.key(), self.beside.0.key(), self.fresh.key()];
        cx.check(
            listed.iter().all(|session| own.contains(&session.key)),
            format_args!("{when}, the sessions of the subject"),
            "one of another subject",
        )
    }
}

async fn x60_a_dropped_call_of_any_kind_is_whole_or_not_made(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..cx.record("stale")
    };
    let mut number = 0;
    for kind in KINDS {
        for polls in 1..MAX_POLLS {
            number += 1;
            let scene = Scene::set(cx, &store, number).await?;
            store.create(cx.token(), &stale).await?;
            let when = format!("after a {kind} was dropped at poll {polls}");
            let answer = drop_after(polls, scene.call(kind, &other)).await;
            let done = answer.is_some();
            scene.lists(cx, &other, &when).await?;
            scene.look(cx, kind, &other, &when).await?;
            cx.settle().await;
            scene.look(cx, kind, &store, &when).await?;
            if done {
                break;
            }
        }
    }
    if cx.capabilities().sweep == Sweep::Explicit {
        cx.ok("sweep after dropped calls", other.sweep(1000).await)?;
        let left = cx.ok("a second sweep", store.sweep(1000).await)?;
        cx.equal("what is left after a whole sweep is", &left, &0)?;
    }
    if cx.harness().fault(Fault::None).await.is_ok() {
        dropped_while_it_hangs(cx, &store, &other).await?;
    }
    Ok(())
}

async fn dropped_while_it_hangs(cx: &Context, store: &Store, other: &Store) -> Outcome {
    let mut scenes = Vec::new();
    for (number, kind) in KINDS.into_iter().enumerate() {
        scenes.push((kind, Scene::set(cx, store, 1000 + number).await?));
    }
    if cx.fault(Fault::Hang).await.is_err() {
        return Ok(());
    }
    for (kind, scene) in &scenes {
        let call = scene.call(kind, other);
        // Whether it has been sent does not matter.
        let _ = tokio::time::timeout(Duration::from_millis(20), call).await;
    }
    cx.fault(Fault::None).await?;
    recovered(cx, other, &scenes[0].1.target.0).await?;
    for (kind, scene) in &scenes {
        let when = format!("after a {kind} was dropped while the server hung");
        scene.lists(cx, other, &when).await?;
        scene.look(cx, kind, other, &when).await?;
    }
    Ok(())
}

async fn i50_no_call_reaches_into_another_namespace(cx: &Context) -> Outcome {
    let one = cx.open().await?;
    let two = cx.open_in(&format!("beside_{}", cx.namespace())).await?;
    for (here, there) in [(&one, &two), (&two, &one)] {
        let alice = cx.subject("alice");
        let mut theirs = cx.record("theirs");
        theirs.subject = Some(alice.clone());
        let token = there.create(cx.token(), &theirs).await?;
        let stale = Record {
            expires_at: cx.now() - cx.moment(),
            ..cx.changed(&theirs, "stale")
        };
        there.create(cx.token(), &stale).await?;
        let what = "a record of another namespace";
        nothing_there(cx, what, here, (&token, &theirs), [true, false]).await?;
        if let Some(index) = here.subjects() {
            let revoked = cx.ok("revoke", index.revoke(&alice, &token.key()).await)?;
            cx.equal(
                "whether a session of another namespace was revoked is",
                &revoked,
                &false,
            )?;
            let revoked = cx.ok("revoke_all", index.revoke_all(&alice, None).await)?;
            cx.equal("the sessions that were revoked are", &revoked, &0)?;
            let listed = cx.ok("list", index.list(&alice, None, 10).await)?;
            cx.equal("the sessions that are listed are", &listed.len(), &0)?;
        }
        if cx.capabilities().sweep == Sweep::Explicit {
            let swept = cx.ok("try_sweep", here.try_sweep(100).await)?;
            cx.equal(
                "the records that try_sweep removed are",
                &swept.unwrap_or(0),
                &0,
            )?;
            let swept = cx.ok("sweep", there.sweep(100).await)?;
            let by_this_one = swept == 0 && sweeps_the_other(cx, here, there).await?;
            cx.check(
                swept <= 1 && !by_this_one,
                "the records that were swept where they lay are 1",
                swept,
            )?;
        }
        let when = "in its namespace after calls in another";
        cx.holds(when, there, &token, &theirs).await?;
        there.delete(&token, None).await?;
    }
    Ok(())
}

async fn e40_a_renewal_fails_as_an_update_does(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let mut missing = Vec::new();
    let faults = [Fault::Down, Fault::Hang, Fault::ReadOnly];
    for fault in faults {
        let first = cx.record("first");
        let token = store.create(cx.token(), &first).await?;
        let second = cx.changed(&first, "second");
        if let Err(hook) = cx.fault(fault).await {
            missing.push(hook);
            continue;
        }
        let call = store.renew(&token, first.revision, &second);
        let answer = in_time(cx, "renew", call).await?;
        let call = format!("renew on a backend with the fault {fault:?}");
        let kind = answer.as_ref().err().map(sessionkit::Error::kind);
        cx.err_in(&call, &GONE, answer)?;
        cx.fault(Fault::None).await?;
        recovered(cx, &store, &token).await?;
        cx.settle().await;
        for handle in [&store, &other] {
            recovered(cx, handle, &token).await?;
            let found = cx.ok("load", handle.load(&token).await)?;
            let whole = found.as_ref() == Some(&first)
                || kind == Some(ErrorKind::Ambiguous) && found.as_ref() == Some(&second);
            let expected = format!("after {call}, the record before it");
            cx.check(whole, expected, describe(found.as_ref()))?;
        }
    }
    match missing.pop() {
        Some(hook) if missing.len() + 1 == faults.len() => Err(hook),
        _ => Ok(()),
    }
}

async fn e41_a_handle_that_is_dropped_while_the_backend_fails_loses_nothing(
    cx: &Context,
) -> Outcome {
    let mut missing = Vec::new();
    let faults = [Fault::Down, Fault::Hang, Fault::Full];
    for fault in faults {
        let (store, other) = (cx.open().await?, cx.open().await?);
        let first = cx.record("first");
        let token = store.create(cx.token(), &first).await?;
        let theirs = other.create(cx.token(), &first).await?;
        let second = cx.changed(&first, "second");
        store.update(&token, first.revision, &second).await?;
        let gone = store.create(cx.token(), &first).await?;
        store.delete(&gone, None).await?;
        if let Err(hook) = cx.fault(fault).await {
            missing.push(hook);
            continue;
        }
        drop((store, other));
        cx.fault(Fault::None).await?;
        let reopened = cx.open().await?;
        recovered(cx, &reopened, &token).await?;
        let when = format!("after the handles were dropped under the fault {fault:?}");
        cx.holds(&when, &reopened, &token, &second).await?;
        cx.holds(&when, &reopened, &theirs, &first).await?;
        cx.absent(&when, &reopened, &gone).await?;
    }
    match missing.pop() {
        Some(hook) if missing.len() + 1 == faults.len() => Err(hook),
        _ => Ok(()),
    }
}

async fn e42_a_store_says_the_same_of_itself_while_the_backend_fails(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let token = store.create(cx.token(), &cx.record("hello")).await?;
    let declared = (store.capabilities(), store.subjects().is_some());
    let mut missing = Vec::new();
    let faults = [Fault::Down, Fault::Hang, Fault::Full, Fault::ReadOnly];
    for fault in faults {
        if let Err(hook) = cx.fault(fault).await {
            missing.push(hook);
            continue;
        }
        for failed in [false, true] {
            for handle in [&store, &other] {
                let now = (handle.capabilities(), handle.subjects().is_some());
                let what = format!("under the fault {fault:?}, a handle declares");
                cx.equal(&what, &now, &declared)?;
            }
            // A store that asks its backend again has asked it now.
            if !failed {
                let _ = in_time(cx, "load", other.load(&token)).await?;
            }
        }
        cx.fault(Fault::None).await?;
        recovered(cx, &other, &token).await?;
        let now = (other.capabilities(), other.subjects().is_some());
        cx.equal(
            "when the backend works again, a handle declares",
            &now,
            &declared,
        )?;
    }
    match missing.pop() {
        Some(hook) if missing.len() + 1 == faults.len() => Err(hook),
        _ => Ok(()),
    }
}

async fn e43_opening_ends_when_the_server_hangs(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let record = cx.record("hello");
    let token = store.create(cx.token(), &record).await?;
    cx.fault(Fault::Hang).await?;
    let opened = in_time(cx, "open", cx.try_open_in(cx.namespace())).await?;
    // A store may connect with its first call.
    let answer = match &opened {
        Ok(opened) => in_time(cx, "load", opened.load(&token)).await?.map(drop),
        Err(error) => Err(error.kind().into()),
    };
    let call = "open and load on a server that hangs";
    cx.err(call, ErrorKind::Unavailable, answer)?;
    cx.fault(Fault::None).await?;
    recovered(cx, &store, &token).await?;
    let opened = cx.try_open_in(cx.namespace()).await;
    let opened = cx.ok("open when the server answers again", opened)?;
    cx.holds("on a new handle", &opened, &token, &record).await
}

async fn y60_a_delete_is_refused_whatever_the_token_is(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let record = cx.record("hello");
    let live = store.create(cx.token(), &record).await?;
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..cx.record("stale")
    };
    let expired = store.create(cx.token(), &stale).await?;
    if store.delete(&live, None).await.is_ok() {
        // The store keeps a list of what has ended.
        return cx.absent("after delete", &store, &live).await;
    }
    for (what, token) in [
        ("a live token", &live),
        ("an expired token", &expired),
        ("an unknown token", &cx.token()),
    ] {
        for expected in [None, Some(record.revision), Some(cx.revision())] {
            let deleted = store.delete(token, expected).await;
            let call = format!("delete of {what}");
            cx.err(&call, ErrorKind::Unsupported, deleted)?;
        }
    }
    cx.holds("after delete was refused", &store, &live, &record)
        .await
}

async fn y61_a_store_knows_the_tokens_that_it_has_made(cx: &Context) -> Outcome {
    let (store, other) = (cx.open().await?, cx.open().await?);
    let there = cx.open_in(&format!("beside_{}", cx.namespace())).await?;
    let record = cx.record("hello");
    let live = store.create(cx.token(), &record).await?;
    let stale = Record {
        expires_at: cx.now() - cx.moment(),
        ..cx.record("stale")
    };
    let expired = store.create(cx.token(), &stale).await?;
    let theirs = there.create(cx.token(), &record).await?;
    let bytes = live.expose();
    let changed = [&bytes[..bytes.len() - 1], &[!bytes[bytes.len() - 1]]].concat();
    let of = |bytes: &[u8]| Token::from_bytes(bytes.to_vec(), cx.cookie());
    let tokens = [
        ("a live token", live.clone(), true),
        ("an expired token", expired, true),
        ("a token of another namespace", theirs, false),
        ("a token whose last byte is another", of(&changed), false),
        ("a token that is cut", of(&bytes[..bytes.len() / 2]), false),
        ("an empty token", of(b""), false),
        ("an unknown token", cx.token(), false),
    ];
    for handle in [&store, &other] {
        for (what, token, made) in &tokens {
            let what = format!("whether the store has made {what} is");
            cx.equal(&what, &handle.has_made(token), made)?;
        }
    }
    Ok(())
}
