//! Sessions that are found half way between two nodes of a cluster, as a process leaves them that
//! ends in the middle of `rotate`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/mod.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use sessionkit::{
    Clock, CookieName, ErrorKind, OsEntropy, Record, Revision, SessionStore, Subject, SystemClock,
    Token,
};
use sessionkit_conformance::{Harness, RawEntry, containers::RedisCluster};
use support::{Admin, RedisHarness};

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The new record waits for the old one to go.
    Announced,
    /// It waits for one that has changed since.
    Refused,
    /// The old one has gone, the new one is still marked.
    Gone,
    /// Only the note at the old key is left.
    Settled,
}

/// A move that nobody is working on.
struct HalfMove {
    store: Arc<dyn SessionStore>,
    harness: RedisHarness,
    namespace: String,
    from: Token,
    to: Token,
    old: Record,
    new: Record,
}

impl HalfMove {
    async fn at(stage: Stage) -> Self {
        let harness = RedisHarness::new(RedisCluster::shared().await);
        let namespace = format!("moves-{}", &token().key().to_hex()[..12]);
        let store = harness.open(&namespace).await.unwrap();
        let (old, new) = (record(), record());
        let from = store.create(token(), &old).await.unwrap();
        let half = Self {
            store,
            harness,
            namespace,
            from,
            to: token(),
            old,
            new,
        };
        let number = b"\x00\x01\x02\x03\x04\x05\x06\x07";
        let whole = half.encoded_new().await;
        if stage != Stage::Settled {
            let expected = half.old.revision.to_bits().to_be_bytes();
            let from = half.from.key();
            half.write(
                &half.to,
                &[b"\x02", &number[..], &expected, from.as_bytes(), &whole],
            )
            .await;
        }
        match stage {
            Stage::Announced => {}
            Stage::Refused => {
                let changed = record();
                half.store
                    .update(&half.from, half.old.revision, &changed)
                    .await
                    .unwrap();
            }
            Stage::Gone | Stage::Settled => {
                let to = half.to.key();
                half.write(&half.from, &[b"\x04", &number[..], to.as_bytes()])
                    .await;
            }
        }
        if stage == Stage::Settled {
            half.write(&half.to, &[&whole]).await;
        }
        half
    }

    /// The new record as the store writes it.
    async fn encoded_new(&self) -> Vec<u8> {
        let token = self.store.create(token(), &self.new).await.unwrap();
        let name = self.name(&token);
        let entries = self.harness.raw_dump(&self.namespace).await.unwrap();
        let entry = entries.into_iter().find(|entry| entry.name == name);
        self.store.delete(&token).await.unwrap();
        entry.unwrap().value
    }

    fn name(&self, token: &Token) -> Vec<u8> {
        let key = token.key();
        [self.namespace.as_bytes(), b"#", &key.as_bytes()[..20]].concat()
    }

    async fn write(&self, token: &Token, value: &[&[u8]]) {
        let entry = RawEntry {
            name: self.name(token),
            value: value.concat(),
        };
        self.harness
            .raw_write(&self.namespace, &entry)
            .await
            .unwrap();
    }

    async fn load(&self, token: &Token) -> Option<Record> {
        self.store.load(token).await.unwrap()
    }

    async fn new_one_lives(&self) {
        assert_eq!(self.load(&self.from).await, None);
        assert_eq!(self.load(&self.to).await.as_ref(), Some(&self.new));
    }

    /// Nothing is left that arrives.
    async fn end(self) {
        for entry in self.harness.raw_dump(&self.namespace).await.unwrap() {
            assert!(entry.name[self.namespace.len()] != b'#' || entry.value[0] != 2);
        }
        self.harness.destroy(&self.namespace).await.unwrap();
    }
}

fn token() -> Token {
    Token::random(&OsEntropy, &CookieName::new("id").unwrap()).unwrap()
}

fn record() -> Record {
    let now = SystemClock.now();
    Record {
        data: "data".into(),
        revision: Revision::random(&OsEntropy).unwrap(),
        created_at: now,
        expires_at: now + Duration::from_secs(600),
        subject: Some(Subject::new("alice").unwrap()),
        label: Default::default(),
    }
}

#[tokio::test]
async fn whoever_loads_the_new_token_brings_the_move_to_its_end() {
    for stage in [Stage::Announced, Stage::Gone] {
        let half = HalfMove::at(stage).await;
        assert_eq!(half.load(&half.to).await.as_ref(), Some(&half.new));
        half.new_one_lives().await;
        half.end().await;
    }
}

#[tokio::test]
async fn until_then_the_old_token_is_the_live_one() {
    let half = HalfMove::at(Stage::Announced).await;
    assert_eq!(half.load(&half.from).await.as_ref(), Some(&half.old));
    half.store.delete(&half.from).await.unwrap();
    assert_eq!(half.load(&half.to).await, None);
    assert_eq!(half.load(&half.from).await, None);
}

#[tokio::test]
async fn a_move_whose_session_has_changed_is_off() {
    let half = HalfMove::at(Stage::Refused).await;
    let (store, to) = (&half.store, &half.to);
    let missing = |result: sessionkit::Result<Token>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Missing);
    };
    let next = record();
    missing(store.update(to, half.new.revision, &next).await);
    missing(store.touch(to, next.expires_at).await);
    missing(store.rotate(to, token(), half.new.revision, &next).await);
    store.delete(to).await.unwrap();
    let alice = Subject::new("alice").unwrap();
    let index = store.subjects().unwrap();
    assert!(!index.revoke(&alice, &to.key()).await.unwrap());
    assert_eq!(half.load(to).await, None);
    assert!(half.load(&half.from).await.is_some());

    let half = HalfMove::at(Stage::Refused).await;
    let other = record();
    half.store.create(half.to.clone(), &other).await.unwrap();
    assert_eq!(half.load(&half.to).await, Some(other));
    half.end().await;
}

