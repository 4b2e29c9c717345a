mod index;
mod records;
mod room;

use std::{
    fmt,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use async_trait::async_trait;

use self::{
    index::Index,
    records::{Entry, Records, work},
    room::{Cost, Limits, Usage},
};
use crate::{
    Capabilities, Clock, ErrorKind, Record, Result, Revision, SessionStore, StoreKey, Subject,
    SubjectIndex, SubjectSession, SystemClock, Timestamp, Token,
};

/// One for each value of a byte of the key. A million records are 4,000 in each: where a table
/// grows, it takes a tenth of a millisecond.
const SHARDS: usize = 256;

/// How many records that have come due a new one looks at, so that they go faster than they come.
const LOOKS_PER_CREATE: usize = 3;

/// A shard with fewer records leaves expired ones to a sweep: they take little.
const FEW: usize = 64;

/// How many records a call looks at before it lets others have the thread.
const BATCH: usize = 256;

/// Keeps sessions in the memory of the process: for tests, for development, and for a single
/// process whose sessions may end with it.
///
/// It is bounded, in sessions and in bytes: where a session would be too much,
/// [`create`](SessionStore::create) answers [`ErrorKind::Full`] instead of ending sessions that are
/// in use. Who visits without signing in, such as a crawler, can be kept from taking all of the room:
/// [`with_reserved_for_subjects`](Self::with_reserved_for_subjects).
///
/// Expired sessions are removed as new ones arrive, and when there is no room left. A
/// [`sweep`](SessionStore::sweep) removes all of them.
///
/// No call holds its thread for long, however many sessions there are: what has to look at many of
/// them pauses in between.
///
/// Shared as an `Arc<MemoryStore>`; the sessions are gone when the last handle is dropped.
///
/// ```
/// use sessionkit::MemoryStore;
///
/// let store = MemoryStore::new()
///     .with_max_sessions(10_000)
///     .with_max_bytes(64 << 20)
///     .with_reserved_for_subjects(25);
/// assert!(store.is_empty());
/// ```
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    limits: Limits,
    usage: Usage,
    shards: Box<[Mutex<Records>]>,
    index: Index,
    /// The shard in which expired records were looked for last.
    hand: AtomicUsize,
}

impl MemoryStore {
    /// The largest payload, in bytes.
    pub const MAX_DATA: usize = 4 << 20;

