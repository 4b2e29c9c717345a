use std::{
    error, fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header::SET_COOKIE};
use tokio::sync::OnceCell;

use crate::{
    CacheControl, Clock, CookieOptions, Custody, Entropy, Error, ErrorKind, Keyring, Origin,
    OsEntropy, Persistence, Result, Revision, Session, SessionStore, StoreKey, Subject,
    SubjectIndex, SubjectSession, SystemClock, Timestamp, Token,
    commit::{CookieAction, Draft, Policy, Reading},
    cookie::Incoming,
    payload::Protection,
    queues::Queues,
    response::ResponseState,
};

/// What the signature of a server-side token is for.
const TOKEN_PURPOSE: &str = "session token 2";

/// How many genuine tokens of one request are looked up.
const MAX_CANDIDATES: usize = 3;

/// For how long after its request a response may remove the cookie of a session that has ended. One
/// that comes later could remove what the browser has got meanwhile under the same name.
const PROMPT: Duration = Duration::from_secs(5);

/// What browsers and servers are sure to take of headers, by default for cookies alone.
const COOKIE_BUDGET: usize = 8192;

const MAX_KEYS: usize = 256;

const MAX_FLASHES: usize = 100;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One named session of an application: where it is kept, its cookie, and how long it lives.
///
/// ```
/// use sessionkit::{MemoryStore, SessionConfig};
/// use std::time::Duration;
///
/// let config = SessionConfig::new(MemoryStore::new())
///     .idle_timeout(Duration::from_secs(30 * 60))
///     .absolute_lifetime(Duration::from_secs(12 * 3600));
/// ```
#[derive(Clone, Debug)]
pub struct SessionConfig {
    store: Arc<dyn SessionStore>,
    cookie: CookieOptions,
    idle_timeout: Duration,
    absolute_lifetime: Duration,
    persistence: Persistence,
    touch_after_percent: u8,
    rotate_every: Option<Duration>,
    end_on_reuse: bool,
    on_unreadable: OnUnreadable,
    sealed: bool,
    max_data: usize,
    max_keys: usize,
    max_flashes: usize,
}

/// What becomes of a request whose session is stored and cannot be read: damaged, written by a newer
/// version, or under another setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUnreadable {
    /// It is an error, [`ErrorKind::Corrupt`], until the record expires or the application calls
    /// [`Sessions::restart`].
    #[default]
    Fail,
    /// It gets a new session, [`Origin::Restarted`], and the error is logged. The old record is left
    /// to expire.
    BeginAnew,
}

impl SessionConfig {
    /// A session kept in `store`, with the default cookie. Stores are shared as
    /// `Arc<dyn SessionStore>`, which is a store too.
    pub fn new(store: impl SessionStore) -> Self {
        Self {
            store: Arc::new(store),
            cookie: CookieOptions::default(),
            idle_timeout: DAY,
            absolute_lifetime: 30 * DAY,
            persistence: Persistence::Browser,
            touch_after_percent: 10,
            rotate_every: None,
            end_on_reuse: false,
            on_unreadable: OnUnreadable::Fail,
            sealed: true,
            max_data: usize::MAX,
            max_keys: MAX_KEYS,
            max_flashes: MAX_FLASHES,
        }
    }

    /// Sets the cookie; [`CookieOptions::default`] by default.
    #[must_use]
    pub fn cookie(mut self, cookie: CookieOptions) -> Self {
        self.cookie = cookie;
        self
    }

