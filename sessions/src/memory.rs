use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::{BuildHasherDefault, Hasher},
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    Capabilities, Clock, ErrorKind, Record, Result, Revision, SessionStore, StoreKey, Subject,
    SubjectIndex, SubjectSession, SystemClock, Timestamp, Token,
};

const SHARDS: usize = 64;

/// A shard below this size is not worth looking through for expired sessions.
const MIN_PURGE: usize = 64;

/// At capacity, all shards are looked through at most this often.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps sessions in the memory of the process: for tests, for development, and for a single
/// process whose sessions may end with it.
///
/// It is bounded: at the configured number of sessions, [`create`](SessionStore::create) answers
/// [`ErrorKind::Full`] instead of ending sessions that are in use. Expired sessions are removed as
/// new ones arrive, so that at most about half of the memory in use is theirs; a
/// [`sweep`](SessionStore::sweep) removes all of them.
///
/// Shared as an `Arc<MemoryStore>`; the sessions are gone when the last handle is dropped.
///
/// ```
/// use sessionkit::MemoryStore;
///
/// let store = MemoryStore::new().with_max_sessions(10_000);
/// assert!(store.is_empty());
/// ```
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    max_sessions: usize,
    /// Stored records, expired ones that were not removed yet included.
    len: AtomicUsize,
    reclaimed_at: AtomicI64,
    shards: Box<[Mutex<Shard>]>,
    /// Locked only by those who hold the lock of the record's shard, or no shard's lock at all.
    index: Mutex<HashMap<Subject, BTreeSet<StoreKey>>>,
}

#[derive(Default)]
struct Shard {
    records: HashMap<StoreKey, Record, BuildHasherDefault<KeyHasher>>,
    purge_at: usize,
}

impl MemoryStore {
    /// The largest payload, in bytes.
    pub const MAX_DATA: usize = 4 << 20;

    /// An empty store for at most 1,000,000 sessions.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            max_sessions: 1_000_000,
            len: AtomicUsize::new(0),
            reclaimed_at: AtomicI64::new(0),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            index: Mutex::default(),
        }
    }

    /// Sets the clock that sessions expire by; [`SystemClock`] by default.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the largest number of sessions; 1,000,000 by default.
    #[must_use]
    pub fn with_max_sessions(mut self, max_sessions: usize) -> Self {
        self.max_sessions = max_sessions;
        self
    }

    /// The number of sessions in memory, expired ones that were not removed yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether no session is in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &StoreKey) -> MutexGuard<'_, Shard> {
        lock(&self.shards[shard_of(key)])
    }

    /// The shard of a key, and the time. Told under the lock: a call that told the time and then
    /// waited for its turn could prolong what another call has found expired meanwhile.
    fn shard_now(&self, key: &StoreKey) -> (MutexGuard<'_, Shard>, Timestamp) {
        let shard = self.shard(key);
        (shard, self.clock.now())
    }

    /// Every shard, always in the same order.
    fn all_shards(&self) -> Vec<MutexGuard<'_, Shard>> {
        self.shards.iter().map(lock).collect()
    }

    /// Takes room for one more record.
    fn reserve(&self, now: Timestamp) -> Result<()> {
        if self.len() >= self.max_sessions {
            self.reclaim(now);
        }
        self.len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |len| {
                (len < self.max_sessions).then_some(len + 1)
            })
            .map(drop)
            .map_err(|_| ErrorKind::Full.into())
    }

    fn reclaim(&self, now: Timestamp) {
        let last = Timestamp::from_millis(self.reclaimed_at.load(Ordering::Relaxed));
        if now.saturating_duration_since(last) >= RECLAIM_INTERVAL || now < last {
            self.reclaimed_at.store(now.as_millis(), Ordering::Relaxed);
            self.remove_expired(usize::MAX);
        }
    }

    fn remove_expired(&self, limit: usize) -> usize {
        let now = self.clock.now();
        let mut removed = 0;
        for shard in &self.shards {
            if removed == limit {
                break;
            }
            removed += self.purge(&mut lock(shard), now, limit - removed);
        }
        removed
    }

    fn purge(&self, shard: &mut Shard, now: Timestamp, limit: usize) -> usize {
        let mut removed = 0;
        shard.records.retain(|key, record| {
            let keep = record.is_live(now) || removed == limit;
            if !keep {
                removed += 1;
                self.unindex(key, record);
            }
            keep
        });
        self.len.fetch_sub(removed, Ordering::Relaxed);
        shard.purge_at = MIN_PURGE.max(2 * shard.records.len());
        if shard.records.capacity() > 2 * shard.purge_at {
            let capacity = shard.purge_at;
            shard.records.shrink_to(capacity);
        }
        removed
    }

    /// Stores a record for which room was reserved.
    fn insert(&self, shard: &mut Shard, key: StoreKey, record: &Record) {
        self.index_record(&key, record);
        shard.records.insert(key, record.clone());
    }

    fn remove(&self, shard: &mut Shard, key: &StoreKey) -> Option<Record> {
        let record = shard.records.remove(key)?;
        self.unindex(key, &record);
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(record)
    }

    fn index_record(&self, key: &StoreKey, record: &Record) {
        if let Some(subject) = &record.subject {
            lock(&self.index)
                .entry(subject.clone())
                .or_default()
                .insert(*key);
        }
    }

    fn unindex(&self, key: &StoreKey, record: &Record) {
        let Some(subject) = &record.subject else {
            return;
        };
        let mut index = lock(&self.index);
        if let Some(keys) = index.get_mut(subject) {
            keys.remove(key);
            if keys.is_empty() {
                index.remove(subject);
            }
        }
    }

    fn keys_of(&self, subject: &Subject, after: Option<&StoreKey>) -> Vec<StoreKey> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        lock(&self.index)
            .get(subject)
            .map(|keys| keys.range((from, Bound::Unbounded)).copied().collect())
            .unwrap_or_default()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("len", &self.len())
            .field("max_sessions", &self.max_sessions)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::server(Self::MAX_DATA)
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        record.check_size(Self::MAX_DATA)?;
        let key = token.key();
        self.reserve(self.clock.now())?;
        let (mut shard, now) = self.shard_now(&key);
        if shard.live(&key, now).is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
            return Err(ErrorKind::Exists.into());
        }
        self.remove(&mut shard, &key);
        if shard.records.len() >= shard.purge_at {
            self.purge(&mut shard, now, usize::MAX);
        }
        self.insert(&mut shard, key, record);
        Ok(token)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let key = token.key();
        let (mut shard, now) = self.shard_now(&key);
        Ok(shard.live(&key, now).map(|record| record.clone()))
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        record.check_size(Self::MAX_DATA)?;
        let key = token.key();
        let (mut shard, now) = self.shard_now(&key);
        let stored = shard.live_at(&key, now, expected)?;
        if stored.subject != record.subject {
            self.unindex(&key, stored);
            self.index_record(&key, record);
        }
        *stored = record.clone();
        Ok(token.clone())
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let key = token.key();
        let (mut shard, now) = self.shard_now(&key);
        shard.live(&key, now).ok_or(ErrorKind::Missing)?.expires_at = expires_at;
        Ok(token.clone())
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let key = token.key();
        let (mut shard, now) = self.shard_now(&key);
        let stored = shard.live(&key, now).map(|record| record.revision);
        if let (Some(expected), Some(stored)) = (expected, stored)
            && stored != expected
        {
            return Err(ErrorKind::Conflict.into());
        }
        self.remove(&mut shard, &key);
        Ok(stored.is_some())
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        Ok(self.remove_expired(limit) as u64)
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        Some(self)
    }
}

