//! Records which calls clients made to a store, when, and what came back.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, Clock, ErrorKind, Record, Result, Revision, SessionStore, StoreKey, SubjectIndex,
    Timestamp, Token,
};

/// One version of a record, small enough to search through thousands of them.
///
/// Two versions are equal when the records are, field by field (the contents by their hash), so that
/// a record mixed from two writes equals neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// The revision, by which calls name the version.
    pub revision: Revision,
    /// The expiry, which a touch changes.
    pub expires_at: Timestamp,
    pub(crate) contents: u64,
}

impl From<&Record> for Version {
    fn from(record: &Record) -> Self {
        let mut hasher = DefaultHasher::new();
        (&record.data, record.created_at).hash(&mut hasher);
        (&record.subject, &record.label).hash(&mut hasher);
        Self {
            revision: record.revision,
            expires_at: record.expires_at,
            contents: hasher.finish(),
        }
    }
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`SessionStore::create`].
    Create(Version),
    /// [`SessionStore::load`].
    Load,
    /// [`SessionStore::update`], and [`SessionStore::renew`], which a server-side store does not
    /// tell apart.
    Update {
        /// The revision to replace.
        expected: Revision,
        /// What replaces it.
        new: Version,
    },
    /// [`SessionStore::touch`], with the new expiry.
    Touch(Timestamp),
    /// [`SessionStore::delete`], with the revision that may be ended.
    Delete(Option<Revision>),
}

/// What a client learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The call took effect.
    Done,
    /// What a load returned.
    Found(Option<Version>),
    /// What a delete returned: whether it ended a live record.
    Ended(bool),
    /// The call changed nothing. `Exists`, `Conflict` and `Missing` also say what is stored; other
    /// kinds say nothing about it.
    Failed(ErrorKind),
    /// The answer was lost, has not come yet, or the future was dropped: the call takes effect at
    /// any time after its beginning, or never.
    Unknown,
}

/// One call of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who called: any number that tells the clients apart.
    pub client: usize,
    /// The key of the token.
    pub key: StoreKey,
    /// What was asked for.
    pub call: Call,
    /// What came back.
    pub answer: Answer,
    /// The logical time at which the call began.
    pub invoked: u64,
    /// The logical time at which its answer came; later than everything while it is
    /// [`Unknown`](Answer::Unknown).
    pub returned: u64,
    /// What the clock that records expire by showed when the call began.
    pub earliest: Timestamp,
    /// What it showed when the answer came.
    pub latest: Timestamp,
}

/// All calls to one store, from the moment at which it was empty.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub(crate) operations: Vec<Operation>,
    pub(crate) granularity: Duration,
}

impl History {
    /// Sets by how much a record may outlive or fall short of its expiry; zero by default.
    #[must_use]
    pub fn with_granularity(mut self, granularity: Duration) -> Self {
        self.granularity = granularity;
        self
    }

    /// The calls in the order in which they began.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// How many pairs of calls about one key ran at the same time and were not both loads. Without
    /// any, a test of concurrency has tested nothing.
    #[must_use]
    pub fn overlaps(&self) -> usize {
        let contend = |a: &Operation, b: &Operation| {
            a.key == b.key
                && b.invoked < a.returned
                && (a.call != Call::Load || b.call != Call::Load)
        };
        self.operations
            .iter()
            .enumerate()
            .map(|(i, a)| {
                self.operations[i + 1..]
                    .iter()
                    .filter(|b| contend(a, b))
                    .count()
            })
            .sum()
    }
}

impl FromIterator<Operation> for History {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        let mut operations: Vec<_> = operations.into_iter().collect();
        operations.sort_by_key(|operation| operation.invoked);
        Self {
            operations,
            granularity: Duration::ZERO,
        }
    }
}

/// Collects a [`History`] from any number of clients and tasks.
///
/// The clock is the one that records expire by. It may stand still or move forwards while calls are
/// recorded, not backwards.
#[derive(Clone, Debug)]
pub struct Recorder {
    clock: Arc<dyn Clock>,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    time: u64,
    operations: Vec<Operation>,
}

