//! One server, reached by a few connections that all requests share.

use std::{
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, Value};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    connection::{Connection, Connector, Mode, Target},
    failure::{Code, Effect, Failure},
    race::first_ok,
    url::Address,
};

/// How long one Sentinel may take to answer, and when the next one is asked too.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);
const NEXT_SENTINEL: Duration = Duration::from_millis(100);

/// How often a server is asked for its role while it is used, in case nobody writes to it.
const ROLE_INTERVAL: Duration = Duration::from_secs(5);

/// Where a node's connections come from.
pub(crate) enum ConnectionSource {
    Server {
        connector: Connector,
        target: Target,
    },
    /// A node of a cluster, which says by itself when it is not the right one.
    ClusterNode {
        connector: Connector,
        address: Address,
    },
    Sentinel(Sentinel),
    Pool(deadpool_redis::Pool),
    SentinelPool(deadpool_redis::sentinel::Pool),
}

/// Finds the master of a service.
pub(crate) struct Sentinel {
    pub(crate) to_sentinel: Connector,
    pub(crate) to_master: Connector,
    pub(crate) sentinels: Vec<Address>,
    pub(crate) service: String,
}

/// How a node uses its server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) connections: usize,
    /// How many replicas have to confirm a write. Those that wait for it have connections of their
    /// own, because they hold up what comes behind them.
    pub(crate) replicas: usize,
    /// Of a whole call.
    pub(crate) deadline: Duration,
}

/// A server and the slots of its connections, each filled when it is first needed.
pub(crate) struct Node {
    shared: Arc<Shared>,
    next: AtomicUsize,
}

struct Shared {
    source: ConnectionSource,
    settings: Settings,
    slots: Box<[PoolSlot]>,
    /// Set when the server is left: it may not be the right one any more.
    stale: Arc<AtomicBool>,
}

#[derive(Default)]
struct PoolSlot {
    connection: RwLock<Option<Arc<Connection>>>,
    /// Held while a new connection is made, for which all requests wait.
    connecting: Arc<Mutex<()>>,
    /// How many attempts to connect have failed.
    failures: AtomicU64,
}

impl Node {
    pub(crate) fn new(
        source: ConnectionSource,
        settings: Settings,
        stale: Arc<AtomicBool>,
    ) -> Self {
        let groups = if settings.replicas > 0 { 2 } else { 1 };
        let slots = (0..settings.connections * groups).map(|_| PoolSlot::default());
        Self {
            shared: Arc::new(Shared {
                source,
                settings,
                slots: slots.collect(),
                stale,
            }),
            next: AtomicUsize::new(0),
        }
    }

    /// Whether another server may take over, so that a server that is gone is worth waiting for.
    pub(crate) fn fails_over(&self) -> bool {
        matches!(
            self.shared.source,
            ConnectionSource::Sentinel(_) | ConnectionSource::SentinelPool(_)
        )
    }

