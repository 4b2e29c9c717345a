use std::{
    borrow::Cow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use sessionkit::{Clock, ErrorKind, Record, Result, Revision, StoreKey, Subject, Timestamp};

use crate::{
    FsOptions, SyncPolicy,
    call::Call,
    codec::{Encoded, Header},
    dir::{Dir, FileId, Stored, note},
    failure::{Failure, error, unsettled},
    index,
    lock::lock,
    quota::{self, Count, Usage},
    temp::{Temp, TempNames, is_temp},
};

/// The store, as a thread that may block sees it.
///
/// ```text
/// usage             counts for the quota
/// ab/               sessions whose key begins with the byte ab; its lock is the shard's lock
/// ab/ab…            a session, named by its key
/// ab/.tmp-…         a session being written
/// .tmp-…            what a ping writes
/// subjects/cd/…     one empty file for each session of the subjects whose hash begins with cd
/// ```
///
/// What is visible changes by one rename or removal, done under the shard's lock; readers take no
/// lock. Nobody holds two locks.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: Dir,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sync: SyncPolicy,
    pub(crate) usage: Option<Usage>,
    /// The shard where the next sweep begins.
    pub(crate) cursor: AtomicU8,
    temps: TempNames,
    /// Whether the file system can give a name only if it is free; unknown means yes.
    gives_free_names: AtomicBool,
}

/// A record's file as it was found, kept open so that no other file can be mistaken for it.
pub(crate) struct Found {
    pub(crate) stored: Stored,
    pub(crate) header: Header,
}

/// What somebody sees who does not hold the lock.
pub(crate) enum Seen<T> {
    Live(T),
    /// Whoever holds the lock may have looked at the clock in time and be about to prolong the
    /// record, which must not come back after somebody was told that it is gone. So it has to be
    /// looked at again under the lock.
    Expired,
}

impl Tree {
    pub(crate) fn open(path: &Path, options: &FsOptions) -> Result<Self> {
        let root = Dir::root(path, options.group_access)?;
        root.protect(path, is_ours)?;
        root.probe_lock(path)?;
        root.spread_children();
        let mut tree = Self {
            root,
            clock: Arc::clone(&options.clock),
            sync: options.sync,
            usage: None,
            cursor: AtomicU8::new(0),
            temps: TempNames::new()?,
            gives_free_names: AtomicBool::new(true),
        };
        tree.protect_children(path)?;
        if let Some(quota) = options.quota {
            let (usage, is_new) = Usage::open(&tree.root, quota)?;
            tree.usage = Some(usage);
            if is_new {
                let call = Call::new(options.deadline);
                (0..=255).try_for_each(|number| tree.recount(number, &call))?;
            }
        }
        Ok(tree)
    }

    fn protect_children(&self, path: &Path) -> Result<(), Failure> {
        for (parent, path) in [
            (Some(&self.root), path.to_owned()),
            (self.index()?.as_ref(), path.join(index::DIR)),
        ] {
            let Some(parent) = parent else { continue };
            parent.protect(&path, is_ours)?;
            for number in 0..=255 {
                let name = dir_name(number);
                if let Some(child) = parent.child(&name)? {
                    child.protect(&path.join(&name), |_| true)?;
                }
            }
        }
        Ok(())
    }

    /// The record of a key, as it is seen without the lock.
    pub(crate) fn load(&self, key: &StoreKey) -> Result<Option<Seen<Record>>, Failure> {
        let name = key.to_hex();
        let Some(stored) = self.root.open_below(dir_of(&name), &name)? else {
            return self.is_there().map(|()| None);
        };
        let contents = stored.contents()?;
        let header = Header::of(key, &contents, contents.len())?;
        Ok(Some(match self.is_live(&header) {
            true => Seen::Live(header.record(contents)?),
            false => Seen::Expired,
        }))
    }

    /// The live record of a key, as it is found under the lock.
    pub(crate) fn load_locked(
        &self,
        call: &Call,
        key: &StoreKey,
    ) -> Result<Option<Record>, Failure> {
        let Some(shard) = self.shard(shard_of(key))? else {
            return Ok(None);
        };
        let found = self.look_again(call, &shard, key)?;
        Ok(found.map(Found::record).transpose()?)
    }

