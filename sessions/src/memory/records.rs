use std::{cmp::Reverse, collections::BinaryHeap};

use bytes::Bytes;
use hashbrown::{HashTable, hash_table::OccupiedEntry};

use crate::{ErrorKind, Label, Record, Result, Revision, StoreKey, Subject, Timestamp};

/// The records of one shard, found by their keys and in the order in which they come due.
///
/// Entries lie in slots that never move. The table of their numbers and the heap grow in steps, but
/// a shard is small and its numbers have four bytes: no step takes long.
#[derive(Default)]
pub(super) struct Records {
    slots: Slots,
    /// The numbers of all entries, by the hashes of their keys.
    table: HashTable<u32>,
    /// When to look at which slot. What does not agree with the slot's entry is out of date: an
    /// entry that goes, or is to be looked at earlier, leaves it behind.
    heap: BinaryHeap<Reverse<(Timestamp, u32)>>,
}

/// A stored record.
///
/// The data are a copy: a caller's bytes may be a slice of a buffer that is much larger, and a copy
/// needs 16 bytes here instead of 32 and another allocation.
pub(super) struct Entry {
    pub(super) key: StoreKey,
    data: Box<[u8]>,
    revision: Revision,
    created_at: Timestamp,
    expires_at: Timestamp,
    subject: Option<Subject>,
    label: Label,
    /// When to look whether the record has expired. Never later than its expiry, but often earlier:
    /// it stays behind when the expiry moves on, and is put off when somebody looks.
    due: Timestamp,
}

impl Records {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn find(&self, key: &StoreKey) -> Option<u32> {
        let is_it = |&at: &u32| self.entry(at).key == *key;
        self.table.find(hash(key), is_it).copied()
    }

    pub(super) fn live(&self, key: &StoreKey, now: Timestamp) -> Option<u32> {
        self.find(key).filter(|&at| self.entry(at).is_live(now))
    }

    pub(super) fn live_at(
        &self,
        key: &StoreKey,
        now: Timestamp,
        expected: Revision,
    ) -> Result<u32> {
        let at = self.live(key, now).ok_or(ErrorKind::Missing)?;
        if self.entry(at).revision != expected {
            return Err(ErrorKind::Conflict.into());
        }
        Ok(at)
    }

    pub(super) fn entry(&self, at: u32) -> &Entry {
        self.slots.get(at).expect("it is in the table")
    }

    fn entry_mut(&mut self, at: u32) -> &mut Entry {
        self.slots.get_mut(at).expect("it is in the table")
    }

    /// Adds the record of a key that is not there.
    pub(super) fn insert(&mut self, key: StoreKey, record: &Record) {
        self.push(Entry {
            key,
            data: record.data.as_ref().into(),
            revision: record.revision,
            created_at: record.created_at,
            expires_at: record.expires_at,
            subject: record.subject.clone(),
            label: record.label.clone(),
            due: record.expires_at,
        });
    }

    fn push(&mut self, entry: Entry) {
        let (hash_of_key, due) = (hash(&entry.key), entry.due);
        let at = self.slots.insert(entry);
        if self.table.len() == self.table.capacity() {
            work::done(self.table.len());
        }
        let slots = &self.slots;
        let rehash = |&at: &u32| slots.get(at).map_or(0, |entry| hash(&entry.key));
        self.table.insert_unique(hash_of_key, at, rehash);
        self.heap.push(Reverse((due, at)));
    }

    pub(super) fn replace(&mut self, at: u32, record: &Record) {
        let entry = self.entry_mut(at);
        if entry.data.len() == record.data.len() {
            entry.data.copy_from_slice(&record.data);
        } else {
            entry.data = record.data.as_ref().into();
        }
        entry.revision = record.revision;
        entry.created_at = record.created_at;
        if entry.subject != record.subject {
            entry.subject.clone_from(&record.subject);
        }
        if entry.label != record.label {
            entry.label = record.label.clone();
        }
        self.set_expiry(at, record.expires_at);
    }

    pub(super) fn set_expiry(&mut self, at: u32, expires_at: Timestamp) {
        let entry = self.entry_mut(at);
        entry.expires_at = expires_at;
        if expires_at < entry.due {
            entry.due = expires_at;
            self.heap.push(Reverse((expires_at, at)));
            self.tidy();
        }
    }

    pub(super) fn remove(&mut self, at: u32) -> Entry {
        self.number_of(at).remove();
        let entry = self.slots.remove(at);
        self.tidy();
        entry
    }

