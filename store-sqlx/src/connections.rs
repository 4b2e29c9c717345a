//! The connections of a store: made when a call needs one and none is idle, up to a limit.
//!
//! A call has a connection to itself. When it has its answer, the connection goes to the call that
//! waits longest, or to the idle ones, of which the one used last is taken first. One that broke is
//! dropped. So there is no state between "in use" and "idle" in which a connection could be stuck.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    failure::{Cause, Effect, Failure},
    statement::{Driver, unsent},
};

/// A connection that was idle for longer is tried before it is used: firewalls and servers drop
/// idle connections, and a ping for each statement would cost a tenth to a third of the throughput.
const TRUSTED_FOR_READS: Duration = Duration::from_secs(1);

/// The same for a write, which cannot be sent again when its answer is lost. Under load no
/// connection is idle for so long.
const TRUSTED_FOR_WRITES: Duration = Duration::from_millis(20);

/// The longest that is waited for the answer to such a try.
const TRY: Duration = Duration::from_secs(1);

/// A connection that is older is renewed, for servers behind a name that moves.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// One that nobody needed for so long is closed.
const MAX_IDLE: Duration = Duration::from_secs(10 * 60);

/// How long a server that has refused one more connection is not asked again.
const CONTENT: Duration = Duration::from_secs(1);

/// Makes a connection.
pub(crate) type Connect<DB> =
    Box<dyn Fn() -> BoxFuture<'static, sqlx::Result<<DB as Driver>::Link>> + Send + Sync>;

pub(crate) struct Connections<DB: Driver> {
    connect: Connect<DB>,
    limit: usize,
    /// How long making a connection may take.
    patience: Duration,
    state: Mutex<State<DB>>,
}

struct State<DB: Driver> {
    /// The one used last is at the end.
    idle: Vec<Idle<DB>>,
    /// The calls that wait, in their order.
    waiting: VecDeque<oneshot::Sender<Result<PooledConnection<DB>, Failure>>>,
    /// How many connections there are, with those that are being made.
    open: usize,
    making: usize,
    /// Why the last one could not be made, and when.
    refused: Option<(Failure, Instant)>,
    /// When a connection broke last: those that were idle then are tried first.
    broken: Option<Instant>,
}

struct Live<DB: Driver> {
    link: DB::Link,
    made: Instant,
}

struct Idle<DB: Driver> {
    live: Live<DB>,
    since: Instant,
}

/// A connection that a call has to itself. Dropped, it goes to the next call unless something may
/// be under way on it.
pub(crate) struct PooledConnection<DB: Driver> {
    live: Option<Live<DB>>,
    /// Since when it was idle, when it has to be tried first.
    suspect: Option<Instant>,
    /// Whether an answer may be outstanding.
    busy: bool,
    home: Arc<Connections<DB>>,
}

/// The right to make a connection.
struct Permit<DB: Driver>(Arc<Connections<DB>>);

