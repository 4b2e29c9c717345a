//! The store: correct where no fault is asked for, wrong in one place where one is.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, Clock, Durability, Error, ErrorKind, Label, Record, Result, Revision,
    SessionStore, SubjectIndex, SubjectSession, Sweep, SystemClock, Timestamp, Token,
};
use tokio::{sync::Semaphore, task::yield_now};

use super::{
    Shared,
    codec::{decode, encode},
    index::TalkativeIndex,
    wire::Access,
};
use crate::Fault;

/// The largest data: the limits of the catalogue and a bit.
pub(super) const MAX_DATA: usize = (1 << 20) + 17;

pub(super) type Disk = BTreeMap<Vec<u8>, Vec<u8>>;

/// A handle to the backend of a [`BrokenHarness`](super::BrokenHarness).
pub(super) struct BrokenStore {
    pub(super) shared: Arc<Shared>,
    pub(super) namespace: String,
    /// Whether an odd number of handles was opened before this one.
    pub(super) odd: bool,
    cache: Mutex<HashMap<Vec<u8>, Record>>,
    wire: Mutex<VecDeque<Option<Record>>>,
    /// Answers to lists that were on their way.
    pub(super) pages: Mutex<VecDeque<Vec<SubjectSession>>>,
    pub(super) busy: AtomicBool,
    pool: Semaphore,
    /// The index, where it is an object of its own.
    index: Option<Box<TalkativeIndex>>,
}

impl fmt::Debug for BrokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("BrokenStore");
        if self.has("debug-shows-data") {
            let disk = self.disk();
            let texts: Vec<_> = disk
                .values()
                .map(|value| value.escape_ascii().to_string())
                .collect();
            debug.field("disk", &texts);
        }
        debug.finish_non_exhaustive()
    }
}

/// Closing a handle.
impl Drop for BrokenStore {
    fn drop(&mut self) {
        if self.has("a-closed-handle-writes-back") {
            let cached = std::mem::take(&mut *lock(&self.cache)).into_iter();
            self.disk()
                .extend(cached.map(|(key, record)| (key, encode(&record))));
        }
        if self.has("drop-loses-what-it-wrote") && self.shared.fault() != Fault::None {
            let prefix = self.prefix();
            self.disk().retain(|key, _| !key.starts_with(&prefix));
        }
    }
}

impl BrokenStore {
    pub(super) fn new(shared: Arc<Shared>, namespace: &str, odd: bool) -> Self {
        let index = shared.bug == "index-debug-shows-keys";
        let index = index.then(|| Box::new(TalkativeIndex::new(&shared, namespace)));
        Self::with_index(shared, namespace, odd, index)
    }

    pub(super) fn with_index(
        shared: Arc<Shared>,
        namespace: &str,
        odd: bool,
        index: Option<Box<TalkativeIndex>>,
    ) -> Self {
        Self {
            shared,
            index,
            namespace: namespace.into(),
            odd,
            cache: Mutex::default(),
            wire: Mutex::default(),
            pages: Mutex::default(),
            busy: AtomicBool::new(false),
            pool: Semaphore::new(1),
        }
    }

