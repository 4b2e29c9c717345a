use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Capabilities, Clock, ErrorKind, Record, Result, Revision, SessionStore, StoreKey, Subject,
    SubjectIndex, SubjectSession, SystemClock, TimeSource, Timestamp, Token,
};

/// Larger records are not kept, so that the number of entries bounds the memory.
const MAX_DATA: usize = 64 << 10;

const SHARDS: usize = 16;

/// The generations that the keys of one shard share.
const GENERATIONS: usize = 64;

/// Answers repeated loads of a session from the memory of the process.
///
/// Writes go to the store. Whatever one through this handle or a clone of it comes to, its session
/// is loaded from the store the next time: after the `Ok` of a
/// [`delete`](SessionStore::delete) or a revocation no load that begins later returns the record,
/// not even when one was on its way meanwhile. Expired records are never returned, and that a
/// session does not exist is never remembered.
///
/// An entry answers only the whole token that it was loaded with. A renewal keeps the key and changes
/// the secret, so that an entry made before it cannot judge the new secret: the store is asked.
///
/// Another process goes on returning a session for at most the `staleness` given to
/// [`new`](Self::new), which [`Capabilities::staleness`] declares: **a logout takes that long to
/// reach all processes**. Records with more than 64 KiB of data are not kept.
///
/// Clones share one cache.
///
/// ```
/// use sessionkit::{MemoryStore, SessionStore, layers::NearCache};
/// use std::time::Duration;
///
/// let store = NearCache::new(MemoryStore::new(), Duration::from_secs(2));
/// assert_eq!(store.capabilities().staleness, Duration::from_secs(2));
/// ```
#[derive(Clone)]
pub struct NearCache<S> {
    store: S,
    staleness: Duration,
    clock: Arc<dyn Clock>,
    cache: Arc<Cache>,
}

impl<S> NearCache<S> {
    /// A cache of at most 10,000 sessions, each used for at most `staleness`.
    pub fn new(store: S, staleness: Duration) -> Self {
        Self {
            store,
            staleness,
            clock: Arc::new(SystemClock),
            cache: Arc::new(Cache::new(10_000)),
        }
    }

    /// Sets the clock that sessions expire by, the one of the store; [`SystemClock`] by default.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the largest number of sessions in the cache; 10,000 by default. The oldest make room.
    #[must_use]
    pub fn with_max_entries(mut self, max_entries: usize) -> Self {
        self.cache = Arc::new(Cache::new(max_entries));
        self
    }

    fn now(&self) -> Moment {
        Moment {
            clock: self.clock.now(),
            steady: Instant::now(),
        }
    }

    /// Whether the entry may be used: young by both clocks, of which the application's may be set
    /// back and the other one does not expire sessions.
    fn is_fresh(&self, entry: &Entry, now: Moment) -> bool {
        let (since, record) = (entry.since, &entry.record);
        now.clock >= since.clock
            && now.clock < since.clock + self.staleness
            && now.steady.saturating_duration_since(since.steady) < self.staleness
            && record.is_live(now.clock)
    }
}

impl<S: SessionStore> NearCache<S> {
    fn index(&self) -> Result<&dyn SubjectIndex> {
        self.store
            .subjects()
            .ok_or_else(|| ErrorKind::Unsupported.into())
    }
}

impl<S: fmt::Debug> fmt::Debug for NearCache<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NearCache")
            .field("store", &self.store)
            .field("staleness", &self.staleness)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore> SessionStore for NearCache<S> {
    fn capabilities(&self) -> Capabilities {
        let inner = self.store.capabilities();
        let staleness = inner.staleness.saturating_add(self.staleness);
        let granularity = match inner.time_source {
            // The clock here decides about an entry, and may be behind the server's.
            TimeSource::Server => inner.expiry_granularity.saturating_add(self.staleness),
            TimeSource::Application => inner.expiry_granularity,
        };
        inner.staleness(staleness).expiry_granularity(granularity)
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        let _forget = self.cache.forget(token.key());
        self.store.create(token, record).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let (key, started) = (token.key(), self.now());
        let ticket = match self.cache.look_up(&key, |entry| {
            entry.token == *token && self.is_fresh(entry, started)
        }) {
            Ok(record) => return Ok(Some(record)),
            Err(ticket) => ticket,
        };
        let found = self.store.load(token).await?;
        // An entry is as old as the beginning of the call that fetched it.
        self.cache.fill(token, ticket, started, found.as_ref());
        Ok(found)
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let _forget = self.cache.forget(token.key());
        self.store.update(token, expected, record).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let _forget = self.cache.forget(token.key());
        self.store.touch(token, expires_at).await
    }

    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let _forget = self.cache.forget(token.key());
        self.store.renew(token, expected, record).await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let _forget = self.cache.forget(token.key());
        self.store.delete(token, expected).await
    }

    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        self.store.try_sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.store.ping().await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.store.sweep(limit).await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        self.store.subjects().map(|_| self as &dyn SubjectIndex)
    }

    fn has_made(&self, token: &Token) -> bool {
        self.store.has_made(token)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore> SubjectIndex for NearCache<S> {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        self.index()?.list(subject, after, limit).await
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let _forget = self.cache.forget(*key);
        self.index()?.revoke(subject, key).await
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        // The subject in an entry may be out of date, so none of the entries is safe to keep.
        let _forget = self.cache.forget_all();
        self.index()?.revoke_all(subject, except).await
    }
}