impl Recorder {
    /// A recorder of an empty history.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            log: Arc::default(),
        }
    }

    /// The store as client `number` sees it: every call goes to `store` and is recorded, also when
    /// its future is dropped.
    #[must_use]
    pub fn client(&self, number: usize, store: Arc<dyn SessionStore>) -> Recorded {
        Recorded {
            store,
            recorder: self.clone(),
            client: number,
        }
    }

    /// Records the beginning of a call, to be made right afterwards.
    #[must_use]
    pub fn invoke(&self, client: usize, key: StoreKey, call: Call) -> Pending<'_> {
        let mut log = self.log();
        log.time += 1;
        let operation = Operation {
            client,
            key,
            call,
            answer: Answer::Unknown,
            invoked: log.time,
            returned: u64::MAX,
            // Read under the lock, so that the two times never disagree about an order.
            earliest: self.clock.now(),
            latest: Timestamp::MAX,
        };
        log.operations.push(operation);
        Pending {
            recorder: self,
            index: log.operations.len() - 1,
        }
    }

    /// What was recorded so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.log().operations.iter().copied().collect()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call whose answer has not come. It stays [`Unknown`](Answer::Unknown) when this is dropped.
#[derive(Debug)]
pub struct Pending<'a> {
    recorder: &'a Recorder,
    index: usize,
}

impl Pending<'_> {
    /// Records the answer, which came just now.
    pub fn returned(self, answer: Answer) {
        if answer != Answer::Unknown {
            let mut log = self.recorder.log();
            log.time += 1;
            let (time, now) = (log.time, self.recorder.clock.now());
            let operation = &mut log.operations[self.index];
            operation.answer = answer;
            operation.returned = time;
            operation.latest = now;
        }
    }

    fn settle<T>(self, result: Result<T>, answer: impl FnOnce(&T) -> Answer) -> Result<T> {
        self.returned(match &result {
            Ok(value) => answer(value),
            Err(error) if error.kind() == ErrorKind::Ambiguous => Answer::Unknown,
            Err(error) => Answer::Failed(error.kind()),
        });
        result
    }
}

/// A store whose calls are recorded. See [`Recorder::client`].
#[derive(Clone, Debug)]
pub struct Recorded {
    store: Arc<dyn SessionStore>,
    recorder: Recorder,
    client: usize,
}

impl Recorded {
    fn invoke(&self, token: &Token, call: Call) -> Pending<'_> {
        self.recorder.invoke(self.client, token.key(), call)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SessionStore for Recorded {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        let pending = self.invoke(&token, Call::Create(record.into()));
        let result = self.store.create(token, record).await;
        pending.settle(result, |_| Answer::Done)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let pending = self.invoke(token, Call::Load);
        let result = self.store.load(token).await;
        pending.settle(result, |found| {
            Answer::Found(found.as_ref().map(Version::from))
        })
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let new = record.into();
        let pending = self.invoke(token, Call::Update { expected, new });
        let result = self.store.update(token, expected, record).await;
        pending.settle(result, |_| Answer::Done)
    }

    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let new = record.into();
        let pending = self.invoke(token, Call::Update { expected, new });
        let result = self.store.renew(token, expected, record).await;
        pending.settle(result, |_| Answer::Done)
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let pending = self.invoke(token, Call::Touch(expires_at));
        let result = self.store.touch(token, expires_at).await;
        pending.settle(result, |_| Answer::Done)
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let pending = self.invoke(token, Call::Delete(expected));
        let result = self.store.delete(token, expected).await;
        pending.settle(result, |ended| Answer::Ended(*ended))
    }

    /// Not recorded: a sweep changes nothing that a client can see.
    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.store.sweep(limit).await
    }

    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        self.store.try_sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.store.ping().await
    }

    /// None: what an index revokes would be missing in the history.
    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        None
    }

    fn has_made(&self, token: &Token) -> bool {
        self.store.has_made(token)
    }
}
