use std::{
    collections::HashMap,
    fmt::{self, Write},
    hash::{DefaultHasher, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, Error, ErrorKind, Record, Result, Revision, SessionStore, StoreKey, Subject,
    SubjectIndex, SubjectSession, Timestamp, Token,
};
use tokio::task::yield_now;

use crate::Random;

/// The calls of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Create,
    Load,
    Update,
    Renew,
    Touch,
    Delete,
    Sweep,
    TrySweep,
    Ping,
    List,
    Revoke,
    RevokeAll,
}

impl Call {
    const ALL: [Self; 12] = [
        Self::Create,
        Self::Load,
        Self::Update,
        Self::Renew,
        Self::Touch,
        Self::Delete,
        Self::Sweep,
        Self::TrySweep,
        Self::Ping,
        Self::List,
        Self::Revoke,
        Self::RevokeAll,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Load => "load",
            Self::Update => "update",
            Self::Renew => "renew",
            Self::Touch => "touch",
            Self::Delete => "delete",
            Self::Sweep => "sweep",
            Self::TrySweep => "try_sweep",
            Self::Ping => "ping",
            Self::List => "list",
            Self::Revoke => "revoke",
            Self::RevokeAll => "revoke_all",
        }
    }
}

/// What the calls of one case have in common: how many ran at the same time, which they were, and
/// whether they end.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// How many calls of each kind have begun and not ended.
    running: [AtomicUsize; Call::ALL.len()],
    in_flight: AtomicUsize,
    progress: AtomicUsize,
    failed: Mutex<Vec<(ErrorKind, Call)>>,
    /// Whether a call has failed so that a case may repeat it; without that no call looks at what
    /// follows, and none waits for another.
    has_retries: AtomicBool,
    retries: Mutex<Retries>,
    overlaps: AtomicUsize,
    calls: AtomicUsize,
    tracing: AtomicBool,
    trace: Mutex<Trace>,
}

/// The calls that a case makes again because the backend did not answer.
#[derive(Debug, Default)]
struct Retries {
    /// How often a call failed since it last succeeded, and how at last.
    failed: HashMap<(Call, StoreKey), (usize, ErrorKind)>,
    running: Vec<Retry>,
}

/// A call that failed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Retry {
    call: Call,
    attempt: usize,
    after: ErrorKind,
}

#[derive(Debug, Default)]
struct Trace {
    tokens: HashMap<Vec<u8>, usize>,
    lines: Vec<String>,
}

impl Meter {
    pub(crate) fn tracing(on: bool) -> Self {
        Self {
            tracing: AtomicBool::new(on),
            ..Self::default()
        }
    }

    /// Calls that began while another one was running.
    pub(crate) fn overlaps(&self) -> usize {
        self.overlaps.load(Ordering::SeqCst)
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Counts what has ended: calls, hooks, checks. While it grows, the case is not stuck.
    pub(crate) fn progress(&self) -> usize {
        self.progress.load(Ordering::SeqCst)
    }

    pub(crate) fn progressed(&self) {
        self.progress.fetch_add(1, Ordering::SeqCst);
    }

    /// The calls that have not ended, in words, and which of them the case itself has made before.
    pub(crate) fn unfinished(&self) -> String {
        let running: Vec<_> = Call::ALL
            .into_iter()
            .map(|call| (call, self.running[call as usize].load(Ordering::SeqCst)))
            .filter(|(_, running)| *running > 0)
            .map(|(call, running)| format!("{running} {}{}", call.name(), self.attempts(call)))
            .collect();
        match running.as_slice() {
            [] => "nothing has happened, and no call is running".into(),
            calls => format!("still running: {}", calls.join(", ")),
        }
    }

    /// Whose idea it was to make these calls that are running.
    fn attempts(&self, call: Call) -> String {
        let retries = &self.retries().running;
        let retries: Vec<_> = retries
            .iter()
            .filter(|retry| retry.call == call)
            .map(|retry| format!("attempt {} after {:?}", retry.attempt, retry.after))
            .collect();
        match retries.as_slice() {
            [] => " (no retry of the case)".into(),
            retries => format!(" (the case's own retry: {})", retries.join(", ")),
        }
    }

    fn retries(&self) -> MutexGuard<'_, Retries> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a call begins which failed before.
    fn repeated(&self, call: Call, token: &Token) -> Option<Retry> {
        if !self.has_retries.load(Ordering::SeqCst) {
            return None;
        }
        let mut retries = self.retries();
        let (failures, after) = *retries.failed.get(&(call, token.key()))?;
        let retry = Retry {
            call,
            attempt: failures + 1,
            after,
        };
        retries.running.push(retry);
        Some(retry)
    }

    /// Notes whether the backend answered a call.
    fn answered(&self, call: Call, token: &Token, error: Option<ErrorKind>) {
        let lost =
            error.filter(|kind| matches!(kind, ErrorKind::Unavailable | ErrorKind::Ambiguous));
        if let Some(kind) = lost {
            self.has_retries.store(true, Ordering::SeqCst);
            let mut retries = self.retries();
            let failed = retries.failed.entry((call, token.key()));
            let (failures, after) = failed.or_insert((0, kind));
            (*failures, *after) = (*failures + 1, kind);
        } else if self.has_retries.load(Ordering::SeqCst) {
            self.retries().failed.remove(&(call, token.key()));
        }
    }

    /// The last call that failed in this way.
    pub(crate) fn failed_with(&self, kind: &str) -> Option<Call> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = failed
            .iter()
            .find(|(known, _)| format!("{known:?}") == kind);
        known.map(|(_, call)| *call)
    }

    /// The calls so far, one a line, tokens numbered in the order of their first use.
    pub(crate) fn trace(&self) -> Vec<String> {
        self.locked().lines.clone()
    }

