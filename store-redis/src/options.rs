use std::{fmt, sync::Arc, time::Duration};

use redis::{ProtocolVersion, RedisConnectionInfo, Value};
use sessionkit::{Durability, Error, ErrorKind, Result, SessionStore};

use crate::{
    RedisStore,
    client::{Client, Topology},
    cluster::Cluster,
    connection::{Connector, Target},
    failure::{Effect, Failure},
    node::{ConnectionSource, Node, Sentinel, Settings},
    tls::Certificates,
    url::{Layout, Location},
};

/// How a [`RedisStore`] is opened.
///
/// ```no_run
/// # async fn example() -> Result<(), sessionkit::Error> {
/// use sessionkit_redis::RedisOptions;
/// use std::time::Duration;
///
/// let store = RedisOptions::from_url("rediss://sessions:secret@redis.internal/2")?
///     .prefix("shop")
///     .require_tls()
///     .deadline(Duration::from_secs(2))
///     .open()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisOptions {
    source: Source,
    prefix: String,
    protocol: Protocol,
    connections: Option<usize>,
    deadline: Duration,
    connect_timeout: Duration,
    max_data: usize,
    durability: Durability,
    require_tls: bool,
    certificates: Certificates,
    sentinel_login: Option<(Option<String>, String)>,
    client_name: Option<String>,
    replicas: usize,
}

#[derive(Clone)]
enum Source {
    Location(Location),
    Pool(deadpool_redis::Pool),
    SentinelPool(deadpool_redis::sentinel::Pool),
}

/// The version of the protocol that is spoken with the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// RESP2, for proxies that know nothing else.
    Resp2,
    /// RESP3, the default.
    #[default]
    Resp3,
}

/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 64;

/// The oldest server whose commands suffice.
const OLDEST: (u32, u32) = (6, 2);