    /// An expired record. Looks at those that have come due, takes one from `looks` for each, and
    /// puts off those whose expiry has moved on.
    pub(super) fn next_expired(&mut self, now: Timestamp, looks: &mut usize) -> Option<u32> {
        while *looks > 0 {
            let &Reverse((due, at)) = self.heap.peek()?;
            if now < due {
                return None;
            }
            *looks -= 1;
            work::done(1);
            match self.slots.get_mut(at) {
                Some(entry) if entry.due == due && entry.is_live(now) => {
                    entry.due = entry.expires_at;
                    let due = entry.due;
                    if let Some(mut first) = self.heap.peek_mut() {
                        *first = Reverse((due, at));
                    }
                }
                Some(entry) if entry.due == due => return Some(at),
                _ => drop(self.heap.pop()),
            }
        }
        None
    }

    fn number_of(&mut self, at: u32) -> OccupiedEntry<'_, u32> {
        let hash = hash(&self.entry(at).key);
        self.table
            .find_entry(hash, |&number| number == at)
            .unwrap_or_else(|_| unreachable!("the table has the number of each entry"))
    }

    /// Rebuilds the shard when most of its slots are empty, or most of its heap is out of date. That
    /// moves what is left, which is fewer than what has gone since the last time.
    fn tidy(&mut self) {
        let len = self.table.len();
        if self.slots.len() > 64 + 4 * len {
            work::done(len);
            let entries = std::mem::take(self).slots.into_entries();
            entries.for_each(|entry| self.push(entry));
        } else if self.heap.len() > 64 + 2 * len {
            work::done(len);
            let dues = self
                .table
                .iter()
                .map(|&at| Reverse((self.entry(at).due, at)));
            self.heap = dues.collect();
        }
    }
}

impl Entry {
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    pub(super) fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    pub(super) fn label(&self) -> &Label {
        &self.label
    }

    pub(super) fn created_at(&self) -> Timestamp {
        self.created_at
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(super) fn record(&self) -> Record {
        Record {
            data: Bytes::copy_from_slice(&self.data),
            revision: self.revision,
            created_at: self.created_at,
            expires_at: self.expires_at,
            subject: self.subject.clone(),
            label: self.label.clone(),
        }
    }
}

/// Places for entries, in blocks: they grow without moving what is there.
#[derive(Default)]
struct Slots {
    blocks: Vec<Vec<Option<Entry>>>,
    free: Vec<u32>,
}

const BLOCK: u32 = 32;

impl Slots {
    /// The number of places, free ones included.
    fn len(&self) -> usize {
        match self.blocks.split_last() {
            Some((last, full)) => full.len() * BLOCK as usize + last.len(),
            None => 0,
        }
    }

    fn get(&self, at: u32) -> Option<&Entry> {
        let block = self.blocks.get((at / BLOCK) as usize)?;
        block.get((at % BLOCK) as usize)?.as_ref()
    }

    fn get_mut(&mut self, at: u32) -> Option<&mut Entry> {
        self.slot(at).as_mut()
    }

    fn slot(&mut self, at: u32) -> &mut Option<Entry> {
        &mut self.blocks[(at / BLOCK) as usize][(at % BLOCK) as usize]
    }

    fn insert(&mut self, entry: Entry) -> u32 {
        if let Some(at) = self.free.pop() {
            *self.slot(at) = Some(entry);
            return at;
        }
        let at = u32::try_from(self.len()).expect("2^32 records of a shard would take 500 GB");
        match self.blocks.last_mut() {
            Some(block) if block.len() < BLOCK as usize => block.push(Some(entry)),
            // The first block of a small store is no larger than it needs to be.
            None => self.blocks.push(vec![Some(entry)]),
            Some(_) => {
                let mut block = Vec::with_capacity(BLOCK as usize);
                block.push(Some(entry));
                self.blocks.push(block);
            }
        }
        at
    }

    fn remove(&mut self, at: u32) -> Entry {
        self.free.push(at);
        self.slot(at).take().expect("it was in the table")
    }

    fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.blocks.into_iter().flatten().flatten()
    }
}

/// Keys are SHA-256 hashes of what nobody can choose: any eight of their bytes are a hash.
fn hash(key: &StoreKey) -> u64 {
    let first = key.as_bytes().first_chunk();
    u64::from_ne_bytes(*first.expect("a key has 32 bytes"))
}

