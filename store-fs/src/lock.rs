use std::{fmt, sync::Arc, thread, time::Duration};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{call::Call, dir::Dir, failpoint, failure::Failure};

/// How long to wait before asking again for a lock that another process holds.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LAST_PAUSE: Duration = Duration::from_millis(1);

/// Where the calls of this process wait for the lock of a directory, before they take a thread.
///
/// The one whose turn it is may have to wait for another process, in a thread that may block. The
/// runtime has few of those, and if all that want one lock waited there, nobody else had one.
pub(crate) struct ShardLocks(Box<[Arc<Mutex<()>>]>);

/// Until it is dropped, no other call of this process has its turn at the directory.
pub(crate) type ShardGuard = OwnedMutexGuard<()>;

impl ShardLocks {
    pub(crate) fn new() -> Self {
        Self((0..256).map(|_| Arc::default()).collect())
    }

    pub(crate) async fn lock(&self, number: u8) -> ShardGuard {
        Arc::clone(&self.0[usize::from(number)]).lock_owned().await
    }
}

impl fmt::Debug for ShardLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShardLocks(..)")
    }
}

/// Waits for the lock of a directory, which excludes threads and processes alike: it is taken by
/// `flock` on a descriptor that every operation opens for itself. The kernel releases it when a
/// process dies.
///
/// Locking a directory that a sweep has removed, as an empty one, excludes nobody; it is harmless,
/// because in a removed directory nothing is found and nothing can be created.
pub(crate) fn lock<'a>(dir: &'a Dir, call: &Call) -> Result<Lock<'a>, Failure> {
    let mut pause = FIRST_PAUSE;
    // Never in the kernel's own queue: a process that was stopped while it held the lock would
    // keep this thread for ever.
    while !dir.try_lock()? {
        call.check()?;
        failpoint::reach("wait for a lock")?;
        thread::sleep(pause);
        pause = LAST_PAUSE.min(pause * 2);
    }
    let lock = Lock(dir);
    // What was given up while it waited does not go on, not even with what needs no permission.
    call.check()?;
    Ok(lock)
}

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Lock<'a>(&'a Dir);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        self.0.unlock();
    }
}