    /// Sets how long a session lives without being used when it ends with the browser; one day by
    /// default, at least one second.
    #[must_use]
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.idle_timeout = idle_timeout;
        self
    }

    /// Sets how long a session lives at most, however much it is used; 30 days by default.
    #[must_use]
    pub fn absolute_lifetime(mut self, absolute_lifetime: Duration) -> Self {
        self.absolute_lifetime = absolute_lifetime;
        self
    }

    /// Sets the persistence that a new session begins with; [`Persistence::Browser`] by default.
    #[must_use]
    pub fn persistence(mut self, persistence: Persistence) -> Self {
        self.persistence = persistence;
        self
    }

    /// Sets which part of its idle time, in percent, has to pass before the use of a session moves
    /// its expiry: 10 by default, 0 to 90. A session may end this much earlier than its idle time
    /// after it was used last; in return most requests write nothing.
    #[must_use]
    pub fn touch_after_percent(mut self, percent: u8) -> Self {
        self.touch_after_percent = percent;
        self
    }

    /// Replaces the secret of a session that is used each time it has reached this age; off by
    /// default. A stolen cookie is then worth something until its owner comes again.
    ///
    /// Requests that are under way lose nothing: the old secret goes on working until 30 seconds
    /// after the new one was presented for the first time, and its holder gets the new cookie
    /// again. Used later than that it is no session, and the reuse is logged, since the owner or a
    /// thief has an old copy; see [`end_on_reuse`](Self::end_on_reuse).
    #[must_use]
    pub fn rotate_every(mut self, age: Duration) -> Self {
        self.rotate_every = Some(age);
        self
    }

    /// Ends a session when a secret that [`rotate_every`](Self::rotate_every) has replaced is used
    /// after its grace: off by default, since a restored browser profile does that too.
    #[must_use]
    pub fn end_on_reuse(mut self) -> Self {
        self.end_on_reuse = true;
        self
    }

    /// Sets what becomes of a request whose session cannot be read; [`OnUnreadable::Fail`] by
    /// default.
    #[must_use]
    pub fn on_unreadable(mut self, on_unreadable: OnUnreadable) -> Self {
        self.on_unreadable = on_unreadable;
        self
    }

    /// Keeps the data readable in the store, for whoever reads the database or a copy of it. By
    /// default they are sealed under a key that only the client's token yields.
    ///
    /// Records written in the one way cannot be read in the other: change this together with the
    /// namespace of the store.
    #[must_use]
    pub fn insecure_readable_at_rest(mut self) -> Self {
        self.sealed = false;
        self
    }

    /// Sets the largest data of a session, in bytes as they are stored; by default, and at most, what
    /// the store takes. A larger session is [`ErrorKind::TooLarge`], naming the keys that take the
    /// most room, and is not stored.
    #[must_use]
    pub fn max_data(mut self, bytes: usize) -> Self {
        self.max_data = bytes;
        self
    }

    /// Sets how many keys a session may have; 256 by default, so that a key made of user input does
    /// not fill the store. Another one is [`ErrorKind::TooLarge`], naming it. Requests at the same
    /// time do not see each other's keys, and may pass the number together.
    #[must_use]
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets how many flash messages may wait to be read, in all queues together; 100 by default, so
    /// that a page that forgets to show them does not fill the store. Another one is
    /// [`ErrorKind::TooLarge`], naming its queue. Requests at the same time do not see each other's
    /// messages, and may pass the number together.
    #[must_use]
    pub fn max_flashes(mut self, messages: usize) -> Self {
        self.max_flashes = messages;
        self
    }

    fn build(self, name: &str) -> Result<Setup> {
        self.cookie.validate()?;
        if self.touch_after_percent > 90 {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the part of the idle time is 0 to 90 percent",
            ));
        }
        let capabilities = self.store.capabilities();
        let policy = Policy {
            idle_timeout: self.idle_timeout,
            absolute_lifetime: self.absolute_lifetime,
            persistence: self.persistence,
            touch_after_percent: self.touch_after_percent,
            rotate_every: self.rotate_every,
            protection: match (capabilities.custody, self.sealed) {
                (Custody::Client, _) => Protection::Client,
                (Custody::Server, true) => Protection::Sealed,
                (Custody::Server, false) => Protection::Readable,
            },
            max_data: capabilities.max_data.min(self.max_data),
            max_keys: self.max_keys,
            max_flashes: self.max_flashes,
        };
        policy.check(Persistence::Browser)?;
        policy.check(policy.persistence)?;
        let longest = match self.persistence {
            Persistence::For(lifetime) => self.idle_timeout.max(lifetime),
            Persistence::Browser => self.idle_timeout,
        };
        if capabilities.max_lifetime.is_some_and(|max| longest > max) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the sessions live longer without being used than their store lets them",
            ));
        }
        if self
            .rotate_every
            .is_some_and(|age| age < Duration::from_secs(60))
        {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a secret is replaced after a minute at the earliest",
            ));
        }
        if self.rotate_every.is_some() && capabilities.custody == Custody::Client {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a session that the client keeps has no secret to replace",
            ));
        }
        Ok(Setup {
            name: name.to_owned(),
            store: self.store,
            cookie: self.cookie,
            custody: capabilities.custody,
            policy,
            end_on_reuse: self.end_on_reuse,
            on_unreadable: self.on_unreadable,
            queues: Queues::default(),
        })
    }
}

/// A checked [`SessionConfig`].
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) cookie: CookieOptions,
    pub(crate) custody: Custody,
    pub(crate) policy: Policy,
    end_on_reuse: bool,
    on_unreadable: OnUnreadable,
    pub(crate) queues: Queues,
}