    pub(super) fn has(&self, bug: &str) -> bool {
        self.shared.bug == bug
    }

    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.shared.disk)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// The time by which a record of the namespace is compared, shifted when the server's zone
    /// leaks into it.
    fn expiry_now(&self) -> Timestamp {
        if self.has("time-never-goes-back") {
            let mut latest = lock(&self.shared.latest);
            *latest = self.now().max(*latest);
            return *latest;
        }
        if self.has("zone-shifts-expiry") && self.shared.fault() == Fault::TimeZone {
            return self.now() + Duration::from_secs(5 * 3600);
        }
        self.now()
    }

    pub(super) fn prefix(&self) -> Vec<u8> {
        if self.has("namespaces-are-one") {
            return b"all/".to_vec();
        }
        if self.has("namespaces-are-cut") {
            let cut = &self.namespace[..self.namespace.len().min(31)];
            return format!("{cut}/").into_bytes();
        }
        if self.has("namespaces-without-separator") {
            return self.namespace.clone().into_bytes();
        }
        if self.has("namespace-as-pattern") && self.namespace.contains(['_', '*', '%']) {
            return self.namespace.replace(['_', '*', '%'], "").into_bytes();
        }
        format!("{}/", self.namespace).into_bytes()
    }

    pub(super) fn key(&self, token: &Token) -> Vec<u8> {
        let mut key = self.prefix();
        let hex = token.key().to_hex();
        let text = String::from_utf8_lossy(token.expose());
        match self.shared.bug {
            "files-under-the-token" => {
                key.extend(
                    token
                        .expose()
                        .iter()
                        .flat_map(|byte| format!("{byte:02x}").into_bytes()),
                );
            }
            "tokens-ignore-case" => key.extend_from_slice(text.to_lowercase().as_bytes()),
            "tokens-are-trimmed" => {
                key.extend_from_slice(text.trim_end_matches([' ', '\0', '=']).as_bytes())
            }
            "tokens-are-prefixes" => key.extend(token.expose().iter().take(6)),
            "tokens-are-paths" if text.contains("..") => key = b"etc/passwd".to_vec(),
            "tokens-are-cut" => key.extend(token.expose().iter().take(64)),
            "files-under-the-whole-token" => {
                key.extend(token.expose().iter().map(|byte| byte ^ 0x55));
            }
            "keys-are-compared-in-three-bytes" => {
                let begins = format!("{}{}", self.namespace, &hex[..6]);
                let mut namesakes = lock(&self.shared.namesakes);
                let first = namesakes.entry(begins).or_insert_with(|| hex.clone());
                key.extend_from_slice(first.as_bytes());
            }
            "keys-collide" => key.extend_from_slice(&hex.as_bytes()[..1]),
            _ => key.extend_from_slice(hex.as_bytes()),
        }
        key
    }

    /// The record under a key, live or not.
    fn stored(&self, disk: &Disk, token: &Token) -> Result<Option<Record>> {
        let Some(bytes) = disk.get(&self.key(token)) else {
            return Ok(None);
        };
        match self.shared.bug {
            "corrupt-panics" => Ok(Some(decode(bytes).expect("the disk is never wrong"))),
            "corrupt-is-none" => Ok(decode(bytes).ok()),
            "corrupt-is-unavailable" => decode(bytes)
                .map(Some)
                .map_err(|_| ErrorKind::Unavailable.into()),
            "trusts-lengths"
                if bytes
                    .get(9..)
                    .is_some_and(|rest| rest.starts_with(&[255; 8])) =>
            {
                Err(ErrorKind::TooLarge.into())
            }
            "corrupt-quotes-what-is-stored" => decode(bytes).map(Some).map_err(|_| {
                let text = format!("no record: {}", bytes.escape_ascii());
                Error::new(ErrorKind::Corrupt, text)
            }),
            "newer-format-is-none" if bytes.first() > Some(&1) => Ok(None),
            _ => decode(bytes).map(Some),
        }
    }

    /// Whether a record was ever stored under the key, in a bug that remembers it.
    fn was_there(&self, token: &Token) -> bool {
        lock(&self.shared.indexed).contains(&self.key(token))
    }

    fn live(&self, disk: &Disk, token: &Token) -> Result<Option<Record>> {
        let now = self.expiry_now();
        let live = |record: &Record| match self.has("expiries-are-text") {
            true => {
                let text = |at: Timestamp| at.as_millis().to_string();
                text(record.expires_at) > text(now)
            }
            false => record.is_live(now),
        };
        if let (Some(record), "swept-records-come-back") = (
            lock(&self.shared.aside).get(&self.key(token)),
            self.shared.bug,
        ) && live(record)
        {
            return Ok(Some(record.clone()));
        }
        Ok(self.stored(disk, token)?.filter(live))
    }

    fn live_at(&self, disk: &Disk, token: &Token, expected: Revision) -> Result<Record> {
        let record = self.live(disk, token)?.ok_or(ErrorKind::Missing)?;
        if record.revision != expected && !self.has("revisions-are-not-compared") {
            return Err(ErrorKind::Conflict.into());
        }
        Ok(record)
    }

    /// Whether an update takes two revisions for one.
    fn mistakes(&self, stored: Revision, expected: Revision) -> bool {
        let (stored, expected) = (stored.to_bits(), expected.to_bits());
        match self.shared.bug {
            "update-compares-half-a-revision" => stored as u32 == expected as u32,
            "update-compares-revisions-as-floats" => {
                (stored as f64).to_bits() == (expected as f64).to_bits()
            }
            _ => false,
        }
    }

    fn check_size(&self, record: &Record) -> Result<()> {
        let checked = record.check_size(MAX_DATA);
        if checked.is_err() && self.has("too-large-quotes-the-data") {
            let text = format!("no room for {}", record.data[..64].escape_ascii());
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        checked
    }

    fn put(&self, disk: &mut Disk, token: &Token, record: &Record) {
        let record = self.spoiled(record);
        let expiry = record.expires_at;
        let mut expiries = lock(&self.shared.expiries);
        let [_, latest] = expiries.entry(self.key(token)).or_insert([expiry, expiry]);
        *latest = expiry.max(*latest);
        lock(&self.cache).insert(self.key(token), record.clone());
        disk.insert(self.key(token), encode(&record));
    }
}

