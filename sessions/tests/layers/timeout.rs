use std::{future::pending, time::Duration};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, ErrorKind, MemoryStore, Record, Result, Revision, SessionStore, StoreKey,
    Subject, SubjectIndex, SubjectSession, Timestamp, Token, layers::Timeout,
};

use crate::support::{START, alice, kind, record, token};

/// A store that never answers.
#[derive(Debug)]
struct Hung;

#[async_trait]
impl SessionStore for Hung {
    fn capabilities(&self) -> Capabilities {
        Capabilities::server(10)
    }

    async fn create(&self, _: Token, _: &Record) -> Result<Token> {
        pending().await
    }

    async fn load(&self, _: &Token) -> Result<Option<Record>> {
        pending().await
    }

    async fn update(&self, _: &Token, _: Revision, _: &Record) -> Result<Token> {
        pending().await
    }

    async fn touch(&self, _: &Token, _: Timestamp) -> Result<Token> {
        pending().await
    }

    async fn renew(&self, _: &Token, _: Revision, _: &Record) -> Result<Token> {
        pending().await
    }

    async fn delete(&self, _: &Token, _: Option<Revision>) -> Result<bool> {
        pending().await
    }

    async fn try_sweep(&self, _: usize) -> Result<Option<u64>> {
        pending().await
    }

    async fn ping(&self) -> Result<()> {
        pending().await
    }

    async fn sweep(&self, _: usize) -> Result<u64> {
        pending().await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        Some(self)
    }
}

#[async_trait]
impl SubjectIndex for Hung {
    async fn list(
        &self,
        _: &Subject,
        _: Option<&StoreKey>,
        _: usize,
    ) -> Result<Vec<SubjectSession>> {
        pending().await
    }

    async fn revoke(&self, _: &Subject, _: &StoreKey) -> Result<bool> {
        pending().await
    }

    async fn revoke_all(&self, _: &Subject, _: Option<&StoreKey>) -> Result<u64> {
        pending().await
    }
}

const SHORT: Duration = Duration::from_millis(5);

#[tokio::test]
async fn a_read_that_runs_out_is_unavailable() {
    let store = Timeout::new(Hung).with_deadline(SHORT);
    let subjects = store.subjects().unwrap();
    assert_eq!(kind(store.load(&token()).await), ErrorKind::Unavailable);
    assert_eq!(kind(store.ping().await), ErrorKind::Unavailable);
    assert_eq!(
        kind(subjects.list(&alice(), None, 1).await),
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn a_write_that_runs_out_is_ambiguous() {
    let store = Timeout::new(Hung).with_deadline(SHORT);
    let subjects = store.subjects().unwrap();
    let (token, record) = (token(), record("data"));
    let revision = record.revision;
    for kind in [
        kind(store.create(token.clone(), &record).await),
        kind(store.update(&token, revision, &record).await),
        kind(store.touch(&token, START).await),
        kind(store.renew(&token, revision, &record).await),
        kind(store.delete(&token, None).await),
        kind(store.sweep(1).await),
        kind(store.try_sweep(1).await),
        kind(subjects.revoke(&alice(), &token.key()).await),
        kind(subjects.revoke_all(&alice(), None).await),
    ] {
        assert_eq!(kind, ErrorKind::Ambiguous);
    }
}

#[tokio::test]
async fn the_error_names_the_deadline_and_the_default_is_five_seconds() {
    assert!(format!("{:?}", Timeout::new(Hung)).contains("deadline: 5s"));
    let store = Timeout::new(Hung).with_deadline(SHORT);
    let error = store.load(&token()).await.unwrap_err();
    assert_eq!(error.to_string(), "the session store gave no answer in 5ms");
}

#[tokio::test]
async fn answers_in_time_pass_unchanged() {
    let store = Timeout::new(MemoryStore::new()).with_deadline(Duration::from_secs(60));
    let mut record = record("data");
    record.expires_at = Timestamp::MAX;
    let token = store.create(token(), &record).await.unwrap();
    assert_eq!(
        kind(store.create(token.clone(), &record).await),
        ErrorKind::Exists
    );
    assert_eq!(store.load(&token).await.unwrap(), Some(record));
    assert_eq!(store.capabilities(), MemoryStore::new().capabilities());
    let subjects = store.subjects().unwrap();
    assert_eq!(subjects.list(&alice(), None, 10).await.unwrap().len(), 1);
    assert!(subjects.revoke(&alice(), &token.key()).await.unwrap());
}