    /// Whether the directory takes a file.
    pub(crate) fn ping(&self) -> Result<(), Failure> {
        self.is_there()?;
        Temp::write(&self.temps, &self.root, &[0], |_| {}, false).map(drop)
    }

    pub(crate) fn create(&self, call: &Call, key: &StoreKey, record: &Record) -> Result<()> {
        let new = Encoded::new(key, record)?;
        self.retry(call, || self.try_create(call, key, &new))
    }

    fn try_create(&self, call: &Call, key: &StoreKey, new: &Encoded) -> Result<(), Failure> {
        let (number, name) = (shard_of(key), key.to_hex());
        let shard = self.shard_or_create(number)?;
        let temp = self.write(&shard, new)?;
        let lock = lock(&shard, call)?;
        let old = self.vacant(&shard, key)?;
        let more = more(old.as_ref(), new.bytes.len());
        self.admit(more)?;
        if let Some(subject) = &new.subject {
            self.add_to_index(subject, key)?;
        }
        call.commit()?;
        match &old {
            Some(_) => temp.rename(&name)?,
            None => temp.rename_to_free(&name)?,
        }
        self.forget(old.as_ref(), new.subject.as_ref(), key);
        self.count(number, more);
        drop(lock);
        self.settle(&shard)
    }

    /// Whether [`create_unlocked`](Self::create_unlocked) may do for a record: counts and the index
    /// do change with the lock only.
    pub(crate) fn creates_unlocked(&self, record: &Record) -> bool {
        self.usage.is_none()
            && record.subject.is_none()
            && self.gives_free_names.load(Ordering::Relaxed)
    }

