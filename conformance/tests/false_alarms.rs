//! Right stores that are unlike the reference, each in one way that the contract leaves open: the
//! whole suite has to pass on every one of them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, Clock, ErrorKind, ManualClock, Record, Result, Revision, SessionStore, StoreKey,
    Subject, SubjectIndex, SubjectSession, Timestamp, Token,
};
use sessionkit_conformance::{
    Case, Fault, Golden, Harness, MakeHarness, Options, RawEntry, Verdict, broken::BrokenHarness,
    registry, run_case,
};

/// In which way a store is unlike the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Each handle answers from a cache for as long as it declares.
    Cache,
    /// A load removes what has expired.
    RemovesOnLoad,
    /// A create removes what has expired.
    RemovesOnCreate,
    /// What has expired is gone before any call, a sweep included.
    RemovesByItself,
    /// The same, and the harness has no look at the backend.
    RemovesUnseen,
    /// Every call takes 40 ms.
    Latency,
    /// Expiries count in whole seconds: records outlive them.
    SecondsLate,
    /// Expiries count in whole seconds: records fall short of them.
    SecondsEarly,
}

const STALENESS: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// The reference, and the clock of the kit in front of its own.
struct Right {
    way: Way,
    reference: BrokenHarness,
    clock: Arc<ManualClock>,
    inner_clock: Arc<ManualClock>,
}

impl Right {
    fn new(way: Way) -> Result<Self> {
        let reference = BrokenHarness::new("")?;
        let inner_clock = reference.clock().expect("the reference has a clock");
        Ok(Self {
            way,
            clock: Arc::new(ManualClock::new(inner_clock.now())),
            inner_clock,
            reference,
        })
    }
}

#[async_trait]
impl Harness for Right {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        Ok(Arc::new(Handle {
            way: self.way,
            store: self.reference.open(namespace).await?,
            clock: Arc::clone(&self.clock),
            inner_clock: Arc::clone(&self.inner_clock),
            cache: Mutex::default(),
            writes: AtomicU64::new(0),
        }))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        self.reference.destroy(namespace).await
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(Arc::clone(&self.clock))
    }

    fn deadline(&self) -> Duration {
        self.reference.deadline()
    }

    async fn raw_dump(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        if self.way == Way::RemovesUnseen {
            return Err(ErrorKind::Unsupported.into());
        }
        self.reference.raw_dump(namespace).await
    }

    async fn raw_write(&self, namespace: &str, entry: &RawEntry) -> Result<()> {
        self.reference.raw_write(namespace, entry).await
    }

    async fn foreign(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        self.reference.foreign(namespace).await
    }

    async fn golden(&self, namespace: &str) -> Result<Vec<Golden>> {
        self.reference.golden(namespace).await
    }

    async fn fault(&self, fault: Fault) -> Result<()> {
        self.reference.fault(fault).await
    }
}

/// What a handle has loaded, and when, by the whole token.
type Cache = HashMap<Vec<u8>, (Timestamp, Record)>;

#[derive(Debug)]
struct Handle {
    way: Way,
    store: Arc<dyn SessionStore>,
    clock: Arc<ManualClock>,
    inner_clock: Arc<ManualClock>,
    cache: Mutex<Cache>,
    /// Counts the beginnings and the ends of writes: what was loaded beside one is not kept.
    writes: AtomicU64,
}

impl Handle {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes before every call, one of which may remove what has expired.
    async fn begin(&self, removes: Option<Way>) {
        let now = self.clock.now();
        let part = Duration::from_millis(now.as_millis().unsigned_abs() % 1000);
        self.inner_clock.set(match self.way {
            Way::SecondsLate => now - part,
            Way::SecondsEarly if !part.is_zero() => now - part + SECOND,
            _ => now,
        });
        if self.way == Way::Latency {
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        let always = [Way::RemovesByItself, Way::RemovesUnseen].contains(&self.way);
        if always || removes == Some(self.way) {
            // A backend that cannot do it now does it another time.
            let _ = self.store.sweep(usize::MAX).await;
        }
    }

    /// Begins a write: the cache is empty before it and after it, also when it is dropped.
    async fn begin_write(&self, removes: Option<Way>) -> Forget<'_> {
        let forget = Forget(self);
        forget.now();
        self.begin(removes).await;
        forget
    }

    fn index(&self) -> &dyn SubjectIndex {
        self.store.subjects().expect("the reference has an index")
    }
}

struct Forget<'a>(&'a Handle);

impl Forget<'_> {
    fn now(&self) {
        let mut cache = self.0.cache();
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        cache.clear();
    }
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.now();
    }
}