    /// Where the server is, if it always is in the same place.
    pub(crate) fn address(&self) -> Option<&Address> {
        match &self.shared.source {
            ConnectionSource::ClusterNode { address, .. } => Some(address),
            _ => None,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.shared.any_connection().is_some()
    }

    pub(crate) async fn send(
        &self,
        cmd: &Cmd,
        effect: Effect,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let mode = self.mode(effect, false);
        let index = self.next_slot(effect);
        let connection = self.connection(index, deadline).await?;
        let sent = match connection.send(cmd, mode, deadline).await {
            // The connection was closed while it was idle: one more attempt with a new one.
            Err(Failure::Unsent(_)) => Box::pin(self.send_once(index, cmd, mode, deadline)).await,
            sent => sent,
        };
        sent.map_err(|failure| self.judge(failure))
    }

    pub(crate) async fn send_asking(
        &self,
        cmd: &Cmd,
        effect: Effect,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let mode = self.mode(effect, true);
        self.send_once(self.next_slot(effect), cmd, mode, deadline)
            .await
    }

    async fn send_once(
        &self,
        index: usize,
        cmd: &Cmd,
        mode: Mode,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let connection = self.connection(index, deadline).await?;
        connection.send(cmd, mode, deadline).await
    }

    /// An open connection for a slot.
    async fn connection(
        &self,
        index: usize,
        deadline: Instant,
    ) -> Result<Arc<Connection>, Failure> {
        match self.shared.slots[index].open_connection() {
            Some(connection) => Ok(connection),
            // In a box, because what it needs would make every call larger.
            None => Box::pin(self.connect(index, deadline)).await,
        }
    }

    fn mode(&self, effect: Effect, asking: bool) -> Mode {
        Mode {
            asking,
            replicas: match effect {
                Effect::Read => 0,
                Effect::Write => self.shared.settings.replicas,
            },
        }
    }

    /// The slot whose turn it is.
    fn next_slot(&self, effect: Effect) -> usize {
        let Settings {
            connections,
            replicas,
            ..
        } = self.shared.settings;
        let slot = self.next.fetch_add(1, Ordering::Relaxed) % connections;
        match effect {
            Effect::Write if replicas > 0 => connections + slot,
            _ => slot,
        }
    }

    /// What a refusal says about the server. One that has become a replica is left: another one is
    /// the master now, perhaps under the same address.
    fn judge(&self, failure: Failure) -> Failure {
        let Failure::Refused(refusal) = &failure else {
            return failure;
        };
        match (refusal.code(), &self.shared.source) {
            (_, ConnectionSource::ClusterNode { .. }) => failure,
            (Code::Moved | Code::Ask, _) => Failure::ClusterNode,
            (Code::ReadOnly, _) => {
                self.shared.leave();
                failure
            }
            _ => failure,
        }
    }

    /// A new connection for a slot, or the one of another slot while that is made.
    async fn connect(&self, index: usize, deadline: Instant) -> Result<Arc<Connection>, Failure> {
        let slot = &self.shared.slots[index];
        let failures = slot.failures.load(Ordering::Acquire);
        let connecting = match Arc::clone(&slot.connecting).try_lock_owned() {
            Ok(connecting) => connecting,
            Err(_) => match self.shared.any_connection() {
                Some(connection) => return Ok(connection),
                None => timeout_at(deadline, Arc::clone(&slot.connecting).lock_owned())
                    .await
                    .map_err(|_| Failure::Unsent("no connection in time".into()))?,
            },
        };
        if let Some(connection) = slot.open_connection() {
            return Ok(connection);
        }
        if slot.failures.load(Ordering::Acquire) != failures {
            return Err(Failure::Unsent("the connection has just failed".into()));
        }
        let shared = Arc::clone(&self.shared);
        // To its end, also when the caller leaves: callers that have no time for a whole handshake
        // would otherwise begin a new one each, and none would ever be finished.
        let made = tokio::spawn(async move {
            let _connecting = connecting;
            shared.fill(index).await
        });
        match timeout_at(deadline, made).await {
            Ok(made) => made.unwrap_or_else(|error| Err(Failure::Unsent(error.into()))),
            Err(_) => Err(Failure::Unsent("no connection in time".into())),
        }
    }
}

impl Shared {
    fn any_connection(&self) -> Option<Arc<Connection>> {
        self.slots.iter().find_map(PoolSlot::open_connection)
    }

    async fn fill(self: &Arc<Self>, index: usize) -> Result<Arc<Connection>, Failure> {
        let slot = &self.slots[index];
        let made = timeout(self.settings.deadline, self.source.connect())
            .await
            .unwrap_or_else(|_| Err(Failure::Unsent("no connection in time".into())));
        match made {
            Ok(connection) => {
                let connection = Arc::new(connection);
                tokio::spawn(watch(Arc::downgrade(self), Arc::downgrade(&connection)));
                slot.put(Arc::clone(&connection));
                Ok(connection)
            }
            Err(failure) => {
                slot.failures.fetch_add(1, Ordering::AcqRel);
                Err(failure)
            }
        }
    }

