use std::sync::atomic::Ordering;

use rustix::fs::FileType;
use sessionkit::{Result, StoreKey, Timestamp};

use crate::{
    call::Call,
    dir::{Dir, noted_expiry},
    failure::{Failure, error},
    index::key_in,
    lock::lock,
    quota::Count,
    temp::{is_temp, remove_abandoned},
    tree::{Tree, dir_name, shard_of},
};

impl Tree {
    /// Goes once through all directories, from where the last sweep stopped, and removes at most
    /// `limit` expired records. A lock is held for one file at a time.
    pub(crate) fn sweep(&self, call: &Call, limit: usize) -> Result<u64> {
        if self.root.is_removed().map_err(error)? {
            return Err(Failure::Vanished.into());
        }
        for name in self.root.names().map_err(error)? {
            let name = name.map_err(error)?;
            if is_temp(&name) {
                ignore_corrupt(remove_abandoned(&self.root, &name))?;
            }
        }
        let now = self.clock.now();
        let mut removed = 0;
        let start = self.cursor.load(Ordering::Relaxed);
        for number in (0..=255).map(|step| start.wrapping_add(step)) {
            // The next sweep goes on behind this directory, also if this one comes to its end here:
            // somebody may keep its lock.
            self.cursor.store(number.wrapping_add(1), Ordering::Relaxed);
            match self.sweep_shard(call, number, now, limit - removed) {
                Ok(more) => removed += more,
                // Another sweep has removed the directory, which was empty.
                Err(Failure::Vanished) => {}
                Err(failure) => return Err(failure.into()),
            }
            if removed == limit {
                self.cursor.store(number, Ordering::Relaxed);
                break;
            }
            match self.sweep_entries(call, number) {
                Ok(()) | Err(Failure::Vanished) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(removed as u64)
    }

    fn sweep_shard(
        &self,
        call: &Call,
        number: u8,
        now: Timestamp,
        limit: usize,
    ) -> Result<usize, Failure> {
        let Some(shard) = self.shard(number)? else {
            return Ok(0);
        };
        let mut removed = 0;
        let mut is_empty = true;
        for name in shard.names()? {
            call.check()?;
            if removed == limit {
                return Ok(removed);
            }
            is_empty = false;
            let name = name?;
            if is_temp(&name) {
                ignore_corrupt(remove_abandoned(&shard, &name))?;
            } else if let Some(key) = StoreKey::from_hex(&name)
                && shard_of(&key) == number
                && is_due(&shard, &name, now)?
            {
                removed += usize::from(self.remove_expired(call, &shard, &key, now)?);
            }
        }
        if is_empty || removed > 0 {
            let _lock = lock(&shard, call)?;
            prune(&self.root, &dir_name(number));
        }
        self.recount(number, call)?;
        Ok(removed)
    }

    fn remove_expired(
        &self,
        call: &Call,
        shard: &Dir,
        key: &StoreKey,
        now: Timestamp,
    ) -> Result<bool, Failure> {
        let _lock = lock(shard, call)?;
        match self.find(shard, key) {
            Ok(Some(found)) if now >= found.header.expires_at => {
                self.remove(shard, key, Some(&found))
            }
            Ok(_) => Ok(false),
            // It stays for somebody to look at, and for `delete`.
            Err(failure) if failure.is_corrupt() => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Removes the entries of the index whose records are gone.
    fn sweep_entries(&self, call: &Call, number: u8) -> Result<(), Failure> {
        let Some(entries) = self.entries(number)? else {
            return Ok(());
        };
        let mut is_empty = true;
        for name in entries.names()? {
            call.check()?;
            is_empty = false;
            let name = name?;
            let Some(key) = key_in(&name) else {
                continue;
            };
            let session = format!("{}/{}", dir_name(shard_of(&key)), key.to_hex());
            if self.root.stat(&session)?.is_some() {
                continue;
            }
            // Somebody may be about to create the record, under the lock.
            let shard = self.shard_or_create(shard_of(&key))?;
            let _lock = lock(&shard, call)?;
            if shard.stat(&key.to_hex())?.is_none() {
                entries.remove(&name)?;
            }
        }
        if is_empty && let Some(index) = self.index()? {
            prune(&index, &dir_name(number));
        }
        Ok(())
    }

    /// Counts the sessions of a directory for the quota.
    pub(crate) fn recount(&self, number: u8, call: &Call) -> Result<(), Failure> {
        let Some(usage) = &self.usage else {
            return Ok(());
        };
        let Some(shard) = self.shard(number)? else {
            usage.set(number, Count::default());
            return Ok(());
        };
        let _lock = lock(&shard, call)?;
        let mut count = Count::default();
        for name in shard.names()? {
            call.check()?;
            let name = name?;
            if StoreKey::from_hex(&name).is_some_and(|key| shard_of(&key) == number)
                && let Some(stat) = shard.stat(&name)?
            {
                count.sessions += 1;
                count.bytes += stat.st_size;
            }
        }
        usage.set(number, count);
        Ok(())
    }
}

/// Removes a directory if it is empty. Whoever is about to create a file in it finds it gone, and
/// starts again.
fn prune(parent: &Dir, name: &str) {
    let _ = parent.remove_child(name);
}

/// Whether a file may hold an expired record.
fn is_due(shard: &Dir, name: &str, now: Timestamp) -> Result<bool, Failure> {
    Ok(shard.stat(name)?.is_some_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && noted_expiry(&stat) <= now.as_millis()
    }))
}

/// Steps over what somebody else has put into the directory.
fn ignore_corrupt(result: Result<(), Failure>) -> Result<(), Failure> {
    match result {
        Err(failure) if failure.is_corrupt() => Ok(()),
        result => result,
    }
}
