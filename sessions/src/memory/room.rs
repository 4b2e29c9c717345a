use std::sync::Mutex;

use super::{lock, records::Entry};
use crate::{Label, Record, Subject};

/// What a record takes beside its data: the entry, its numbers in table and heap, and what an
/// allocator adds.
const RECORD: usize = size_of::<Entry>() + 32;

/// What a subject takes beside its text: in the record, and in the index.
const SUBJECT: usize = 112;

/// What a label takes beside its text.
const LABEL: usize = 24;

/// How much a store may keep.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) sessions: usize,
    pub(super) bytes: usize,
    /// The percentage of both that records without a subject leave to the others.
    pub(super) reserved: u8,
}

/// What one record takes.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Cost {
    bytes: usize,
    anonymous: bool,
}

/// How much a store keeps.
#[derive(Default)]
pub(super) struct Usage(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: Amount,
    anonymous: Amount,
}

#[derive(Clone, Copy, Default)]
struct Amount {
    sessions: usize,
    bytes: usize,
}

impl Limits {
    fn all(&self) -> Amount {
        Amount {
            sessions: self.sessions,
            bytes: self.bytes,
        }
    }

    fn anonymous(&self) -> Amount {
        let share = |limit| {
            let reserved = limit as u128 * u128::from(self.reserved.min(100)) / 100;
            limit - usize::try_from(reserved).unwrap_or(limit)
        };
        Amount {
            sessions: share(self.sessions),
            bytes: share(self.bytes),
        }
    }
}

impl Cost {
    pub(super) fn of(record: &Record) -> Self {
        Self::new(&record.data, record.subject.as_ref(), &record.label)
    }

    pub(super) fn of_entry(entry: &Entry) -> Self {
        Self::new(entry.data(), entry.subject(), entry.label())
    }

    fn new(data: &[u8], subject: Option<&Subject>, label: &Label) -> Self {
        let subject_bytes = subject.map_or(0, |subject| SUBJECT + subject.as_str().len());
        let label_bytes = match label.as_str() {
            "" => 0,
            text => LABEL + text.len(),
        };
        Self {
            bytes: RECORD + data.len() + subject_bytes + label_bytes,
            anonymous: subject.is_none(),
        }
    }
}

impl Usage {
    pub(super) fn sessions(&self) -> usize {
        lock(&self.0).all.sessions
    }

    pub(super) fn bytes(&self) -> usize {
        lock(&self.0).all.bytes
    }

    /// Takes the room for a new record. Returns whether there was enough.
    pub(super) fn take(&self, cost: Cost, limits: &Limits) -> bool {
        let mut counts = lock(&self.0);
        let fits = counts.all.plus(cost).fits(limits.all())
            && (!cost.anonymous || counts.anonymous.plus(cost).fits(limits.anonymous()));
        if fits {
            counts.add(cost);
        }
        fits
    }

    pub(super) fn give_back(&self, cost: Cost) {
        lock(&self.0).subtract(cost);
    }

    /// Exchanges the room of a record for that of its successor. Returns whether there was enough.
    ///
    /// Only growth needs room: a record that gets smaller or loses its subject was admitted before.
    pub(super) fn exchange(&self, old: Cost, new: Cost, limits: &Limits) -> bool {
        if old == new {
            return true;
        }
        let mut counts = lock(&self.0);
        counts.subtract(old);
        let fits = new.bytes <= old.bytes
            || (counts.all.plus(new).bytes <= limits.bytes
                && (!new.anonymous
                    || counts.anonymous.plus(new).bytes <= limits.anonymous().bytes));
        counts.add(if fits { new } else { old });
        fits
    }
}

impl Counts {
    fn add(&mut self, cost: Cost) {
        self.all = self.all.plus(cost);
        if cost.anonymous {
            self.anonymous = self.anonymous.plus(cost);
        }
    }

    fn subtract(&mut self, cost: Cost) {
        self.all = self.all.minus(cost);
        if cost.anonymous {
            self.anonymous = self.anonymous.minus(cost);
        }
    }
}

impl Amount {
    fn plus(self, cost: Cost) -> Self {
        Self {
            sessions: self.sessions + 1,
            bytes: self.bytes + cost.bytes,
        }
    }

    fn minus(self, cost: Cost) -> Self {
        Self {
            sessions: self.sessions - 1,
            bytes: self.bytes - cost.bytes,
        }
    }

    fn fits(self, limit: Self) -> bool {
        self.sessions <= limit.sessions && self.bytes <= limit.bytes
    }
}