impl Setup {
    pub(crate) fn subjects(&self) -> Result<&dyn SubjectIndex> {
        self.store.subjects().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the store of session {:?} keeps no index by subject",
                    self.name
                ),
            )
        })
    }
}

/// The sessions of an application: their stores, cookies and keys. Built once, shared by all
/// requests; clones are cheap.
///
/// With a framework that has no adapter here, call [`begin_for`](Self::begin_for) with the method
/// and the headers of a request, and with the headers of the response [`Sessions::finish`], or
/// [`Sessions::finish_failed`] where its status is 5xx:
///
/// ```
/// # futures_util::FutureExt::now_or_never(async {
/// use sessionkit::{Key, Keyring, MemoryStore, SessionManager};
///
/// let keyring = Keyring::new([Key::generate()?])?;
/// let manager = SessionManager::new(MemoryStore::new(), keyring)?;
///
/// let request = http::HeaderMap::new();
/// let mut response = http::HeaderMap::new();
/// let sessions = manager.begin_for(&http::Method::GET, &request);
/// sessions.session().await?.insert("user", "alice")?;
/// sessions.finish(&mut response).await?;
/// assert!(response["set-cookie"].to_str()?.starts_with("__Host-id="));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap().unwrap();
/// ```
#[derive(Clone)]
pub struct SessionManager(Arc<Manager>);

type FailureHook = dyn Fn(&Failure<'_>) -> Option<Response<Bytes>> + Send + Sync;

pub(crate) struct Manager {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    keyring: Keyring,
    cache_control: CacheControl,
    on_failure: Option<Box<FailureHook>>,
    pub(crate) cookie_budget: usize,
    /// The first one is the default.
    pub(crate) setups: Vec<Arc<Setup>>,
}

impl SessionManager {
    /// A manager of one session, called `session`, with the default configuration.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], as [`SessionManagerBuilder::build`].
    pub fn new(store: impl SessionStore, keyring: Keyring) -> Result<Self> {
        Self::builder(keyring)
            .session("session", SessionConfig::new(store))
            .build()
    }

    /// Begins the configuration of a manager.
    pub fn builder(keyring: Keyring) -> SessionManagerBuilder {
        SessionManagerBuilder {
            keyring,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            cache_control: CacheControl::default(),
            on_failure: None,
            cookie_budget: COOKIE_BUDGET,
            configs: Vec::new(),
        }
    }

    /// The sessions of the request with these headers. No store is called yet.
    ///
    /// [`begin_for`](Self::begin_for) also looks at the method.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap) -> Sessions {
        self.begin_with(headers, false)
    }

    /// The sessions of the request with this method and these headers. No store is called yet.
    ///
    /// A `HEAD` request, whose response shows nothing, consumes no flash messages.
    #[must_use]
    pub fn begin_for(&self, method: &Method, headers: &HeaderMap) -> Sessions {
        self.begin_with(headers, method == Method::HEAD)
    }

    fn begin_with(&self, headers: &HeaderMap, is_head: bool) -> Sessions {
        let incoming = Arc::new(Incoming::new(headers));
        Sessions(Arc::new(Registry {
            manager: Arc::clone(&self.0),
            began_at: self.0.clock.now(),
            cells: self.0.setups.iter().map(|_| OnceCell::new()).collect(),
            used: AtomicBool::new(false),
            response: Arc::new(ResponseState::new(&incoming, is_head)),
            incoming,
        }))
    }

    /// The live sessions of a subject, over all stores that keep an index, in ascending order of
    /// their keys.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when no store keeps one; and as the stores say.
    pub async fn subject_sessions(&self, subject: &Subject) -> Result<Vec<SubjectSession>> {
        const PAGE: usize = 256;
        let mut sessions = Vec::new();
        for index in self.0.indexes()? {
            let mut after = None;
            loop {
                let page = index.list(subject, after.as_ref(), PAGE).await?;
                after = page.last().map(|session| session.key);
                let last = page.len() < PAGE;
                sessions.extend(page);
                if last {
                    break;
                }
            }
        }
        // Two sessions of a manager may be kept in one store, behind two handles.
        sessions.sort_by_key(|session| session.key);
        sessions.dedup_by_key(|session| session.key);
        Ok(sessions)
    }

    /// Ends one session if it belongs to the subject, and returns whether it was live.
    ///
    /// # Errors
    /// As [`subject_sessions`](Self::subject_sessions).
    pub async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let mut revoked = false;
        for index in self.0.indexes()? {
            revoked |= index.revoke(subject, key).await?;
        }
        Ok(revoked)
    }

    /// Ends every session of a subject, and returns how many were live.
    /// [`Session::revoke_others`] ends all but the present one.
    ///
    /// # Errors
    /// As [`subject_sessions`](Self::subject_sessions).
    pub async fn revoke_all(&self, subject: &Subject) -> Result<u64> {
        let mut revoked = 0;
        for index in self.0.indexes()? {
            revoked += index.revoke_all(subject, None).await?;
        }
        Ok(revoked)
    }
}