#[async_trait]
impl SessionStore for BrokenStore {
    fn capabilities(&self) -> Capabilities {
        let capabilities = Capabilities::server(MAX_DATA).durability(Durability::Disk);
        match self.shared.bug {
            "declares-less-when-down" if self.shared.fault() == Fault::Down => {
                capabilities.durability(Durability::Process)
            }
            "handles-differ" if self.odd => capabilities.staleness(Duration::from_millis(1)),
            "claims-a-native-sweep" => capabilities.sweep(Sweep::Native),
            "claims-no-sweep" => capabilities.sweep(Sweep::Unsupported),
            _ => capabilities,
        }
    }

    async fn create(&self, token: Token, given: &Record) -> Result<Token> {
        let mut record = given.clone();
        if self.has("too-large-is-cut") {
            record.data.truncate(MAX_DATA);
        }
        self.check_size(&record)?;
        self.arrive(Access::Write, Some(&token)).await?;
        let found = self.live(&self.disk(), &token)?;
        self.gap("create-checks-then-inserts").await;
        let check = || self.live(&self.disk(), &token);
        let split = self.split("create", check).await.transpose()?;
        {
            let mut disk = self.disk();
            let old = self.stored(&disk, &token)?;
            let live = match split {
                Some(checked) => checked,
                None if self.has("create-checks-then-inserts") => found,
                None => self.live(&disk, &token)?,
            };
            match self.shared.bug {
                "create-overwrites" => {}
                "expired-still-exists" if old.is_some() => return Err(ErrorKind::Exists.into()),
                "late-records-collide" if !record.is_live(self.now()) && self.was_there(&token) => {
                    return Err(ErrorKind::Exists.into());
                }
                _ if live.is_some() => return Err(ErrorKind::Exists.into()),
                _ => {}
            }
            if let (Some(subject), "create-keeps-the-old-entry") = (
                old.as_ref().and_then(|old| old.subject.clone()),
                self.shared.bug,
            ) {
                lock(&self.shared.former).push((subject, self.key(&token)));
            }
            if let (Some(old), "create-inherits") = (old, self.shared.bug) {
                record.subject = old.subject;
                record.data = old.data;
            }
            lock(&self.shared.expiries).remove(&self.key(&token));
            lock(&self.shared.tokens).insert(self.key(&token), token.clone());
            self.put(&mut disk, &token, &record);
        }
        self.gap("index-is-written-later").await;
        lock(&self.shared.indexed).insert(self.key(&token));
        if self.has("create-returns-another-token") {
            return Ok(Token::from_bytes(vec![0; 32], token.cookie()));
        }
        let answer = self.answer().await;
        if self.repeats(&answer, "repeats-a-lost-create") {
            return self.create(token, given).await;
        }
        answer.map(|()| token)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        match self.arrive(Access::Read, Some(token)).await {
            Err(_) if self.has("load-hides-errors") => return Ok(None),
            arrived => arrived?,
        }
        if let (Some(record), "caches-for-ever") =
            (lock(&self.cache).get(&self.key(token)), self.shared.bug)
        {
            return Ok(Some(record.clone()).filter(|record| record.is_live(self.now())));
        }
        if self.has("reads-lag-behind") && self.odd {
            let key = self.key(token);
            let before = lock(&self.shared.lagging).get(&key).cloned();
            let now = self.live(&self.disk(), token)?;
            match now {
                Some(now) => lock(&self.shared.lagging).insert(key, now),
                None => lock(&self.shared.lagging).remove(&key),
            };
            if let Some(before) = before.filter(|record| record.is_live(self.now())) {
                return Ok(Some(before));
            }
        }
        self.marks_what_it_meets(token);
        let mut record = {
            let disk = self.disk();
            match self.shared.bug {
                "expiry-is-not-checked" => self.stored(&disk, token)?,
                "expires-a-second-early" => self
                    .live(&disk, token)?
                    .filter(|record| record.is_live(self.now() + Duration::from_secs(1))),
                _ => self.live(&disk, token)?,
            }
        };
        if let Some(found) = &mut record {
            lock(&self.cache).insert(self.key(token), found.clone());
            match self.shared.bug {
                "load-extends" => {
                    found.expires_at = found.expires_at + Duration::from_secs(600);
                    self.put(&mut self.disk(), token, found);
                }
                "data-come-back-empty" => found.data.clear(),
                "loads-are-torn" => {
                    let half = found.data.len() / 2;
                    yield_now().await;
                    if let Some(now) = self.live(&self.disk(), token)? {
                        let torn = [&found.data[..half], &now.data[now.data.len() / 2..]].concat();
                        found.data = torn.into();
                    }
                }
                _ => {}
            }
        }
        if self.has("load-stores-a-blank") && record.is_none() {
            let mut blank = self.key(token);
            blank.push(b'?');
            self.disk().insert(blank, Vec::new());
        }
        if self.has("empty-is-absent") {
            record = record.filter(|record| !record.data.is_empty());
        }
        if self.has("answers-get-mixed-up") {
            lock(&self.wire).push_back(record);
            yield_now().await;
            record = lock(&self.wire).pop_front().flatten();
        }
        match self.answer().await {
            Err(_) if self.has("load-hides-errors") => Ok(None),
            answer if self.repeats(&answer, "a-lost-load-is-none") => Ok(None),
            answer => answer.map(|()| record),
        }
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        if record.data.len() > MAX_DATA && self.has("too-large-clears") {
            self.disk().remove(&self.key(token));
        }
        self.check_size(record)?;
        self.arrive(Access::Write, Some(token)).await?;
        if self.has("update-on-a-thread") {
            self.update_on_a_thread(token, expected, record).await?;
            return self.answer().await.map(|()| token.clone());
        }
        if self.has("locks-its-pool-twice") {
            let _first = self.pool.acquire().await;
            yield_now().await;
            let _second = self.pool.acquire().await;
        }
        let early = self.live_at(&self.disk(), token, expected);
        self.gap("update-checks-then-writes").await;
        let check = || self.live_at(&self.disk(), token, expected);
        let split = self.split("update", check).await;
        {
            let mut disk = self.disk();
            let stored = match self.shared.bug {
                "update-checks-then-writes" => early,
                "update-inserts" => Ok(record.clone()),
                "update-revives" => self
                    .stored(&disk, token)?
                    .ok_or_else(|| ErrorKind::Missing.into()),
                "revision-is-one-bit" => self
                    .live(&disk, token)?
                    .filter(|stored| (stored.revision.to_bits() ^ expected.to_bits()) & 1 == 0)
                    .ok_or_else(|| ErrorKind::Conflict.into()),
                _ => match self.live(&disk, token) {
                    Ok(Some(stored)) if self.mistakes(stored.revision, expected) => Ok(stored),
                    _ => split.unwrap_or_else(|| self.live_at(&disk, token, expected)),
                },
            };
            match stored {
                Ok(stored) => {
                    let mut record = record.clone();
                    match self.shared.bug {
                        "update-merges" => record.subject.clone_from(&stored.subject),
                        "update-keeps-the-expiry" => record.expires_at = stored.expires_at,
                        "update-drops-the-expiry" => record.expires_at = Timestamp::MAX,
                        "update-keeps-the-revision" => record.revision = stored.revision,
                        "update-keeps-the-creation" => record.created_at = stored.created_at,
                        _ => {}
                    }
                    let keeps = [
                        "index-keeps-the-old",
                        "index-lists-twice",
                        "revoke-all-follows-the-old",
                    ];
                    if let (Some(old), true) = (stored.subject, keeps.contains(&self.shared.bug)) {
                        lock(&self.shared.former).push((old, self.key(token)));
                    }
                    if self.has("keeps-what-another-handle-wrote") && self.odd {
                        let copy = [self.key(token), b"~".to_vec()].concat();
                        disk.insert(copy, encode(&record));
                    }
                    if let Some(first) = lock(&self.shared.tokens).get_mut(&self.key(token))
                        && first != token
                    {
                        *first = Token::from_bytes(Vec::new(), token.cookie());
                    }
                    self.put(&mut disk, token, &record);
                }
                Err(error) if self.forgives(&error) => {}
                Err(error) => {
                    if self.has("rot-is-thrown-away") && error.kind() == ErrorKind::Corrupt {
                        disk.remove(&self.key(token));
                    }
                    if self.has("conflict-writes-anyway") && error.kind() == ErrorKind::Conflict {
                        self.put(&mut disk, token, record);
                    }
                    return Err(error);
                }
            }
        }
        if self.has("update-removes-first") {
            let removed = self.disk().remove(&self.key(token));
            yield_now().await;
            let mut disk = self.disk();
            removed.and_then(|record| disk.insert(self.key(token), record));
        }
        if self.has("repeats-lost-calls") && self.shared.fault() == Fault::LoseReplies {
            self.live_at(&self.disk(), token, expected)?;
        }
        let answer = self.answer().await;
        if self.repeats(&answer, "repeats-a-lost-update") {
            return self.update(token, expected, record).await;
        }
        answer?;
        if self.has("update-returns-another-secret") {
            let id = &token.expose()[..Token::ID_LEN.min(token.expose().len())];
            return Ok(Token::from_bytes([id, &[4; 16]].concat(), token.cookie()));
        }
        Ok(token.clone())
    }

    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        if self.is_full("a-full-backend-loses-what-is-renewed") {
            self.disk().remove(&self.key(token));
        }
        let mut record = record.clone();
        if self.has("renew-keeps-the-label")
            && let Some(stored) = self.live(&self.disk(), token)?
        {
            record.label = stored.label;
        }
        match self.shared.bug {
            "renew-does-nothing" => Ok(token.clone()),
            "renew-waits-for-ever" if self.shared.fault() == Fault::Hang => {
                std::future::pending().await
            }
            _ => self.update(token, expected, &record).await,
        }
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        if self.is_full("a-full-touch-is-ok") {
            return Ok(token.clone());
        }
        self.arrive(Access::Write, Some(token)).await?;
        let early = self.live(&self.disk(), token)?;
        self.gap("touch-checks-then-writes").await;
        let split = self.split("touch", || self.live(&self.disk(), token)).await;
        {
            let mut disk = self.disk();
            let stored = match self.shared.bug {
                "touch-checks-then-writes" => early,
                "touch-revives" => self.stored(&disk, token)?,
                _ => split.unwrap_or_else(|| self.live(&disk, token))?,
            };
            match stored {
                Some(mut record) => {
                    match self.shared.bug {
                        "touch-only-extends" => {
                            record.expires_at = record.expires_at.max(expires_at);
                        }
                        "touch-uses-a-default" => {
                            record.expires_at = self.now() + Duration::from_secs(86_400);
                        }
                        "zone-shifts-touch" if self.shared.fault() == Fault::TimeZone => {
                            record.expires_at = expires_at + Duration::from_secs(5 * 3600);
                        }
                        _ => record.expires_at = expires_at,
                    }
                    match self.shared.bug {
                        "touch-changes-the-revision" => {
                            record.revision = Revision::from_bits(!record.revision.to_bits());
                        }
                        "touch-drops-the-label" => record.label = Label::default(),
                        _ => {}
                    }
                    self.put(&mut disk, token, &record);
                }
                None if self.has("missing-is-ok") => {}
                None => {
                    if self.has("touch-leaves-a-marker") {
                        disk.insert([&*self.key(token), b"?"].concat(), Vec::new());
                    }
                    return Err(ErrorKind::Missing.into());
                }
            }
        }
        self.answer_and_unlock(self.key(token), "a-dropped-touch-keeps-its-lock")
            .await?;
        Ok(token.clone())
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        match self.arrive(Access::Remove, Some(token)).await {
            Err(_) if self.has("delete-hides-errors") => return Ok(true),
            arrived => arrived?,
        }
        let full = self.is_full("a-full-delete-at-a-revision-is-ok");
        if self.has("delete-does-nothing") || full && expected.is_some() {
            return Ok(true);
        }
        if self.has("delete-stores-an-empty-record") {
            let mut disk = self.disk();
            if let Some(mut record) = self.live(&disk, token)? {
                record.data.clear();
                self.put(&mut disk, token, &record);
            }
            return Ok(true);
        }
        if self.has("delete-reads-first") {
            self.stored(&self.disk(), token)?;
        }
        let early = self.ends_live(&self.disk(), token, expected);
        self.gap("delete-checks-then-removes").await;
        let check = || self.ends_live(&self.disk(), token, expected);
        let split = self.split("delete", check).await;
        let live = {
            let mut disk = self.disk();
            let live = match self.shared.bug {
                "delete-checks-then-removes" => early?,
                "delete-ignores-the-revision" => self.ends_live(&disk, token, None)?,
                _ => split.unwrap_or_else(|| self.ends_live(&disk, token, expected))?,
            };
            if self.has("a-stale-delete-is-false") && !live && expected.is_some() {
                return Ok(false);
            }
            if self.has("delete-leaves-what-has-expired")
                && !live
                && self.stored(&disk, token).is_ok()
            {
                return Ok(false);
            }
            let removed = disk.remove(&self.key(token));
            if self.has("delete-of-nothing-fails") && removed.is_none() {
                return Err(ErrorKind::Missing.into());
            }
            live
        };
        lock(&self.cache).remove(&self.key(token));
        if self.has("repeats-lost-deletes") && self.shared.fault() == Fault::LoseReplies {
            return Ok(false);
        }
        let answer = self
            .answer_and_unlock(self.key(token), "a-dropped-delete-keeps-its-lock")
            .await;
        if self.repeats(&answer, "repeats-a-lost-delete") {
            return self.delete(token, expected).await;
        }
        answer?;
        Ok(live || self.has("delete-is-always-true"))
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        match self.shared.bug {
            "claims-a-native-sweep" => return Ok(7),
            "claims-no-sweep" | "sweep-removes-nothing" => return Ok(0),
            _ => {}
        }
        self.arrive_or_hang(Access::Remove, "sweep-hangs").await?;
        let now = match self.shared.bug {
            "sweep-has-its-own-clock" => SystemClock.now() + Duration::from_secs(7200),
            "sweep-is-early" => self.now() + Duration::from_secs(120),
            _ => self.expiry_now(),
        };
        let early = self.expired(&self.disk(), now)?;
        self.gap("sweep-checks-then-deletes").await;
        self.gap("sweep-counts-what-it-saw").await;
        let split = self
            .split("sweep", || self.expired(&self.disk(), now))
            .await;
        let (mut removed, seen) = (0, early.len());
        {
            let mut disk = self.disk();
            let mut expired = match self.has("sweep-checks-then-deletes") {
                true => early,
                false => split.unwrap_or_else(|| self.expired(&disk, now))?,
            };
            if self.has("sweep-looks-no-further-than-its-limit") {
                let first: Vec<_> = disk.keys().take(limit).cloned().collect();
                expired.retain(|key| first.contains(key));
            }
            if !self.has("sweep-ignores-the-limit") {
                expired.truncate(limit);
            }
            if self.is_full("a-full-sweep-removes-nothing") {
                return Ok(expired.len() as u64);
            }
            for key in &expired {
                let stored = disk.remove(key);
                removed += u64::from(stored.is_some());
                let Some(bytes) = stored else { continue };
                let subject = decode(&bytes).ok().and_then(|record| record.subject);
                match self.shared.bug {
                    "swept-records-come-back" => {
                        lock(&self.shared.aside).insert(key.clone(), decode(&bytes)?);
                    }
                    "sweep-counts-entries-too" => removed += u64::from(subject.is_some()),
                    "sweep-leaves-the-entries" if subject.is_some() => {
                        let entry = [&key[..], b"@"].concat();
                        disk.insert(entry, Vec::new());
                    }
                    "sweep-logs-what-it-removes" => {
                        tracing::debug!("removed {}", key.escape_ascii());
                    }
                    _ => {}
                }
            }
            match self.shared.bug {
                "sweep-removes-strangers" => disk.retain(|key, _| !key.starts_with(b"foreign")),
                "sweep-empties" => disk.retain(|key, _| !key.starts_with(&self.prefix())),
                "sweep-reaches-the-neighbours" => {
                    disk.retain(|_, bytes| decode(bytes).map_or(true, |record| record.is_live(now)))
                }
                _ => {}
            }
        }
        match self.answer().await {
            Err(_) if self.has("sweep-hides-lost-answers") => return Ok(0),
            answer => answer?,
        }
        match self.shared.bug {
            "sweep-miscounts" => Ok(removed + 1),
            "sweep-counts-half" => Ok(removed / 2),
            "sweep-counts-what-it-saw" => Ok(seen as u64),
            _ => Ok(removed),
        }
    }

    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        match self.shared.bug {
            "try-sweep-leaves-it-to-others" => Ok(None),
            // The lock of the sweepers could not be had.
            "try-sweep-hides-errors" if self.shared.fault() == Fault::Down => Ok(None),
            _ => self.sweep(limit).await.map(Some),
        }
    }

    async fn ping(&self) -> Result<()> {
        match self.shared.bug {
            "ping-is-always-ok" => Ok(()),
            "ping-is-unsupported" => Err(ErrorKind::Unsupported.into()),
            _ => self.arrive(Access::Remove, None).await,
        }
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        match &self.index {
            Some(index) => Some(&**index),
            None => (!self.has("keeps-no-subject")).then_some(self as &dyn SubjectIndex),
        }
    }
}

