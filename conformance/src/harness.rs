use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Clock, CookieName, Entropy, ErrorKind, Keyring, ManualClock, MemoryStore, Record, Result,
    SessionConfig, SessionManager, SessionManagerBuilder, SessionStore, Timestamp, Token,
};

/// Opens a store for the kit, and gives it a hand inside where there is one.
///
/// [`open`](Self::open) and [`destroy`](Self::destroy) are enough to begin with. Each further hook
/// switches on more cases; without it they are skipped, with that reason. Every case gets a
/// harness, a runtime and a namespace of its own, and many run at the same time: what a harness
/// does may be felt only by the stores that it has opened itself.
///
/// ```
/// use std::sync::Arc;
/// use sessionkit::{MemoryStore, Result, SessionStore};
/// use sessionkit_conformance::Harness;
///
/// struct OneStore(Arc<MemoryStore>);
///
/// #[async_trait::async_trait]
/// impl Harness for OneStore {
///     async fn open(&self, _namespace: &str) -> Result<Arc<dyn SessionStore>> {
///         Ok(self.0.clone())
///     }
///
///     async fn destroy(&self, _namespace: &str) -> Result<()> {
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// Opens a handle to the store in a namespace (a prefix, a table, a directory), which is
    /// created where necessary. Called many times for one namespace: two handles stand for two
    /// processes and share nothing but the backend.
    ///
    /// A namespace of the kit is 1 to 32 lower-case letters, digits and underscores. A few cases
    /// try others, which may be refused with [`InvalidConfig`](ErrorKind::InvalidConfig).
    ///
    /// # Errors
    /// When the store cannot be opened.
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>>;

    /// Removes a namespace with everything in it. The handles of it are dropped already.
    ///
    /// # Errors
    /// When something is left behind.
    async fn destroy(&self, namespace: &str) -> Result<()>;

    /// The clock that the harness hands to the stores it opens, so that the kit can move it.
    /// Without one the kit waits for real, in the declared granularity.
    fn clock(&self) -> Option<Arc<ManualClock>> {
        None
    }

    /// The deadline that the harness opens its stores with: five seconds, the default of every
    /// store. A shorter one makes the cases of hanging servers shorter.
    fn deadline(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// How the application makes tokens.
    ///
    /// # Errors
    /// Those of the source of randomness.
    fn make_token(&self, entropy: &dyn Entropy, cookie: &CookieName) -> Result<Token> {
        Token::random(entropy, cookie)
    }

    /// How the application builds its session manager.
    fn manager(&self, config: SessionConfig, keyring: Keyring) -> SessionManagerBuilder {
        SessionManager::builder(keyring).session("session", config)
    }

    /// The keyring that a client-side store of this namespace was opened with, so that the kit can
    /// rotate its keys.
    fn keyring(&self, namespace: &str) -> Option<Keyring> {
        let _ = namespace;
        None
    }

    /// Everything that the backend holds for a namespace, as it stands there: names (keys, file
    /// names, primary keys) and values, with indexes and left-over temporary files.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where there is no such hook.
    async fn raw_dump(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        let _ = namespace;
        Err(ErrorKind::Unsupported.into())
    }

    /// Replaces the value that is stored under a name of [`raw_dump`](Self::raw_dump).
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where there is no such hook.
    async fn raw_write(&self, namespace: &str, entry: &RawEntry) -> Result<()> {
        let _ = (namespace, entry);
        Err(ErrorKind::Unsupported.into())
    }

    /// Things that are no sessions and live where the store keeps the namespace's: rows, keys of
    /// another type, files, symbolic links. The first call puts them there, every call returns them
    /// as they are now.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where there is no such hook.
    async fn foreign(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        let _ = namespace;
        Err(ErrorKind::Unsupported.into())
    }

    /// Puts records into a namespace, byte for byte as released versions of the store wrote them and
    /// as a future one may, and returns how each has to read.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where there is no such hook.
    async fn golden(&self, namespace: &str) -> Result<Vec<Golden>> {
        let _ = namespace;
        Err(ErrorKind::Unsupported.into())
    }

    /// Breaks the backend of the stores opened by this harness, or repairs it.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a fault that the harness cannot make.
    async fn fault(&self, fault: Fault) -> Result<()> {
        let _ = fault;
        Err(ErrorKind::Unsupported.into())
    }

    /// The name of the broken store that the kit must catch to show that it is awake.
    #[doc(hidden)]
    fn canary(&self) -> &'static str {
        "delete-does-nothing"
    }
}

/// A record that a hook wrote in the format of another version.
#[derive(Clone, Debug)]
pub struct Golden {
    /// The token that names it.
    pub token: Token,
    /// The record, or `None` where the format is newer than the store.
    pub record: Option<Record>,
}

