//! Calls that wait for one another are answered together.
//!
//! A call is put in a queue. A task takes what waits there, at most one task for each unit of the
//! batcher's width, and answers all of it with few statements; who arrives meanwhile waits for the
//! next batch. Without load a call is alone in its batch and waits for nobody.

use std::{
    collections::{HashSet, VecDeque},
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sessionkit::StoreKey;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::failure::{Cause, Failure};

/// The most calls of a batch.
pub(crate) const MAX_CALLS: usize = 64;

/// A batch takes no further call at this size of the data, in bytes.
const MAX_WEIGHT: usize = 1 << 20;

/// How the calls of a batcher are answered.
pub(crate) trait Batch: Send + Sync + 'static {
    type Call: Send + 'static;
    type Output: Send + 'static;

    /// Whether two calls for one key may not be in the same batch.
    const EXCLUSIVE: bool;

    /// The key that a call is about, and the size of its data in bytes.
    fn key(call: &Self::Call) -> StoreKey;
    fn weight(call: &Self::Call) -> usize;

    /// Answers each call by `end`, in the order of the calls.
    fn answer(
        &self,
        end: Instant,
        calls: Vec<Self::Call>,
    ) -> impl Future<Output = Vec<Self::Output>> + Send;
}

pub(crate) struct Batcher<G: Batch> {
    group: G,
    width: usize,
    /// How long the database may keep one statement waiting for a lock: a call that has less time
    /// left takes part in no batch, so that it is never given up while it may be under way.
    patience: Duration,
    queue: Mutex<Queue<G>>,
}

struct Queue<G: Batch> {
    waiting: VecDeque<Waiting<G>>,
    running: usize,
}

struct Waiting<G: Batch> {
    call: G::Call,
    end: Instant,
    /// Set by the one who takes the call from the queue: the batch that answers it, or the caller
    /// who does not want it any more.
    taken: Arc<AtomicBool>,
    answer: oneshot::Sender<G::Output>,
}

impl<G: Batch> Batcher<G> {
    pub(crate) fn new(group: G, width: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            group,
            width,
            patience,
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                running: 0,
            }),
        })
    }

    /// The answer to a call, or why there is none until `end`: never sent, or lost.
    ///
    /// When the future is dropped, a call that still waits is withdrawn.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        call: G::Call,
        end: Instant,
    ) -> Result<G::Output, Failure> {
        let (sender, receiver) = oneshot::channel();
        let taken = Arc::new(AtomicBool::new(false));
        let withdraw = Withdraw(Arc::clone(&taken));
        self.enqueue(Waiting {
            call,
            end,
            taken,
            answer: sender,
        });
        match timeout_at(end, receiver).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(_)) | Err(_) if withdraw.take() => Err(Failure::Unsent(Cause(
                "other calls keep the database busy until the deadline".into(),
            ))),
            Ok(Err(_)) => Err(Failure::Lost(Cause("the runtime is ending".into()))),
            Err(_) => Err(Failure::timed_out()),
        }
    }

    fn enqueue(self: &Arc<Self>, waiting: Waiting<G>) {
        let mut queue = self.queue();
        queue.waiting.push_back(waiting);
        if queue.running < self.width {
            queue.running += 1;
            let task = Running {
                batcher: Arc::clone(self),
                ended: false,
            };
            tokio::spawn(task.run());
        }
    }

    /// What the next batch answers; nothing ends the task.
    fn take(&self) -> Vec<Waiting<G>> {
        let mut queue = self.queue();
        let last = Instant::now() + self.patience;
        let mut batch = queue.batch(last);
        while batch.is_empty() && !queue.waiting.is_empty() {
            batch = queue.batch(last);
        }
        if batch.is_empty() {
            queue.running -= 1;
        }
        batch
    }

    fn queue(&self) -> MutexGuard<'_, Queue<G>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<G: Batch> Queue<G> {
    fn batch(&mut self, last: Instant) -> Vec<Waiting<G>> {
        let mut batch = Vec::new();
        let mut left = VecDeque::new();
        let mut keys = HashSet::new();
        let mut weight = 0;
        while let Some(waiting) = self.waiting.pop_front() {
            if batch.len() == MAX_CALLS || weight >= MAX_WEIGHT {
                left.push_back(waiting);
                break;
            }
            if waiting.end <= last || waiting.taken.load(Ordering::Acquire) {
                continue;
            }
            // A call that is put off keeps its key from those behind it: they stay in order.
            if G::EXCLUSIVE && !keys.insert(G::key(&waiting.call)) {
                left.push_back(waiting);
            } else if !waiting.taken.swap(true, Ordering::AcqRel) {
                weight += G::weight(&waiting.call);
                batch.push(waiting);
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        batch
    }
}

/// One of the batcher's tasks.
struct Running<G: Batch> {
    batcher: Arc<Batcher<G>>,
    ended: bool,
}

impl<G: Batch> Running<G> {
    async fn run(mut self) {
        loop {
            let taken = self.batcher.take();
            if taken.is_empty() {
                self.ended = true;
                return;
            }
            let ends = taken.iter().map(|waiting| waiting.end);
            let end = ends.min().expect("the batch is not empty");
            let (calls, answers): (Vec<_>, Vec<_>) = taken
                .into_iter()
                .map(|waiting| (waiting.call, waiting.answer))
                .unzip();
            let outputs = self.batcher.group.answer(end, calls).await;
            for (answer, output) in answers.into_iter().zip(outputs) {
                // Nobody listens when the caller's future was dropped.
                let _ = answer.send(output);
            }
        }
    }
}

/// A task that ends in the middle, with its runtime or by a panic, makes room for another.
impl<G: Batch> Drop for Running<G> {
    fn drop(&mut self) {
        if !self.ended {
            self.batcher.queue().running -= 1;
        }
    }
}

struct Withdraw(Arc<AtomicBool>);

impl Withdraw {
    /// Whether the call was still waiting.
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        self.take();
    }
}
