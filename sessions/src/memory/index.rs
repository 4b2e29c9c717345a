use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    ops::Bound,
    sync::{Mutex, MutexGuard},
};

use super::lock;
use crate::{StoreKey, Subject};

const SHARDS: usize = 64;

/// The keys of each subject's records.
///
/// Ordered sets, because they grow without ever moving all of what is there, however many subjects
/// there are and however many sessions one of them has. They are locked only by those who hold the
/// lock of the record's shard, or no shard's lock at all.
pub(super) struct Index {
    hasher: RandomState,
    shards: Box<[Mutex<Keys>]>,
}

type Keys = BTreeSet<(Subject, StoreKey)>;

impl Index {
    pub(super) fn insert(&self, subject: &Subject, key: StoreKey) {
        self.shard(subject).insert((subject.clone(), key));
    }

    pub(super) fn remove(&self, subject: &Subject, key: StoreKey) {
        self.shard(subject).remove(&(subject.clone(), key));
    }

    /// The first keys of a subject behind `after`, in their order.
    pub(super) fn page(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Vec<StoreKey> {
        let from = match after {
            Some(after) => Bound::Excluded((subject.clone(), *after)),
            None => Bound::Included((subject.clone(), StoreKey::from_bytes([0; 32]))),
        };
        self.shard(subject)
            .range((from, Bound::Unbounded))
            .take_while(|(owner, _)| owner == subject)
            .map(|&(_, key)| key)
            .take(limit)
            .collect()
    }

    fn shard(&self, subject: &Subject) -> MutexGuard<'_, Keys> {
        let hash = self.hasher.hash_one(subject) % SHARDS as u64;
        lock(&self.shards[usize::try_from(hash).unwrap_or_default()])
    }
}

impl Default for Index {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}
