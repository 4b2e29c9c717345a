use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{Label, Record, Result, Revision, StoreKey, Subject, Timestamp, Token};

/// Keeps session records for a backend.
///
/// This is the whole of what a backend implements: bytes in, bytes out, under a key that cannot
/// hold a path, a quote or a wildcard. Cookies, signatures, serialization, encryption and the
/// merging of concurrent changes happen above it; an application calls
/// [`Session`](crate::Session) instead. The crate `sessionkit-conformance` tests every sentence
/// below.
///
/// # Contract
///
/// A session has one record under one key, [`Token::key`], for its whole life. Every call is about
/// one key, and a store needs nothing but a compare-and-swap on it. Tokens of one key name one
/// record, whatever else differs in them.
///
/// A record is *live* from the `Ok` of the [`create`](Self::create) that stored it until it is
/// deleted or reaches its [`expires_at`](Record::expires_at), by one clock: the application's,
/// handed to the store when it is opened, or the server's where [`Capabilities::time_source`] says
/// so. The time zone of a process, a database or its sessions never matters. A store may rely on
/// the application's clock not to move by more than a minute while one call is under way.
///
/// - **Absent.** A token that was never stored, and one whose record was deleted or has expired,
///   are the same: `load` is `Ok(None)`, `delete` is `Ok(false)`, and everything else is
///   [`Missing`](crate::ErrorKind::Missing). No call stores anything for such a token except
///   `create`, and `create` sees nothing of a record that was there before. A backend may remove an
///   expired record at any time: by itself, or in a call of any kind, a load included.
/// - **Atomic.** Each call takes effect at one instant or not at all, as seen by every handle,
///   process and host that shares the namespace. No reader sees half of a write.
/// - **Exact.** A record comes back as it was given, byte for byte, up to
///   [`Capabilities::max_data`]; larger data are [`TooLarge`](crate::ErrorKind::TooLarge) before
///   anything is written.
/// - **Failed.** A failing backend is an error, never `Ok(None)`. An error other than
///   [`Ambiguous`](crate::ErrorKind::Ambiguous) means that nothing has changed; `Ambiguous` means
///   that the answer was lost and the caller has to read back. A store repeats a call by itself
///   only when the repetition cannot take effect twice or report a false `Exists`, `Conflict` or
///   `Missing`.
/// - **Bounded.** Each call ends within the deadline that the store was opened with, five seconds
///   unless configured otherwise, also when the server hangs.
/// - **Cancelled.** A future may be dropped at any await point. The call has then taken effect or
///   not, and the next call on the same handle gets its own answer.
/// - **Separate.** Two namespaces (prefix, table, directory) never see or change each other's
///   records, and whatever else lives beside them is neither read as a session nor removed.
/// - **Discreet.** No token, key, data or password appears in an error, a log line or `Debug`.
///
/// Dropping a store closes what it opened and loses no acknowledged write. Stores are shared as
/// `Arc<dyn SessionStore>`.
///
/// # Example
///
/// ```
/// # futures_util::FutureExt::now_or_never(async {
/// use sessionkit::{CookieName, MemoryStore, OsEntropy, Record, Revision, SessionStore, Timestamp, Token};
///
/// let store = MemoryStore::new();
/// let token = Token::random(&OsEntropy, &CookieName::new("id")?)?;
/// let record = Record {
///     data: "hello".into(),
///     revision: Revision::random(&OsEntropy)?,
///     created_at: Timestamp::MIN,
///     expires_at: Timestamp::MAX,
///     subject: None,
///     label: Default::default(),
/// };
/// let token = store.create(token, &record).await?;
/// assert_eq!(store.load(&token).await?, Some(record));
/// assert!(store.delete(&token, None).await?);
/// assert_eq!(store.load(&token).await?, None);
/// # Ok::<(), sessionkit::Error>(())
/// # }).unwrap().unwrap();
/// ```
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a session store",
    note = "open one from a `sessionkit-*` crate, or implement `sessionkit::SessionStore`"
)]
pub trait SessionStore: Debug + Send + Sync + 'static {
    /// What this store can do. The answer never changes during the life of a store, and is the same
    /// for every handle of one namespace.
    fn capabilities(&self) -> Capabilities;

    /// Stores a new record and returns the token that now names it.
    ///
    /// Of any number of concurrent calls with one token exactly one succeeds. A record whose expiry
    /// has passed is accepted and is not visible. A server-side store returns the token it was
    /// given; a client-side store returns one that contains the record.
    ///
    /// # Errors
    /// [`Exists`](crate::ErrorKind::Exists) when a live record is stored under the token, which
    /// stays as it is; [`TooLarge`](crate::ErrorKind::TooLarge); [`Full`](crate::ErrorKind::Full);
    /// and the errors of the backend.
    async fn create(&self, token: Token, record: &Record) -> Result<Token>;

    /// The live record of a token. Stores nothing and extends nothing.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when what is stored cannot be read as a record, and
    /// the errors of the backend. A client-side store answers `Ok(None)` to a token that it has not
    /// sealed itself, whatever is wrong with it.
    async fn load(&self, token: &Token) -> Result<Option<Record>>;

    /// Replaces a live record whose revision is `expected` in one step, all of its fields, and
    /// returns the token that names it from now on. Never inserts.
    ///
    /// A server-side store returns the token it was given. A renewal is an update too: the token
    /// has the same key and another secret.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when the stored revision is another;
    /// [`Missing`](crate::ErrorKind::Missing); [`TooLarge`](crate::ErrorKind::TooLarge);
    /// [`Full`](crate::ErrorKind::Full); and the errors of the backend.
    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token>;

    /// [`update`](Self::update), after which every other copy of the session that a client may hold
    /// is dead. On a server there is one record and no copy: this is `update`, as provided. Only a
    /// client-side store has more to do.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        self.update(token, expected, record).await
    }

    /// Sets the expiry of a live record, to a later or an earlier instant, and changes nothing else
    /// (the revision stays). Returns the token that names the record from now on.
    ///
    /// # Errors
    /// [`Missing`](crate::ErrorKind::Missing), and the errors of the backend.
    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token>;

    /// Removes the record of a token. After `Ok` no handle, cache or host returns the record.
    ///
    /// With `None`, whatever is there goes: live, expired or unreadable. With `Some`, a live record
    /// goes only if that is its revision, in one step.
    ///
    /// Returns whether this call ended a live record: of any number of concurrent calls for one
    /// record exactly one says `true`. Nothing there is `Ok(false)`. A store does not repeat a call
    /// that may have taken effect, since the repetition would say `false`: a lost answer is
    /// [`Ambiguous`](crate::ErrorKind::Ambiguous).
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when a live record has another revision than
    /// `expected`, and [`Corrupt`](crate::ErrorKind::Corrupt) when it cannot be read to be compared;
    /// the record stays then. [`Unsupported`](crate::ErrorKind::Unsupported) from a client-side
    /// store that cannot take back what the client holds. And the errors of the backend.
    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool>;

    /// Removes at most `limit` expired records, and what is left over from interrupted writes, and
    /// returns how many records it removed. Fewer than `limit` means that none is left, or that the
    /// deadline came. It counts only what this call removed, not what the backend or another call has
    /// removed before. Safe beside every other call: a record whose expiry is extended in time
    /// survives.
    ///
    /// Where [`Capabilities::sweep`] is [`Sweep::Native`] the backend removes expired records by
    /// itself, and this does nothing and returns 0.
    ///
    /// # Errors
    /// The errors of the backend; [`Unsupported`](crate::ErrorKind::Unsupported) where
    /// [`Capabilities::sweep`] is [`Sweep::Unsupported`].
    async fn sweep(&self, limit: usize) -> Result<u64>;

    /// [`sweep`](Self::sweep), unless another process is sweeping the same records at the moment:
    /// `None` then. What a `Sweeper` calls, so that of many processes one at a
    /// time does the work. As provided, everybody sweeps.
    ///
    /// # Errors
    /// As [`sweep`](Self::sweep).
    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        self.sweep(limit).await.map(Some)
    }

    /// Whether the backend answers now and would take a write: for a health check.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when it does not, a server that only reads
    /// included; and the other errors of the backend.
    async fn ping(&self) -> Result<()>;

    /// The index by subject, on stores that keep one.
    fn subjects(&self) -> Option<&dyn SubjectIndex>;

    /// Whether the token is one that this store has made, its session alive or not: a client-side
    /// store checks the seal or signature, and asks nobody. A session manager tries the few first
    /// tokens of a request for which this is so, and removes no cookie that is somebody else's. As
    /// provided, every token is: those of a server-side store were verified before they come here.
    fn has_made(&self, token: &Token) -> bool {
        let _ = token;
        true
    }
}

