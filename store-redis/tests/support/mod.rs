//! A harness of the kit for every way to reach Redis.

#![expect(dead_code, reason = "each test program uses a part of it")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::{Client, TlsCertificates, aio::MultiplexedConnection};
use sessionkit::{
    Clock, CookieName, Error, ErrorKind, OsEntropy, Record, Result, Revision, SessionStore,
    Subject, SystemClock, Token,
};
use sessionkit_conformance::{
    Fault, Harness, RawEntry,
    containers::{Server, Setup},
    proxy::Proxy,
};
use sessionkit_redis::{Protocol, RedisOptions};

pub(crate) const CA: &str = include_str!("../tls/ca.pem");
pub(crate) const CERTIFICATE: &str = include_str!("../tls/server.pem");
pub(crate) const KEY: &str = include_str!("../tls/server.key");

/// The URL of a server that speaks nothing but TLS.
pub(crate) async fn tls_server() -> Result<String> {
    tls_setup().shared("redis-tls").await
}

pub(crate) fn tls_setup() -> Setup {
    Server::Redis
        .setup()
        .tls()
        .file("/tls/ca.pem", CA)
        .file("/tls/server.pem", CERTIFICATE)
        .file("/tls/server.key", KEY)
        .args(["--port", "0", "--tls-port", "6379"])
        .args(["--tls-auth-clients", "no"])
        .args(["--tls-ca-cert-file", "/tls/ca.pem"])
        .args(["--tls-cert-file", "/tls/server.pem"])
        .args(["--tls-key-file", "/tls/server.key"])
}

/// When a test is given up that waits for something: much longer than a busy machine takes.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

pub(crate) fn token() -> Token {
    let name = CookieName::new("id").expect("a cookie name");
    Token::random(&OsEntropy, &name).expect("randomness")
}

/// A record of ten minutes.
pub(crate) fn record(subject: Option<Subject>) -> Record {
    Record {
        data: "hello".into(),
        revision: Revision::random(&OsEntropy).expect("randomness"),
        created_at: SystemClock.now(),
        expires_at: SystemClock.now() + Duration::from_secs(600),
        subject,
        label: Default::default(),
    }
}

/// Opens stores at a URL, and looks behind them.
pub(crate) struct RedisHarness {
    pub(crate) url: String,
    protocol: Protocol,
    /// Between the stores and their only server.
    proxy: Option<Proxy>,
}

impl RedisHarness {
    pub(crate) fn new(url: Result<String>) -> Self {
        Self {
            url: url.expect("a server to test with"),
            protocol: Protocol::default(),
            proxy: None,
        }
    }

    /// With a proxy that can break the connections to a single server.
    pub(crate) async fn with_proxy(mut self) -> Self {
        let (_, address) = self.url.split_once("://").expect("a URL");
        self.proxy = Some(Proxy::start(address).await.expect("a port for the proxy"));
        self
    }

    pub(crate) fn resp2(url: Result<String>) -> Self {
        Self {
            protocol: Protocol::Resp2,
            ..Self::new(url)
        }
    }

    pub(crate) fn options(&self, namespace: &str) -> Result<RedisOptions> {
        let url = match (&self.proxy, self.url.split_once("://")) {
            (Some(proxy), Some((scheme, _))) => &format!("{scheme}://{}", proxy.address()),
            _ => &self.url,
        };
        let options = RedisOptions::from_url(url)?.protocol(self.protocol);
        let options = match self.url.starts_with("rediss") {
            true => options.root_certificates(CA).require_tls(),
            false => options,
        };
        Ok(options.prefix(namespace))
    }

    async fn admin(&self) -> Result<Admin> {
        Admin::connect(&self.url).await.map_err(admin)
    }
}

