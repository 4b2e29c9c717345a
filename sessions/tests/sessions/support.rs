use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::{
    HeaderMap,
    header::{COOKIE, SET_COOKIE},
};
use sessionkit::{
    Capabilities, Entropy, Error, ErrorKind, Key, Keyring, ManualClock, MemoryStore, Record,
    Result, Revision, Session, SessionConfig, SessionManager, SessionManagerBuilder, SessionStore,
    Sessions, SubjectIndex, Timestamp, Token,
};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn keyring() -> Keyring {
    Keyring::new([key()]).expect("one key makes a keyring")
}

pub(crate) fn key() -> Key {
    Key::generate().expect("the system has random bytes")
}

/// A store to watch, a clock to move, and a manager over both.
pub(crate) struct World {
    pub(crate) store: Arc<SpyStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) keyring: Keyring,
    pub(crate) manager: SessionManager,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::configured(|config| config)
    }

    /// One session of the default name, configured by `f`.
    pub(crate) fn configured(f: impl FnOnce(SessionConfig) -> SessionConfig) -> Self {
        Self::built(|builder, store| {
            builder.session("session", f(SessionConfig::new(Arc::clone(store))))
        })
    }

    pub(crate) fn built(
        f: impl FnOnce(SessionManagerBuilder, &Arc<SpyStore>) -> SessionManagerBuilder,
    ) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let store = Arc::new(SpyStore::new(&clock));
        let keyring = keyring();
        let builder = SessionManager::builder(keyring.clone()).clock(clock.clone());
        let manager = f(builder, &store).build().expect("the configuration works");
        Self {
            store,
            clock,
            keyring,
            manager,
        }
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser {
            manager: self.manager.clone(),
            jar: BTreeMap::new(),
            response: HeaderMap::new(),
        }
    }

    /// A browser with a session that has the value `user`.
    pub(crate) async fn signed_in(&self) -> Browser {
        let mut browser = self.browser();
        let sign_in = |session: &Session| session.insert("user", "alice");
        browser.visit(sign_in).await.expect("a string is a value");
        self.store.forget_calls();
        browser
    }
}

/// Keeps cookies as a browser does, and sends them with every request.
#[derive(Clone)]
pub(crate) struct Browser {
    pub(crate) manager: SessionManager,
    pub(crate) jar: BTreeMap<String, String>,
    /// The head of the last response.
    pub(crate) response: HeaderMap,
}

impl Browser {
    pub(crate) fn request(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !self.jar.is_empty() {
            let pairs: Vec<_> = self
                .jar
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let cookie = pairs.join("; ").parse().expect("cookies are visible ASCII");
            headers.insert(COOKIE, cookie);
        }
        headers
    }

    pub(crate) fn begin(&self) -> Sessions {
        self.manager.begin(&self.request())
    }

    /// One request whose handler uses the default session.
    pub(crate) async fn visit<R>(&mut self, handler: impl FnOnce(&Session) -> R) -> R {
        let sessions = self.begin();
        let session = sessions.session().await.expect("the session loads");
        let answer = handler(&session);
        self.finish(&sessions).await.expect("the session is saved");
        answer
    }

    pub(crate) async fn finish(
        &mut self,
        sessions: &Sessions,
    ) -> Result<(), sessionkit::SaveErrors> {
        let mut headers = HeaderMap::new();
        let finished = sessions.finish(&mut headers).await;
        self.receive(headers);
        finished
    }

    pub(crate) fn receive(&mut self, headers: HeaderMap) {
        for cookie in set_cookies(&headers) {
            let (pair, attributes) = cookie.split_once("; ").expect("cookies have attributes");
            let (name, value) = pair.split_once('=').expect("cookies have a value");
            if attributes.contains("Max-Age=0") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        self.response = headers;
    }

    pub(crate) fn set_cookies(&self) -> Vec<String> {
        set_cookies(&self.response)
    }

    pub(crate) async fn get<T: serde::de::DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        self.visit(|session| session.get(key))
            .await
            .expect("the value has this type")
    }
}

pub(crate) fn set_cookies(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(SET_COOKIE).iter();
    values
        .map(|value| {
            value
                .to_str()
                .expect("cookies are visible ASCII")
                .to_owned()
        })
        .collect()
}

/// What happens to one call of a [`SpyStore`].
pub(crate) enum Fault {
    /// It does nothing and fails.
    Fail(ErrorKind),
    /// It takes effect, and the answer is lost.
    LoseAnswer,
    /// The request is lost, and nobody knows.
    LoseRequest,
    /// Something else happens first.
    After(Interruption),
}

pub(crate) type Interruption = futures_util::future::BoxFuture<'static, ()>;
type Tamper = Box<dyn Fn(&mut Record) + Send>;

