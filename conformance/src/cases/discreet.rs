//! Secrets in what a store shows, wherever it shows something.

use std::{fmt::Write, sync::Arc};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use sessionkit::{Error, ErrorKind, Record, Result, SessionStore, Subject, Sweep, Token};
use tracing::{instrument::WithSubscriber, subscriber::NoSubscriber};

use super::{
    case,
    flt::{in_time, recovered},
    list::index,
    sec::{CANARY, finds, spellings},
};
use crate::{Case, Context, Failure, Fault, Outcome, RawEntry, Verdict, capture::Capture};

pub(super) const CASES: &[Case] = &[
    case!(Sec s40_what_a_store_refuses_or_cannot_read_is_not_quoted []
        "No token, key, data or password appears in an error, a log line or `Debug`."
        "The session that is too large, or whose record is damaged, is printed into the log to be looked at."),
    case!(Sec s41_lists_revocations_and_sweeps_show_no_secret [Server]
        "No token, key, data or password appears in an error, a log line or `Debug`."
        "The log of `log out everywhere` names what it ended, and the log of the cleaner everything else."),
    case!(parallel Sec s42_lost_and_late_answers_show_no_secret [Server]
        "No token, key, data or password appears in an error, a log line or `Debug`."
        "During an outage every failed request is logged with the session that it was about."),
];

type Store = Arc<dyn SessionStore>;

/// What a store has shown, and what it must not show.
#[derive(Default)]
struct Eye {
    shown: String,
    capture: Capture,
    secrets: Vec<Vec<u8>>,
}

impl Eye {
    fn new() -> Self {
        let mut eye = Self::default();
        eye.secrets.push(CANARY.as_bytes().to_vec());
        eye
    }

    /// Neither this token nor its key may be shown.
    fn hide(&mut self, token: &Token) {
        // A client-side store's token is long, and secret in each of its parts.
        let bytes = token.expose();
        self.secrets.push(bytes[..bytes.len().min(64)].to_vec());
        self.secrets.push(token.key().as_bytes().to_vec());
    }

    /// Takes a note of an error with all of its causes.
    fn note<T>(&mut self, answer: Result<T>) {
        let error = answer.err();
        let mut cause: Option<&dyn std::error::Error> = error.as_ref().map(|error| error as _);
        while let Some(error) = cause {
            self.write(format_args!("{error}\n{error:?}\n{error:#?}\n"));
            cause = error.source();
        }
    }

