//! One server, reached by a few connections that all requests share.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, Value};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use crate::{
    address::Address,
    fault::{Code, Fault},
    line::{Dialer, Line, Target},
};

/// How long one Sentinel may take to answer.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);

/// Where a node's connections come from.
pub(crate) enum Supply {
    Server { dialer: Dialer, target: Target },
    Sentinel(Sentinel),
    Pool(deadpool_redis::Pool),
    SentinelPool(deadpool_redis::sentinel::Pool),
}

/// Finds the master of a service.
pub(crate) struct Sentinel {
    /// To the Sentinels.
    pub(crate) guide: Dialer,
    /// To the master.
    pub(crate) dialer: Dialer,
    pub(crate) sentinels: Vec<Address>,
    pub(crate) service: String,
}

/// A server and the places of its connections, each filled when it is first needed.
pub(crate) struct Node {
    supply: Arc<Supply>,
    places: Box<[Arc<Place>]>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Place {
    line: RwLock<Option<Arc<Line>>>,
    /// Held while a new connection is made, for which all requests wait.
    dialing: Arc<Mutex<()>>,
    /// How many attempts to connect have failed.
    failures: AtomicU64,
}

impl Node {
    pub(crate) fn new(supply: Supply, connections: usize) -> Self {
        Self {
            supply: Arc::new(supply),
            places: (0..connections).map(|_| Arc::default()).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Whether another server may take over, so that a server that is gone is worth waiting for.
    pub(crate) fn fails_over(&self) -> bool {
        matches!(*self.supply, Supply::Sentinel(_) | Supply::SentinelPool(_))
    }

    /// Where the server is, if it always is in the same place.
    pub(crate) fn address(&self) -> Option<&Address> {
        match &*self.supply {
            Supply::Server {
                target: Target::Tcp(address),
                ..
            } => Some(address),
            _ => None,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.places.iter().any(|place| place.open_line().is_some())
    }

    pub(crate) async fn send(&self, cmd: &Cmd, deadline: Instant) -> Result<Value, Fault> {
        let place = self.place();
        let line = self.line(place, deadline).await?;
        let sent = match line.send(cmd, deadline).await {
            // The connection was closed while it was idle: one more attempt with a new one.
            Err(Fault::Unsent(_)) => Box::pin(self.send_once(place, cmd, deadline)).await,
            sent => sent,
        };
        if let Err(Fault::Refused(refusal)) = &sent
            && refusal.code() == Code::ReadOnly
            && self.fails_over()
        {
            // Another server is the master now: look for it.
            line.close();
        }
        sent
    }

    pub(crate) async fn send_asking(&self, cmd: &Cmd, deadline: Instant) -> Result<Value, Fault> {
        let line = self.line(self.place(), deadline).await?;
        line.send_asking(cmd, deadline).await
    }

    async fn send_once(
        &self,
        place: &Arc<Place>,
        cmd: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        self.line(place, deadline).await?.send(cmd, deadline).await
    }

    /// The next place in turn.
    fn place(&self) -> &Arc<Place> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        &self.places[turn % self.places.len()]
    }

    /// An open connection: the one of a place, or another one while that is being made.
    async fn line(&self, place: &Arc<Place>, deadline: Instant) -> Result<Arc<Line>, Fault> {
        match place.open_line() {
            Some(line) => Ok(line),
            // In a box, because what it needs would make every call larger.
            None => Box::pin(self.connect(place, deadline)).await,
        }
    }

    async fn connect(&self, place: &Arc<Place>, deadline: Instant) -> Result<Arc<Line>, Fault> {
        let failures = place.failures.load(Ordering::Acquire);
        let dialing = match Arc::clone(&place.dialing).try_lock_owned() {
            Ok(dialing) => dialing,
            Err(_) => match self.places.iter().find_map(|place| place.open_line()) {
                Some(line) => return Ok(line),
                None => timeout_at(deadline, Arc::clone(&place.dialing).lock_owned())
                    .await
                    .map_err(|_| Fault::Unsent("no connection in time".into()))?,
            },
        };
        if let Some(line) = place.open_line() {
            return Ok(line);
        }
        if place.failures.load(Ordering::Acquire) != failures {
            return Err(Fault::Unsent("the connection has just failed".into()));
        }
        let (supply, place) = (Arc::clone(&self.supply), Arc::clone(place));
        // To its end, also when the caller leaves: callers that have no time for a whole handshake
        // would otherwise begin a new one each, and none would ever be finished.
        let made = tokio::spawn(async move {
            let _dialing = dialing;
            place.fill(&supply, deadline).await
        });
        made.await
            .unwrap_or_else(|error| Err(Fault::Unsent(error.into())))
    }
}

impl Place {
    fn open_line(&self) -> Option<Arc<Line>> {
        let line = self.line.read().unwrap_or_else(PoisonError::into_inner);
        line.as_ref().filter(|line| line.is_open()).cloned()
    }

    async fn fill(&self, supply: &Supply, deadline: Instant) -> Result<Arc<Line>, Fault> {
        let made = timeout_at(deadline, supply.make())
            .await
            .unwrap_or_else(|_| Err(Fault::Unsent("no connection in time".into())));
        match made {
            Ok(line) => Ok(self.put(line)),
            Err(fault) => {
                self.failures.fetch_add(1, Ordering::AcqRel);
                Err(fault)
            }
        }
    }

    fn put(&self, line: Line) -> Arc<Line> {
        let line = Arc::new(line);
        *self.line.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&line));
        line
    }
}

impl Supply {
    async fn make(&self) -> Result<Line, Fault> {
        match self {
            Self::Server { dialer, target } => dialer.dial(target).await,
            Self::Sentinel(sentinel) => sentinel.dial().await,
            // Out of the pool for good: its connections are lent for one command at a time, and
            // this one is shared.
            Self::Pool(pool) => match pool.get().await {
                Ok(connection) => Ok(Line::foreign(deadpool_redis::Connection::take(connection))),
                Err(error) => Err(Fault::Unsent(error.into())),
            },
            Self::SentinelPool(pool) => match pool.get().await {
                Ok(connection) => Ok(Line::foreign(deadpool_redis::sentinel::Connection::take(
                    connection,
                ))),
                Err(error) => Err(Fault::Unsent(error.into())),
            },
        }
    }
}

impl Sentinel {
    /// Asks one Sentinel after the other for the master, and connects to it.
    async fn dial(&self) -> Result<Line, Fault> {
        let mut fault = Fault::Unsent("no sentinel answers".into());
        for sentinel in &self.sentinels {
            match self.ask(sentinel).await {
                Ok(master) => match self.dial_master(master).await {
                    Ok(line) => return Ok(line),
                    Err(why) => fault = why,
                },
                Err(why) => fault = why,
            }
        }
        Err(fault)
    }

    async fn ask(&self, sentinel: &Address) -> Result<Address, Fault> {
        let deadline = Instant::now() + SENTINEL_TIMEOUT;
        let line = timeout_at(deadline, self.guide.dial(&Target::Tcp(sentinel.clone())))
            .await
            .unwrap_or_else(|_| Err(Fault::Unsent("a sentinel does not answer".into())))?;
        let mut cmd = redis::cmd("SENTINEL");
        cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        let answer = line.send(&cmd, deadline).await?;
        let (host, port) = redis::from_redis_value(answer)
            .map_err(|_| Fault::Unsent("the sentinel does not know the service".into()))?;
        Ok(Address { host, port })
    }

    /// Sentinels name a former master until they agree on the next one.
    async fn dial_master(&self, master: Address) -> Result<Line, Fault> {
        let line = self.dialer.dial(&Target::Tcp(master)).await?;
        let deadline = Instant::now() + self.dialer.timeout;
        let role = line.send(&redis::cmd("ROLE"), deadline).await?;
        match role {
            Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master") => {
                Ok(line)
            }
            _ => Err(Fault::Unsent("the server is not a master".into())),
        }
    }
}
