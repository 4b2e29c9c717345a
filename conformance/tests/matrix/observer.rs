//! A harness that notes in which state each call finds what it is about.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, Clock, CookieName, Entropy, Keyring, ManualClock, Record, Result, Revision,
    SessionConfig, SessionManagerBuilder, SessionStore, StoreKey, Subject, SubjectIndex,
    SubjectSession, Timestamp, Token,
};
use sessionkit_conformance::{
    Case, Fault, Golden, Harness, MakeHarness, Options, RawEntry, Verdict,
    broken::BrokenHarness,
    matrix::{Method, State},
    run_case,
};

/// The calls of a case, each by its method and one of the states that it met.
pub(crate) type Calls = BTreeSet<(Method, State)>;

/// The calls that ask no backend.
const ANSWERED_BY_THE_HANDLE: [Method; 5] = [
    Method::Capabilities,
    Method::Subjects,
    Method::HasMade,
    Method::Debug,
    Method::Drop,
];

/// Runs a case against the correct store of this name, server-side or client-side.
pub(crate) fn observe(case: &'static Case, store: &'static str, seed: u64) -> (Verdict, Calls) {
    let notes = Arc::new(Notes::default());
    let noted = Arc::clone(&notes);
    let make: MakeHarness = Arc::new(move || {
        let notes = Arc::clone(&notes);
        Box::pin(async move {
            let observer = Observer {
                inner: Arc::new(BrokenHarness::new(store)?),
                client: !store.is_empty(),
                notes,
            };
            Ok(Arc::new(observer) as Arc<dyn Harness>)
        })
    });
    let options = Options {
        seed,
        ..Options::default()
    };
    let report = run_case(case, &make, &options);
    let calls = lock(&noted.calls).clone();
    (report.verdict, calls)
}

#[derive(Default)]
struct Notes {
    calls: Mutex<Calls>,
    fault: Mutex<Option<Fault>>,
    handles: Mutex<Vec<String>>,
    /// Every record that was ever stored under a key of a namespace, with its last subject and the
    /// handle that wrote it.
    stored: Mutex<HashMap<(String, String), Stored>>,
    /// What a client-side store has sealed into its tokens.
    sealed: Mutex<HashMap<Vec<u8>, Sealed>>,
}

#[derive(Clone, Default)]
struct Stored {
    subject: Option<Subject>,
    writer: usize,
}

#[derive(Clone)]
struct Sealed {
    namespace: String,
    expires_at: Timestamp,
    writer: usize,
}

impl Notes {
    /// The states that come from the backend and not from a record. A single lost answer is used up
    /// by the first call that asks the backend.
    fn fault(&self, method: Method) -> Option<State> {
        let mut fault = lock(&self.fault);
        match *fault {
            Some(Fault::Full) => Some(State::Full),
            Some(Fault::Down) => Some(State::Down),
            Some(Fault::Hang) => Some(State::Hanging),
            Some(Fault::LoseReply) if !ANSWERED_BY_THE_HANDLE.contains(&method) => {
                *fault = None;
                Some(State::LostAnswer)
            }
            _ => None,
        }
    }

    fn note(&self, method: Method, states: impl IntoIterator<Item = State>) {
        let states = states.into_iter().chain(self.fault(method));
        lock(&self.calls).extend(states.map(|state| (method, state)));
    }
}

struct Observer {
    inner: Arc<BrokenHarness>,
    client: bool,
    notes: Arc<Notes>,
}

impl Observer {
    fn store(&self, namespace: &str, number: usize, store: Arc<dyn SessionStore>) -> Observed {
        Observed {
            inner: store,
            backend: Arc::clone(&self.inner),
            client: self.client,
            namespace: namespace.into(),
            number,
            notes: Arc::clone(&self.notes),
        }
    }
}