    fn look_at(&mut self, store: &Store) {
        self.write(format_args!("{store:?}\n{store:#?}\n"));
        if let Some(index) = store.subjects() {
            self.write(format_args!("{index:?}\n{index:#?}\n"));
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.shown
            .write_fmt(text)
            .expect("a string takes every text");
    }

    /// Nothing secret was shown so far.
    fn check(&self, cx: &Context, when: &str) -> Outcome {
        let logged = self.capture.text();
        let secrets = self.secrets.iter();
        let needles: Vec<_> = secrets.flat_map(|secret| spellings(secret)).collect();
        for (where_, text) in [("errors and Debug", &self.shown), ("log lines", &logged)] {
            cx.check(
                !finds(text.as_bytes(), &needles),
                format_args!("{where_} without secrets {when}"),
                "a token, key or data in one",
            )?;
        }
        Ok(())
    }
}

async fn s40_what_a_store_refuses_or_cannot_read_is_not_quoted(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let mut eye = Eye::new();
    let capture = eye.capture.clone();
    async {
        too_large(cx, &store, &mut eye).await?;
        match unseen(cx.raw_dump()).await.map_err(Failure::into_verdict) {
            Ok(_) => unreadable(cx, &store, &mut eye).await,
            // What cannot be got at cannot be damaged.
            Err(Verdict::Skip(_)) => Ok(()),
            Err(verdict) => Err(Failure::from_verdict(verdict)),
        }
    }
    .with_subscriber(capture)
    .await
}

async fn too_large(cx: &Context, store: &Store, eye: &mut Eye) -> Outcome {
    let record = cx.record(CANARY);
    let token = store.create(cx.token(), &record).await?;
    let fresh = cx.token();
    for token in [&token, &fresh] {
        eye.hide(token);
    }
    // It begins and ends with the secret, and has it in between.
    let mut data = CANARY.repeat(1 + cx.capabilities().max_data / CANARY.len());
    data.push_str(CANARY);
    let large = cx.changed(&record, data);
    let refused = [
        ("create", store.create(fresh, &large).await),
        (
            "update",
            store.update(&token, record.revision, &large).await,
        ),
        ("renew", store.renew(&token, record.revision, &large).await),
    ];
    for (name, answer) in refused {
        let kind = answer.as_ref().map(drop).map_err(Error::kind);
        eye.note(answer);
        let call = format!("{name} with more than max_data is TooLarge");
        cx.check(
            kind == Err(ErrorKind::TooLarge),
            call,
            format_args!("{kind:?}"),
        )?;
    }
    eye.look_at(store);
    eye.check(cx, "where data are too large")
}

async fn unreadable(cx: &Context, store: &Store, eye: &mut Eye) -> Outcome {
    let alice = cx.subject("alice");
    let record = Record {
        subject: Some(alice.clone()),
        ..cx.record(CANARY)
    };
    // What an index keeps for the subject is there before the record that is to be damaged.
    let first = store.create(cx.token(), &record).await?;
    eye.hide(&first);
    let before = unseen(cx.raw_dump()).await?;
    let token = store.create(cx.token(), &record).await?;
    eye.hide(&token);
    let entries = unseen(cx.raw_dump()).await?;
    let before: Vec<_> = before.iter().map(|entry| &entry.name).collect();
    let new = |entry: &&RawEntry| !before.contains(&&entry.name) && !entry.value.is_empty();
    let stored: Vec<_> = entries.iter().filter(new).collect();
    for damage in [cut, turned, garbage] {
        for entry in &stored {
            let (name, value) = (entry.name.clone(), damage(&entry.value));
            unseen(cx.raw_write(&RawEntry { name, value })).await?;
        }
        // As a process that was started later.
        let store = cx.open().await?;
        let other = cx.revision();
        eye.note(store.load(&token).await);
        eye.note(store.create(token.clone(), &record).await);
        eye.note(store.update(&token, other, &record).await);
        eye.note(store.renew(&token, other, &record).await);
        eye.note(store.touch(&token, record.expires_at).await);
        eye.note(store.delete(&token, Some(other)).await);
        eye.note(store.sweep(10).await);
        eye.note(store.try_sweep(10).await);
        if let Some(index) = store.subjects() {
            eye.note(index.list(&alice, None, 10).await);
            eye.note(index.revoke(&alice, &token.key()).await);
            eye.note(index.revoke_all(&alice, None).await);
        }
        eye.look_at(&store);
        eye.check(cx, "where a record cannot be read")?;
        for entry in &stored {
            unseen(cx.raw_write(entry)).await?;
        }
        eye.note(store.delete(&token, None).await);
        store.create(token.clone(), &record).await?;
    }
    Ok(())
}

/// What a hook logs is the harness's affair.
fn unseen<F: Future>(hook: F) -> impl Future<Output = F::Output> {
    hook.with_subscriber(NoSubscriber::default())
}

/// The end is missing.
fn cut(value: &[u8]) -> Vec<u8> {
    value[..value.len() - 1].to_vec()
}

/// Its first and its last byte are others.
fn turned(value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    let last = value.len() - 1;
    value[0] ^= 0x80;
    value[last] ^= 1;
    value
}

/// Nothing but the secret is left.
fn garbage(_: &[u8]) -> Vec<u8> {
    CANARY.repeat(3).into_bytes()
}

/// Sessions to make every call with.
struct Target {
    alice: Subject,
    record: Record,
    token: Token,
    second: Token,
    fresh: Token,
}

impl Target {
    async fn create(cx: &Context, store: &Store, eye: &mut Eye) -> Outcome<Self> {
        let alice = cx.subject("alice");
        let record = Record {
            subject: Some(alice.clone()),
            ..cx.record(CANARY)
        };
        let token = store.create(cx.token(), &record).await?;
        let second = store.create(cx.token(), &record).await?;
        let fresh = cx.token();
        for token in [&token, &second, &fresh] {
            eye.hide(token);
        }
        Ok(Self {
            alice,
            record,
            token,
            second,
            fresh,
        })
    }

    /// Every call of the trait and of the index.
    fn calls<'a>(&'a self, store: &'a Store) -> Vec<BoxFuture<'a, Result<()>>> {
        let Self {
            record,
            token,
            second,
            fresh,
            ..
        } = self;
        let revision = record.revision;
        let mut calls = vec![
            store.load(token).map(|done| done.map(drop)).boxed(),
            store
                .create(fresh.clone(), record)
                .map(|done| done.map(drop))
                .boxed(),
            store
                .update(token, revision, record)
                .map(|done| done.map(drop))
                .boxed(),
            store
                .renew(second, revision, record)
                .map(|done| done.map(drop))
                .boxed(),
            store
                .touch(token, record.expires_at)
                .map(|done| done.map(drop))
                .boxed(),
            store
                .delete(second, Some(revision))
                .map(|done| done.map(drop))
                .boxed(),
            store.delete(fresh, None).map(|done| done.map(drop)).boxed(),
            store.sweep(10).map(|done| done.map(drop)).boxed(),
            store.try_sweep(10).map(|done| done.map(drop)).boxed(),
            store.ping().boxed(),
        ];
        if let Some(index) = store.subjects() {
            let alice = &self.alice;
            calls.push(async { self.page(index).await.map(drop) }.boxed());
            calls.push(async { index.revoke(alice, &second.key()).await.map(drop) }.boxed());
            calls.push(
                async { index.revoke_all(alice, Some(&token.key())).await.map(drop) }.boxed(),
            );
            calls.push(async { index.revoke_all(alice, None).await.map(drop) }.boxed());
        }
        calls
    }

