use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::{call::Call, dir::Dir, fail::Fail, fault};

/// How long to wait before asking again for a lock that another process holds.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LAST_PAUSE: Duration = Duration::from_millis(1);

/// The locks of 256 directories, each between the threads of this process and between processes.
///
/// A directory is locked by `flock` on its descriptor, which every operation opens for itself, and
/// the kernel releases it when a process dies. The mutex in front lets threads wait without
/// polling.
///
/// Locking a directory that a sweep has removed, as an empty one, excludes nobody; it is harmless,
/// because in a removed directory nothing is found and nothing can be created.
pub(crate) struct Locks(Box<[Mutex<()>]>);

impl Locks {
    pub(crate) fn new() -> Self {
        Self((0..256).map(|_| Mutex::default()).collect())
    }

    /// Waits for the lock of the directory of a number. Whoever takes two takes the lower number
    /// first.
    pub(crate) fn lock<'a>(
        &'a self,
        number: u8,
        dir: &'a Dir,
        call: &Call,
    ) -> Result<Lock<'a>, Fail> {
        let within = self.0[usize::from(number)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut pause = FIRST_PAUSE;
        // Never in the kernel's own queue: a process that was stopped while it held the lock would
        // keep this thread for ever.
        while !dir.try_lock()? {
            call.check()?;
            fault::point("wait for a lock")?;
            thread::sleep(pause);
            pause = LAST_PAUSE.min(pause * 2);
        }
        Ok(Lock {
            dir,
            _within: within,
        })
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locks(..)")
    }
}

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Lock<'a> {
    dir: &'a Dir,
    _within: MutexGuard<'a, ()>,
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        self.dir.unlock();
    }
}