impl<DB: Driver> Connections<DB> {
    pub(crate) fn new(connect: Connect<DB>, limit: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            connect,
            limit,
            patience,
            state: Mutex::new(State {
                idle: Vec::new(),
                waiting: VecDeque::new(),
                open: 0,
                making: 0,
                refused: None,
                broken: None,
            }),
        })
    }

    /// Makes the first connection, or says why that cannot be.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) async fn first(self: &Arc<Self>, end: Instant) -> Result<(), Failure> {
        let made = timeout_at(end, self.make()).await;
        let link = made.unwrap_or_else(|_| Err(no_answer()))?;
        self.state().open += 1;
        self.give(Live {
            link,
            made: Instant::now(),
        });
        Ok(())
    }

    /// A connection, at the latest at `end`.
    ///
    /// The future may be dropped: nothing was sent. A connection that is being made is made all the
    /// same, for the next call: servers count handshakes that are broken off, and MySQL bars a host
    /// after a hundred of them.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        end: Instant,
        effect: Effect,
    ) -> Result<PooledConnection<DB>, Failure> {
        let turn = match self.join(effect) {
            Ok(pooled) => return Ok(pooled),
            Err(turn) => turn,
        };
        match timeout_at(end, turn).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) | Err(_) => Err(self.reason()),
        }
    }

    /// Drops the idle connections: they lead to a server that takes no writes, as after a failover.
    pub(crate) fn clear(&self) {
        let idle = {
            let mut state = self.state();
            state.open -= state.idle.len();
            std::mem::take(&mut state.idle)
        };
        // Not under the lock: closing a socket is a system call.
        drop(idle);
    }

    /// The connection used last, or the end of the line.
    fn join(
        self: &Arc<Self>,
        effect: Effect,
    ) -> Result<PooledConnection<DB>, oneshot::Receiver<Result<PooledConnection<DB>, Failure>>>
    {
        let mut state = self.state();
        if let Some(idle) = state.idle.pop() {
            let is_suspect = !DB::LOCAL && !state.trusts(&idle, effect);
            let mut pooled = self.pooled(idle.live);
            pooled.suspect = is_suspect.then_some(idle.since);
            return Ok(pooled);
        }
        // Who has given up is first in line, as all have about the same time.
        while state
            .waiting
            .front()
            .is_some_and(oneshot::Sender::is_closed)
        {
            state.waiting.pop_front();
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        self.grow(&mut state);
        Err(receiver)
    }

    /// Begins to make a connection for each call that waits, as far as that is allowed.
    fn grow(self: &Arc<Self>, state: &mut State<DB>) {
        while state.may_grow(self.limit) {
            state.open += 1;
            state.making += 1;
            tokio::spawn(Permit(Arc::clone(self)).make());
        }
    }

    /// Gives a connection, on which nothing is under way, to the call that waits longest.
    fn give(self: &Arc<Self>, live: Live<DB>) {
        if !DB::LOCAL && live.made.elapsed() > MAX_AGE {
            return self.retire(live);
        }
        let mut pooled = self.pooled(live);
        let outdated = loop {
            let next = {
                let mut state = self.state();
                match state.next() {
                    Some(next) => next,
                    None => break state.lay_down(pooled.live.take(), DB::LOCAL),
                }
            };
            match next.send(Ok(pooled)) {
                // Who leaves the line at this very moment leaves it to the next one.
                Err(Ok(back)) => pooled = back,
                _ => break None,
            }
        };
        if let Some(outdated) = outdated {
            self.say_farewell(outdated);
        }
    }

    /// Closes a connection that is old, and makes another one if somebody waits.
    fn retire(self: &Arc<Self>, live: Live<DB>) {
        self.closed();
        self.say_farewell(live);
    }

    fn say_farewell(&self, live: Live<DB>) {
        let patience = self.patience;
        tokio::spawn(async move {
            // The server notices by itself if the farewell does not get through.
            let _ = timeout(patience, DB::close(live.link)).await;
        });
    }

    /// A connection is no more.
    fn closed(self: &Arc<Self>) {
        let mut state = self.state();
        state.open -= 1;
        self.grow(&mut state);
    }

    async fn make(&self) -> Result<DB::Link, Failure> {
        match timeout(self.patience, (self.connect)()).await {
            Ok(made) => made.map_err(|error| unsent::<DB>(&error)),
            Err(_) => Err(no_answer()),
        }
    }

    /// Why a call has waited in vain.
    fn reason(&self) -> Failure {
        let state = self.state();
        match &state.refused {
            Some((failure, _)) if state.open == state.making => failure.clone(),
            _ => Failure::Unsent(Cause(
                "no connection was free or could be made in time".into(),
            )),
        }
    }

    fn pooled(self: &Arc<Self>, live: Live<DB>) -> PooledConnection<DB> {
        PooledConnection {
            live: Some(live),
            suspect: None,
            busy: false,
            home: Arc::clone(self),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<DB>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<DB: Driver> State<DB> {
    /// Whether one more connection is wanted. A server that has refused one has to make do with
    /// those that there are; it is asked for one at a time, and not often.
    fn may_grow(&self, limit: usize) -> bool {
        let is_wanted = self.open < limit && self.making < self.waiting.len();
        is_wanted
            && self.refused.as_ref().is_none_or(|(_, when)| {
                self.making == 0 && (self.open == 0 || when.elapsed() >= CONTENT)
            })
    }

    /// Whether a connection is used without a try.
    fn trusts(&self, idle: &Idle<DB>, effect: Effect) -> bool {
        let trusted = match effect {
            Effect::Read => TRUSTED_FOR_READS,
            Effect::Write => TRUSTED_FOR_WRITES,
        };
        idle.since.elapsed() <= trusted && self.broken.is_none_or(|broken| idle.since > broken)
    }

    /// The first in line who has not left it.
    fn next(&mut self) -> Option<oneshot::Sender<Result<PooledConnection<DB>, Failure>>> {
        std::iter::from_fn(|| self.waiting.pop_front()).find(|waiting| !waiting.is_closed())
    }

    /// Puts a connection among the idle ones. Returns one that was there for too long.
    fn lay_down(&mut self, live: Option<Live<DB>>, keep: bool) -> Option<Live<DB>> {
        let now = Instant::now();
        self.idle.extend(live.map(|live| Idle { live, since: now }));
        let oldest = self.idle.first()?;
        if keep || now - oldest.since <= MAX_IDLE {
            return None;
        }
        self.open -= 1;
        Some(self.idle.remove(0).live)
    }
}

impl<DB: Driver> Permit<DB> {
    /// Makes a connection for a call that waits. The only one that is being made while there is
    /// none is tried again for as long as somebody waits.
    async fn make(self) {
        let mut pause = Duration::from_millis(10);
        loop {
            match self.0.make().await {
                Ok(link) => return self.made(link),
                Err(failure) if !self.tries_again(&failure) => return,
                Err(_) => sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_millis(250));
            if self
                .0
                .state()
                .waiting
                .iter()
                .all(oneshot::Sender::is_closed)
            {
                return;
            }
        }
    }

    fn made(self, link: DB::Link) {
        let home = Arc::clone(&self.0);
        {
            let mut state = home.state();
            // Balanced by the place that ends here.
            state.open += 1;
            state.refused = None;
        }
        drop(self);
        home.give(Live {
            link,
            made: Instant::now(),
        });
        home.grow(&mut home.state());
    }

    fn tries_again(&self, failure: &Failure) -> bool {
        let mut state = self.0.state();
        state.refused = Some((failure.clone(), Instant::now()));
        if state.open > state.making {
            // There are others to wait for.
            return false;
        }
        if !failure.is_final() {
            return state.making == 1;
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for call in waiting {
            // Nobody listens when the caller's future was dropped.
            let _ = call.send(Err(failure.clone()));
        }
        false
    }
}

/// Nothing is begun here: the place may be dropped because the runtime is ending.
impl<DB: Driver> Drop for Permit<DB> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        state.making -= 1;
    }
}

impl<DB: Driver> PooledConnection<DB> {
    /// The connection, on which something is under way until [`done`](Self::done).
    pub(crate) fn begin(&mut self) -> &mut DB::Link {
        self.busy = true;
        let live = self.live.as_mut();
        &mut live.expect("a pooled has its connection to the end").link
    }

    /// Whether the connection can be used, as far as that is in doubt. If not, those that have been
    /// idle for longer are dropped too: each of them would have to be tried as long.
    pub(crate) async fn is_alive(&mut self, end: Instant) -> bool {
        let Some(suspect) = self.suspect.take() else {
            return true;
        };
        let end = end.min(Instant::now() + TRY.min(self.home.patience / 4));
        let tried = timeout_at(end, DB::ping(self.begin())).await;
        let is_alive = matches!(tried, Ok(Ok(())));
        self.busy = !is_alive;
        if !is_alive {
            let mut state = self.home.state();
            let younger = state
                .idle
                .iter()
                .position(|idle| idle.since > suspect)
                .unwrap_or(state.idle.len());
            let dropped: Vec<_> = state.idle.drain(..younger).collect();
            state.open -= dropped.len();
            state.broken = Some(Instant::now());
            drop(state);
            drop(dropped);
        }
        is_alive
    }

    /// The answer was read to its end.
    pub(crate) fn done(mut self) {
        self.busy = false;
    }

    /// Closes a connection that is not to be used again.
    pub(crate) fn close(mut self) {
        self.home.state().broken = Some(Instant::now());
        self.end();
    }

    /// Closes it with all that are idle.
    pub(crate) fn leave_server(self) {
        self.home.clear();
        self.close();
    }

    fn end(&mut self) {
        if self.live.take().is_some() {
            self.home.closed();
        }
    }
}

impl<DB: Driver> Drop for PooledConnection<DB> {
    fn drop(&mut self) {
        if self.busy && !DB::LOCAL {
            self.end();
        } else if let Some(live) = self.live.take() {
            self.home.give(live);
        }
    }
}

fn no_answer() -> Failure {
    Failure::Unsent(Cause("no connection within the deadline".into()))
}
