use std::{
    collections::HashSet,
    fmt::{Debug, Display},
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use sessionkit::{
    Capabilities, Clock, CookieName, Entropy, ErrorKind, Keyring, Label, ManualClock, OsEntropy,
    Record, Result, Revision, SessionStore, Subject, SystemClock, TimeSource, Timestamp, Token,
};
use tokio::{runtime::Handle, task::JoinError};

use crate::{
    Failure, Fault, Golden, Harness, Outcome, Random, RawEntry,
    gate::Gate,
    recorder::{Meter, Recorder},
    verdict::{describe, describe_difference, describe_error},
};

/// The lifetime of a record that is not meant to expire during a case.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// How the reason begins when a case is skipped for want of a hook.
pub(crate) const NO_HOOK: &str = "the harness has no hook";

/// What a case works with: stores in namespaces of its own, tokens, records, time, and checks that
/// are counted.
pub struct Context {
    harness: Arc<dyn Harness>,
    capabilities: Capabilities,
    namespace: String,
    namespaces: Mutex<Vec<String>>,
    seed: u64,
    random: Random,
    tokens: Random,
    cookie: CookieName,
    meter: Arc<Meter>,
    checks: AtomicUsize,
    conflicts: AtomicUsize,
    /// What could not be told without a hook that the harness does not have.
    untold: Mutex<Option<String>>,
}

impl Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("namespace", &self.namespace)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// A context for one case, with a namespace that nobody else has.
    ///
    /// # Errors
    /// When the harness cannot open the namespace.
    pub(crate) async fn new(
        harness: Arc<dyn Harness>,
        case: &str,
        seed: u64,
        meter: Arc<Meter>,
    ) -> Outcome<Self> {
        let namespace = random_namespace().map_err(broken("name a namespace"))?;
        let probe = harness.open(&namespace).await.map_err(broken("open"))?;
        meter.progressed();
        let capabilities = probe.capabilities();
        Ok(Self {
            harness,
            capabilities,
            namespaces: Mutex::new(vec![namespace.clone()]),
            namespace,
            seed,
            random: Random::fork(seed, case),
            tokens: Random::fork(!seed, case),
            cookie: CookieName::new("__Host-id").map_err(broken("name a cookie"))?,
            meter,
            checks: AtomicUsize::new(0),
            conflicts: AtomicUsize::new(0),
            untold: Mutex::default(),
        })
    }

    /// What the store declares.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The namespace of the case.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The seed of the run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The random numbers of the case, which the seed determines.
    #[must_use]
    pub fn random(&self) -> &Random {
        &self.random
    }

    /// The harness.
    #[must_use]
    pub fn harness(&self) -> &Arc<dyn Harness> {
        &self.harness
    }

    /// A new handle to the namespace of the case.
    ///
    /// # Errors
    /// When the harness cannot open it.
    pub async fn open(&self) -> Outcome<Arc<dyn SessionStore>> {
        self.open_in(&self.namespace).await
    }

    /// A new handle to the namespace of the case, between whose calls other tasks get their turn.
    pub(crate) async fn open_with_jitter(&self) -> Outcome<Arc<dyn SessionStore>> {
        let store = self.harness.open(&self.namespace).await;
        self.meter.progressed();
        let store = Recorder::new(store.map_err(broken("open"))?, Arc::clone(&self.meter));
        Ok(Arc::new(store.with_jitter(Random::new(self.random.next()))))
    }

    /// Opens a handle to the namespace of the case when it is polled, as another process would in
    /// the midst of things.
    pub(crate) fn opening(&self) -> BoxFuture<'static, Result<Arc<dyn SessionStore>>> {
        let (harness, meter) = (Arc::clone(&self.harness), Arc::clone(&self.meter));
        let namespace = self.namespace.clone();
        Box::pin(async move {
            let store = harness.open(&namespace).await;
            meter.progressed();
            Ok(Arc::new(Recorder::new(store?, meter)) as Arc<dyn SessionStore>)
        })
    }

    /// A new handle to a namespace, which is destroyed when the case has ended.
    ///
    /// # Errors
    /// When the harness cannot open it.
    pub async fn open_in(&self, namespace: &str) -> Outcome<Arc<dyn SessionStore>> {
        self.try_open_in(namespace).await.map_err(broken("open"))
    }

    /// As [`open_in`](Self::open_in), for a namespace or a moment in which the store may refuse.
    ///
    /// # Errors
    /// Those of the harness.
    pub async fn try_open_in(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        {
            let mut namespaces = lock(&self.namespaces);
            if !namespaces.iter().any(|known| known == namespace) {
                namespaces.push(namespace.into());
            }
        }
        let store = self.harness.open(namespace).await;
        self.meter.progressed();
        let store = store?;
        Ok(Arc::new(Recorder::new(store, Arc::clone(&self.meter))))
    }

    /// The random token that the seed has next.
    pub fn token(&self) -> Token {
        Token::from_bytes(self.tokens.bytes(Token::LEN), &self.cookie)
    }

    /// The cookie that the tokens of the case belong to.
    #[must_use]
    pub fn cookie(&self) -> &CookieName {
        &self.cookie
    }

    /// The random revision that the seed has next.
    pub fn revision(&self) -> Revision {
        Revision::from_bits(self.tokens.next())
    }

    /// A record with these data and a new revision that lives for a day.
    pub fn record(&self, data: impl Into<Bytes>) -> Record {
        self.record_for(data, LONG)
    }

    /// A record with these data and a new revision that lives for `lifetime`.
    pub fn record_for(&self, data: impl Into<Bytes>, lifetime: Duration) -> Record {
        let now = self.now();
        Record {
            data: data.into(),
            revision: self.revision(),
            created_at: now,
            expires_at: now + lifetime,
            subject: None,
            label: Label::default(),
        }
    }

    /// The same record with other data and a new revision, as after a change.
    pub fn changed(&self, record: &Record, data: impl Into<Bytes>) -> Record {
        Record {
            data: data.into(),
            revision: self.revision(),
            ..record.clone()
        }
    }

    /// A subject that no other case uses.
    ///
    /// # Panics
    /// When `name` is longer than 200 bytes.
    pub fn subject(&self, name: &str) -> Subject {
        Subject::new(format!("{name}-{}", self.namespace))
            .expect("a short name and a namespace are within 255 bytes")
    }

    /// The instant by the clock that the store expires records by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.manual_clock()
            .map_or_else(|| SystemClock.now(), |clock| clock.now())
    }

    /// Whether time passes only when the case says so.
    #[must_use]
    pub fn has_manual_clock(&self) -> bool {
        self.manual_clock().is_some()
    }

    /// The clock of the harness, where the store goes by it.
    #[must_use]
    pub fn manual_clock(&self) -> Option<Arc<ManualClock>> {
        match self.capabilities.time_source {
            TimeSource::Application => self.harness.clock(),
            _ => None,
        }
    }

    /// Why a case is skipped that has to move the clock, where there is none to move.
    #[must_use]
    pub fn without_clock(&self) -> Failure {
        match self.capabilities.time_source {
            TimeSource::Application => Failure::skip(format!("{NO_HOOK} clock")),
            _ => Failure::skip("records expire by the clock of the server"),
        }
    }

    /// Lets time pass: moves the clock, or waits.
    pub async fn pass(&self, time: Duration) {
        match self.manual_clock() {
            Some(clock) => clock.advance(time),
            None => tokio::time::sleep(time).await,
        }
    }

    /// Lets time pass until the clock shows this instant.
    pub async fn pass_until(&self, instant: Timestamp) {
        let left = instant.saturating_duration_since(self.now());
        if !left.is_zero() {
            self.pass(left).await;
        }
    }

    /// By how much a record may outlive or fall short of its expiry, network and scheduling
    /// included where the kit has to wait for real.
    #[must_use]
    pub fn margin(&self) -> Duration {
        let granularity = self.capabilities.expiry_granularity;
        if self.has_manual_clock() {
            granularity
        } else {
            granularity + Duration::from_millis(150)
        }
    }

    /// A lifetime short enough to wait for and long enough to do something in.
    #[must_use]
    pub fn moment(&self) -> Duration {
        if self.has_manual_clock() {
            Duration::from_secs(60).max(20 * self.capabilities.expiry_granularity)
        } else {
            Duration::from_millis(600).max(3 * self.capabilities.expiry_granularity)
        }
    }

    /// Lets the time pass for which a handle may answer from its cache.
    pub async fn settle(&self) {
        if !self.capabilities.staleness.is_zero() {
            self.pass(self.capabilities.staleness).await;
        }
    }

    /// The raw contents of the namespace.
    ///
    /// # Errors
    /// A skip when the harness has no such hook.
    pub async fn raw_dump(&self) -> Outcome<Vec<RawEntry>> {
        let entries = self.harness.raw_dump(&self.namespace).await;
        self.meter.progressed();
        let mut entries = entries.map_err(missing_hook("raw_dump"))?;
        entries.sort();
        Ok(entries)
    }

    /// The names under which something is stored in the namespace, where the harness can look.
    pub(crate) async fn stored_names(&self) -> Option<HashSet<Vec<u8>>> {
        let entries = self.raw_dump().await.ok()?;
        Some(entries.into_iter().map(|entry| entry.name).collect())
    }

    /// Checks how many of `expired` records sweeps say that they have removed, where `before` was
    /// stored without them. Fewer are right as well when none is left: the backend may have removed
    /// the others before a sweep could count them. Where the harness cannot look, that stays open and
    /// the case, if nothing else is wrong, is skipped.
    pub(crate) async fn swept(
        &self,
        what: &str,
        (swept, expired): (u64, u64),
        before: Option<&HashSet<Vec<u8>>>,
    ) -> Outcome {
        let expected = format!("{what} {expired}");
        self.check(swept <= expired, &expected, swept)?;
        if swept == expired {
            return Ok(());
        }
        let (Some(before), Some(now)) = (before, self.stored_names().await) else {
            let missing = expired - swept;
            *lock(&self.untold) = Some(format!(
                "{NO_HOOK} raw_dump, which would show whether the backend had removed {missing} of \
                 {expired} expired records before a sweep that did not count them"
            ));
            return Ok(());
        };
        let left = now.difference(before).count();
        let actual = format!("{swept}, and {left} entries of the others are left");
        self.check(left == 0, expected, actual)
    }

    /// Why the case proves less than it could, if it does.
    pub(crate) fn untold(&self) -> Option<String> {
        lock(&self.untold).clone()
    }

    /// Replaces a raw value in the namespace.
    ///
    /// # Errors
    /// A skip when the harness has no such hook.
    pub async fn raw_write(&self, entry: &RawEntry) -> Outcome {
        let written = self.harness.raw_write(&self.namespace, entry).await;
        self.meter.progressed();
        written.map_err(missing_hook("raw_write"))
    }

    /// The things beside the namespace that are no sessions.
    ///
    /// # Errors
    /// A skip when the harness has no such hook.
    pub async fn foreign(&self) -> Outcome<Vec<RawEntry>> {
        let entries = self.harness.foreign(&self.namespace).await;
        let mut entries = entries.map_err(missing_hook("foreign"))?;
        entries.sort();
        Ok(entries)
    }

    /// Records of other versions, which the harness has put into the namespace.
    ///
    /// # Errors
    /// A skip when the harness has no such hook.
    pub async fn golden(&self) -> Outcome<Vec<Golden>> {
        let records = self.harness.golden(&self.namespace).await;
        records.map_err(missing_hook("golden"))
    }

    /// Breaks or repairs the backend.
    ///
    /// # Errors
    /// A skip when the harness cannot make this fault.
    pub async fn fault(&self, fault: Fault) -> Outcome {
        let hook = format!("fault({fault:?})");
        let done = self.harness.fault(fault).await;
        self.meter.progressed();
        done.map_err(|error| missing_hook(&hook)(error))
    }

    /// The keyring of the namespace.
    ///
    /// # Errors
    /// A skip when the harness has no such hook.
    pub fn keyring(&self) -> Outcome<Keyring> {
        self.harness
            .keyring(&self.namespace)
            .ok_or_else(|| Failure::skip(format!("{NO_HOOK} keyring")))
    }

    /// Runs the futures on threads of their own, which begin at the same moment, two and two.
    ///
    /// # Errors
    /// When one of them panics.
    pub async fn race<T, F>(&self, futures: impl IntoIterator<Item = F>) -> Outcome<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let futures: Vec<_> = futures.into_iter().collect();
        let gate = Arc::new(Gate::new(futures.len()));
        let tasks = futures.into_iter().map(|future| {
            let gate = Arc::clone(&gate);
            // Two tasks on the workers of a runtime that is otherwise idle would run one after the
            // other: the one that was woken waits in a slot that no other worker may take from.
            tokio::task::spawn_blocking(move || {
                gate.pass();
                Handle::current().block_on(future)
            })
        });
        returned(join_all(tasks.collect::<Vec<_>>()).await)
    }

    /// Runs the futures in tasks of the runtime, which take turns wherever they wait.
    ///
    /// # Errors
    /// When one of them panics.
    pub async fn together<T, F>(&self, futures: impl IntoIterator<Item = F>) -> Outcome<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
        returned(join_all(tasks).await)
    }

    /// Notes that calls really got in each other's way.
    pub fn contended(&self) {
        self.conflicts.fetch_add(1, Ordering::SeqCst);
    }

    /// How often calls ran at the same time or got in each other's way.
    #[must_use]
    pub fn contention(&self) -> usize {
        self.meter.overlaps() + self.conflicts.load(Ordering::SeqCst)
    }

    /// Checks a condition.
    ///
    /// # Errors
    /// A failure when it does not hold.
    pub fn check(&self, holds: bool, expected: impl Display, actual: impl Display) -> Outcome {
        self.checks.fetch_add(1, Ordering::SeqCst);
        self.meter.progressed();
        if holds {
            Ok(())
        } else {
            Err(Failure::new(expected, actual))
        }
    }

    /// Checks that two values are equal.
    ///
    /// # Errors
    /// A failure when they are not.
    pub fn equal<T: PartialEq + Debug>(&self, what: &str, actual: &T, expected: &T) -> Outcome {
        self.check(
            actual == expected,
            format_args!("{what} {expected:?}"),
            format_args!("{actual:?}"),
        )
    }

    /// Checks that a call succeeds.
    ///
    /// # Errors
    /// A failure when it does not.
    pub fn ok<T>(&self, call: &str, result: Result<T>) -> Outcome<T> {
        self.checks.fetch_add(1, Ordering::SeqCst);
        result
            .map_err(|error| Failure::new(format_args!("{call} succeeds"), describe_error(&error)))
    }

    /// Checks that a call fails in this way.
    ///
    /// # Errors
    /// A failure when it succeeds or fails in another way.
    pub fn err<T>(&self, call: &str, kind: ErrorKind, result: Result<T>) -> Outcome {
        self.err_in(call, &[kind], result)
    }

    /// Checks that a call fails in one of these ways.
    ///
    /// # Errors
    /// A failure when it succeeds or fails in another way.
    pub fn err_in<T>(&self, call: &str, kinds: &[ErrorKind], result: Result<T>) -> Outcome {
        let words: Vec<_> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
        let expected = format!("{call} is {}", words.join(" or "));
        match result {
            Ok(_) => self.check(false, expected, "Ok"),
            Err(error) => self.check(
                kinds.contains(&error.kind()),
                expected,
                describe_error(&error),
            ),
        }
    }

    /// Checks that a handle returns exactly this record.
    ///
    /// # Errors
    /// A failure when it does not.
    pub async fn holds(
        &self,
        when: &str,
        store: &dyn SessionStore,
        token: &Token,
        record: &Record,
    ) -> Outcome {
        let found = self.ok(&format!("load {when}"), store.load(token).await)?;
        let same = found.as_ref() == Some(record);
        let expected = format!("load {when} is {}", describe(Some(record)));
        self.check(same, expected, describe_difference(record, found.as_ref()))
    }

    /// Checks that a handle has no live record.
    ///
    /// # Errors
    /// A failure when it has one.
    pub async fn absent(&self, when: &str, store: &dyn SessionStore, token: &Token) -> Outcome {
        let found = self.ok(&format!("load {when}"), store.load(token).await)?;
        let expected = format!("load {when} is None");
        self.check(found.is_none(), expected, describe(found.as_ref()))
    }

    pub(crate) fn checks(&self) -> usize {
        self.checks.load(Ordering::SeqCst)
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Destroys the namespaces and looks whether anything is left.
    pub(crate) async fn clean_up(&self) -> Outcome {
        // A fault that is still on would stand in the way.
        let _ = self.harness.fault(Fault::None).await;
        let namespaces = lock(&self.namespaces).clone();
        for namespace in &namespaces {
            let destroyed = self.harness.destroy(namespace).await;
            self.meter.progressed();
            destroyed.map_err(broken("destroy a namespace"))?;
        }
        for namespace in &namespaces {
            match self.harness.raw_dump(namespace).await {
                Ok(left) if !left.is_empty() => {
                    return Err(Failure::error(format!(
                        "{} entries are left in a destroyed namespace, the first is {:?}",
                        left.len(),
                        left[0]
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn returned<T>(results: Vec<std::result::Result<T, JoinError>>) -> Outcome<Vec<T>> {
    let panicked = |panic| Failure::new("the call returns", format!("it ended: {panic}"));
    results
        .into_iter()
        .map(|result| result.map_err(panicked))
        .collect()
}

/// A namespace that nobody else has.
pub(crate) fn random_namespace() -> Result<String> {
    let mut bytes = [0; 6];
    OsEntropy.fill(&mut bytes)?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("kit_{digits}"))
}

fn broken(what: &str) -> impl Fn(sessionkit::Error) -> Failure + use<'_> {
    move |error| {
        Failure::error(format!(
            "the harness cannot {what}: {}",
            describe_error(&error)
        ))
    }
}

fn missing_hook(hook: &str) -> impl Fn(sessionkit::Error) -> Failure + use<'_> {
    move |error| match error.kind() {
        ErrorKind::Unsupported => Failure::skip(format!("{NO_HOOK} {hook}")),
        _ => Failure::error(format!(
            "the hook {hook} failed: {}",
            describe_error(&error)
        )),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
