use std::{fs::File, os::unix::fs::FileExt};

use sessionkit::{Error, ErrorKind, Result};

use crate::{Quota, dir::Dir, failure::Failure};

/// The file of the counts, in the root directory.
pub(crate) const FILE: &str = "usage";

const SLOT: usize = 16;
const SIZE: usize = 256 * SLOT;

/// Counts sessions and bytes in a file that all processes share: one slot for each directory of
/// sessions, written by whoever holds that directory's lock, and the sum read by whoever wants to
/// add a session.
///
/// A process that dies between a change and its count leaves the count wrong until a sweep counts
/// the directory anew.
#[derive(Debug)]
pub(crate) struct Usage {
    quota: Quota,
    file: File,
}

/// The sessions and the bytes of one directory, or by how much they change.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) sessions: i64,
    pub(crate) bytes: i64,
}

impl Usage {
    /// Opens the counts; the flag tells whether they are new and have to be taken.
    pub(crate) fn open(root: &Dir, quota: Quota) -> Result<(Self, bool), Failure> {
        let (file, size) = loop {
            if let Some(stored) = root.open_to_write(FILE)? {
                break (stored.file, stored.size);
            }
            root.create_file(FILE)?;
        };
        let is_new = size != SIZE;
        if is_new {
            file.set_len(SIZE as u64).map_err(unusable)?;
        }
        Ok((Self { quota, file }, is_new))
    }

    /// Whether this much more is within the quota.
    pub(crate) fn admit(&self, more: Count) -> Result<()> {
        let (now, more, limit) = match self.quota {
            Quota::Sessions(limit) => (self.total()?.sessions, more.sessions, limit),
            Quota::Bytes(limit) => (self.total()?.bytes, more.bytes, limit),
        };
        let after = u64::try_from(now.saturating_add(more)).unwrap_or(0);
        if more > 0 && after > limit {
            return Err(Error::new(
                ErrorKind::Full,
                "the session directory has reached its quota",
            ));
        }
        Ok(())
    }

    /// Changes the count of a directory whose lock the caller holds.
    pub(crate) fn add(&self, shard: u8, more: Count) {
        let mut slot = [0; SLOT];
        if self.file.read_exact_at(&mut slot, offset(shard)).is_ok() {
            let count = decode(&slot);
            self.set(
                shard,
                Count {
                    sessions: count.sessions.saturating_add(more.sessions).max(0),
                    bytes: count.bytes.saturating_add(more.bytes).max(0),
                },
            );
        }
    }

    /// Sets the count of a directory whose lock the caller holds. The change that is counted has
    /// happened, so a failure is left to the next sweep.
    pub(crate) fn set(&self, shard: u8, count: Count) {
        let mut slot = [0; SLOT];
        slot[..8].copy_from_slice(&count.sessions.to_le_bytes());
        slot[8..].copy_from_slice(&count.bytes.to_le_bytes());
        let _ = self.file.write_all_at(&slot, offset(shard));
    }

    pub(crate) fn total(&self) -> Result<Count> {
        let mut slots = [0; SIZE];
        self.file.read_exact_at(&mut slots, 0).map_err(unusable)?;
        Ok(slots
            .as_chunks::<SLOT>()
            .0
            .iter()
            .map(decode)
            .fold(Count::default(), |sum, count| Count {
                sessions: sum.sessions.saturating_add(count.sessions),
                bytes: sum.bytes.saturating_add(count.bytes),
            }))
    }
}

fn decode(slot: &[u8; SLOT]) -> Count {
    let (fields, _) = slot.as_chunks::<8>();
    Count {
        sessions: i64::from_le_bytes(fields[0]),
        bytes: i64::from_le_bytes(fields[1]),
    }
}

fn offset(shard: u8) -> u64 {
    u64::from(shard) * SLOT as u64
}

fn unusable(error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the usage of the session directory cannot be counted",
    )
    .with_source(error)
}
