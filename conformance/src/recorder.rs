use std::{
    collections::HashMap,
    fmt::{self, Write},
    hash::{DefaultHasher, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, Record, Result, Revision, SessionStore, StoreKey, Subject, SubjectIndex,
    SubjectSession, Timestamp, Token,
};

/// What the calls of one case have in common: how many ran at the same time, and which they were.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    in_flight: AtomicUsize,
    overlaps: AtomicUsize,
    calls: AtomicUsize,
    tracing: AtomicBool,
    trace: Mutex<Trace>,
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

    /// The calls so far, one a line, tokens numbered in the order of their first use.
    pub(crate) fn trace(&self) -> Vec<String> {
        self.locked().lines.clone()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Trace> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, call: &str, tokens: &[&Token], record: Option<&Record>) -> InFlight<'_> {
        if self.tracing.load(Ordering::Relaxed) {
            let mut trace = self.locked();
            let mut line = call.to_owned();
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
        InFlight(self)
    }
}

struct InFlight<'a>(&'a Meter);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts and records the calls to a store, outside of it.
pub(crate) struct Recorder {
    inner: Arc<dyn SessionStore>,
    meter: Arc<Meter>,
}

/// As the store inside, so that the kit sees what it shows of itself.
impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Recorder {
    pub(crate) fn new(inner: Arc<dyn SessionStore>, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
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
        let _call = self.meter.begin("create", &[&token], Some(record));
        self.inner.create(token, record).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let _call = self.meter.begin("load", &[token], None);
        self.inner.load(token).await
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let _call = self.meter.begin("update", &[token], Some(record));
        self.inner.update(token, expected, record).await
    }

    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let _call = self.meter.begin("renew", &[token], Some(record));
        self.inner.renew(token, expected, record).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let _call = self.meter.begin("touch", &[token], None);
        self.inner.touch(token, expires_at).await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let _call = self.meter.begin("delete", &[token], None);
        self.inner.delete(token, expected).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        let _call = self.meter.begin("sweep", &[], None);
        self.inner.sweep(limit).await
    }

    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        let _call = self.meter.begin("try_sweep", &[], None);
        self.inner.try_sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        let _call = self.meter.begin("ping", &[], None);
        self.inner.ping().await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        self.inner.subjects().map(|_| self as &dyn SubjectIndex)
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
        let _call = self.meter.begin("list", &[], None);
        self.index().list(subject, after, limit).await
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let _call = self.meter.begin("revoke", &[], None);
        self.index().revoke(subject, key).await
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        let _call = self.meter.begin("revoke_all", &[], None);
        self.index().revoke_all(subject, except).await
    }
}
