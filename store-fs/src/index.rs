use sessionkit::{Result, StoreKey, Subject, SubjectSession};
use sha2::{Digest, Sha256};

use crate::{
    call::Call,
    dir::Dir,
    failure::Failure,
    lock::lock,
    tree::{Found, Seen, Tree, dir_name, shard_of},
};

/// The directory of the index, in the root directory.
pub(crate) const DIR: &str = "subjects";

/// The index by subject: an empty file for each session that has one, named by a hash of the
/// subject and the session's key.
///
/// An entry is a hint, the record decides. It is written before the record that needs it becomes
/// visible and removed after, both under the lock of the record's shard; so it is there for every
/// record, and one without a record is left over from a process that died.
impl Tree {
    /// The sessions of a subject, as they are seen without the locks, up to `limit` live ones.
    pub(crate) fn list(
        &self,
        call: &Call,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, Seen<SubjectSession>)>, Failure> {
        let (mut sessions, mut live) = (Vec::new(), 0);
        for key in self.keys_of(call, subject)? {
            call.check()?;
            if live == limit {
                break;
            }
            if after.is_some_and(|after| key <= *after) {
                continue;
            }
            let Some(shard) = self.shard(shard_of(&key))? else {
                continue;
            };
            let Some(found) = readable(self.find(&shard, &key))? else {
                continue;
            };
            if !self.is_live(&found.header) {
                sessions.push((key, Seen::Expired));
            } else if found.is_of(subject) {
                sessions.push((key, Seen::Live(found.listed(key))));
                live += 1;
            }
        }
        Ok(sessions)
    }

    /// A session of a subject, as it is found under the lock.
    pub(crate) fn list_locked(
        &self,
        call: &Call,
        subject: &Subject,
        key: &StoreKey,
    ) -> Result<Option<SubjectSession>, Failure> {
        let Some(shard) = self.shard(shard_of(key))? else {
            return Ok(None);
        };
        let _lock = lock(&shard, call)?;
        let found = readable(self.live(&shard, key))?;
        let found = found.filter(|found| found.is_of(subject));
        Ok(found.map(|found| found.listed(*key)))
    }

    /// Ends a session if it belongs to the subject, and returns whether it was live.
    pub(crate) fn revoke(&self, call: &Call, subject: &Subject, key: &StoreKey) -> Result<bool> {
        self.retry(call, || {
            let Some(shard) = self.shard(shard_of(key))? else {
                return Ok(false);
            };
            let lock = lock(&shard, call)?;
            let found = readable(self.live(&shard, key))?;
            let Some(found) = found.filter(|found| found.is_of(subject)) else {
                return Ok(false);
            };
            call.commit()?;
            self.remove(&shard, key, Some(&found))?;
            drop(lock);
            self.settle(&shard)?;
            Ok(true)
        })
    }

    /// The keys in the entries of a subject, in ascending order.
    pub(crate) fn keys_of(&self, call: &Call, subject: &Subject) -> Result<Vec<StoreKey>, Failure> {
        let Some(dir) = self.entries(number_of(subject))? else {
            return Ok(Vec::new());
        };
        let prefix = prefix(subject);
        let mut keys = Vec::new();
        for name in dir.names()? {
            call.check()?;
            keys.extend(name?.strip_prefix(&prefix).and_then(StoreKey::from_hex));
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// Adds an entry; the caller holds the lock of the key's shard.
    pub(crate) fn add_to_index(&self, subject: &Subject, key: &StoreKey) -> Result<(), Failure> {
        let dir = self.entries_or_create(subject)?;
        let is_new = dir.create_file(&entry(subject, key))?.is_some();
        if is_new && self.sync.names() {
            dir.sync()?;
        }
        Ok(())
    }

    /// Removes an entry; the caller holds the lock of the key's shard.
    pub(crate) fn remove_from_index(
        &self,
        subject: &Subject,
        key: &StoreKey,
    ) -> Result<(), Failure> {
        if let Some(dir) = self.entries(number_of(subject))? {
            dir.remove(&entry(subject, key))?;
        }
        Ok(())
    }

    pub(crate) fn index(&self) -> Result<Option<Dir>, Failure> {
        self.of_root(DIR)
    }

    /// The directory of the index with a number.
    pub(crate) fn entries(&self, number: u8) -> Result<Option<Dir>, Failure> {
        match self.index()? {
            Some(index) => index.child(&dir_name(number)),
            None => Ok(None),
        }
    }

    fn entries_or_create(&self, subject: &Subject) -> Result<Dir, Failure> {
        let index = match self.index()? {
            Some(index) => index,
            None => {
                let index = self.child_or_create(&self.root, DIR)?;
                index.spread_children();
                index
            }
        };
        self.child_or_create(&index, &dir_name(number_of(subject)))
    }
}

impl Found {
    fn is_of(&self, subject: &Subject) -> bool {
        self.header.subject.as_ref() == Some(subject)
    }

    fn listed(self, key: StoreKey) -> SubjectSession {
        SubjectSession {
            key,
            created_at: self.header.created_at,
            expires_at: self.header.expires_at,
            label: self.header.label,
        }
    }
}

/// A record that cannot be read belongs to nobody, and nobody can use it.
fn readable(found: Result<Option<Found>, Failure>) -> Result<Option<Found>, Failure> {
    match found {
        Err(failure) if failure.is_corrupt() => Ok(None),
        found => found,
    }
}

/// The number of the directory with the entries of a subject.
fn number_of(subject: &Subject) -> u8 {
    hash_of(subject)[0]
}

/// The key in the name of an entry.
pub(crate) fn key_in(name: &str) -> Option<StoreKey> {
    let (hash, key) = name.split_once('-')?;
    let is_hash = hash.len() == 32
        && hash
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    StoreKey::from_hex(key).filter(|_| is_hash)
}

fn entry(subject: &Subject, key: &StoreKey) -> String {
    format!("{}{}", prefix(subject), key.to_hex())
}

fn prefix(subject: &Subject) -> String {
    let hash = hash_of(subject);
    let number = u128::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"));
    format!("{number:032x}-")
}

fn hash_of(subject: &Subject) -> [u8; 32] {
    Sha256::new_with_prefix(b"sessionkit-fs subject 1\0")
        .chain_update(subject.as_str())
        .finalize()
        .into()
}