#[async_trait]
impl Harness for Observer {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let number = {
            let mut handles = lock(&self.notes.handles);
            handles.push(namespace.into());
            handles.len()
        };
        // What a handle of the namespace would see, whether it can be opened or not.
        let states = {
            let nothing = Arc::new(sessionkit::MemoryStore::new());
            self.store(namespace, number, nothing).states_of_all(None)
        };
        self.notes.note(Method::Open, states);
        let store = self.inner.open(namespace).await?;
        Ok(Arc::new(self.store(namespace, number, store)))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        self.inner.destroy(namespace).await
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        self.inner.clock()
    }

    fn deadline(&self) -> Duration {
        self.inner.deadline()
    }

    fn make_token(&self, entropy: &dyn Entropy, cookie: &CookieName) -> Result<Token> {
        self.inner.make_token(entropy, cookie)
    }

    fn manager(&self, config: SessionConfig, keyring: Keyring) -> SessionManagerBuilder {
        self.inner.manager(config, keyring)
    }

    fn keyring(&self, namespace: &str) -> Option<Keyring> {
        self.inner.keyring(namespace)
    }

    async fn raw_dump(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        self.inner.raw_dump(namespace).await
    }

    async fn raw_write(&self, namespace: &str, entry: &RawEntry) -> Result<()> {
        self.inner.raw_write(namespace, entry).await
    }

    async fn foreign(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        self.inner.foreign(namespace).await
    }

    async fn golden(&self, namespace: &str) -> Result<Vec<Golden>> {
        self.inner.golden(namespace).await
    }

    async fn fault(&self, fault: Fault) -> Result<()> {
        self.inner.fault(fault).await?;
        *lock(&self.notes.fault) = Some(fault);
        Ok(())
    }
}

struct Observed {
    inner: Arc<dyn SessionStore>,
    backend: Arc<BrokenHarness>,
    client: bool,
    namespace: String,
    number: usize,
    notes: Arc<Notes>,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.notes.note(Method::Debug, self.states_of_all(None));
        self.inner.fmt(f)
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.notes.note(Method::Drop, self.states_of_all(None));
    }
}

impl Observed {
    fn now(&self) -> Timestamp {
        let clock = self.backend.clock();
        clock.expect("the correct stores have a manual clock").now()
    }

    fn of(&self, record: Option<&Record>) -> State {
        match record {
            None => State::Unreadable,
            Some(record) if record.is_live(self.now()) => State::Live,
            Some(_) => State::Expired,
        }
    }

    fn others(&self) -> Vec<String> {
        let mut others = lock(&self.notes.handles).clone();
        others.sort();
        others.dedup();
        others.retain(|other| *other != self.namespace);
        others
    }

    /// The states of one key. A client-side store knows it by the token alone.
    fn states_of(&self, key: &StoreKey) -> BTreeSet<State> {
        let place = (self.namespace.clone(), key.to_hex());
        let found = self.backend.look(&self.namespace, Some(key));
        let stored = lock(&self.notes.stored).get(&place).cloned();
        let mut states = BTreeSet::new();
        states.insert(match (found.first(), &stored) {
            (Some((_, record)), _) => self.of(record.as_ref()),
            (None, Some(_)) => State::Deleted,
            (None, None) => State::Absent,
        });
        if stored.is_some_and(|stored| stored.writer != self.number) {
            states.insert(State::SecondHandle);
        }
        let elsewhere = |other: &String| !self.backend.look(other, Some(key)).is_empty();
        if self.others().iter().any(elsewhere) {
            states.insert(State::OtherNamespace);
        }
        states
    }

    fn states_of_token(&self, token: &Token) -> BTreeSet<State> {
        if !self.client {
            return self.states_of(&token.key());
        }
        let Some(sealed) = lock(&self.notes.sealed).get(token.expose()).cloned() else {
            return BTreeSet::from([State::Absent]);
        };
        let mut states = BTreeSet::new();
        if sealed.namespace != self.namespace {
            states.extend([State::Absent, State::OtherNamespace]);
        } else if sealed.expires_at > self.now() {
            states.insert(State::Live);
        } else {
            states.insert(State::Expired);
        }
        if sealed.writer != self.number && sealed.namespace == self.namespace {
            states.insert(State::SecondHandle);
        }
        states
    }

