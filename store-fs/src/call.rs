use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use sessionkit::{Error, ErrorKind, Result};

const OPEN: u8 = 0;
const COMMITTED: u8 = 1;
const CANCELLED: u8 = 2;

/// What the future that waits and the thread that works agree on: whether the call takes effect.
///
/// Whoever comes first decides. A future that is dropped or out of time cancels the call, and the
/// thread then stops before the step that would show; once the thread has taken that step's
/// permission, the call completes, whether anybody waits or not.
#[derive(Debug)]
pub(crate) struct Call {
    /// `None` when it is too far away to be an instant.
    deadline: Option<Instant>,
    state: AtomicU8,
}

impl Call {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            deadline: Instant::now().checked_add(limit),
            state: AtomicU8::new(OPEN),
        }
    }

    /// Called by the thread right before the one step that makes its change visible.
    pub(crate) fn commit(&self) -> Result<()> {
        self.decide(COMMITTED).then_some(()).ok_or_else(late)
    }

    /// Called by the future. Returns whether the call has no effect, now or later.
    pub(crate) fn cancel(&self) -> bool {
        self.decide(CANCELLED)
    }

    /// Whether to go on, asked by the thread wherever it waits or repeats something.
    pub(crate) fn check(&self) -> Result<()> {
        let cancelled = self.state.load(Ordering::Acquire) == CANCELLED;
        if cancelled || self.deadline.is_some_and(|at| Instant::now() >= at) {
            return Err(late());
        }
        Ok(())
    }

    fn decide(&self, wanted: u8) -> bool {
        match self
            .state
            .compare_exchange(OPEN, wanted, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => true,
            Err(decided) => decided == wanted,
        }
    }
}

pub(crate) fn late() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the session directory did not answer in time",
    )
}