    /// Gives a new record its name where there is nothing, and returns whether it could.
    ///
    /// That needs no lock, because the kernel does it in one step, and whoever finds nothing in a
    /// place, under the lock or not, puts something there by a step like this one.
    pub(crate) fn create_unlocked(
        &self,
        call: &Call,
        key: &StoreKey,
        record: &Record,
    ) -> Result<bool> {
        let new = Encoded::new(key, record)?;
        self.retry(call, || {
            let shard = self.shard_or_create(shard_of(key))?;
            let mut temp = self.write(&shard, &new)?;
            call.commit()?;
            match temp.rename_new(&key.to_hex())? {
                Some(true) => self.settle(&shard)?,
                Some(false) => {
                    self.vacant(&shard, key)?;
                    return Ok(false);
                }
                None => {
                    self.gives_free_names.store(false, Ordering::Relaxed);
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// What is left of an expired record in the place of a new one.
    fn vacant(&self, shard: &Dir, key: &StoreKey) -> Result<Option<Found>, Failure> {
        let old = self.find(shard, key)?;
        if old.as_ref().is_some_and(|old| self.is_live(&old.header)) {
            return Err(ErrorKind::Exists.into());
        }
        Ok(old)
    }

    pub(crate) fn update(
        &self,
        call: &Call,
        key: &StoreKey,
        expected: Revision,
        record: &Record,
    ) -> Result<()> {
        let new = Encoded::new(key, record)?;
        let change = |found: &Found| {
            found.expect(expected)?;
            Ok(Cow::Borrowed(&new))
        };
        self.retry(call, || self.replace(call, key, &change))
    }

    pub(crate) fn touch(&self, call: &Call, key: &StoreKey, expires_at: Timestamp) -> Result<()> {
        let change = |found: &Found| {
            let contents = found.stored.contents()?;
            let header = Header::of(key, &contents, contents.len())?;
            let mut record = header.record(contents)?;
            record.expires_at = expires_at;
            Ok(Cow::Owned(Encoded::new(key, &record)?))
        };
        self.retry(call, || self.replace(call, key, &change))
    }

    /// Replaces a live record by what `change` makes of it.
    ///
    /// The new file is written, and synchronized, before the lock is taken. If the record has
    /// changed meanwhile, that is done again under the lock, when it cannot change any more.
    fn replace<'a>(
        &self,
        call: &Call,
        key: &StoreKey,
        change: &dyn Fn(&Found) -> Result<Cow<'a, Encoded>, Failure>,
    ) -> Result<(), Failure> {
        let (number, name) = (shard_of(key), key.to_hex());
        let shard = self.shard(number)?.ok_or(ErrorKind::Missing)?;
        let mut locked = None;
        loop {
            let old = match locked {
                None => self.find_live(call, &shard, key)?,
                Some(_) => self.live(&shard, key)?,
            };
            let old = old.ok_or(ErrorKind::Missing)?;
            let new = change(&old)?;
            let temp = self.write(&shard, &new)?;
            if locked.is_none() {
                locked = Some(lock(&shard, call)?);
                if !old.is_still(&shard, &name)? {
                    continue;
                }
            }
            let more = more(Some(&old), new.bytes.len());
            self.admit(more)?;
            if let Some(subject) = &new.subject
                && old.header.subject.as_ref() != Some(subject)
            {
                self.add_to_index(subject, key)?;
            }
            // Again, after all the waiting: what has expired meanwhile must not come back.
            self.expect_live(&old)?;
            call.commit()?;
            temp.rename(&name)?;
            self.forget(Some(&old), new.subject.as_ref(), key);
            self.count(number, more);
            // Before the old file is closed, which frees it and takes longer than all of this.
            drop(locked);
            return self.settle(&shard);
        }
    }

    /// Removes a record, and returns whether it was live. With a revision to compare it takes no
    /// record but a live one with this revision; without one, whatever is there.
    pub(crate) fn delete(
        &self,
        call: &Call,
        key: &StoreKey,
        expected: Option<Revision>,
    ) -> Result<bool> {
        self.retry(call, || {
            let Some(shard) = self.shard(shard_of(key))? else {
                return Ok(false);
            };
            let lock = lock(&shard, call)?;
            let found = match self.find(&shard, key) {
                Ok(None) => return Ok(false),
                Err(failure) if failure.is_corrupt() && expected.is_none() => None,
                found => found?,
            };
            let was_live = found.as_ref().is_some_and(|old| self.is_live(&old.header));
            if let (Some(expected), Some(found)) = (expected, &found) {
                if !was_live {
                    return Ok(false);
                }
                found.expect(expected)?;
            }
            call.commit()?;
            self.remove(&shard, key, found.as_ref())?;
            drop(lock);
            self.settle(&shard)?;
            Ok(was_live)
        })
    }

    /// Removes a record's file and what belongs to it; the caller holds the lock.
    pub(crate) fn remove(
        &self,
        shard: &Dir,
        key: &StoreKey,
        found: Option<&Found>,
    ) -> Result<bool, Failure> {
        let removed = shard.remove(&key.to_hex())?;
        if removed {
            self.forget(found, None, key);
            self.count(shard_of(key), less(found));
        }
        Ok(removed)
    }

    /// The record under a key, live or not.
    pub(crate) fn find(&self, shard: &Dir, key: &StoreKey) -> Result<Option<Found>, Failure> {
        let Some(stored) = shard.open_file(&key.to_hex())? else {
            return Ok(None);
        };
        let header = stored.header(key)?;
        Ok(Some(Found { stored, header }))
    }

    /// The live record of a key; the caller holds the lock.
    pub(crate) fn live(&self, shard: &Dir, key: &StoreKey) -> Result<Option<Found>, Failure> {
        let found = self.find(shard, key)?;
        Ok(found.filter(|found| self.is_live(&found.header)))
    }

    /// The live record of a key; the caller does not hold the lock.
    pub(crate) fn find_live(
        &self,
        call: &Call,
        shard: &Dir,
        key: &StoreKey,
    ) -> Result<Option<Found>, Failure> {
        match self.find(shard, key)? {
            Some(found) if !self.is_live(&found.header) => self.look_again(call, shard, key),
            found => Ok(found),
        }
    }

    /// The live record of a key that was [`Seen::Expired`].
    fn look_again(
        &self,
        call: &Call,
        shard: &Dir,
        key: &StoreKey,
    ) -> Result<Option<Found>, Failure> {
        let _lock = lock(shard, call)?;
        self.live(shard, key)
    }

    fn expect_live(&self, found: &Found) -> Result<(), Failure> {
        match self.is_live(&found.header) {
            true => Ok(()),
            false => Err(ErrorKind::Missing.into()),
        }
    }

    pub(crate) fn is_live(&self, header: &Header) -> bool {
        self.clock.now() < header.expires_at
    }

    /// The directory of a number.
    pub(crate) fn shard(&self, number: u8) -> Result<Option<Dir>, Failure> {
        self.of_root(&dir_name(number))
    }

    /// A directory in the root. Its absence means that there is nothing in it, unless the store
    /// itself was removed.
    pub(crate) fn of_root(&self, name: &str) -> Result<Option<Dir>, Failure> {
        let dir = self.root.child(name)?;
        if dir.is_none() {
            self.is_there()?;
        }
        Ok(dir)
    }

    fn is_there(&self) -> Result<(), Failure> {
        if self.root.is_removed()? {
            return Err(Failure::Vanished);
        }
        Ok(())
    }

    pub(crate) fn shard_or_create(&self, number: u8) -> Result<Dir, Failure> {
        self.child_or_create(&self.root, &dir_name(number))
    }

    pub(crate) fn child_or_create(&self, parent: &Dir, name: &str) -> Result<Dir, Failure> {
        if let Some(child) = parent.child(name)? {
            return Ok(child);
        }
        if parent.create_child(name)? && self.sync.names() {
            parent.sync()?;
        }
        parent.child(name)?.ok_or(Failure::Vanished)
    }

    fn write<'a>(&self, dir: &'a Dir, new: &Encoded) -> Result<Temp<'a>, Failure> {
        let note = |file: &_| note(file, new.expires_at);
        Temp::write(&self.temps, dir, &new.bytes, note, self.sync.contents())
    }

    /// Removes the index entry of a record that is gone, unless its successor has the same one.
    /// One that is left behind misleads nobody, and a sweep removes it.
    fn forget(&self, old: Option<&Found>, successor: Option<&Subject>, key: &StoreKey) {
        if let Some(subject) = old.and_then(|old| old.header.subject.as_ref())
            && successor != Some(subject)
        {
            let _ = self.remove_from_index(subject, key);
        }
    }

    fn admit(&self, change: Count) -> Result<()> {
        match &self.usage {
            Some(usage) => usage.admit(change),
            None => Ok(()),
        }
    }

    fn count(&self, number: u8, change: Count) {
        if let Some(usage) = &self.usage {
            usage.add(number, change);
        }
    }

    /// Starts again when a directory was swept away under the call.
    pub(crate) fn retry<T>(
        &self,
        call: &Call,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T> {
        loop {
            match attempt() {
                Err(Failure::Vanished) if !self.root.is_removed().map_err(error)? => {
                    call.check()?
                }
                result => return Ok(result?),
            }
        }
    }

    /// Makes what is visible already durable.
    pub(crate) fn settle(&self, dir: &Dir) -> Result<(), Failure> {
        if self.sync.names() {
            dir.sync().map_err(unsettled)?;
        }
        Ok(())
    }
}

impl Found {
    fn expect(&self, revision: Revision) -> Result<(), Failure> {
        if self.header.revision != revision {
            return Err(ErrorKind::Conflict.into());
        }
        Ok(())
    }

    fn is_still(&self, shard: &Dir, name: &str) -> Result<bool, Failure> {
        let id = shard.stat(name)?.as_ref().map(FileId::of);
        Ok(id == Some(self.stored.id))
    }

    fn record(self) -> Result<Record> {
        self.header.record(self.stored.contents()?)
    }
}

/// What storing a file of this size in the place of another adds to the usage.
fn more(old: Option<&Found>, size: usize) -> Count {
    Count {
        sessions: i64::from(old.is_none()),
        bytes: signed(size) - old.map_or(0, |old| signed(old.stored.size)),
    }
}

/// What removing a file adds to the usage; a damaged file's size is corrected by a sweep.
fn less(old: Option<&Found>) -> Count {
    Count {
        sessions: -1,
        bytes: old.map_or(0, |old| -signed(old.stored.size)),
    }
}

fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// The number of the directory that a key belongs to.
pub(crate) fn shard_of(key: &StoreKey) -> u8 {
    key.as_bytes()[0]
}

/// The name of the directory of a session's file.
fn dir_of(name: &str) -> &str {
    &name[..2]
}

/// The name of the directory of a number.
pub(crate) fn dir_name(number: u8) -> String {
    format!("{number:02x}")
}

fn is_ours(name: &str) -> bool {
    let is_dir = name.len() == 2 && u8::from_str_radix(name, 16).is_ok();
    is_dir || name == index::DIR || name == quota::FILE || is_temp(name)
}