    fn locked(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, call: Call, tokens: &[&Token], record: Option<&Record>) -> InFlight<'_> {
        if self.tracing.load(Ordering::Relaxed) {
            let mut trace = self.locked();
            let mut line = call.name().to_owned();
            for token in tokens {
                let next = trace.tokens.len();
                let number = *trace.tokens.entry(token.expose().to_vec()).or_insert(next);
                write!(line, " token{number}").expect("a string takes every text");
            }
            if let Some(record) = record {
                let mut hash = DefaultHasher::new();
                hash.write(&record.data);
                let (len, hash) = (record.data.len(), hash.finish());
                write!(line, " {len} bytes {hash:016x}").expect("a string takes every text");
            }
            trace.lines.push(line);
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.in_flight.fetch_add(1, Ordering::SeqCst) > 0 {
            self.overlaps.fetch_add(1, Ordering::SeqCst);
        }
        self.running[call as usize].fetch_add(1, Ordering::SeqCst);
        let token = tokens.first().map(|token| Token::clone(token));
        InFlight {
            meter: self,
            call,
            retry: token.as_ref().and_then(|token| self.repeated(call, token)),
            token,
        }
    }
}

/// A call until its end, also where its future is dropped.
struct InFlight<'a> {
    meter: &'a Meter,
    call: Call,
    token: Option<Token>,
    retry: Option<Retry>,
}

impl InFlight<'_> {
    /// Passes an answer on.
    fn end<T>(self, answer: Result<T>) -> Result<T> {
        if let Err(error) = &answer {
            let failed = self.meter.failed.lock();
            let mut failed = failed.unwrap_or_else(PoisonError::into_inner);
            failed.retain(|(kind, _)| *kind != error.kind());
            failed.push((error.kind(), self.call));
        }
        if let Some(token) = &self.token {
            let error = answer.as_ref().err().map(Error::kind);
            self.meter.answered(self.call, token, error);
        }
        answer
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(retry) = self.retry {
            let mut retries = self.meter.retries();
            let position = retries.running.iter().position(|other| *other == retry);
            if let Some(position) = position {
                retries.running.swap_remove(position);
            }
        }
        self.meter.running[self.call as usize].fetch_sub(1, Ordering::SeqCst);
        self.meter.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.meter.progressed();
    }
}

/// Counts and records the calls to a store, outside of it.
pub(crate) struct Recorder {
    inner: Arc<dyn SessionStore>,
    meter: Arc<Meter>,
    /// Decides how often a call lets others go first.
    jitter: Option<Random>,
}

/// As the store inside and its index, so that the kit sees what they show of themselves.
impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)?;
        match self.inner.subjects() {
            Some(index) => {
                f.write_str(" ")?;
                index.fmt(f)
            }
            None => Ok(()),
        }
    }
}

impl Recorder {
    pub(crate) fn new(inner: Arc<dyn SessionStore>, meter: Arc<Meter>) -> Self {
        Self {
            inner,
            meter,
            jitter: None,
        }
    }

    /// Gives other tasks the chance to be in between two calls of this one: a store in memory would
    /// hardly ever be interrupted there, and one behind a network always is.
    pub(crate) fn with_jitter(mut self, random: Random) -> Self {
        self.jitter = Some(random);
        self
    }

    async fn give_way(&self) {
        if let Some(random) = &self.jitter {
            for _ in 0..=random.below(3) {
                yield_now().await;
            }
        }
    }

    fn index(&self) -> &dyn SubjectIndex {
        self.inner
            .subjects()
            .expect("the answer of `subjects` was checked when the recorder lent itself out")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SessionStore for Recorder {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        let call = self.meter.begin(Call::Create, &[&token], Some(record));
        self.give_way().await;
        call.end(self.inner.create(token, record).await)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let call = self.meter.begin(Call::Load, &[token], None);
        self.give_way().await;
        call.end(self.inner.load(token).await)
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let call = self.meter.begin(Call::Update, &[token], Some(record));
        self.give_way().await;
        call.end(self.inner.update(token, expected, record).await)
    }

    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let call = self.meter.begin(Call::Renew, &[token], Some(record));
        self.give_way().await;
        call.end(self.inner.renew(token, expected, record).await)
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let call = self.meter.begin(Call::Touch, &[token], None);
        self.give_way().await;
        call.end(self.inner.touch(token, expires_at).await)
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let call = self.meter.begin(Call::Delete, &[token], None);
        self.give_way().await;
        call.end(self.inner.delete(token, expected).await)
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        let call = self.meter.begin(Call::Sweep, &[], None);
        self.give_way().await;
        call.end(self.inner.sweep(limit).await)
    }

    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        let call = self.meter.begin(Call::TrySweep, &[], None);
        self.give_way().await;
        call.end(self.inner.try_sweep(limit).await)
    }

    async fn ping(&self) -> Result<()> {
        let call = self.meter.begin(Call::Ping, &[], None);
        self.give_way().await;
        call.end(self.inner.ping().await)
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        self.inner.subjects().map(|_| self as &dyn SubjectIndex)
    }

    fn has_made(&self, token: &Token) -> bool {
        self.inner.has_made(token)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SubjectIndex for Recorder {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        let call = self.meter.begin(Call::List, &[], None);
        self.give_way().await;
        call.end(self.index().list(subject, after, limit).await)
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let call = self.meter.begin(Call::Revoke, &[], None);
        self.give_way().await;
        call.end(self.index().revoke(subject, key).await)
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        let call = self.meter.begin(Call::RevokeAll, &[], None);
        self.give_way().await;
        call.end(self.index().revoke_all(subject, except).await)
    }
}
