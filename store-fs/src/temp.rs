use std::{
    fs::File,
    io::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::io::Errno;
use sessionkit::{Entropy, Error, ErrorKind, OsEntropy, Result};

use crate::{
    dir::{Dir, try_lock},
    failpoint,
    failure::Failure,
};

const PREFIX: &str = ".tmp-";

/// Makes names that no other handle, process or machine makes.
#[derive(Debug)]
pub(crate) struct TempNames {
    handle: u64,
    next: AtomicU64,
}

impl TempNames {
    pub(crate) fn new() -> Result<Self> {
        let mut bytes = [0; 8];
        OsEntropy.fill(&mut bytes)?;
        Ok(Self {
            handle: u64::from_le_bytes(bytes),
            next: AtomicU64::new(0),
        })
    }

    fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{PREFIX}{:016x}-{number:016x}", self.handle)
    }
}

/// Whether a name is one of [`TempNames`].
pub(crate) fn is_temp(name: &str) -> bool {
    let hex = |part: &str| {
        part.len() == 16
            && part
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    name.strip_prefix(PREFIX)
        .and_then(|numbers| numbers.split_once('-'))
        .is_some_and(|(handle, number)| hex(handle) && hex(number))
}

/// A file that is being written under a name of its own, removed when dropped before it was given
/// its final name.
///
/// Its writer holds its lock, so that a sweep can tell it from one whose writer has died.
#[derive(Debug)]
pub(crate) struct Temp<'a> {
    dir: &'a Dir,
    name: String,
    file: File,
    pending: bool,
}

impl<'a> Temp<'a> {
    /// Writes a new file, down to the disk where `sync` says so.
    pub(crate) fn write(
        names: &TempNames,
        dir: &'a Dir,
        bytes: &[u8],
        note: impl FnOnce(&File),
        sync: bool,
    ) -> Result<Self, Failure> {
        let mut temp = Self::create(names, dir)?;
        failpoint::reach("write")?;
        temp.file
            .write_all(bytes)
            .map_err(|error| failed(&error, "written"))?;
        note(&temp.file);
        if sync {
            failpoint::reach("sync file")?;
            temp.file
                .sync_data()
                .map_err(|error| failed(&error, "synchronized with the disk"))?;
        }
        Ok(temp)
    }

    fn create(names: &TempNames, dir: &'a Dir) -> Result<Self, Failure> {
        loop {
            let name = names.next();
            let Some(file) = dir.create_file(&name)? else {
                continue;
            };
            let temp = Self {
                dir,
                name,
                file,
                pending: true,
            };
            // A sweep may have taken the file, not locked yet, for an abandoned one; if it has
            // finished with it already, the rename will find nothing.
            if try_lock(&temp.file)? {
                return Ok(temp);
            }
        }
    }

    /// Gives the file its final name, in the same directory.
    pub(crate) fn rename(mut self, name: &str) -> Result<(), Failure> {
        self.dir.rename(&self.name, self.dir, name)?;
        self.pending = false;
        Ok(())
    }

    /// Gives the file a final name that nothing has yet, and tells whether it could.
    pub(crate) fn rename_new(&mut self, name: &str) -> Result<Option<bool>, Failure> {
        let renamed = self.dir.rename_new(&self.name, self.dir, name)?;
        self.pending = renamed != Some(true);
        Ok(renamed)
    }

    /// As [`rename`](Self::rename), where the caller holds the lock and has found nothing.
    pub(crate) fn rename_to_free(mut self, name: &str) -> Result<(), Failure> {
        match self.rename_new(name)? {
            Some(true) => Ok(()),
            // Created meanwhile, without the lock: the next attempt finds it.
            Some(false) => Err(Failure::Vanished),
            // Then nobody creates without the lock.
            None => self.rename(name),
        }
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if self.pending {
            // A sweep will find what cannot be removed now.
            let _ = self.dir.remove(&self.name);
        }
    }
}

/// Removes a temporary file whose writer is gone.
pub(crate) fn remove_abandoned(dir: &Dir, name: &str) -> Result<(), Failure> {
    if let Some(leftover) = dir.open_file(name)?
        && try_lock(&leftover.file)?
    {
        dir.remove(name)?;
    }
    Ok(())
}

fn failed(error: &std::io::Error, what: &'static str) -> Failure {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(errno) => crate::failure::error(errno),
        None => Error::new(
            ErrorKind::Unavailable,
            format!("the session's file cannot be {what}"),
        ),
    }
    .into()
}