impl RedisOptions {
    /// The server or servers that a URL names:
    ///
    /// - `redis://[user[:password]@]host[:port][/database]`, or `valkey://…`: one server;
    /// - `redis+unix:///path[?db=database]`: one server, by its socket;
    /// - `redis-cluster://host[:port],…`: a Cluster, by some of its nodes;
    /// - `redis-sentinel://host[:port],…/service[/database]`: the master of a service, by some of
    ///   its Sentinels. The user and the password are for the master.
    ///
    /// With `rediss`, `valkeys`, `rediss-cluster` and `rediss-sentinel` every connection uses TLS.
    /// User and password may be percent-encoded.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the URL is none of these.
    ///
    /// ```
    /// use sessionkit::ErrorKind;
    /// use sessionkit_redis::RedisOptions;
    ///
    /// RedisOptions::from_url("redis-cluster://node1,node2:7000")?;
    /// let error = RedisOptions::from_url("http://localhost").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    /// # Ok::<(), sessionkit::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        Location::parse(url).map(|location| Self::new(Source::Location(location)))
    }

    /// The server of a pool that the application has. The store takes
    /// [`connections`](Self::connections) of its connections out of it for good, and shares them.
    ///
    /// What the pool configures stays in force: its timeouts, protocol and database. Because a
    /// connection of a pool does not tell what it has written, a write that fails with its
    /// connection is always [`ErrorKind::Ambiguous`].
    ///
    /// There is no such function for a pool of cluster connections: those repeat a command whose
    /// answer was lost on their own, so that a session would be reported as existing or changed
    /// that the store has just created or changed itself.
    #[must_use]
    pub fn from_pool(pool: deadpool_redis::Pool) -> Self {
        Self::new(Source::Pool(pool))
    }

    /// The master of a pool that asks Sentinels; otherwise as [`from_pool`](Self::from_pool).
    #[must_use]
    pub fn from_sentinel_pool(pool: deadpool_redis::sentinel::Pool) -> Self {
        Self::new(Source::SentinelPool(pool))
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            prefix: "session".to_owned(),
            protocol: Protocol::default(),
            connections: None,
            deadline: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            max_data: 1 << 20,
            durability: Durability::Process,
            require_tls: false,
            certificates: Certificates::default(),
            sentinel_login: None,
            client_name: None,
            replicas: 0,
        }
    }

    /// Sets what the name of every key begins with, `session` by default: 1 to 64 visible ASCII
    /// characters, none of `#`, `@`, `{` and `}`. Stores with different prefixes share nothing, also
    /// when one prefix begins with the other.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the protocol, [`Protocol::Resp3`] by default.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Sets how many connections to a server all requests share: by default 3, and 1 to each node of
    /// a cluster or out of a pool. The more commands share one, the more of them go out together;
    /// with several the server is busy with some while the next ones gather, and large sessions keep
    /// fewer small ones waiting.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = Some(connections);
        self
    }

    /// Sets the time after which every call ends, 5 seconds by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the time after which an attempt to connect ends, 2 seconds by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the largest payload of a session, 1 MiB by default, at most 256 MiB.
    #[must_use]
    pub fn max_data(mut self, bytes: usize) -> Self {
        self.max_data = bytes;
        self
    }

    /// Declares what the server is configured to survive, [`Durability::Process`] by default. The
    /// store cannot check it; see the table in the documentation of the crate.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Refuses to open a store whose connections are not all encrypted.
    #[must_use]
    pub fn require_tls(mut self) -> Self {
        self.require_tls = true;
        self
    }

    /// Trusts these root certificates, in PEM, in the place of those of the system.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.roots = Some(pem.into());
        self
    }

    /// Identifies the application to the server by a chain of certificates and its private key, both
    /// in PEM.
    #[must_use]
    pub fn client_certificate(
        mut self,
        chain: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.certificates.identity = Some((chain.into(), key.into()));
        self
    }

    /// Sets the user, if they want one, and the password for the Sentinels themselves; none by
    /// default.
    #[must_use]
    pub fn sentinel_login(mut self, user: Option<&str>, password: &str) -> Self {
        self.sentinel_login = Some((user.map(str::to_owned), password.to_owned()));
        self
    }

    /// Sets the name under which the server lists the connections (`CLIENT LIST`); none by default.
    /// Visible ASCII characters. Those out of a pool keep theirs.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = Some(name.into());
        self
    }

    /// Has every write wait until this many replicas have it, none by default, so that a failover to
    /// one of those loses no acknowledged write. A write that they do not confirm within half a
    /// second is [`ErrorKind::Ambiguous`]: the master has it.
    ///
    /// The server answers nothing on a connection that waits (`WAIT`), so that writes have as many
    /// connections of their own as [`connections`](Self::connections) says, and follow each other at
    /// the pace of the replicas.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Opens the store and makes sure that the server answers. Logs a warning when the server may
    /// evict sessions to make room.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the options cannot work together, when TLS or the login
    /// fails, and when the server is older than version 6.2; [`ErrorKind::Unavailable`] when it
    /// cannot be reached.
    pub async fn open(self) -> Result<RedisStore> {
        let store = self.open_lazily()?;
        store.inspect().await?;
        store.ping().await?;
        Ok(store)
    }

    /// Opens the store without talking to the server, for an application that has to start before
    /// the server does.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the options cannot work together.
    pub fn open_lazily(self) -> Result<RedisStore> {
        self.check()?;
        Ok(RedisStore {
            client: Arc::new(Client {
                topology: self.topology()?,
                deadline: self.deadline,
            }),
            prefix: self.prefix.into(),
            max_data: self.max_data,
            durability: self.durability,
        })
    }

    fn check(&self) -> Result<()> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"#@{}".contains(&byte);
        if self.prefix.is_empty()
            || self.prefix.len() > MAX_PREFIX
            || !self.prefix.bytes().all(allowed)
        {
            return Err(invalid(
                "the prefix has 1 to 64 visible characters, none of # @ { }",
            ));
        }
        if self.connections == Some(0) || self.deadline.is_zero() || self.connect_timeout.is_zero()
        {
            return Err(invalid(
                "the number of connections and the timeouts are more than zero",
            ));
        }
        if let Some(name) = &self.client_name
            && (name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(invalid("the name of a client has visible characters only"));
        }
        if self.max_data > 256 << 20 {
            return Err(invalid("the largest payload is at most 256 MiB"));
        }
        let encrypted = matches!(&self.source, Source::Location(location) if location.tls);
        if self.require_tls && !encrypted {
            return Err(invalid(
                "TLS is required, and the server is not addressed by it",
            ));
        }
        Ok(())
    }

    fn topology(&self) -> Result<Topology> {
        let location = match &self.source {
            Source::Location(location) => location,
            Source::Pool(pool) => return Ok(self.one(ConnectionSource::Pool(pool.clone()))),
            Source::SentinelPool(pool) => {
                return Ok(self.one(ConnectionSource::SentinelPool(pool.clone())));
            }
        };
        let mut login = self.login().set_db(location.database);
        if let Some(username) = &location.username {
            login = login.set_username(username);
        }
        if let Some(password) = &location.password {
            login = login.set_password(password);
        }
        let connector = self.connector(login, location.tls)?;
        let server = |target| ConnectionSource::Server {
            connector: connector.clone(),
            target,
        };
        Ok(match &location.layout {
            Layout::One(address) => self.one(server(Target::Tcp(address.clone()))),
            Layout::Unix(path) => self.one(server(Target::Unix(path.clone()))),
            Layout::Cluster(seeds) => {
                let cluster = Cluster::new(connector, seeds.clone(), self.settings(1));
                Topology::Cluster(Arc::new(cluster))
            }
            Layout::Sentinel { sentinels, service } => {
                self.one(ConnectionSource::Sentinel(Sentinel {
                    to_sentinel: self.to_sentinel(location.tls)?,
                    to_master: connector,
                    sentinels: sentinels.clone(),
                    service: service.clone(),
                }))
            }
        })
    }

    fn one(&self, source: ConnectionSource) -> Topology {
        let connections = match source {
            ConnectionSource::Server { .. } | ConnectionSource::Sentinel(_) => 3,
            _ => 1,
        };
        let node = Node::new(source, self.settings(connections), Arc::default());
        Topology::One(Arc::new(node))
    }

    fn settings(&self, connections: usize) -> Settings {
        Settings {
            connections: self.connections.unwrap_or(connections),
            replicas: self.replicas,
            deadline: self.deadline,
        }
    }

    fn to_sentinel(&self, tls: bool) -> Result<Connector> {
        let mut login = self.login();
        if let Some((user, password)) = &self.sentinel_login {
            login = login.set_password(password);
            if let Some(user) = user {
                login = login.set_username(user);
            }
        }
        self.connector(login, tls)
    }

    fn login(&self) -> RedisConnectionInfo {
        RedisConnectionInfo::default()
            .set_skip_set_lib_name()
            .set_protocol(match self.protocol {
                Protocol::Resp2 => ProtocolVersion::RESP2,
                Protocol::Resp3 => ProtocolVersion::RESP3,
            })
    }

    fn connector(&self, login: RedisConnectionInfo, tls: bool) -> Result<Connector> {
        Ok(Connector {
            login,
            tls: tls.then(|| self.certificates.connector()).transpose()?,
            client_name: self.client_name.clone(),
            timeout: self.connect_timeout,
            // A backstop: lost packets are sent again several times in this time.
            confirm_timeout: self.deadline.max(Duration::from_secs(5)),
        })
    }
}