impl BrokenStore {
    /// What a load writes that should only read.
    fn marks_what_it_meets(&self, token: &Token) {
        let mut disk = self.disk();
        let Some(bytes) = disk.get_mut(&self.key(token)) else {
            return;
        };
        match (decode(bytes), self.shared.bug) {
            (Err(_), "load-marks-what-is-damaged") => *bytes = b"damaged".to_vec(),
            (Ok(mut record), "load-empties-what-has-expired") if !record.is_live(self.now()) => {
                record.data.clear();
                *bytes = encode(&record);
            }
            _ => {}
        }
    }

    /// An update whose two locks are both taken by one task on another thread.
    async fn update_on_a_thread(
        &self,
        token: &Token,
        expected: Revision,
        record: &Record,
    ) -> Result<()> {
        let (shared, key, now) = (Arc::clone(&self.shared), self.key(token), self.now());
        let record = record.clone();
        let update = move || {
            let stored = lock(&shared.disk).get(&key).map(|bytes| decode(bytes));
            let stored = stored.transpose()?.filter(|stored| stored.is_live(now));
            let stored = stored.ok_or(ErrorKind::Missing)?;
            if stored.revision != expected {
                return Err(ErrorKind::Conflict.into());
            }
            std::thread::yield_now();
            lock(&shared.disk).insert(key, encode(&record));
            Ok(())
        };
        let updated = tokio::task::spawn_blocking(update).await;
        updated.map_err(|_| ErrorKind::Unavailable)?
    }