/// Finds and ends the sessions of one subject.
///
/// The index follows every write: a record is found under the subject of its last write from the
/// `Ok` of that write on, and is not found once it is not live. Subjects are compared byte for byte.
/// A record that cannot be read stands in nobody's way: the others are listed and ended.
#[async_trait]
pub trait SubjectIndex: Debug + Send + Sync {
    /// The live sessions of a subject in ascending order of their keys, at most `limit` of them,
    /// starting behind `after`. A session that lives during a whole listing appears in it exactly
    /// once, whatever comes and goes meanwhile.
    ///
    /// # Errors
    /// The errors of the backend.
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>>;

    /// Ends one session if it belongs to the subject. Returns whether it was live.
    ///
    /// # Errors
    /// The errors of the backend.
    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool>;

    /// Ends every session of the subject that was stored before the call, but the one under
    /// `except`. Returns how many were live.
    ///
    /// # Errors
    /// The errors of the backend. Some of the sessions may have ended; repeating the call is safe.
    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64>;
}

/// One session in the list of a subject's sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectSession {
    /// The handle for [`SubjectIndex::revoke`]. It opens no session.
    pub key: StoreKey,
    /// When the session began.
    pub created_at: Timestamp,
    /// When it ends unless it is used.
    pub expires_at: Timestamp,
    /// The text that the application gave it.
    pub label: Label,
}