#[async_trait]
impl SessionStore for Handle {
    fn capabilities(&self) -> Capabilities {
        let capabilities = self.store.capabilities();
        match self.way {
            Way::Cache => capabilities.staleness(STALENESS),
            Way::SecondsLate | Way::SecondsEarly => capabilities.expiry_granularity(SECOND),
            _ => capabilities,
        }
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        let _forget = self.begin_write(Some(Way::RemovesOnCreate)).await;
        self.store.create(token, record).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        if self.way != Way::Cache {
            self.begin(Some(Way::RemovesOnLoad)).await;
            return self.store.load(token).await;
        }
        let now = self.clock.now();
        let cached = self.cache().get(token.expose()).cloned();
        if let Some((since, record)) = cached
            && (since..since + STALENESS).contains(&now)
            && record.is_live(now)
        {
            return Ok(Some(record));
        }
        self.begin(None).await;
        let writes = self.writes.load(Ordering::SeqCst);
        let found = self.store.load(token).await?;
        let mut cache = self.cache();
        if let Some(record) = &found
            && self.writes.load(Ordering::SeqCst) == writes
        {
            cache.insert(token.expose().to_vec(), (now, record.clone()));
        }
        Ok(found)
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let _forget = self.begin_write(None).await;
        self.store.update(token, expected, record).await
    }

    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let _forget = self.begin_write(None).await;
        self.store.renew(token, expected, record).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let _forget = self.begin_write(None).await;
        self.store.touch(token, expires_at).await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let _forget = self.begin_write(None).await;
        self.store.delete(token, expected).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.begin(None).await;
        self.store.sweep(limit).await
    }

    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        self.begin(None).await;
        self.store.try_sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.begin(None).await;
        self.store.ping().await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        Some(self)
    }

    fn has_made(&self, token: &Token) -> bool {
        self.store.has_made(token)
    }
}

#[async_trait]
impl SubjectIndex for Handle {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        self.begin(None).await;
        self.index().list(subject, after, limit).await
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let _forget = self.begin_write(None).await;
        self.index().revoke(subject, key).await
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        let _forget = self.begin_write(None).await;
        self.index().revoke_all(subject, except).await
    }
}

/// Runs every case, as many at a time as there are in a suite of a slow store: most of them wait.
fn passes(way: Way) {
    let make: MakeHarness = Arc::new(move || {
        Box::pin(async move { Ok(Arc::new(Right::new(way)?) as Arc<dyn Harness>) })
    });
    let jobs: Mutex<VecDeque<&'static Case>> = Mutex::new(registry().collect());
    let (passed, alarms) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..if way == Way::Latency { 32 } else { 2 } {
            scope.spawn(|| {
                loop {
                    let next = jobs.lock().expect("no job panics").pop_front();
                    let Some(case) = next else { break };
                    let verdict = run_case(case, &make, &Options::default()).verdict;
                    match &verdict {
                        Verdict::Pass => drop(passed.fetch_add(1, Ordering::SeqCst)),
                        Verdict::Skip(_) => {}
                        verdict => alarms.lock().expect("no job panics").push(format!(
                            "{} {}: {}",
                            case.id(),
                            verdict.word(),
                            verdict.reason()
                        )),
                    }
                }
            });
        }
    });
    let alarms = alarms.into_inner().expect("no job panics");
    assert!(
        alarms.is_empty(),
        "{} false alarms:\n{}",
        alarms.len(),
        alarms.join("\n")
    );
    let passed = passed.into_inner();
    assert!(passed > 90, "only {passed} cases have run");
}

#[test]
fn a_cache_that_declares_how_stale_it_is() {
    passes(Way::Cache);
}

#[test]
fn a_backend_whose_loads_remove_what_has_expired() {
    passes(Way::RemovesOnLoad);
}

#[test]
fn a_backend_whose_creates_remove_what_has_expired() {
    passes(Way::RemovesOnCreate);
}

#[test]
fn a_backend_that_removes_what_has_expired_before_a_sweep_counts_it() {
    passes(Way::RemovesByItself);
}

#[test]
fn a_backend_that_removes_what_has_expired_where_nobody_can_look() {
    passes(Way::RemovesUnseen);
}

#[test]
fn a_backend_that_is_40_ms_away() {
    passes(Way::Latency);
}

#[test]
fn expiries_in_whole_seconds_that_records_outlive() {
    passes(Way::SecondsLate);
}

#[test]
fn expiries_in_whole_seconds_that_records_fall_short_of() {
    passes(Way::SecondsEarly);
}