    /// Whether a delete ends a live record.
    fn ends_live(&self, disk: &Disk, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let Some(expected) = expected else {
            // Also what cannot be read goes.
            return Ok(matches!(self.live(disk, token), Ok(Some(_))));
        };
        match self.live_at(disk, token, expected) {
            Err(error) if error.kind() == ErrorKind::Missing => Ok(false),
            Err(_) if self.has("a-stale-delete-is-false") => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// The keys of the expired records of the namespace.
    fn expired(&self, disk: &Disk, now: Timestamp) -> Result<Vec<Vec<u8>>> {
        let prefix = self.prefix();
        let mut expired = Vec::new();
        let range = disk.range::<[u8], _>((Bound::Included(&*prefix), Bound::Unbounded));
        let expiries = lock(&self.shared.expiries);
        for (key, bytes) in range.take_while(|(key, _)| key.starts_with(&prefix)) {
            let record = decode(bytes).map(|mut record| {
                let [first, latest] = expiries.get(key).copied().unwrap_or([now; 2]);
                match self.shared.bug {
                    "sweep-goes-by-the-first-expiry" => record.expires_at = first,
                    "sweep-goes-by-the-latest-expiry" => record.expires_at = latest,
                    "sweep-leaves-those-with-a-subject" if record.subject.is_some() => {
                        record.expires_at = Timestamp::MAX;
                    }
                    _ => {}
                }
                record
            });
            match record {
                Ok(record) if !record.is_live(now) => expired.push(key.clone()),
                Err(error) if self.has("sweep-stops-at-rot") => return Err(error),
                _ => {}
            }
        }
        Ok(expired)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