/// What a store can do, as values that an application can read and the conformance kit checks.
///
/// ```
/// use sessionkit::{Capabilities, Durability};
/// use std::time::Duration;
///
/// let capabilities = Capabilities::server(1 << 20)
///     .durability(Durability::Disk)
///     .expiry_granularity(Duration::from_secs(1));
/// assert_eq!(capabilities.max_data, 1_048_576);
/// assert!(capabilities.compare_and_swap);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Who keeps the records.
    pub custody: Custody,
    /// Whether `update` and `delete` compare the revision with the one that every other handle
    /// sees. Required where the custody is [`Custody::Server`].
    pub compare_and_swap: bool,
    /// The largest [`Record::data`], in bytes.
    pub max_data: usize,
    /// By how much a record may outlive or fall short of its expiry. Within it each call may find the
    /// record live or expired; the record itself comes back with the expiry that it was given.
    pub expiry_granularity: Duration,
    /// Whose clock decides when a record expires.
    pub time_source: TimeSource,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// Who removes expired records.
    pub sweep: Sweep,
    /// For how long a handle may return a record after another handle changed or deleted it: zero
    /// except for a store with a cache. What the same handle has written is never stale, and no write
    /// is decided by a cache.
    pub staleness: Duration,
    /// The longest time from a write to the expiry that it sets, where there is one: a longer one is
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig).
    pub max_lifetime: Option<Duration>,
}

impl Capabilities {
    /// A server-side store for data of at most `max_data` bytes: millisecond expiry by the
    /// application's clock, records lost with the process, an explicit sweep, nothing stale.
    #[must_use]
    pub const fn server(max_data: usize) -> Self {
        Self {
            custody: Custody::Server,
            compare_and_swap: true,
            max_data,
            expiry_granularity: Duration::from_millis(1),
            time_source: TimeSource::Application,
            durability: Durability::Process,
            sweep: Sweep::Explicit,
            staleness: Duration::ZERO,
            max_lifetime: None,
        }
    }

    /// A client-side store for data of at most `max_data` bytes: no comparison with other copies,
    /// nothing to sweep.
    #[must_use]
    pub const fn client(max_data: usize) -> Self {
        let mut capabilities = Self::server(max_data);
        capabilities.custody = Custody::Client;
        capabilities.compare_and_swap = false;
        capabilities.sweep = Sweep::Unsupported;
        capabilities
    }

    /// Sets [`expiry_granularity`](Self::expiry_granularity).
    #[must_use]
    pub const fn expiry_granularity(mut self, granularity: Duration) -> Self {
        self.expiry_granularity = granularity;
        self
    }

    /// Sets [`time_source`](Self::time_source).
    #[must_use]
    pub const fn time_source(mut self, source: TimeSource) -> Self {
        self.time_source = source;
        self
    }

    /// Sets [`durability`](Self::durability).
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets [`sweep`](Self::sweep).
    #[must_use]
    pub const fn sweep(mut self, sweep: Sweep) -> Self {
        self.sweep = sweep;
        self
    }

    /// Sets [`staleness`](Self::staleness).
    #[must_use]
    pub const fn staleness(mut self, staleness: Duration) -> Self {
        self.staleness = staleness;
        self
    }

    /// Sets [`max_lifetime`](Self::max_lifetime).
    #[must_use]
    pub const fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = Some(lifetime);
        self
    }
}

/// Who keeps the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Custody {
    /// The store, under [`Token::key`].
    Server,
    /// The client, inside the token: nothing can be taken back, and of two changes made in parallel
    /// the later one wins.
    Client,
}

/// Whose clock decides when a record expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeSource {
    /// The [`Clock`](crate::Clock) that the application hands to the store.
    Application,
    /// The clock of the backend's server.
    Server,
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: records live as long as the process, or the server's memory.
    Process,
    /// The end of the process, but perhaps not a power failure.
    System,
    /// A power failure.
    Disk,
}

/// Who removes expired records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sweep {
    /// The application, by calling [`SessionStore::sweep`] from time to time.
    Explicit,
    /// The backend, by itself.
    Native,
    /// Nobody: the store keeps nothing.
    Unsupported,
}

/// Every method goes to the store inside.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        (**self).create(token, record).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        (**self).load(token).await
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        (**self).update(token, expected, record).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        (**self).touch(token, expires_at).await
    }

    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        (**self).renew(token, expected, record).await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        (**self).delete(token, expected).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        (**self).sweep(limit).await
    }

    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        (**self).try_sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        (**self).ping().await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        (**self).subjects()
    }

    fn has_made(&self, token: &Token) -> bool {
        (**self).has_made(token)
    }
}
