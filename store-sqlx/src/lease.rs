//! Connections that go from one call to the next.
//!
//! A pool tries each connection that is given back: one more round trip for each statement, in a
//! task of its own. So no more calls ask the pool than it may have connections, the others stand in
//! line, and a call that has its answer hands its connection to the first of them. The pool gets it
//! when nobody waits.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::{Database, Pool, pool::PoolConnection};
use tokio::sync::oneshot;

/// How many calls in a row have a connection before the pool gets it, which others may use too, and
/// which renews connections that are old.
const MAX_CALLS: u32 = 64;

/// Who uses a pool, and who waits for that.
pub(crate) struct Relay<DB: Database>(Mutex<Line<DB>>);

struct Line<DB: Database> {
    places: u32,
    waiting: VecDeque<oneshot::Sender<Turn<DB>>>,
}

/// The right to take a connection from the pool, and to have it; who gives it up gives it to the
/// next in line.
pub(crate) struct Place<DB: Database>(Arc<Relay<DB>>);

/// A connection that a call has to itself.
pub(crate) struct Lease<DB: Database> {
    connection: PoolConnection<DB>,
    calls: u32,
    // Dropped after the connection, so that whoever gets the place finds that in the pool.
    place: Place<DB>,
}

/// What comes to who stands in line.
pub(crate) enum Turn<DB: Database> {
    Connection(Lease<DB>),
    Place(Place<DB>),
}

/// Where a connection stays from one call of a task to the next.
pub(crate) struct Seat<DB: Database>(Mutex<Option<Lease<DB>>>);

impl<DB: Database> Relay<DB> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Line {
            places: 0,
            waiting: VecDeque::new(),
        })))
    }

    /// A place if there is one left, or else the end of the line.
    pub(crate) fn join(
        self: &Arc<Self>,
        pool: &Pool<DB>,
    ) -> Result<Place<DB>, oneshot::Receiver<Turn<DB>>> {
        let mut line = self.line();
        if line.places < pool.options().get_max_connections() {
            line.places += 1;
            return Ok(Place(Arc::clone(self)));
        }
        let (sender, receiver) = oneshot::channel();
        line.waiting.push_back(sender);
        Err(receiver)
    }

    fn line(&self) -> MutexGuard<'_, Line<DB>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<DB: Database> Line<DB> {
    /// The first in line who has not left it.
    fn next(&mut self) -> Option<oneshot::Sender<Turn<DB>>> {
        std::iter::from_fn(|| self.waiting.pop_front()).find(|waiting| !waiting.is_closed())
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

impl<DB: Database> Drop for Place<DB> {
    fn drop(&mut self) {
        let next = {
            let mut line = self.0.line();
            let next = line.next();
            line.places -= u32::from(next.is_none());
            next
        };
        if let Some(next) = next {
            // Who leaves the line at this very moment gives it to the next one.
            drop(next.send(Turn::Place(Self(Arc::clone(&self.0)))));
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
        while self.calls < MAX_CALLS {
            let next = self.place.0.line().next();
            let Some(next) = next else { return };
            self = match next.send(Turn::Connection(self)) {
                Err(Turn::Connection(lease)) => lease,
                _ => return,
            };
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