/// Entries may be filled in only by a load during which nothing else has happened to its key: each
/// write that ends and each load that ends starts a new generation of the key.
struct Cache {
    shards: Box<[Mutex<Shard>]>,
}

struct Shard {
    entries: HashMap<StoreKey, Entry>,
    /// Every entry in the order of arrival, with its serial number; some of them are gone already.
    order: VecDeque<(StoreKey, u64)>,
    max_entries: usize,
    next_serial: u64,
    generations: [u64; GENERATIONS],
}

struct Entry {
    token: Token,
    record: Record,
    since: Moment,
    serial: u64,
}

#[derive(Clone, Copy)]
struct Moment {
    clock: Timestamp,
    steady: Instant,
}

/// The generation of a key when a load of it began.
#[derive(Clone, Copy)]
struct Ticket(u64);

impl Cache {
    fn new(max_entries: usize) -> Self {
        // Shards fill unevenly: only where they are large does that not matter.
        let shards = if max_entries < 64 * SHARDS { 1 } else { SHARDS };
        let shard = || {
            Mutex::new(Shard {
                entries: HashMap::new(),
                order: VecDeque::new(),
                max_entries: max_entries / shards,
                next_serial: 0,
                generations: [0; GENERATIONS],
            })
        };
        Self {
            shards: (0..shards).map(|_| shard()).collect(),
        }
    }

    fn shard(&self, key: &StoreKey) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(key.as_bytes()[31]) % self.shards.len()])
    }

    fn look_up(&self, key: &StoreKey, usable: impl Fn(&Entry) -> bool) -> Result<Record, Ticket> {
        let mut shard = self.shard(key);
        match shard.entries.get(key) {
            Some(entry) if usable(entry) => return Ok(entry.record.clone()),
            Some(_) => drop(shard.entries.remove(key)),
            None => {}
        }
        Err(Ticket(*shard.generation(key)))
    }

    fn fill(&self, token: &Token, ticket: Ticket, since: Moment, found: Option<&Record>) {
        let key = token.key();
        let mut shard = self.shard(&key);
        let Ticket(generation) = ticket;
        let undisturbed = *shard.generation(&key) == generation;
        *shard.generation(&key) += 1;
        match found {
            Some(record) if undisturbed => shard.insert(key, token, since, record),
            // What another load has filled in meanwhile may be older than what this one returns.
            _ if shard.entries.get(&key).map(|entry| &entry.record) != found => {
                shard.entries.remove(&key);
            }
            _ => {}
        }
    }

    fn forget(&self, key: StoreKey) -> Forget<'_> {
        Forget {
            cache: self,
            key: Some(key),
        }
    }

    fn forget_all(&self) -> Forget<'_> {
        Forget {
            cache: self,
            key: None,
        }
    }
}

impl Shard {
    fn generation(&mut self, key: &StoreKey) -> &mut u64 {
        &mut self.generations[usize::from(key.as_bytes()[30]) % GENERATIONS]
    }

    fn insert(&mut self, key: StoreKey, token: &Token, since: Moment, record: &Record) {
        if self.max_entries == 0 || record.data.len() > MAX_DATA {
            return;
        }
        if self.order.len() == self.max_entries
            && let Some((oldest, serial)) = self.order.pop_front()
            && self.entries.get(&oldest).map(|entry| entry.serial) == Some(serial)
        {
            self.entries.remove(&oldest);
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        self.order.push_back((key, serial));
        let record = Record {
            // A slice would keep the whole buffer that a driver has read it into.
            data: Bytes::copy_from_slice(&record.data),
            ..record.clone()
        };
        self.entries.insert(
            key,
            Entry {
                token: token.clone(),
                record,
                since,
                serial,
            },
        );
    }
}

/// Removes the entry of a key, or all of them, when a write ends: answered, failed or dropped.
struct Forget<'a> {
    cache: &'a Cache,
    key: Option<StoreKey>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let mut shard = self.cache.shard(&key);
            *shard.generation(&key) += 1;
            shard.entries.remove(&key);
            return;
        }
        for shard in &self.cache.shards {
            let mut shard = lock(shard);
            shard.generations.iter_mut().for_each(|next| *next += 1);
            shard.entries.clear();
            shard.order.clear();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