impl fmt::Debug for SessionManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.setups.iter().map(|setup| &setup.name);
        f.debug_struct("SessionManager")
            .field("sessions", &names.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Manager {
    /// The index of each store that has one.
    fn indexes(&self) -> Result<Vec<&dyn SubjectIndex>> {
        let mut stores: Vec<&Arc<dyn SessionStore>> = Vec::new();
        for setup in &self.setups {
            if !stores.iter().any(|store| Arc::ptr_eq(store, &setup.store)) {
                stores.push(&setup.store);
            }
        }
        let indexes: Vec<_> = stores.iter().filter_map(|store| store.subjects()).collect();
        if indexes.is_empty() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "no session store keeps an index by subject",
            ));
        }
        Ok(indexes)
    }

    /// The response to a failure: the application's, or an empty one that says that the service is
    /// not available.
    pub(crate) fn failure_response(&self, failure: &Failure<'_>) -> Option<Response<Bytes>> {
        if let Some(hook) = &self.on_failure {
            return hook(failure);
        }
        let status = match failure {
            Failure::Gone(_) => StatusCode::CONFLICT,
            Failure::Load(_) | Failure::Save(_) => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Handler(error) => error.status(),
        };
        failure.log(status);
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        Some(response)
    }

    /// What the cookie of a session carries.
    pub(crate) fn cookie_value(&self, setup: &Setup, token: &Token) -> Vec<u8> {
        match setup.custody {
            Custody::Server => {
                self.keyring
                    .sign(TOKEN_PURPOSE, setup.cookie.name().as_str(), token.expose())
            }
            Custody::Client => token.expose().to_vec(),
        }
    }
}

/// Configures a [`SessionManager`].
#[must_use]
pub struct SessionManagerBuilder {
    keyring: Keyring,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cache_control: CacheControl,
    on_failure: Option<Box<FailureHook>>,
    cookie_budget: usize,
    configs: Vec<(String, SessionConfig)>,
}

impl SessionManagerBuilder {
    /// Adds a session. The first one is the default, which [`Sessions::session`] gives.
    pub fn session(mut self, name: &str, config: SessionConfig) -> Self {
        self.configs.push((name.to_owned(), config));
        self
    }

    /// Sets the clock by which sessions expire; [`SystemClock`] by default. The stores are to be
    /// opened with the same one.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the source of tokens, revisions and nonces; [`OsEntropy`] by default, and always outside
    /// tests.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Sets what responses that depend on a session tell caches; [`CacheControl::NoStore`] by
    /// default.
    pub fn cache_control(mut self, cache_control: CacheControl) -> Self {
        self.cache_control = cache_control;
        self
    }

    /// Sets how many bytes of a request's `Cookie` header the cookies of all sessions may take
    /// together, chunks included; 8192 by default, which is what many servers and proxies take of all
    /// headers. It counts what a response sets and what the browser has already.
    ///
    /// A session whose cookie would pass it is [`ErrorKind::TooLarge`] when it is saved, and nothing
    /// of it is stored. Of several sessions that grow in one request those that the manager was given
    /// first are saved.
    pub fn cookie_budget(mut self, bytes: usize) -> Self {
        self.cookie_budget = bytes;
        self
    }