    /// The states of all records of the namespace, or of the sessions of a subject and of what may
    /// be one of them.
    fn states_of_all(&self, subject: Option<&Subject>) -> BTreeSet<State> {
        let theirs = |record: Option<&Record>| match (subject, record) {
            (Some(subject), Some(record)) => record.subject.as_ref() == Some(subject),
            _ => true,
        };
        let found = self.backend.look(&self.namespace, None);
        let mut states = BTreeSet::new();
        let stored = lock(&self.notes.stored).clone();
        for (key, record) in &found {
            if theirs(record.as_ref()) {
                states.insert(self.of(record.as_ref()));
                let stored = stored.get(&(self.namespace.clone(), key.clone()));
                if stored.is_some_and(|stored| stored.writer != self.number) {
                    states.insert(State::SecondHandle);
                }
            }
        }
        let removed = stored.iter().any(|((namespace, key), stored)| {
            *namespace == self.namespace
                && (subject.is_none() || stored.subject.as_ref() == subject)
                && !found.iter().any(|(other, _)| other == key)
        });
        if removed {
            states.insert(State::Deleted);
        }
        if states.is_empty() {
            states.insert(State::Absent);
        }
        let elsewhere = |other: &String| {
            let found = self.backend.look(other, None);
            found.iter().any(|(_, record)| theirs(record.as_ref()))
        };
        if self.others().iter().any(elsewhere) {
            states.insert(State::OtherNamespace);
        }
        states
    }

    /// What stands under the key now, for the time when it does not any more.
    fn remember(&self, token: &Token, expires_at: Timestamp) {
        if self.client {
            let sealed = Sealed {
                namespace: self.namespace.clone(),
                expires_at,
                writer: self.number,
            };
            lock(&self.notes.sealed).insert(token.expose().to_vec(), sealed);
            return;
        }
        let key = token.key();
        if let Some((hex, record)) = self.backend.look(&self.namespace, Some(&key)).pop() {
            let stored = Stored {
                subject: record.and_then(|record| record.subject),
                writer: self.number,
            };
            lock(&self.notes.stored).insert((self.namespace.clone(), hex), stored);
        }
    }

    fn written(&self, answer: &Result<Token>, expires_at: Timestamp) {
        if let Ok(token) = answer {
            self.remember(token, expires_at);
        }
    }

    fn index(&self) -> &dyn SubjectIndex {
        self.inner
            .subjects()
            .expect("the answer of `subjects` was looked at before")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SessionStore for Observed {
    fn capabilities(&self) -> Capabilities {
        self.notes
            .note(Method::Capabilities, self.states_of_all(None));
        self.inner.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        self.notes
            .note(Method::Create, self.states_of_token(&token));
        let answer = self.inner.create(token, record).await;
        self.written(&answer, record.expires_at);
        answer
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        self.notes.note(Method::Load, self.states_of_token(token));
        self.inner.load(token).await
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        self.notes.note(Method::Update, self.states_of_token(token));
        let answer = self.inner.update(token, expected, record).await;
        self.written(&answer, record.expires_at);
        answer
    }

    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        self.notes.note(Method::Renew, self.states_of_token(token));
        let answer = self.inner.renew(token, expected, record).await;
        self.written(&answer, record.expires_at);
        answer
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        self.notes.note(Method::Touch, self.states_of_token(token));
        let answer = self.inner.touch(token, expires_at).await;
        self.written(&answer, expires_at);
        answer
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let method = match expected {
            None => Method::Delete,
            Some(_) => Method::DeleteAt,
        };
        self.notes.note(method, self.states_of_token(token));
        self.inner.delete(token, expected).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.notes.note(Method::Sweep, self.states_of_all(None));
        self.inner.sweep(limit).await
    }

    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        self.notes.note(Method::TrySweep, self.states_of_all(None));
        self.inner.try_sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.notes.note(Method::Ping, self.states_of_all(None));
        self.inner.ping().await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        self.notes.note(Method::Subjects, self.states_of_all(None));
        self.inner.subjects().map(|_| self as &dyn SubjectIndex)
    }

    fn has_made(&self, token: &Token) -> bool {
        self.notes
            .note(Method::HasMade, self.states_of_token(token));
        self.inner.has_made(token)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SubjectIndex for Observed {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        self.notes
            .note(Method::List, self.states_of_all(Some(subject)));
        self.index().list(subject, after, limit).await
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        self.notes.note(Method::Revoke, self.states_of(key));
        self.index().revoke(subject, key).await
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        self.notes
            .note(Method::RevokeAll, self.states_of_all(Some(subject)));
        self.index().revoke_all(subject, except).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