#[async_trait]
impl SubjectIndex for MemoryStore {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        let now = self.clock.now();
        let session = |key: StoreKey| {
            let mut shard = self.shard(&key);
            let record = shard.live(&key, now)?;
            (record.subject.as_ref() == Some(subject)).then(|| SubjectSession {
                key,
                created_at: record.created_at,
                expires_at: record.expires_at,
                label: record.label.clone(),
            })
        };
        let keys = self.keys_of(subject, after);
        Ok(keys.into_iter().filter_map(session).take(limit).collect())
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let (mut shard, now) = self.shard_now(key);
        let owned = shard
            .live(key, now)
            .is_some_and(|record| record.subject.as_ref() == Some(subject));
        if owned {
            self.remove(&mut shard, key);
        }
        Ok(owned)
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        // With every shard locked no session can move to another token meanwhile.
        let mut shards = self.all_shards();
        let now = self.clock.now();
        let mut revoked = 0;
        for key in self.keys_of(subject, None) {
            if Some(&key) != except {
                let record = self.remove(&mut shards[shard_of(&key)], &key);
                revoked += u64::from(record.is_some_and(|record| record.is_live(now)));
            }
        }
        Ok(revoked)
    }
}

impl Shard {
    fn live(&mut self, key: &StoreKey, now: Timestamp) -> Option<&mut Record> {
        self.records
            .get_mut(key)
            .filter(|record| record.is_live(now))
    }

    fn live_at(
        &mut self,
        key: &StoreKey,
        now: Timestamp,
        expected: Revision,
    ) -> Result<&mut Record> {
        let record = self.live(key, now).ok_or(ErrorKind::Missing)?;
        if record.revision != expected {
            return Err(ErrorKind::Conflict.into());
        }
        Ok(record)
    }
}

/// Keys are SHA-256 hashes of secrets that nobody can choose: any eight of their bytes are a hash.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn shard_of(key: &StoreKey) -> usize {
    usize::from(key.as_bytes()[31]) % SHARDS
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