/// Counts, in tests, the records that this thread has looked at or moved beyond those asked for.
pub(super) mod work {
    #[cfg(test)]
    thread_local! {
        static DONE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    #[cfg(test)]
    pub(crate) fn done(records: usize) {
        DONE.set(DONE.get() + records);
    }

    #[cfg(not(test))]
    pub(crate) fn done(_: usize) {}

    /// What was counted since this was asked before.
    #[cfg(test)]
    pub(crate) fn since_last() -> usize {
        DONE.replace(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> StoreKey {
        let mut bytes = [0; 32];
        // Knuth's multiplier spreads them.
        let spread = number.wrapping_mul(6_364_136_223_846_793_005);
        bytes[..8].copy_from_slice(&spread.to_be_bytes());
        StoreKey::from_bytes(bytes)
    }

    fn record(expires_at: i64) -> Record {
        Record {
            data: expires_at.to_string().into(),
            revision: Revision::from_bits(1),
            created_at: Timestamp::MIN,
            expires_at: Timestamp::from_millis(expires_at),
            subject: None,
            label: Label::default(),
        }
    }

    fn check(records: &Records) {
        assert!(records.heap.len() <= 64 + 2 * records.len());
        assert!(records.slots.len() <= 64 + 4 * records.len());
        let places = records.len() + records.slots.free.len();
        assert_eq!(records.slots.len(), places);
        let heap: std::collections::HashSet<_> = records.heap.iter().collect();
        for &at in &records.table {
            let entry = records.entry(at);
            assert_eq!(records.find(&entry.key), Some(at));
            assert!(entry.due <= entry.expires_at);
            assert!(heap.contains(&Reverse((entry.due, at))));
        }
    }

    /// A linear congruential generator (Knuth, MMIX).
    fn dice(state: &mut u64) -> u64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    #[test]
    fn any_order_of_calls_leaves_every_record_findable_and_in_order() {
        let (mut records, mut state) = (Records::default(), 7);
        let mut model = std::collections::HashMap::new();
        let mut now = 0;
        for step in 0..20_000 {
            let number = dice(&mut state) % 200;
            let expires_at = now + (dice(&mut state) % 1_000).cast_signed();
            match (records.find(&key(number)), dice(&mut state) % 4) {
                (None, _) => {
                    records.insert(key(number), &record(expires_at));
                    model.insert(number, expires_at);
                }
                (Some(at), 0) => {
                    assert!(records.remove(at).key == key(number));
                    model.remove(&number);
                }
                (Some(at), 1) => {
                    records.replace(at, &record(expires_at));
                    model.insert(number, expires_at);
                }
                (Some(at), _) => {
                    records.set_expiry(at, Timestamp::from_millis(expires_at));
                    model.insert(number, expires_at);
                }
            }
            if step % 100 == 0 {
                check(&records);
                now += 150;
                let instant = Timestamp::from_millis(now);
                while let Some(at) = records.next_expired(instant, &mut usize::MAX.clone()) {
                    records.remove(at);
                }
                model.retain(|_, expires_at| now < *expires_at);
                check(&records);
                assert_eq!(records.len(), model.len());
            }
        }
        for (number, expires_at) in model {
            let at = records.find(&key(number)).unwrap();
            assert_eq!(records.entry(at).expires_at().as_millis(), expires_at);
        }
    }

    #[test]
    fn memory_is_given_back() {
        let mut records = Records::default();
        (0..10_000).for_each(|number| records.insert(key(number), &record(0)));
        for number in 0..9_990 {
            let at = records.find(&key(number)).unwrap();
            records.remove(at);
        }
        check(&records);
        assert!(records.table.capacity() < 200 && records.heap.capacity() < 200);
    }

    #[test]
    fn a_record_that_comes_and_goes_leaves_nothing_behind() {
        let mut records = Records::default();
        for step in 0..1_000 {
            records.insert(key(1), &record(1_000));
            records.set_expiry(0, Timestamp::from_millis(1_000 - step));
            let at = records.find(&key(1)).unwrap();
            records.remove(at);
            check(&records);
        }
    }

    #[test]
    fn a_record_that_is_extended_is_looked_at_once_more() {
        let mut records = Records::default();
        records.insert(key(1), &record(10));
        records.set_expiry(0, Timestamp::from_millis(100));
        work::since_last();
        let mut looks = 10;
        for now in [10, 50, 99] {
            let now = Timestamp::from_millis(now);
            assert_eq!(records.next_expired(now, &mut looks), None);
        }
        assert_eq!((looks, work::since_last()), (9, 1));
        let end = Timestamp::from_millis(100);
        assert_eq!(records.next_expired(end, &mut looks), Some(0));
    }
}