    /// An empty store for at most 1,000,000 sessions, which take at most 1 GiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            limits: Limits {
                sessions: 1_000_000,
                bytes: 1 << 30,
                reserved: 0,
            },
            usage: Usage::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            index: Index::default(),
            hand: AtomicUsize::new(0),
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
        self.limits.sessions = max_sessions;
        self
    }

    /// Sets how many bytes all sessions may take; 1 GiB by default.
    ///
    /// What counts is what a session takes in memory, as [`bytes`](Self::bytes) says. A change that
    /// makes a session larger than there is room for is [`ErrorKind::Full`] too.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: usize) -> Self {
        self.limits.bytes = max_bytes;
        self
    }

    /// Sets the percentage of the room, in sessions and in bytes, that only sessions with a
    /// [`Subject`] may take; 0 by default, 100 at most.
    ///
    /// A session that gets a subject leaves the room of the others. One that loses it keeps its
    /// room.
    #[must_use]
    pub fn with_reserved_for_subjects(mut self, percent: u8) -> Self {
        self.limits.reserved = percent.min(100);
        self
    }

    /// The number of sessions in memory, expired ones that were not removed yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.usage.sessions()
    }

    /// The bytes that these sessions take: their data, subjects and labels, and about 150 bytes
    /// more for each, 260 with a subject. What the allocator loses to its own rounding is not known
    /// and not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.usage.bytes()
    }

    /// Whether no session is in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shard of a key, and the time. Told under the lock: a call that told the time and then
    /// waited for its turn could prolong what another call has found expired meanwhile.
    fn shard_now(&self, key: &StoreKey) -> (MutexGuard<'_, Records>, Timestamp) {
        let shard = lock(&self.shards[usize::from(key.as_bytes()[31])]);
        (shard, self.clock.now())
    }

    /// Stores a record unless there is no room for it.
    fn try_create(&self, key: StoreKey, record: &Record) -> Result<bool> {
        let (mut shard, now) = self.shard_now(&key);
        if let Some(at) = shard.find(&key) {
            if shard.entry(at).is_live(now) {
                return Err(ErrorKind::Exists.into());
            }
            self.remove(&mut shard, at);
        }
        if shard.len() >= FEW {
            self.collect(&mut shard, now, usize::MAX, &mut LOOKS_PER_CREATE.clone());
        }
        if !self.usage.take(Cost::of(record), &self.limits) {
            return Ok(false);
        }
        if let Some(subject) = &record.subject {
            self.index.insert(subject, key);
        }
        shard.insert(key, record);
        Ok(true)
    }

    /// Replaces a record unless there is no room for what it has become.
    fn try_update(&self, key: &StoreKey, expected: Revision, record: &Record) -> Result<bool> {
        let (mut shard, now) = self.shard_now(key);
        let at = shard.live_at(key, now, expected)?;
        let stored = shard.entry(at);
        let (old, new) = (Cost::of_entry(stored), Cost::of(record));
        if !self.usage.exchange(old, new, &self.limits) {
            return Ok(false);
        }
        if stored.subject() != record.subject.as_ref() {
            self.unindex(stored);
            if let Some(subject) = &record.subject {
                self.index.insert(subject, *key);
            }
        }
        shard.replace(at, record);
        Ok(true)
    }

    /// Tries until there is room, or nothing left to remove.
    async fn in_room<T: Send>(
        &self,
        value: T,
        attempt: impl Fn() -> Result<bool> + Send,
    ) -> Result<T> {
        let mut looks = BATCH;
        while !attempt()? {
            pause_without(&mut looks).await;
            let before = looks;
            self.make_room(&mut looks);
            if looks == before {
                return Err(ErrorKind::Full.into());
            }
        }
        Ok(value)
    }

    /// Removes expired records wherever they are. That it has looked at some means that there may be
    /// room now, or more to look at.
    fn make_room(&self, looks: &mut usize) {
        let first = self.hand.load(Ordering::Relaxed);
        for at in (first..first + SHARDS).map(|at| at % SHARDS) {
            self.collect_in(at, usize::MAX, looks);
            if *looks == 0 {
                self.hand.store(at, Ordering::Relaxed);
                return;
            }
        }
    }

    fn collect_in(&self, shard: usize, limit: usize, looks: &mut usize) -> usize {
        let mut shard = lock(&self.shards[shard]);
        let now = self.clock.now();
        self.collect(&mut shard, now, limit, looks)
    }

    /// Removes at most `limit` expired records, as long as it may look at more of those that have
    /// come due.
    fn collect(
        &self,
        shard: &mut Records,
        now: Timestamp,
        limit: usize,
        looks: &mut usize,
    ) -> usize {
        let mut removed = 0;
        while removed < limit
            && let Some(at) = shard.next_expired(now, looks)
        {
            self.remove(shard, at);
            removed += 1;
        }
        removed
    }

    fn remove(&self, shard: &mut Records, at: u32) {
        let entry = shard.remove(at);
        self.unindex(&entry);
        self.usage.give_back(Cost::of_entry(&entry));
    }

    fn unindex(&self, entry: &Entry) {
        if let Some(subject) = entry.subject() {
            self.index.remove(subject, entry.key);
        }
    }

    /// Removes a record if it is the subject's. Returns whether it was live.
    fn end(&self, subject: &Subject, key: &StoreKey) -> bool {
        let (mut shard, now) = self.shard_now(key);
        match shard.find(key) {
            Some(at) if shard.entry(at).subject() == Some(subject) => {
                let live = shard.entry(at).is_live(now);
                self.remove(&mut shard, at);
                live
            }
            _ => false,
        }
    }

    fn listed(&self, subject: &Subject, key: StoreKey) -> Option<SubjectSession> {
        let (shard, now) = self.shard_now(&key);
        let entry = shard.entry(shard.live(&key, now)?);
        (entry.subject() == Some(subject)).then(|| SubjectSession {
            key,
            created_at: entry.created_at(),
            expires_at: entry.expires_at(),
            label: entry.label().clone(),
        })
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
            .field("max_sessions", &self.limits.sessions)
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
        self.in_room(token, || self.try_create(key, record)).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let key = token.key();
        let (shard, now) = self.shard_now(&key);
        Ok(shard.live(&key, now).map(|at| shard.entry(at).record()))
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        record.check_size(Self::MAX_DATA)?;
        let key = token.key();
        self.in_room(token.clone(), || self.try_update(&key, expected, record))
            .await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let key = token.key();
        let (mut shard, now) = self.shard_now(&key);
        let at = shard.live(&key, now).ok_or(ErrorKind::Missing)?;
        shard.set_expiry(at, expires_at);
        Ok(token.clone())
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let key = token.key();
        let (mut shard, now) = self.shard_now(&key);
        let Some(at) = shard.find(&key) else {
            return Ok(false);
        };
        let live = shard.entry(at).is_live(now);
        if let (true, Some(expected)) = (live, expected) {
            shard.live_at(&key, now, expected)?;
        }
        self.remove(&mut shard, at);
        Ok(live)
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        let (mut removed, mut looks) = (0, BATCH);
        for shard in 0..SHARDS {
            loop {
                removed += self.collect_in(shard, limit - removed, &mut looks);
                if looks > 0 {
                    break;
                }
                pause_without(&mut looks).await;
            }
        }
        Ok(removed as u64)
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
        let (mut sessions, mut looks) = (Vec::new(), BATCH);
        let mut after = after.copied();
        loop {
            let wanted = looks.min(limit - sessions.len());
            let keys = self.index.page(subject, after.as_ref(), wanted);
            after = keys.last().copied();
            looks -= keys.len();
            work::done(keys.len());
            let complete = keys.len() < wanted;
            sessions.extend(keys.into_iter().filter_map(|key| self.listed(subject, key)));
            if complete || sessions.len() == limit {
                return Ok(sessions);
            }
            if looks == 0 {
                // Growing step by step would copy a long list in one of them.
                let most = limit.min(self.len());
                sessions.reserve_exact(most.saturating_sub(sessions.len()));
            }
            pause_without(&mut looks).await;
        }
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        Ok(self.end(subject, key))
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        let (mut revoked, mut after) = (0, None);
        loop {
            let keys = self.index.page(subject, after.as_ref(), BATCH);
            after = keys.last().copied();
            work::done(keys.len());
            for key in &keys {
                revoked += u64::from(Some(key) != except && self.end(subject, key));
            }
            if keys.len() < BATCH {
                return Ok(revoked);
            }
            pause().await;
        }
    }
}