#[tokio::test]
async fn every_change_of_a_session_that_arrives_is_made_to_the_session() {
    for stage in [Stage::Announced, Stage::Gone] {
        let half = HalfMove::at(stage).await;
        let next = record();
        half.store
            .update(&half.to, half.new.revision, &next)
            .await
            .unwrap();
        assert_eq!(half.load(&half.to).await, Some(next));
        assert_eq!(half.load(&half.from).await, None);
        half.end().await;

        let half = HalfMove::at(stage).await;
        let later = half.new.expires_at + Duration::from_secs(9);
        half.store.touch(&half.to, later).await.unwrap();
        assert_eq!(half.load(&half.to).await.unwrap().expires_at, later);
        half.end().await;

        let half = HalfMove::at(stage).await;
        let (last, next) = (token(), record());
        half.store
            .rotate(&half.to, last.clone(), half.new.revision, &next)
            .await
            .unwrap();
        assert_eq!(half.load(&last).await, Some(next));
        assert_eq!(half.load(&half.to).await, None);
        assert_eq!(half.load(&half.from).await, None);
        half.end().await;

        let half = HalfMove::at(stage).await;
        half.store.delete(&half.to).await.unwrap();
        assert_eq!(half.load(&half.to).await, None);
        assert_eq!(half.load(&half.from).await, None);
        half.end().await;

        let half = HalfMove::at(stage).await;
        let error = half.store.create(half.to.clone(), &record()).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Exists);
        half.new_one_lives().await;
        half.end().await;
    }
}

#[tokio::test]
async fn a_session_that_has_gone_is_missing_at_its_old_token() {
    for stage in [Stage::Gone, Stage::Settled] {
        let half = HalfMove::at(stage).await;
        let missing = |result: sessionkit::Result<Token>| {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Missing);
        };
        let (store, from) = (&half.store, &half.from);
        let next = record();
        missing(store.update(from, half.old.revision, &next).await);
        missing(store.touch(from, next.expires_at).await);
        missing(store.rotate(from, token(), half.old.revision, &next).await);
        store.delete(from).await.unwrap();
        half.new_one_lives().await;
    }
}

#[tokio::test]
async fn another_session_may_begin_where_one_has_gone() {
    for stage in [Stage::Gone, Stage::Settled] {
        let half = HalfMove::at(stage).await;
        let other = record();
        half.store.create(half.from.clone(), &other).await.unwrap();
        assert_eq!(half.load(&half.from).await, Some(other));
        assert_eq!(half.load(&half.to).await.as_ref(), Some(&half.new));
        half.end().await;
    }
}

#[tokio::test]
async fn ending_the_sessions_of_a_subject_ends_one_that_moves() {
    let subject = Subject::new("alice").unwrap();
    for stage in [Stage::Announced, Stage::Gone, Stage::Settled] {
        let half = HalfMove::at(stage).await;
        let index = half.store.subjects().unwrap();
        // The index is told before a session arrives; here that happens by another one.
        let listed = index.list(&subject, None, 10).await.unwrap();
        assert!(listed.len() <= 1, "{listed:?}");
        let ended = index.revoke(&subject, &half.to.key()).await.unwrap();
        assert!(ended, "{stage:?}");
        assert_eq!(half.load(&half.to).await, None);
        assert_eq!(half.load(&half.from).await, None);
    }
}

#[tokio::test]
async fn the_entry_of_a_session_that_is_not_there_yet_stays() {
    let harness = RedisHarness::new(RedisCluster::shared().await);
    let namespace = format!("moves-{}", &token().key().to_hex()[..12]);
    let store = harness.open(&namespace).await.unwrap();
    // As a process leaves it that has told the index, and is about to store the session.
    let coming = token().key();
    let mut add = ::redis::cmd("ZADD");
    add.arg(format!("{namespace}@alice"))
        .arg(record().expires_at.as_millis())
        .arg(coming.as_bytes());
    let mut admin = Admin::connect(&harness.url).await.unwrap();
    admin.take(&add).await.unwrap();
    for _ in 0..20 {
        let token = store.create(token(), &record()).await.unwrap();
        store.delete(&token).await.unwrap();
    }
    let alice = Subject::new("alice").unwrap();
    let index = store.subjects().unwrap();
    assert_eq!(index.list(&alice, None, 10).await.unwrap(), []);
    assert_eq!(index.revoke_all(&alice, None).await.unwrap(), 0);
    let entries = harness.raw_dump(&namespace).await.unwrap();
    let values: Vec<_> = entries.iter().map(|entry| &entry.value[..]).collect();
    assert_eq!(values, [coming.as_bytes()]);
    harness.destroy(&namespace).await.unwrap();
}

#[tokio::test]
async fn what_begins_like_a_move_and_is_none_is_corrupt() {
    for garbage in [&b"\x02"[..], b"\x02garbage", b"\x04", b"\x04garbage"] {
        let half = HalfMove::at(Stage::Settled).await;
        half.write(&half.to, &[garbage]).await;
        let (store, to) = (&half.store, &half.to);
        let error = store.load(to).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let error = store.create(to.clone(), &record()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists);
        store.delete(to).await.unwrap();
        assert_eq!(half.load(to).await, None);
        store.create(to.clone(), &record()).await.unwrap();
    }
}