    /// Sets the response to a session that cannot be loaded or saved.
    ///
    /// By default the body is empty, the error is logged, and the status is 503, 409 for
    /// [`Failure::Gone`], and that of [`Error::status`] for [`Failure::Handler`]. `None` keeps the
    /// handler's response; in answer to [`Failure::Load`], which comes before there is one, it gives
    /// 503 with an empty body.
    pub fn on_failure<F>(mut self, hook: F) -> Self
    where
        F: Fn(&Failure<'_>) -> Option<Response<Bytes>> + Send + Sync + 'static,
    {
        self.on_failure = Some(Box::new(hook));
        self
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is no session, two have one name or one cookie name,
    /// a browser would refuse a cookie, or a lifetime is out of its range.
    pub fn build(self) -> Result<SessionManager> {
        let setups = self
            .configs
            .into_iter()
            .map(|(name, config)| config.build(&name).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        if setups.is_empty() {
            return Err(Error::new(ErrorKind::InvalidConfig, "there is no session"));
        }
        for (position, setup) in setups.iter().enumerate() {
            let clashes = |other: &Arc<Setup>| {
                other.name == setup.name || other.cookie.overlaps(&setup.cookie)
            };
            if setups[..position].iter().any(clashes) {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!(
                        "session {:?} needs a name and a cookie of its own",
                        setup.name
                    ),
                ));
            }
        }
        Ok(SessionManager(Arc::new(Manager {
            clock: self.clock,
            entropy: self.entropy,
            keyring: self.keyring,
            cache_control: self.cache_control,
            on_failure: self.on_failure,
            cookie_budget: self.cookie_budget,
            setups,
        })))
    }
}

impl fmt::Debug for SessionManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionManagerBuilder")
            .field("configs", &self.configs)
            .finish_non_exhaustive()
    }
}