/// No password, certificate or host.
impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("prefix", &self.prefix)
            .field("protocol", &self.protocol)
            .field("connections", &self.connections)
            .field("deadline", &self.deadline)
            .field("require_tls", &self.require_tls)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Looks at the version, the layout and the eviction policy of every master. What a server does
    /// not tell, as managed ones often do not, is not held against it.
    async fn inspect(&self) -> Result<()> {
        let deadline = self.client.deadline();
        let info = redis::cmd("INFO");
        let alone = !self.client.is_cluster();
        for node in self.client.nodes(deadline).await? {
            match node.send(&info, Effect::Read, deadline).await {
                Ok(Value::BulkString(info)) => judge(&String::from_utf8_lossy(&info), alone)?,
                Ok(Value::VerbatimString { text, .. }) => judge(&text, alone)?,
                Ok(_) | Err(Failure::Refused(_)) => {}
                Err(failure) => return Err(failure.into_error(Effect::Read)),
            }
        }
        Ok(())
    }
}

/// Refuses a server that is too old, or is not what it was addressed as, and warns of one that may
/// end sessions by itself.
fn judge(info: &str, alone: bool) -> Result<()> {
    let field = |name: &str| {
        let mut fields = info.lines().filter_map(|line| line.split_once(':'));
        fields.find_map(|(field, value)| (field == name).then_some(value.trim()))
    };
    if let Some(version) = field("redis_version").and_then(version)
        && version < OLDEST
    {
        return Err(invalid("the Redis server is older than version 6.2"));
    }
    if alone && field("cluster_enabled") == Some("1") {
        return Err(Failure::ClusterNode.into_error(Effect::Read));
    }
    if let Some(policy) = field("maxmemory_policy")
        && policy != "noeviction"
    {
        tracing::warn!(
            policy,
            "the Redis server may evict sessions to make room: set maxmemory-policy to noeviction"
        );
    }
    Ok(())
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(options: RedisOptions) -> Result<RedisStore> {
        options.open_lazily()
    }

    fn local() -> RedisOptions {
        RedisOptions::from_url("redis://localhost").unwrap()
    }

    fn refused(options: RedisOptions) {
        assert_eq!(open(options).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn a_hostile_prefix_is_refused() {
        let long = "x".repeat(65);
        for prefix in ["", "a b", "a#", "a@b", "{a}", "é", "a\n", &long] {
            refused(local().prefix(prefix));
        }
        for prefix in ["a", "a:", "a*", "a_", "a%", "shop:sessions"] {
            open(local().prefix(prefix)).unwrap();
        }
    }

    #[test]
    fn required_tls_refuses_plain_text() {
        for url in [
            "redis://localhost",
            "redis+unix:///run/redis.sock",
            "redis-cluster://localhost",
            "redis-sentinel://localhost/main",
        ] {
            refused(RedisOptions::from_url(url).unwrap().require_tls());
        }
        let pool = deadpool_redis::Config::from_url("redis://localhost")
            .create_pool(Some(deadpool_redis::Runtime::Tokio1))
            .unwrap();
        refused(RedisOptions::from_pool(pool).require_tls());
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        refused(local().connections(0));
        refused(local().deadline(Duration::ZERO));
        refused(local().connect_timeout(Duration::ZERO));
        refused(local().max_data(usize::MAX));
        let tls = || RedisOptions::from_url("rediss://localhost").unwrap();
        refused(tls().root_certificates("nothing"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let options = RedisOptions::from_url("redis://user:secret@host").unwrap();
        assert!(!format!("{options:?}").contains("secret"));
        assert!(!format!("{:?}", open(options).unwrap()).contains("secret"));
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(version("6.0.16").unwrap() < OLDEST);
        assert!(version("10.0.1").unwrap() >= OLDEST);
        assert_eq!(version("unknown"), None);
    }
}