/// A memory store that counts its calls and fails on demand.
pub(crate) struct SpyStore {
    pub(crate) inner: MemoryStore,
    calls: Mutex<Vec<&'static str>>,
    faults: Mutex<VecDeque<(&'static str, Fault)>>,
    tamper: Mutex<Option<Tamper>>,
    written: Mutex<Vec<Record>>,
    created: Mutex<Vec<Token>>,
    max_data: AtomicUsize,
}

impl std::fmt::Debug for SpyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SpyStore")
    }
}

impl SpyStore {
    fn new(clock: &Arc<ManualClock>) -> Self {
        Self {
            inner: MemoryStore::new().with_clock(clock.clone()),
            calls: Mutex::default(),
            faults: Mutex::default(),
            tamper: Mutex::default(),
            written: Mutex::default(),
            created: Mutex::default(),
            max_data: AtomicUsize::new(MemoryStore::MAX_DATA),
        }
    }

    /// The calls since the last time, in order.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    pub(crate) fn forget_calls(&self) {
        self.calls();
    }

    /// The next call of this operation has a fault.
    pub(crate) fn next(&self, operation: &'static str, fault: Fault) {
        self.faults
            .lock()
            .expect("no test panics with the lock")
            .push_back((operation, fault));
    }

    /// Changes every record that is loaded from now on.
    pub(crate) fn tamper(&self, f: impl Fn(&mut Record) + Send + 'static) {
        *self.tamper.lock().unwrap() = Some(Box::new(f));
    }

    /// Every record that was written, in order.
    pub(crate) fn written(&self) -> Vec<Record> {
        self.written
            .lock()
            .expect("no test panics with the lock")
            .clone()
    }

    pub(crate) fn last_written(&self) -> Record {
        self.written().pop().expect("something was written")
    }

    /// Managers that are built from now on find a store for this many bytes.
    pub(crate) fn limit(&self, max_data: usize) {
        self.max_data.store(max_data, Ordering::SeqCst);
    }

    /// Every token that was given to a creation, in order.
    pub(crate) fn created(&self) -> Vec<Token> {
        self.created.lock().unwrap().clone()
    }

    /// The last created session is overwritten by somebody who knows nothing of secrets.
    pub(crate) async fn overwrite(&self, expected: Revision, record: &Record) {
        let token = self.created().pop().expect("something was created");
        self.inner.update(&token, expected, record).await.unwrap();
    }

    /// The record of the session that was created last.
    pub(crate) async fn stored(&self) -> Option<Record> {
        let token = self.created().pop().expect("something was created");
        self.inner.load(&token).await.unwrap()
    }

    fn fault(&self, operation: &'static str) -> Option<Fault> {
        self.calls
            .lock()
            .expect("no test panics with the lock")
            .push(operation);
        let mut faults = self.faults.lock().unwrap();
        let position = faults.iter().position(|(faulty, _)| *faulty == operation)?;
        faults.remove(position).map(|(_, fault)| fault)
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        record: Option<&Record>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let fault = self.fault(operation);
        if let Some(record) = record {
            self.written
                .lock()
                .expect("no test panics with the lock")
                .push(record.clone());
        }
        match fault {
            Some(Fault::Fail(kind)) => return Err(Error::from(kind)),
            Some(Fault::LoseRequest) => return Err(ErrorKind::Ambiguous.into()),
            Some(Fault::LoseAnswer) => {
                call.await?;
                return Err(ErrorKind::Ambiguous.into());
            }
            Some(Fault::After(interruption)) => interruption.await,
            None => {}
        }
        call.await
    }
}

#[async_trait]
impl SessionStore for SpyStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        capabilities.max_data = self.max_data.load(Ordering::SeqCst);
        capabilities
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        self.created.lock().unwrap().push(token.clone());
        self.call("create", Some(record), self.inner.create(token, record))
            .await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let mut record = self.call("load", None, self.inner.load(token)).await?;
        if let (Some(record), Some(tamper)) = (&mut record, &*self.tamper.lock().unwrap()) {
            tamper(record);
        }
        Ok(record)
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let update = self.inner.update(token, expected, record);
        self.call("update", Some(record), update).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        self.call("touch", None, self.inner.touch(token, expires_at))
            .await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        self.call("delete", None, self.inner.delete(token, expected))
            .await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.call("sweep", None, self.inner.sweep(limit)).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        self.inner.subjects()
    }
}

/// Counts instead of rolling dice, or fails.
#[derive(Debug, Default)]
pub(crate) struct TestEntropy {
    next: AtomicU64,
    pub(crate) broken: std::sync::atomic::AtomicBool,
}

impl Entropy for TestEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(ErrorKind::Unavailable.into());
        }
        for byte in bytes {
            *byte = self.next.fetch_add(1, Ordering::SeqCst) as u8;
        }
        Ok(())
    }
}