/// What has gone wrong with a session, for the hook that chooses the response.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure<'a> {
    /// A session cannot be loaded.
    Load(&'a Error),
    /// Sessions cannot be saved.
    Save(&'a SaveErrors),
    /// What the request changed was dropped, because another request has ended the session or
    /// renewed it with a change of privilege meanwhile; every error is of the kind
    /// [`Gone`](ErrorKind::Gone). The handler was not told, unless it has saved the session itself.
    Gone(&'a SaveErrors),
    /// The handler has answered with this error, by `?` for example. What it changed before is
    /// stored unless the error's [`status`](Error::status) is a 5xx, as with every response.
    Handler(&'a Error),
}

impl Failure<'_> {
    /// Says why a request gets the default response: without a hook of the application nobody else
    /// does.
    fn log(&self, status: StatusCode) {
        let cause: &(dyn error::Error + 'static) = match self {
            Self::Load(error) | Self::Handler(error) => *error,
            Self::Save(errors) | Self::Gone(errors) => *errors,
        };
        let status = status.as_u16();
        match self {
            Self::Gone(_) => tracing::info!(status, error = cause, "changes were dropped"),
            Self::Load(_) => tracing::error!(status, error = cause, "no session could be loaded"),
            Self::Save(_) => tracing::error!(status, error = cause, "a session was not saved"),
            Self::Handler(_) => tracing::error!(status, error = cause, "a handler failed"),
        }
    }
}

/// The sessions of one request, each given once, loaded when first asked for, and saved together.
///
/// Clones are the same sessions.
#[derive(Clone)]
pub struct Sessions(Arc<Registry>);

struct Registry {
    manager: Arc<Manager>,
    incoming: Arc<Incoming>,
    began_at: Timestamp,
    cells: Vec<OnceCell<Session>>,
    used: AtomicBool,
    response: Arc<ResponseState>,
}

impl Sessions {
    /// The default session.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    /// As [`get`](Self::get).
    pub async fn session(&self) -> Result<Session> {
        self.open(0).await
    }

    /// The session of this name, which the manager was built with.
    ///
    /// A cookie that is forged, expired or unknown gives a new session; it is never adopted. Nothing
    /// is stored before something is written to the session.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is no session of this name;
    /// [`ErrorKind::Corrupt`] when the stored one cannot be read, see [`restart`](Self::restart);
    /// and as the store says. The browser keeps its cookie, and a later call tries again.
    ///
    /// # Cancel safety
    /// A later call begins anew.
    pub async fn get(&self, name: &str) -> Result<Session> {
        self.open(self.position(name)?).await
    }

    /// A new session in place of one that cannot be read: once it is written to, the browser gets
    /// its cookie, and the old record is left to expire, unless [`Session::destroy`] removes it. A
    /// session that can be read, or was given already, is ended, and what is written to it begins
    /// another.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is no session of this name, and as the store says.
    pub async fn restart(&self, name: &str) -> Result<Session> {
        let position = self.position(name)?;
        let setup = &self.0.manager.setups[position];
        self.0.used.store(true, Ordering::Relaxed);
        let mut unreadable = false;
        let session = self.0.cells[position]
            .get_or_try_init(async || {
                let (candidates, origin) = self.candidates(setup);
                match self.load(setup, &candidates, origin).await {
                    Err(NotLoaded {
                        unreadable: Some(tokens),
                        ..
                    }) => {
                        unreadable = true;
                        Ok(self.restarted(setup, tokens))
                    }
                    loaded => loaded.map_err(|failed| failed.error),
                }
            })
            .await?;
        if !unreadable {
            session.destroy();
        }
        Ok(session.clone())
    }

    /// Saves every session that has changed, at the same time, and writes the cookies and cache
    /// headers of all into the head of the response. What a streamed body changes later is saved only
    /// by [`Session::save`].
    ///
    /// # Errors
    /// What could not be saved, each with its session's name, of the kind [`ErrorKind::Gone`] where
    /// another request has ended or renewed the session and this one's changes were dropped; see
    /// [`SaveErrors::failure`]. The headers are complete for those
    /// that were: send them even if another response takes the place of the handler's
    /// ([`write_headers`](Self::write_headers)).
    ///
    /// # Cancel safety
    /// Each session is then saved or not.
    pub async fn finish(&self, headers: &mut HeaderMap) -> Result<(), SaveErrors> {
        let given = self.given();
        self.finish_those(given.iter().collect(), headers).await
    }

    async fn finish_those(
        &self,
        sessions: Vec<&Session>,
        headers: &mut HeaderMap,
    ) -> Result<(), SaveErrors> {
        let saves = join_all(sessions.iter().map(|session| session.save_at_end())).await;
        self.write_headers(headers);
        let failed = sessions.iter().zip(saves).filter_map(|(session, saved)| {
            let error = saved.err()?;
            Some((session.0.setup.name.clone(), error))
        });
        SaveErrors::check(failed.collect())
    }

    /// As [`finish`](Self::finish), for a response that says that the server has failed (5xx): of
    /// what the handler has changed and not [saved](Session::save) itself, nothing is stored. A
    /// session that it has [ended](Session::destroy) is ended all the same.
    ///
    /// # Errors
    /// As [`finish`](Self::finish), for sessions that were to be ended.
    ///
    /// # Cancel safety
    /// Each session is then ended or not.
    pub async fn finish_failed(&self, headers: &mut HeaderMap) -> Result<(), SaveErrors> {
        let ending = self.given();
        let ending = ending.iter().filter(|session| session.drop_all_but_end());
        self.finish_those(ending.collect(), headers).await
    }

    /// Writes the cookies and cache headers of sessions that were saved.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        let given = self.given();
        let cookies: Vec<_> = given
            .iter()
            .flat_map(|session| self.cookies(session))
            .collect();
        // A cookie is for one visitor, whatever the application says of the page.
        if self.is_used() && !(self.0.response.is_for_everybody() && cookies.is_empty()) {
            self.0.manager.cache_control.apply(headers);
        }
        for cookie in cookies {
            headers.append(SET_COOKIE, cookie);
        }
    }

    /// Says that the response is the same for everybody, although a session was asked for: as
    /// [`Session::insecure_response_for_everybody`].
    pub fn insecure_response_for_everybody(&self) {
        self.0.response.set_for_everybody();
    }

    /// To be called when the head of the response is on its way: no cookie can be sent any more, and
    /// what would need one is an error from now on. The tower layer does it.
    pub fn head_sent(&self) {
        self.0.response.set_head_sent();
    }

    /// Whether a session was asked for, so that the response depends on it.
    pub(crate) fn is_used(&self) -> bool {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The response to a failure, as configured with
    /// [`on_failure`](SessionManagerBuilder::on_failure); `None` keeps the handler's response.
    #[must_use]
    pub fn failure_response(&self, failure: &Failure<'_>) -> Option<Response<Bytes>> {
        self.0.manager.failure_response(failure)
    }

    /// Whether a manager, or a clone of it, has begun these.
    #[cfg(feature = "tower")]
    pub(crate) fn belong_to(&self, manager: &SessionManager) -> bool {
        Arc::ptr_eq(&self.0.manager, &manager.0)
    }

    fn position(&self, name: &str) -> Result<usize> {
        let mut setups = self.0.manager.setups.iter();
        setups.position(|setup| setup.name == name).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("there is no session {name:?}"),
            )
        })
    }

    fn given(&self) -> Vec<Session> {
        self.0
            .cells
            .iter()
            .filter_map(OnceCell::get)
            .cloned()
            .collect()
    }

    async fn open(&self, position: usize) -> Result<Session> {
        self.0.used.store(true, Ordering::Relaxed);
        let setup = &self.0.manager.setups[position];
        self.0.cells[position]
            .get_or_try_init(async || {
                let (candidates, origin) = self.candidates(setup);
                match self.load(setup, &candidates, origin).await {
                    Err(NotLoaded {
                        unreadable: Some(tokens),
                        ..
                    }) if setup.on_unreadable == OnUnreadable::BeginAnew => {
                        tracing::warn!(
                            session = setup.name,
                            "a stored session cannot be read; the request begins another"
                        );
                        Ok(self.restarted(setup, tokens))
                    }
                    loaded => loaded.map_err(|failed| failed.error),
                }
            })
            .await
            .cloned()
    }

    /// The tokens that the request may have for the session, and where a new one comes from if none
    /// of them names one.
    ///
    /// Of those that are genuine a few are taken that differ: after a change of domain or path a
    /// browser may send a dead one before the live one. The others never reach the store.
    fn candidates(&self, setup: &Setup) -> (Vec<Candidate>, Origin) {
        let values = self.0.incoming.values(&setup.cookie);
        // Where nothing else is to be decided by it, a client-side store checks a token once.
        let has_choice = values.len() > MAX_CANDIDATES;
        let mut candidates: Vec<Candidate> = Vec::new();
        for value in values {
            let is_genuine = |candidate: &Candidate| {
                setup.custody == Custody::Server
                    || !has_choice
                    || setup.store.has_made(&candidate.token)
            };
            let is_new = |candidate: &Candidate| {
                let mut others = candidates.iter();
                others.all(|other| other.token != candidate.token)
            };
            let candidate = self.candidate(setup, value);
            candidates.extend(candidate.filter(is_new).filter(is_genuine));
            if candidates.len() == MAX_CANDIDATES {
                break;
            }
        }
        let origin = if self.0.incoming.has(&setup.cookie) {
            Origin::Rejected
        } else {
            Origin::NoCookie
        };
        (candidates, origin)
    }

    /// The token in a value; none without a signature of ours where there has to be one.
    fn candidate(&self, setup: &Setup, value: Vec<u8>) -> Option<Candidate> {
        let name = setup.cookie.name();
        if setup.custody == Custody::Client {
            return Some(Candidate {
                token: Token::from_bytes(value, name),
                current: true,
            });
        }
        let keyring = &self.0.manager.keyring;
        keyring
            .verify(TOKEN_PURPOSE, name.as_str(), &value)
            .filter(|opened| opened.payload.len() == Token::LEN)
            .map(|opened| Candidate {
                token: Token::from_bytes(opened.payload, name),
                current: opened.current,
            })
    }

    /// The session that the first candidate names which is one.
    async fn load(
        &self,
        setup: &Arc<Setup>,
        candidates: &[Candidate],
        origin: Origin,
    ) -> Result<Session, NotLoaded> {
        let policy = &setup.policy;
        let (mut late, mut damaged, mut reused) = (None, None, None);
        let (mut dead_secret, mut ended, mut replaced) = (false, false, false);
        let mut unreadable = Vec::new();
        for (position, candidate) in candidates.iter().enumerate() {
            let token = &candidate.token;
            match self.read(setup, candidate).await {
                Ok(Reading::Live(stored)) => {
                    let others = candidates[position + 1..].iter();
                    let mut twins = unreadable;
                    twins.extend(others.map(|other| other.token.clone()));
                    let draft = Draft::new(Some(*stored), policy).with_twins(twins);
                    return Ok(self.stored_session(setup, draft));
                }
                Ok(Reading::Renewed) => late = Some(token.clone()),
                Ok(Reading::Reused(revision)) => reused = Some((token, revision)),
                Ok(Reading::Unknown) => dead_secret = true,
                Ok(Reading::Replaced) => (dead_secret, replaced) = (true, true),
                // What a client-side store has not made was never a session.
                Ok(Reading::Ended) => {
                    ended |= setup.custody == Custody::Server || setup.store.has_made(token);
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    unreadable.push(token.clone());
                    damaged.get_or_insert(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some((token, revision)) = reused {
            dead_secret = true;
            self.report_reuse(setup, token, revision).await?;
        }
        if let Some(error) = damaged {
            return Err(NotLoaded {
                error,
                unreadable: Some(unreadable),
            });
        }
        let (origin, mut draft) = match late {
            Some(token) => (Origin::Renewed, Draft::late(token, policy)),
            None if dead_secret => (Origin::Ended, Draft::with_dead_secret(policy)),
            None if ended => (Origin::Ended, Draft::new(None, policy)),
            None => (origin, Draft::new(None, policy)),
        };
        draft.has_ended_cookie = origin == Origin::Ended && !replaced;
        Ok(self.new_session(setup, origin, draft))
    }

    /// A session that the store has. Of two cookies the one that names it may be the one that this
    /// response removes: the browser gets it again.
    fn stored_session(&self, setup: &Arc<Setup>, mut draft: Draft) -> Session {
        if setup.cookie.has_removable_twin(&self.0.incoming) {
            draft.repeat_cookie();
        }
        self.new_session(setup, Origin::Stored, draft)
    }

    async fn read(&self, setup: &Setup, candidate: &Candidate) -> Result<Reading> {
        let Candidate { token, current } = candidate;
        let record = match setup.store.load(token).await {
            // A client-side store says so of a token that a renewal has replaced a moment ago.
            Err(error)
                if setup.custody == Custody::Client && error.kind() == ErrorKind::Conflict =>
            {
                return Ok(Reading::Renewed);
            }
            loaded => loaded?,
        };
        let now = self.0.manager.clock.now();
        record.map_or(Ok(Reading::Ended), |record| {
            Reading::of(&record, token.clone(), *current, &setup.policy, now)
        })
    }

    /// Somebody has an old copy of a cookie: the owner, or a thief.
    async fn report_reuse(&self, setup: &Setup, token: &Token, revision: Revision) -> Result<()> {
        tracing::warn!(
            session = setup.name,
            key = &token.key().to_hex()[..8],
            "a secret that a rotation has replaced was used after its grace"
        );
        if !setup.end_on_reuse {
            return Ok(());
        }
        match setup.store.delete(token, Some(revision)).await {
            // The session is in use; the next reuse ends it.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            ended => ended.map(drop),
        }
    }

    fn new_session(&self, setup: &Arc<Setup>, origin: Origin, draft: Draft) -> Session {
        Session::new(
            Arc::clone(&self.0.manager),
            Arc::clone(setup),
            origin,
            draft,
            Arc::clone(&self.0.response),
        )
    }

    fn restarted(&self, setup: &Arc<Setup>, unreadable: Vec<Token>) -> Session {
        let draft = Draft::in_place_of(unreadable, &setup.policy);
        self.new_session(setup, Origin::Restarted, draft)
    }

    fn cookies(&self, session: &Session) -> Vec<HeaderValue> {
        let setup = &session.0.setup;
        let incoming = &self.0.incoming;
        let now = self.0.manager.clock.now();
        let Some(draft) = session.0.enter_or_refuse() else {
            return Vec::new();
        };
        let options = draft.cookie_options.as_ref().unwrap_or(&setup.cookie);
        match &draft.cookie {
            CookieAction::Keep => {
                let is_prompt = now < self.0.began_at + PROMPT;
                if is_prompt && draft.leaves_ended_cookie() {
                    return options.remove(incoming);
                }
                let are_others_used = !is_prompt || session.origin() != Origin::Rejected;
                options.remove_left_over(incoming, are_others_used)
            }
            CookieAction::Remove => options.remove(incoming),
            CookieAction::Set { token, expires_at } => {
                let max_age = expires_at.map(|at| at.saturating_duration_since(now));
                let value = self.0.manager.cookie_value(setup, token);
                options.set(&value, max_age, incoming)
            }
        }
    }
}

/// A token that a request has sent.
struct Candidate {
    token: Token,
    /// Whether the newest key signed it.
    current: bool,
}

/// Why a session could not be loaded, with the tokens whose records cannot be read, at least one.
struct NotLoaded {
    error: Error,
    unreadable: Option<Vec<Token>>,
}

impl From<Error> for NotLoaded {
    fn from(error: Error) -> Self {
        Self {
            error,
            unreadable: None,
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("given", &self.given())
            .finish_non_exhaustive()
    }
}

/// The sessions of a request that could not be saved, at least one.
#[derive(Debug)]
pub struct SaveErrors(Vec<(String, Error)>);

impl SaveErrors {
    fn check(errors: Vec<(String, Error)>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        Err(Self(errors))
    }

    /// What the response is to be chosen by.
    #[must_use]
    pub fn failure(&self) -> Failure<'_> {
        if self
            .iter()
            .all(|(_, error)| error.kind() == ErrorKind::Gone)
        {
            Failure::Gone(self)
        } else {
            Failure::Save(self)
        }
    }

    /// The name of each session, with what went wrong.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Error)> {
        self.0.iter().map(|(name, error)| (name.as_str(), error))
    }
}

impl fmt::Display for SaveErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sessions could not be saved")?;
        for (position, (name, error)) in self.iter().enumerate() {
            let separator = if position == 0 { ':' } else { ';' };
            write!(f, "{separator} {name:?}: {error}")?;
        }
        Ok(())
    }
}

impl error::Error for SaveErrors {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        let (_, first) = self.0.first()?;
        first.source()
    }
}
