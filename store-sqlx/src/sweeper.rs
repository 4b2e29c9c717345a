use std::{future::Future, time::Duration};

use sessionkit::Result;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::call::random;

/// How many records a sweep looks at in one statement, so that it holds no lock for long.
pub(crate) const BATCH: usize = 256;

/// Between two batches others get the database.
const BREATH: Duration = Duration::from_millis(20);

/// Removes expired sessions from time to time, in a task of its own.
///
/// It works through what has expired in small batches, begins at a random moment so that processes
/// started together do not sweep together, and goes on after an error, which it reports as a
/// `tracing` warning. On Postgres, MySQL and MariaDB one process at a time sweeps a table.
///
/// Dropping it ends the task after its present batch; [`shutdown`](Self::shutdown) also waits for
/// that.
#[derive(Debug)]
pub struct Sweeper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sweeper {
    /// Ends the task and waits until it has ended, at most for the store's deadline.
    pub async fn shutdown(self) {
        drop(self.stop);
        // An error is a panic in the task, which has been reported.
        let _ = self.task.await;
    }

    /// Calls `sweep` each `interval`, again and again while it returns full batches; `None` means
    /// that another process is sweeping.
    pub(crate) fn spawn<F>(
        interval: Duration,
        sweep: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Option<u64>>> + Send + 'static,
    {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut wait = interval.mul_f64(fraction());
            while timeout(wait, &mut stopped).await.is_err() {
                wait = interval.mul_f64(0.9 + 0.2 * fraction());
                round(&sweep, &mut stopped).await;
            }
        });
        Self { stop, task }
    }
}

async fn round<F>(sweep: &(impl Fn() -> F + Sync), stopped: &mut oneshot::Receiver<()>)
where
    F: Future<Output = Result<Option<u64>>> + Send,
{
    loop {
        match sweep().await {
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

fn fraction() -> f64 {
    let bits = u32::try_from(random() >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}