    /// The list behind a session.
    async fn page(&self, index: &dyn sessionkit::SubjectIndex) -> Result<usize> {
        let list = index.list(&self.alice, Some(&self.token.key()), 10).await?;
        Ok(list.len())
    }
}

async fn s41_lists_revocations_and_sweeps_show_no_secret(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let mut eye = Eye::new();
    let capture = eye.capture.clone();
    async {
        let target = Target::create(cx, &store, &mut eye).await?;
        if store.subjects().is_some() {
            end_all(cx, &store, &target, &mut eye).await?;
        }
        eye.look_at(&store);
        eye.check(cx, "where sessions are listed and revoked")?;
        if cx.capabilities().sweep == Sweep::Explicit {
            for subject in [None, Some(target.alice.clone())] {
                let stale = Record {
                    subject,
                    expires_at: cx.now() - cx.moment(),
                    ..cx.record(CANARY)
                };
                for _ in 0..2 {
                    let token = store.create(cx.token(), &stale).await?;
                    eye.hide(&token);
                }
            }
            cx.ok("sweep", store.sweep(1).await)?;
            cx.ok("sweep", store.sweep(1).await)?;
            cx.ok("try_sweep", store.try_sweep(10).await)?;
        }
        cx.ok("ping", store.ping().await)?;
        eye.look_at(&store);
        eye.check(cx, "where expired records are swept")
    }
    .with_subscriber(capture)
    .await
}

/// Lists and ends sessions, looking at the store in between.
async fn end_all(cx: &Context, store: &Store, target: &Target, eye: &mut Eye) -> Outcome {
    let alice = &target.alice;
    let index = index(store)?;
    let listed = cx.ok("list", index.list(alice, None, 10).await)?;
    cx.equal("the sessions in the list are", &listed.len(), &2)?;
    cx.ok("list of a page", target.page(index).await)?;
    eye.look_at(store);
    let revoked = cx.ok("revoke", index.revoke(alice, &target.second.key()).await)?;
    cx.equal("whether a session was revoked is", &revoked, &true)?;
    eye.note(index.revoke(alice, &target.fresh.key()).await);
    let except = target.token.key();
    let none = cx.ok("revoke_all", index.revoke_all(alice, Some(&except)).await)?;
    cx.equal("the sessions that were revoked but one are", &none, &0)?;
    let one = cx.ok("revoke_all", index.revoke_all(alice, None).await)?;
    cx.equal("the sessions that were revoked are", &one, &1)
}

async fn s42_lost_and_late_answers_show_no_secret(cx: &Context) -> Outcome {
    const FAULTS: [Fault; 8] = [
        Fault::LoseReplies,
        Fault::Hang,
        Fault::Busy,
        Fault::Vanished,
        Fault::ReadOnly,
        Fault::Down,
        Fault::Full,
        Fault::LoseReply,
    ];
    let store = cx.open().await?;
    let mut eye = Eye::new();
    let capture = eye.capture.clone();
    async {
        let mut missing = Vec::new();
        for fault in FAULTS {
            let target = Target::create(cx, &store, &mut eye).await?;
            if let Err(hook) = cx.fault(fault).await {
                missing.push(hook);
                continue;
            }
            if fault == Fault::LoseReply {
                // It is lost once: the other calls get one of their own.
                for call in target.calls(&store) {
                    cx.fault(fault).await?;
                    eye.note(in_time(cx, "a call", call).await?);
                }
            } else {
                let answers = join_all(target.calls(&store));
                for answer in in_time(cx, "every call", answers).await? {
                    eye.note(answer);
                }
            }
            eye.look_at(&store);
            cx.fault(Fault::None).await?;
            eye.check(cx, &format!("under the fault {fault:?}"))?;
            recovered(cx, &store, &target.token).await?;
        }
        match missing.pop() {
            Some(hook) if missing.len() == FAULTS.len() - 1 => Err(hook),
            _ => Ok(()),
        }
    }
    .with_subscriber(capture)
    .await
}
