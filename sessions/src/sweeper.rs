use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{Entropy, Error, ErrorKind, OsEntropy, Result, SessionStore, Sweep};

/// How many records a sweep removes in one call, so that it holds no lock for long.
const BATCH: usize = 256;

/// Between two batches others get the backend.
const BREATH: Duration = Duration::from_millis(20);

/// Removes the expired sessions of a store from time to time, in a task of its own.
///
/// It works through what has expired in small batches, begins at a random moment so that processes
/// started together do not sweep together, and goes on after an error, which it reports as a
/// `tracing` warning. Where a backend knows how to, one process at a time sweeps: see
/// [`SessionStore::try_sweep`].
///
/// Dropping it ends the task after its present batch; [`shutdown`](Self::shutdown) also waits for
/// that.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sessionkit::Result<()> {
/// use sessionkit::{MemoryStore, Sweeper};
/// use std::{sync::Arc, time::Duration};
///
/// let store = Arc::new(MemoryStore::new());
/// let sweeper = Sweeper::spawn(store.clone(), Duration::from_secs(60))?;
/// // The application runs.
/// sweeper.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it ends the task"]
pub struct Sweeper {
    /// On a store that needs no sweeping there is no task.
    task: Option<Task>,
}

#[derive(Debug)]
struct Task {
    stop: oneshot::Sender<()>,
    handle: JoinHandle<()>,
}

impl Sweeper {
    /// Sweeps the store once in each `interval`, which is given or taken a tenth; the first time
    /// within the first one.
    ///
    /// Where there is nothing to sweep, since the backend removes expired sessions itself or the
    /// clients keep the sessions, this does nothing: an application need not know which store
    /// its operator has chosen.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when `interval` is zero.
    ///
    /// # Panics
    /// When it is called outside a tokio runtime, or in one without a timer.
    pub fn spawn(store: Arc<dyn SessionStore>, interval: Duration) -> Result<Self> {
        if interval.is_zero() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the interval between two sweeps is zero",
            ));
        }
        if store.capabilities().sweep != Sweep::Explicit {
            return Ok(Self { task: None });
        }
        let (stop, stopped) = oneshot::channel();
        let handle = tokio::spawn(run(store, interval, stopped));
        let task = Some(Task { stop, handle });
        Ok(Self { task })
    }

    /// Ends the task and waits until it has ended, at most for the store's deadline.
    pub async fn shutdown(self) {
        if let Some(Task { stop, handle }) = self.task {
            drop(stop);
            // An error is a panic in the task, which has been reported.
            let _ = handle.await;
        }
    }
}

async fn run(store: Arc<dyn SessionStore>, interval: Duration, mut stopped: oneshot::Receiver<()>) {
    let mut wait = interval.mul_f64(fraction());
    while timeout(wait, &mut stopped).await.is_err() {
        round(&*store, &mut stopped).await;
        wait = interval.mul_f64(0.9 + 0.2 * fraction());
    }
}

/// Sweeps until less than a batch is left, or another process is found to be sweeping.
async fn round(store: &dyn SessionStore, stopped: &mut oneshot::Receiver<()>) {
    loop {
        match store.try_sweep(BATCH).await {
            Ok(Some(removed)) if removed >= BATCH as u64 => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(
                    kind = ?error.kind(),
                    %error,
                    "expired sessions could not be removed; it will be tried again"
                );
                return;
            }
        }
        if stopped.try_recv() != Err(oneshot::error::TryRecvError::Empty) {
            return;
        }
        sleep(BREATH).await;
    }
}

/// A number from 0 to 1. Without randomness processes may sweep together, which is no harm.
fn fraction() -> f64 {
    let mut bytes = [0; 4];
    match OsEntropy.fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
