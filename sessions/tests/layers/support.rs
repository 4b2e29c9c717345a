//! A store that waits for its turn, and operations as values.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use sessionkit::{
    Capabilities, CookieName, ErrorKind, Label, ManualClock, MemoryStore, OsEntropy, Record,
    Result, Revision, SessionStore, StoreKey, Subject, SubjectIndex, SubjectSession, Timestamp,
    Token,
};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(START))
}

pub(crate) fn memory(clock: &Arc<ManualClock>) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new().with_clock(clock.clone()))
}

pub(crate) fn token() -> Token {
    Token::random(&OsEntropy, &CookieName::new("id").unwrap()).unwrap()
}

/// The token after a renewal: another secret, the same key.
pub(crate) fn renewed(token: &Token) -> Token {
    let mut bytes = token.expose().to_vec();
    bytes[Token::ID_LEN..].fill(7);
    Token::from_bytes(bytes, token.cookie())
}

pub(crate) fn alice() -> Subject {
    Subject::new("alice").unwrap()
}

pub(crate) fn record(data: &str) -> Record {
    Record {
        data: data.to_owned().into(),
        revision: Revision::random(&OsEntropy).unwrap(),
        created_at: START,
        expires_at: START + HOUR,
        subject: Some(alice()),
        label: Label::new("Firefox").unwrap(),
    }
}

/// The result of a future that never waits.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a memory store never waits")
}

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Pending once: the point at which another task may have its turn.
#[derive(Default)]
pub(crate) struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        match std::mem::replace(&mut self.0, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// A store whose calls wait for a turn before they take effect, and another one before they answer
/// if `answers_wait`.
#[derive(Clone, Debug)]
pub(crate) struct Stepped {
    store: Arc<MemoryStore>,
    answers_wait: bool,
}

impl Stepped {
    pub(crate) fn new(store: Arc<MemoryStore>) -> Self {
        Self {
            store,
            answers_wait: false,
        }
    }

    pub(crate) fn with_waiting_answers(mut self) -> Self {
        self.answers_wait = true;
        self
    }

    async fn step<T>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        Turn::default().await;
        let answer = call.await;
        if self.answers_wait {
            Turn::default().await;
        }
        answer
    }
}

#[async_trait]
impl SessionStore for Stepped {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        self.step(self.store.create(token, record)).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        self.step(self.store.load(token)).await
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        self.step(self.store.update(token, expected, record)).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        self.step(self.store.touch(token, expires_at)).await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        self.step(self.store.delete(token, expected)).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.step(self.store.sweep(limit)).await
    }

    async fn ping(&self) -> Result<()> {
        self.step(self.store.ping()).await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        Some(self)
    }
}

#[async_trait]
impl SubjectIndex for Stepped {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        let index = self.store.subjects().unwrap();
        self.step(index.list(subject, after, limit)).await
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let index = self.store.subjects().unwrap();
        self.step(index.revoke(subject, key)).await
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        let index = self.store.subjects().unwrap();
        self.step(index.revoke_all(subject, except)).await
    }
}

/// One call of a store.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create(Token, Record),
    Load(Token),
    Update(Token, Revision, Record),
    Touch(Token, Timestamp),
    Delete(Token, Option<Revision>),
    Revoke(Token),
    RevokeAll(Option<Token>),
    List,
}

/// What came of it. How many sessions a revocation of all has ended is left out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Stored(Token),
    Loaded(Option<Record>),
    Ended(bool),
    Listed(Vec<SubjectSession>),
    EndedAll,
    Failed(ErrorKind),
}

impl Op {
    pub(crate) async fn run(self, store: &dyn SessionStore) -> Outcome {
        let subjects = store.subjects().unwrap();
        let alice = alice();
        let outcome = match self {
            Self::Create(token, record) => store.create(token, &record).await.map(Outcome::Stored),
            Self::Load(token) => store.load(&token).await.map(Outcome::Loaded),
            Self::Update(token, expected, record) => {
                let stored = store.update(&token, expected, &record).await;
                stored.map(Outcome::Stored)
            }
            Self::Touch(token, at) => store.touch(&token, at).await.map(Outcome::Stored),
            Self::Delete(token, expected) => {
                store.delete(&token, expected).await.map(Outcome::Ended)
            }
            Self::Revoke(token) => {
                let ended = subjects.revoke(&alice, &token.key()).await;
                ended.map(Outcome::Ended)
            }
            Self::RevokeAll(except) => {
                let except = except.map(|token| token.key());
                let ended = subjects.revoke_all(&alice, except.as_ref()).await;
                ended.map(|_| Outcome::EndedAll)
            }
            Self::List => {
                let listed = subjects.list(&alice, None, 10).await;
                listed.map(Outcome::Listed)
            }
        };
        outcome.unwrap_or_else(|error| Outcome::Failed(error.kind()))
    }
}

impl Outcome {
    /// All of it as text, what `Debug` keeps to itself included.
    pub(crate) fn fingerprint(&self) -> String {
        match self {
            Self::Stored(token) => format!("stored {}", token.key().to_hex()),
            Self::Loaded(Some(record)) => format!(
                "loaded {:?} {:?} {record:?} {:?} {:?}",
                record.data,
                record.revision,
                record.label.as_str(),
                record.subject.as_ref().map(Subject::as_str)
            ),
            Self::Listed(sessions) => sessions
                .iter()
                .map(|session| {
                    let (key, label) = (session.key.to_hex(), session.label.as_str());
                    format!("listed {key} {label:?} {:?} ", session.expires_at)
                })
                .collect(),
            other => format!("{other:?}"),
        }
    }
}