/// Something that a backend holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RawEntry {
    /// A key, a file name, a primary key.
    pub name: Vec<u8>,
    /// What is stored there.
    pub value: Vec<u8>,
}

impl fmt::Debug for RawEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({} bytes)",
            self.name.escape_ascii(),
            self.value.len()
        )
    }
}

/// What can go wrong with a backend. A fault lasts until another one is set.
///
/// While a fault lasts a call ends within the deadline, and these are the answers that the kit takes;
/// any other one fails a case. `Ok` has the meaning that the contract gives it: what was acknowledged is
/// there when the fault is over, and what failed with anything but
/// [`Ambiguous`](ErrorKind::Ambiguous) has changed nothing.
///
/// | fault | `load`, `list` | `create`, `update`, `touch`, `delete` | `revoke`, `revoke_all`, `sweep`, `try_sweep` | `ping` |
/// |---|---|---|---|---|
/// | [`Down`](Self::Down) | `Unavailable` | `Unavailable` or `Ambiguous` | `Unavailable` or `Ambiguous` | `Unavailable` |
/// | [`Crash`](Self::Crash) | the right answer, once the hook has returned | calls under way: `Ok`, `Unavailable` or `Ambiguous` | not asked | not asked |
/// | [`Hang`](Self::Hang) | `Unavailable` | `Unavailable` or `Ambiguous` | `Unavailable` or `Ambiguous` | `Unavailable` |
/// | [`LoseReplies`](Self::LoseReplies) | not asked | `Ok` where a repetition is safe, `Ambiguous`, or `Unavailable` if nothing has changed | not asked | not asked |
/// | [`CloseConnections`](Self::CloseConnections) | the right answer | the right answer | not asked | not asked |
/// | [`Slow`](Self::Slow) | the right answer | the right answer | the right answer | not asked |
/// | [`Full`](Self::Full) | the right answer | `Full` for what needs room; `delete` succeeds | not asked | not asked |
/// | [`ReadOnly`](Self::ReadOnly) | the right answer | `Unavailable` | not asked | not asked |
/// | [`Busy`](Self::Busy) | the right answer | `Ok`, `Unavailable` or `Ambiguous`; never `Conflict`, `Exists` or `Missing` | not asked | not asked |
/// | [`Vanished`](Self::Vanished) | `Unavailable` or `InvalidConfig`, from the opening or the first call | not asked | not asked | `Unavailable` |
/// | [`TimeZone`](Self::TimeZone) | the right answer | the right answer | not asked | not asked |
///
/// Opening a store under [`Down`](Self::Down) is `Unavailable` or `InvalidConfig`, or succeeds, and then
/// its first call is. The cases of the group FLT in `docs/conformance.md` say it clause by clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing: the backend works (again).
    None,
    /// It is down: open connections are closed, new ones are refused.
    Down,
    /// It is killed without warning, then started again with what it had on disk. The backend
    /// works when the call returns.
    Crash,
    /// It hangs: it takes connections and requests, and answers nothing.
    Hang,
    /// It does what it is asked and then closes the connection instead of answering.
    LoseReplies,
    /// The same with the next answer alone. After that it works, so that a call which is repeated
    /// meets what the first one has done. The fault is over with that answer; it is right for a write
    /// to say what is true of the first call, or `Ambiguous`, and for a read to be repeated.
    LoseReply,
    /// It closes the connections that are open now, once, as a server does with idle ones.
    CloseConnections,
    /// It answers late, and one byte at a time.
    Slow,
    /// Its memory or disk is full: writes are refused.
    Full,
    /// It takes no writes, as a replica does.
    ReadOnly,
    /// Someone else holds the locks that the store needs.
    Busy,
    /// The table or directory of the store is gone.
    Vanished,
    /// The server, or its sessions, keep the time of a zone far from UTC.
    TimeZone,
}

/// 2030-03-17T17:46:40.123Z.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_900_000_000_123);

/// A harness of the memory store, the reference: it shows the shape of one.
#[derive(Debug)]
pub struct MemoryHarness {
    clock: Arc<ManualClock>,
    stores: Mutex<HashMap<String, Arc<MemoryStore>>>,
}

impl MemoryHarness {
    /// A harness whose clock stands still at an instant in the future: one run is like another, and
    /// no other clock agrees with it by chance.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Arc::new(ManualClock::new(START)),
            stores: Mutex::default(),
        }
    }
}

impl Default for MemoryHarness {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Harness for MemoryHarness {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let store = stores.entry(namespace.into()).or_insert_with(|| {
            Arc::new(MemoryStore::new().with_clock(Arc::clone(&self.clock) as Arc<dyn Clock>))
        });
        Ok(Arc::clone(store) as Arc<dyn SessionStore>)
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.remove(namespace);
        Ok(())
    }

    fn clock(&self) -> Option<Arc<ManualClock>> {
        Some(Arc::clone(&self.clock))
    }
}