/// Pauses when a call has looked at a batch, and lets it look at another one.
async fn pause_without(looks: &mut usize) {
    if *looks == 0 {
        pause().await;
        *looks = BATCH;
    }
}

/// Lets other tasks have the thread, whatever the runtime.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Context, time::Duration};

    use futures_util::FutureExt;

    use super::*;
    use crate::{CookieName, Label, ManualClock, OsEntropy};

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const HOUR: Duration = Duration::from_secs(3600);
    const MANY: usize = 100_000;

    fn tokens() -> impl Iterator<Item = Token> {
        let cookie = CookieName::new("id").unwrap();
        std::iter::repeat_with(move || Token::random(&OsEntropy, &cookie).unwrap())
    }

    fn token() -> Token {
        tokens().next().unwrap()
    }

    fn record(lifetime: Duration) -> Record {
        Record {
            data: "data".into(),
            revision: Revision::from_bits(1),
            created_at: START,
            expires_at: START + lifetime,
            subject: None,
            label: Label::default(),
        }
    }

    fn owned(lifetime: Duration) -> Record {
        Record {
            subject: Some(Subject::new("alice").unwrap()),
            ..record(lifetime)
        }
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().expect("it has little to do")
    }

    fn create(store: &MemoryStore, record: &Record) -> Result<Token> {
        now(store.create(token(), record))
    }

    fn kind<T: fmt::Debug>(result: Result<T>) -> ErrorKind {
        result.unwrap_err().kind()
    }

    /// A full store, whose sessions expire one after the other, and its clock.
    fn full(
        sessions: usize,
        record: impl Fn(Duration) -> Record,
    ) -> (MemoryStore, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(START));
        let store = MemoryStore::new()
            .with_clock(clock.clone())
            .with_max_sessions(sessions);
        for (number, token) in (0..sessions).zip(tokens()) {
            let lifetime = HOUR + Duration::from_millis(number as u64);
            now(store.create(token, &record(lifetime))).unwrap();
        }
        work::since_last();
        (store, clock)
    }

    /// Runs a call, and returns the most records it looked at or moved between two pauses.
    fn most_work<T>(call: impl Future<Output = T>) -> (T, usize) {
        let (mut call, mut most) = (pin!(call), 0);
        let mut context = Context::from_waker(std::task::Waker::noop());
        work::since_last();
        loop {
            let polled = call.as_mut().poll(&mut context);
            most = most.max(work::since_last());
            if let Poll::Ready(value) = polled {
                return (value, most);
            }
        }
    }

    #[test]
    fn no_call_looks_at_many_records_however_many_there_are() {
        let (store, clock) = full(MANY, record);
        // More than a batch and the largest shard together would be.
        let few = BATCH + 2 * MANY / SHARDS;
        let mut most = 0;
        let (result, work) = most_work(store.create(token(), &record(2 * HOUR)));
        assert_eq!(
            (kind(result), work),
            (ErrorKind::Full, 0),
            "none has come due"
        );

        clock.set(START + 2 * HOUR);
        let (result, work) = most_work(store.create(token(), &record(4 * HOUR)));
        result.unwrap();
        most = most.max(work);
        assert!(store.len() < MANY, "some of the expired ones went");

        let (result, work) = most_work(store.sweep(256));
        assert_eq!(result.unwrap(), 256);
        most = most.max(work);
        let (result, work) = most_work(store.sweep(usize::MAX));
        assert!(result.unwrap() > 90_000);
        assert_eq!(store.len(), 1);
        most = most.max(work);
        assert!(most > 0 && most <= few, "{most} of {few}");
    }

    #[test]
    fn sessions_that_were_extended_are_put_off_in_batches() {
        let (store, clock) = full(3 * BATCH, record);
        let expires_at = START + 3 * HOUR;
        let shards = store.shards.iter();
        for shard in shards {
            let mut shard = lock(shard);
            (0..shard.len()).for_each(|at| shard.set_expiry(at as u32, expires_at));
        }
        clock.set(START + 2 * HOUR);
        let record = record(3 * HOUR);
        let (result, work) = most_work(store.create(token(), &record));
        assert_eq!((kind(result), work), (ErrorKind::Full, BATCH));
        let (result, work) = most_work(store.create(token(), &record));
        assert_eq!((kind(result), work), (ErrorKind::Full, 0));
        clock.set(expires_at);
        let (result, _) = most_work(store.create(token(), &record));
        result.unwrap();
    }

    #[test]
    fn growing_moves_few_records_at_a_time() {
        let clock = Arc::new(ManualClock::new(START));
        let store = MemoryStore::new().with_clock(clock);
        let most = tokens()
            .take(MANY)
            .map(|token| most_work(store.create(token, &record(HOUR))).1)
            .max();
        assert!(most.unwrap() <= 2 * MANY / SHARDS, "{most:?}");
    }

    #[test]
    fn a_subject_with_many_sessions_holds_nobody_up() {
        let (store, _) = full(5_000, owned);
        let alice = Subject::new("alice").unwrap();
        let index = store.subjects().unwrap();
        let (listed, work) = most_work(index.list(&alice, None, 3));
        assert_eq!((listed.unwrap().len(), work), (3, 3));
        let (listed, work) = most_work(index.list(&alice, None, usize::MAX));
        let listed = listed.unwrap();
        assert_eq!(listed.len(), 5_000);
        assert!(listed.is_sorted_by_key(|session| session.key));
        assert!(work <= BATCH, "{work}");
        let except = listed[1_234].key;
        let (revoked, work) = most_work(index.revoke_all(&alice, Some(&except)));
        assert_eq!((revoked.unwrap(), store.len()), (4_999, 1));
        assert!(work <= 2 * BATCH, "{work}");
    }

    #[test]
    fn a_full_store_takes_a_session_as_soon_as_one_has_expired() {
        let (store, clock) = full(1_000, record);
        for number in 0..100 {
            clock.set(START + HOUR + Duration::from_millis(number) - Duration::from_millis(1));
            let full = create(&store, &record(2 * HOUR));
            assert_eq!(kind(full), ErrorKind::Full);
            clock.advance(Duration::from_millis(1));
            create(&store, &record(2 * HOUR)).unwrap();
        }
    }

    #[test]
    fn a_store_that_grows_and_shrinks_keeps_few_expired_sessions() {
        let (store, clock) = full(0, record);
        let store = store.with_max_sessions(usize::MAX);
        let mut most = 0;
        for (second, token) in (0..100_000).zip(tokens()) {
            clock.set(START + Duration::from_secs(second));
            let mut record = record(HOUR);
            record.expires_at = clock.now() + Duration::from_secs(20_000);
            now(store.create(token, &record)).unwrap();
            most = most.max(store.len());
        }
        // 20,000 are live at any time.
        assert!(most < 25_000, "{most}");
    }

    #[test]
    fn the_bytes_are_bounded_too() {
        let one = MemoryStore::new();
        create(&one, &record(HOUR)).unwrap();
        let size = one.bytes();

        let clock = Arc::new(ManualClock::new(START));
        let store = MemoryStore::new()
            .with_clock(clock.clone())
            .with_max_bytes(10 * size + 100);
        let tokens: Vec<_> = tokens().take(10).collect();
        for token in &tokens {
            now(store.create(token.clone(), &record(HOUR))).unwrap();
        }
        assert_eq!(store.bytes(), 10 * size);
        let more = create(&store, &record(HOUR));
        assert_eq!(kind(more), ErrorKind::Full);

        let revision = Revision::from_bits(1);
        let mut large = record(HOUR);
        large.data = vec![0; 4 + 101].into();
        let grown = store.update(&tokens[0], revision, &large);
        assert_eq!(kind(now(grown)), ErrorKind::Full);
        assert_eq!(now(store.load(&tokens[0])).unwrap(), Some(record(HOUR)));
        large.data = vec![0; 4 + 100].into();
        now(store.update(&tokens[0], revision, &large)).unwrap();
        assert_eq!(store.bytes(), 10 * size + 100);

        // What has expired makes room for what grows.
        now(store.touch(&tokens[1], START + HOUR / 2)).unwrap();
        clock.set(START + HOUR / 2);
        now(store.update(&tokens[2], revision, &large)).unwrap();

        for token in &tokens {
            now(store.delete(token, None)).unwrap();
        }
        assert_eq!((store.len(), store.bytes()), (0, 0));
    }

    #[test]
    fn visitors_do_not_take_the_room_of_users() {
        let clock = Arc::new(ManualClock::new(START));
        let store = MemoryStore::new()
            .with_clock(clock)
            .with_max_sessions(10)
            .with_reserved_for_subjects(30);
        let visitors: Vec<_> = tokens().take(7).collect();
        for token in &visitors {
            now(store.create(token.clone(), &record(HOUR))).unwrap();
        }
        let visitor = create(&store, &record(HOUR));
        assert_eq!(kind(visitor), ErrorKind::Full);

        // Who signs in leaves the room of the visitors.
        let revision = Revision::from_bits(1);
        now(store.update(&visitors[0], revision, &owned(HOUR))).unwrap();
        create(&store, &record(HOUR)).unwrap();
        for _ in 0..2 {
            create(&store, &owned(HOUR)).unwrap();
        }
        assert_eq!(store.len(), 10);
        let user = create(&store, &owned(HOUR));
        assert_eq!(kind(user), ErrorKind::Full);
        // Who signs out keeps a room, but no other visitor gets one.
        now(store.update(&visitors[0], revision, &record(HOUR))).unwrap();
        now(store.delete(&visitors[1], None)).unwrap();
        let visitor = create(&store, &record(HOUR));
        assert_eq!(kind(visitor), ErrorKind::Full);
        create(&store, &owned(HOUR)).unwrap();
    }

    #[test]
    fn delete_compares_only_with_what_is_live() {
        let (store, clock) = full(0, record);
        let store = store.with_max_sessions(1);
        let token = create(&store, &record(HOUR)).unwrap();
        let other = Some(Revision::from_bits(2));
        assert_eq!(kind(now(store.delete(&token, other))), ErrorKind::Conflict);
        clock.set(START + HOUR);
        assert!(!now(store.delete(&token, other)).unwrap());
        assert!(store.is_empty());
    }
}