    /// Lets nobody use the present connections any more. They go to one server by one network, so
    /// that what is wrong with one of them is wrong with all.
    fn leave(&self) {
        for connection in self.slots.iter().filter_map(PoolSlot::open_connection) {
            connection.close();
        }
        self.stale.store(true, Ordering::Release);
    }
}

/// Leaves a server that does not answer, or is no master any more. No caller can find that out by
/// itself: many give up before the deadline of the store, and reads are answered by a replica too.
async fn watch(node: Weak<Shared>, connection: Weak<Connection>) {
    let mut asked = Instant::now();
    let mut before = match connection.upgrade() {
        Some(connection) => connection.progress(),
        None => return,
    };
    loop {
        let Some(deadline) = node.upgrade().map(|node| node.settings.deadline) else {
            return;
        };
        let interval = Duration::from_millis(500).min(deadline / 4);
        sleep(interval.max(Duration::from_millis(20))).await;
        let (Some(node), Some(connection)) = (node.upgrade(), connection.upgrade()) else {
            return;
        };
        if !connection.is_open() {
            return;
        }
        let now = connection.progress();
        let used = now.sent != before.sent || now.awaited;
        let silent = now.answered == before.answered;
        before = now;
        if used && (silent || asked.elapsed() >= ROLE_INTERVAL) {
            asked = Instant::now();
            let patience = Duration::from_secs(1).min(deadline / 2);
            let role = connection.role(asked + patience).await;
            let answered = connection.progress().answered != now.answered;
            let wrong = match role {
                Err(Failure::Late) => !answered,
                Ok(role) => node.source.wants_master() && is_replica(&role),
                Err(_) => false,
            };
            // Unless that has happened meanwhile, and the present ones are others.
            if wrong && connection.is_open() {
                return node.leave();
            }
            before = connection.progress();
        }
    }
}

impl PoolSlot {
    fn open_connection(&self) -> Option<Arc<Connection>> {
        let connection = self
            .connection
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        connection
            .as_ref()
            .filter(|connection| connection.is_open())
            .cloned()
    }

    fn put(&self, connection: Arc<Connection>) {
        let mut held = self
            .connection
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *held = Some(connection);
    }
}

impl ConnectionSource {
    fn wants_master(&self) -> bool {
        !matches!(self, Self::ClusterNode { .. })
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let connection = match self {
            Self::Server { connector, target } => connector.connect(target).await?,
            Self::ClusterNode { connector, address } => {
                return connector.connect(&Target::Tcp(address.clone())).await;
            }
            Self::Sentinel(sentinel) => return sentinel.connect().await,
            // Out of the pool for good: its connections are lent for one command at a time, and
            // this one is shared.
            Self::Pool(pool) => match pool.get().await {
                Ok(connection) => Connection::foreign(deadpool_redis::Connection::take(connection)),
                Err(error) => return Err(Failure::Unsent(error.into())),
            },
            Self::SentinelPool(pool) => match pool.get().await {
                Ok(connection) => {
                    Connection::foreign(deadpool_redis::sentinel::Connection::take(connection))
                }
                Err(error) => return Err(Failure::Unsent(error.into())),
            },
        };
        require_master(connection).await
    }
}

/// A replica answers reads, with sessions that were ended at the master. Servers that do not tell
/// their role, as behind some proxies, are taken for masters.
async fn require_master(connection: Connection) -> Result<Connection, Failure> {
    // The caller bounds the time.
    let far = Instant::now() + Duration::from_secs(3600);
    match connection.role(far).await {
        Ok(role) if is_replica(&role) => Err(Failure::Replica),
        Ok(_) | Err(Failure::Refused(_)) => Ok(connection),
        Err(failure) => Err(failure),
    }
}

fn is_replica(role: &Value) -> bool {
    let Value::Array(parts) = role else {
        return false;
    };
    matches!(parts.first(), Some(Value::BulkString(role)) if role == b"slave" || role == b"replica")
}

impl Sentinel {
    /// Asks the Sentinels for the master, and connects to it.
    async fn connect(&self) -> Result<Connection, Failure> {
        let attempts: Vec<_> = self.sentinels.iter().map(|each| self.reach(each)).collect();
        first_ok(attempts, NEXT_SENTINEL)
            .await
            .unwrap_or_else(|| Err(Failure::Unsent("there is no sentinel".into())))
    }

    async fn reach(&self, sentinel: &Address) -> Result<Connection, Failure> {
        let master = self.ask(sentinel).await?;
        let connection = self.to_master.connect(&Target::Tcp(master)).await?;
        // Sentinels name a former master until they agree on the next one.
        require_master(connection).await
    }

    async fn ask(&self, sentinel: &Address) -> Result<Address, Failure> {
        let deadline = Instant::now() + SENTINEL_TIMEOUT;
        let target = Target::Tcp(sentinel.clone());
        let connection = timeout_at(deadline, self.to_sentinel.connect(&target))
            .await
            .unwrap_or_else(|_| Err(Failure::Unsent("a sentinel does not answer".into())))?;
        let mut cmd = redis::cmd("SENTINEL");
        cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        let answer = connection.send(&cmd, Mode::default(), deadline).await?;
        let (host, port) = redis::from_redis_value(answer)
            .map_err(|_| Failure::Unsent("the sentinel does not know the service".into()))?;
        Ok(Address { host, port })
    }
}