#[async_trait]
impl Harness for RedisHarness {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        Ok(Arc::new(self.options(namespace)?.open().await?))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        self.admin().await?.destroy(namespace).await.map_err(admin)
    }

    async fn raw_dump(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        self.admin().await?.dump(namespace).await.map_err(admin)
    }

    async fn raw_write(&self, _namespace: &str, entry: &RawEntry) -> Result<()> {
        self.admin().await?.write(entry).await.map_err(admin)
    }

    async fn fault(&self, fault: Fault) -> Result<()> {
        match &self.proxy {
            Some(proxy) => proxy.fault(fault).await,
            None => Err(ErrorKind::Unsupported.into()),
        }
    }

    async fn foreign(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        self.admin().await?.foreign(namespace).await.map_err(admin)
    }
}

pub(crate) fn admin(error: redis::RedisError) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the administrator's connection fails",
    )
    .with_source(error)
}

/// Connections to every master, past the store.
pub(crate) struct Admin {
    masters: Vec<MultiplexedConnection>,
}

impl Admin {
    pub(crate) async fn connect(url: &str) -> redis::RedisResult<Self> {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let hosts = rest.split('/').next().expect("hosts").split(',');
        let mut masters = Vec::new();
        match scheme {
            "redis-cluster" => {
                for host in hosts {
                    let Ok(mut node) = plain(host).await else {
                        continue;
                    };
                    let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut node).await?;
                    if role[0] == redis::Value::BulkString(b"master".to_vec()) {
                        masters.push(node);
                    }
                }
            }
            "redis-sentinel" => {
                for host in hosts {
                    let Ok(mut sentinel) = plain(host).await else {
                        continue;
                    };
                    let (host, port): (String, u16) = redis::cmd("SENTINEL")
                        .arg("get-master-addr-by-name")
                        .arg("main")
                        .query_async(&mut sentinel)
                        .await?;
                    masters.push(plain(&format!("{host}:{port}")).await?);
                    break;
                }
            }
            "rediss" => {
                let certificates = TlsCertificates {
                    client_tls: None,
                    root_cert: Some(CA.as_bytes().to_vec()),
                };
                let client = Client::build_with_tls(url, certificates)?;
                masters.push(client.get_multiplexed_async_connection().await?);
            }
            _ => masters.push(plain(rest).await?),
        }
        Ok(Self { masters })
    }

    /// A connection to one node.
    pub(crate) async fn node(port: u16) -> redis::RedisResult<MultiplexedConnection> {
        plain(&format!("127.0.0.1:{port}")).await
    }

    /// Every key of a namespace, with the master that has it.
    async fn keys(&mut self, namespace: &str) -> redis::RedisResult<Vec<(usize, Vec<u8>)>> {
        let mut keys = Vec::new();
        for (index, master) in self.masters.iter_mut().enumerate() {
            let mut cursor = 0;
            loop {
                let (next, found): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
                    .arg(cursor)
                    .arg("MATCH")
                    .arg(format!("{}*", escaped(namespace)))
                    .arg("COUNT")
                    .arg(10_000)
                    .query_async(master)
                    .await?;
                let ours = found.into_iter().filter(|key| {
                    let rest = &key[namespace.len()..];
                    rest.is_empty() || b"#@!".contains(&rest[0])
                });
                keys.extend(ours.map(|key| (index, key)));
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(keys)
    }

    async fn destroy(&mut self, namespace: &str) -> redis::RedisResult<()> {
        for (index, key) in self.keys(namespace).await? {
            redis::cmd("DEL")
                .arg(key)
                .exec_async(&mut self.masters[index])
                .await?;
        }
        Ok(())
    }

    pub(crate) async fn dump(&mut self, namespace: &str) -> redis::RedisResult<Vec<RawEntry>> {
        let mut entries = Vec::new();
        for (index, name) in self.keys(namespace).await? {
            if let Some(value) = self.value(index, &name).await? {
                entries.push(RawEntry { name, value });
            }
        }
        entries.retain(|entry| {
            entry.name.len() > namespace.len() && entry.name[namespace.len()] != b'!'
        });
        entries.sort();
        Ok(entries)
    }

    /// What is under a key: the string, or the members of whatever it is, one after the other.
    async fn value(&mut self, index: usize, name: &[u8]) -> redis::RedisResult<Option<Vec<u8>>> {
        let master = &mut self.masters[index];
        let kind: String = redis::cmd("TYPE").arg(name).query_async(master).await?;
        let members = |command: &str| {
            let mut cmd = redis::cmd(command);
            cmd.arg(name).arg(0).arg(-1);
            cmd
        };
        let parts: Vec<Vec<u8>> = match kind.as_str() {
            "string" => return redis::cmd("GET").arg(name).query_async(master).await,
            "zset" => members("ZRANGE").query_async(master).await?,
            "list" => members("LRANGE").query_async(master).await?,
            "hash" => redis::cmd("HGETALL").arg(name).query_async(master).await?,
            _ => return Ok(None),
        };
        Ok(Some(parts.concat()))
    }

    async fn write(&mut self, entry: &RawEntry) -> redis::RedisResult<()> {
        let mut set = redis::cmd("SET");
        set.arg(&entry.name).arg(&entry.value).arg("KEEPTTL");
        self.take(&set).await
    }

    /// Sends a command to all masters in turn: only the one that has the slot takes it.
    pub(crate) async fn take(&mut self, cmd: &redis::Cmd) -> redis::RedisResult<()> {
        let mut outcome = Ok(());
        for master in &mut self.masters {
            outcome = cmd.exec_async(master).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// A string, a hash and a list, whose names look like ours.
    async fn foreign(&mut self, namespace: &str) -> redis::RedisResult<Vec<RawEntry>> {
        let names = [
            namespace.to_owned(),
            format!("{namespace}!x"),
            format!("{namespace}!y"),
        ];
        let mut entries = Vec::new();
        for name in names {
            for index in 0..self.masters.len() {
                let master = &mut self.masters[index];
                let put = match name.as_bytes().last() {
                    Some(b'x') => {
                        redis::cmd("HSETNX")
                            .arg(&name)
                            .arg("field")
                            .arg("value")
                            .exec_async(master)
                            .await
                    }
                    Some(b'y') => {
                        let len: redis::RedisResult<usize> =
                            redis::cmd("LLEN").arg(&name).query_async(master).await;
                        match len {
                            Ok(0) => {
                                redis::cmd("RPUSH")
                                    .arg(&name)
                                    .arg("value")
                                    .exec_async(master)
                                    .await
                            }
                            other => other.map(drop),
                        }
                    }
                    _ => {
                        redis::cmd("SET")
                            .arg(&name)
                            .arg("value")
                            .arg("NX")
                            .exec_async(master)
                            .await
                    }
                };
                if put.is_ok() {
                    let value = self
                        .value(index, name.as_bytes())
                        .await?
                        .unwrap_or_default();
                    entries.push(RawEntry {
                        name: name.clone().into_bytes(),
                        value,
                    });
                }
            }
        }
        Ok(entries)
    }

    /// How often the server has read from a connection: once for each round trip, as long as one
    /// comes after the other.
    pub(crate) async fn reads(&mut self) -> redis::RedisResult<usize> {
        let stats: String = redis::cmd("INFO")
            .arg("stats")
            .query_async(&mut self.masters[0])
            .await?;
        let reads = stats
            .lines()
            .find_map(|line| line.strip_prefix("total_reads_processed:"));
        Ok(reads
            .and_then(|reads| reads.parse().ok())
            .expect("the server counts reads"))
    }

    /// The round trips since the last look, which is one itself.
    pub(crate) async fn since(&mut self, last: &mut usize) -> usize {
        let now = self.reads().await.expect("the server answers");
        now - std::mem::replace(last, now) - 1
    }

    /// The only connection to a single server.
    pub(crate) fn connection(&mut self) -> &mut MultiplexedConnection {
        &mut self.masters[0]
    }
}

async fn plain(address: &str) -> redis::RedisResult<MultiplexedConnection> {
    Client::open(format!("redis://{address}"))?
        .get_multiplexed_async_connection()
        .await
}

/// The namespace as a pattern that matches itself only.
fn escaped(namespace: &str) -> String {
    namespace
        .chars()
        .flat_map(|char| {
            let special = "*?[]\\^-".contains(char);
            special.then_some('\\').into_iter().chain([char])
        })
        .collect()
}
