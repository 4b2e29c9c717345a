//! Connections that go from one call to the next.
//!
//! A pool tries each connection that is given back: one more round trip for each statement, in a
//! task of its own. So a call that has its answer hands its connection to the call that has waited
//! longest, and the pool gets it when nobody waits.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::{Database, pool::PoolConnection};
use tokio::sync::oneshot;

/// How many calls in a row have a connection before the pool gets it, which others may use too, and
/// which renews connections that are old.
const MAX_CALLS: u32 = 256;

/// Those who have a connection of a pool, and those who wait for one.
pub(crate) struct Relay<DB: Database>(Mutex<Line<DB>>);

struct Line<DB: Database> {
    /// How many have one, or ask the pool for one.
    places: usize,
    waiting: VecDeque<oneshot::Sender<Lease<DB>>>,
}

/// A connection that a call has to itself.
pub(crate) struct Lease<DB: Database> {
    connection: PoolConnection<DB>,
    calls: u32,
    // Dropped after the connection, so that whoever is sent to the pool finds it there.
    place: Place<DB>,
}

/// Of one who has a connection, or asks the pool for one.
pub(crate) struct Place<DB: Database>(Arc<Relay<DB>>);

/// Where a connection stays from one call of a task to the next.
pub(crate) struct Seat<DB: Database>(Mutex<Option<Lease<DB>>>);

impl<DB: Database> Relay<DB> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Line {
            places: 0,
            waiting: VecDeque::new(),
        })))
    }

    pub(crate) fn place(self: &Arc<Self>) -> Place<DB> {
        self.line().places += 1;
        Place(Arc::clone(self))
    }

    /// The end of the line, unless nobody will have a connection to hand on. Whoever waits there and
    /// gets nothing has to ask the pool.
    pub(crate) fn wait(&self) -> Option<oneshot::Receiver<Lease<DB>>> {
        let mut line = self.line();
        if line.places == 0 {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        line.waiting.push_back(sender);
        Some(receiver)
    }

    fn next(&self) -> Option<oneshot::Sender<Lease<DB>>> {
        self.line().waiting.pop_front()
    }

    fn line(&self) -> MutexGuard<'_, Line<DB>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<DB: Database> Place<DB> {
    pub(crate) fn lease(self, connection: PoolConnection<DB>) -> Lease<DB> {
        Lease {
            connection,
            calls: 0,
            place: self,
        }
    }
}

impl<DB: Database> Lease<DB> {
    pub(crate) fn connection(&mut self) -> &mut DB::Connection {
        self.calls += 1;
        &mut self.connection
    }

    fn is_wanted(&self) -> bool {
        self.calls >= MAX_CALLS || !self.place.0.line().waiting.is_empty()
    }

    /// Gives the connection, with which nothing is under way, to the next call.
    pub(crate) fn hand_on(mut self) {
        while self.calls < MAX_CALLS
            && let Some(next) = self.place.0.next()
        {
            match next.send(self) {
                Ok(()) => return,
                // Its caller is gone.
                Err(lease) => self = lease,
            }
        }
    }

    /// Closes the connection.
    pub(crate) fn close(mut self) {
        self.connection.close_on_drop();
    }
}

impl<DB: Database> Seat<DB> {
    pub(crate) fn take(&self) -> Option<Lease<DB>> {
        self.lease().take()
    }

    /// Keeps a connection, with which nothing is under way, unless another task waits for it.
    pub(crate) fn keep(&self, lease: Lease<DB>) {
        if lease.is_wanted() {
            lease.hand_on();
        } else {
            *self.lease() = Some(lease);
        }
    }

    fn lease(&self) -> MutexGuard<'_, Option<Lease<DB>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<DB: Database> Default for Seat<DB> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// There is one less to be waited for: one of those who wait asks the pool, and all of them when it
/// was the last.
impl<DB: Database> Drop for Place<DB> {
    fn drop(&mut self) {
        let mut line = self.0.line();
        line.places -= 1;
        let sent_away = if line.places == 0 {
            line.waiting.len()
        } else {
            line.waiting.len().min(1)
        };
        line.waiting.drain(..sent_away);
    }
}
