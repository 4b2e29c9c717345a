//! How long writes fail when a master of a cluster dies: with this store, with deadpool's pool of
//! cluster connections, and with one cluster connection of the driver, all at the same time on the
//! same cluster. `scripts/soak redis-failover`.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use deadpool_redis::cluster;
use sessionkit::{
    Clock, CookieName, Error, ErrorKind, OsEntropy, Record, Result, Revision, SessionStore,
    SystemClock, Token,
};
use sessionkit_conformance::containers::RedisCluster;
use sessionkit_redis::RedisStore;
use tokio::time::{sleep, timeout};

/// How many sessions, or keys, of each client are written without a pause.
const KEYS: usize = 24;

/// How long is watched after each event.
const WATCH: Duration = Duration::from_secs(15);

/// A call that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<()> {
    for fault in ["killed", "stopped"] {
        let cluster = RedisCluster::start().await?;
        let masters = cluster.masters().await?;
        let mut writers = Vec::new();
        for client in clients(&cluster).await? {
            writers.extend(Writer::all(client, masters[0]).await?);
        }
        let (log, events) = watch(&cluster, masters[0], fault, writers).await?;
        for (event, begun) in events {
            println!("\n{event}");
            report(&log, begun);
        }
    }
    Ok(())
}

/// Keeps writing while a master fails and comes back.
async fn watch(
    cluster: &RedisCluster,
    master: u16,
    fault: &str,
    writers: Vec<Writer>,
) -> Result<(Vec<Written>, Vec<(String, Instant)>)> {
    let writing: Vec<_> = writers
        .into_iter()
        .map(|writer| tokio::spawn(writer.run(Instant::now() + 2 * WATCH)))
        .collect();
    sleep(Duration::from_secs(1)).await;
    let failed = Instant::now();
    match fault {
        "killed" => cluster.kill(master).await?,
        _ => cluster.pause(master).await?,
    }
    sleep(WATCH).await;
    let back = Instant::now();
    match fault {
        "killed" => cluster.restart(master).await?,
        _ => cluster.resume(master).await?,
    }
    let mut log = Vec::new();
    for writes in writing {
        log.extend(writes.await.expect("no writer panics"));
    }
    let events = vec![
        (format!("a master is {fault}"), failed),
        (format!("the {fault} master is back"), back),
    ];
    Ok((log, events))
}

/// Something that writes one of its keys.
#[async_trait]
trait Client: Send + Sync {
    fn name(&self) -> &'static str;
    /// The name of a key, as the server has it.
    fn key(&self, number: usize) -> Vec<u8>;
    /// Writes, or says what kind of error there was.
    async fn write(&self, number: usize) -> std::result::Result<(), String>;
}

async fn clients(cluster: &RedisCluster) -> Result<Vec<Arc<dyn Client>>> {
    let urls: Vec<_> = cluster
        .ports()
        .iter()
        .map(|port| format!("redis://127.0.0.1:{port}"))
        .collect();
    let pool = cluster::Config::from_urls(urls.clone()).create_pool(None);
    let client = redis::cluster::ClusterClient::new(urls).map_err(driver)?;
    let connection = client.get_async_connection().await.map_err(driver)?;
    Ok(vec![
        Arc::new(Ours::new(RedisStore::open(cluster.url()).await?).await?),
        Arc::new(Pool(pool.expect("the URLs are good"))),
        Arc::new(Connection(connection)),
    ])
}

struct Ours {
    store: RedisStore,
    sessions: Vec<(Token, Record)>,
}

impl Ours {
    async fn new(store: RedisStore) -> Result<Self> {
        let name = CookieName::new("id")?;
        let mut sessions = Vec::new();
        for _ in 0..KEYS {
            let now = SystemClock.now();
            let record = Record {
                data: "hello".into(),
                revision: Revision::from_bits(1),
                created_at: now,
                expires_at: now + Duration::from_secs(600),
                subject: None,
                label: Default::default(),
            };
            let token = store
                .create(Token::random(&OsEntropy, &name)?, &record)
                .await?;
            sessions.push((token, record));
        }
        Ok(Self { store, sessions })
    }
}

#[async_trait]
impl Client for Ours {
    fn name(&self) -> &'static str {
        "sessionkit RedisStore"
    }

    fn key(&self, number: usize) -> Vec<u8> {
        [b"session#", &self.sessions[number].0.key().as_bytes()[..20]].concat()
    }

    async fn write(&self, number: usize) -> std::result::Result<(), String> {
        // The same revision each time: it has to be there, and nothing else is to be found out.
        let (token, record) = &self.sessions[number];
        let written = self.store.update(token, record.revision, record).await;
        written
            .map(drop)
            .map_err(|error| format!("{:?}", error.kind()))
    }
}

struct Pool(cluster::Pool);

#[async_trait]
impl Client for Pool {
    fn name(&self) -> &'static str {
        "deadpool_redis::cluster::Pool"
    }

    fn key(&self, number: usize) -> Vec<u8> {
        format!("pool:{number}").into_bytes()
    }

    async fn write(&self, number: usize) -> std::result::Result<(), String> {
        let mut connection = self.0.get().await.map_err(|error| match error {
            cluster::PoolError::Backend(error) => format!("checkout: {}", kind(&error)),
            error => format!("checkout: {error}"),
        })?;
        set(self.key(number), &mut connection).await
    }
}

struct Connection(redis::cluster_async::ClusterConnection);

#[async_trait]
impl Client for Connection {
    fn name(&self) -> &'static str {
        "redis::cluster_async, one connection"
    }

    fn key(&self, number: usize) -> Vec<u8> {
        format!("connection:{number}").into_bytes()
    }

    async fn write(&self, number: usize) -> std::result::Result<(), String> {
        set(self.key(number), &mut self.0.clone()).await
    }
}

async fn set(
    key: Vec<u8>,
    connection: &mut impl redis::aio::ConnectionLike,
) -> std::result::Result<(), String> {
    let mut cmd = redis::cmd("SET");
    cmd.arg(key).arg("hello").arg("EX").arg(600);
    cmd.exec_async(connection)
        .await
        .map_err(|error| kind(&error))
}

fn kind(error: &redis::RedisError) -> String {
    match error.code() {
        Some(code) => code.to_owned(),
        None => format!("{:?}", error.kind()),
    }
}

/// One key of one client.
struct Writer {
    client: Arc<dyn Client>,
    number: usize,
    /// Whether the master that fails has it.
    hit: bool,
}

/// One call.
struct Written {
    client: &'static str,
    number: usize,
    hit: bool,
    begun: Instant,
    ended: Instant,
    outcome: std::result::Result<(), String>,
}

impl Writer {
    async fn all(client: Arc<dyn Client>, master: u16) -> Result<Vec<Self>> {
        let url = format!("redis://127.0.0.1:{master}");
        let master = redis::Client::open(url).map_err(driver)?;
        let mut master = master
            .get_multiplexed_async_connection()
            .await
            .map_err(driver)?;
        let mut writers = Vec::new();
        for number in 0..KEYS {
            let mut exists = redis::cmd("EXISTS");
            let answer = exists.arg(client.key(number)).exec_async(&mut master).await;
            writers.push(Self {
                client: Arc::clone(&client),
                number,
                hit: answer.is_ok(),
            });
        }
        Ok(writers)
    }

    async fn run(self, end: Instant) -> Vec<Written> {
        let mut log = Vec::new();
        while Instant::now() < end {
            let begun = Instant::now();
            let outcome = timeout(PATIENCE, self.client.write(self.number)).await;
            log.push(Written {
                client: self.client.name(),
                number: self.number,
                hit: self.hit,
                begun,
                ended: Instant::now(),
                outcome: outcome.unwrap_or_else(|_| Err("no answer at all".to_owned())),
            });
            sleep(Duration::from_millis(5)).await;
        }
        log
    }
}

fn report(log: &[Written], event: Instant) {
    println!(
        "{:<38} {:<7} {:>7} {:>7} {:>9} {:>11} {:>11} {:>11}",
        "", "keys", "writes", "errors", "slowest", "last error", "one writes", "all write"
    );
    let end = event + WATCH;
    let mut clients: Vec<_> = log.iter().map(|call| call.client).collect();
    clients.sort_unstable();
    clients.dedup();
    for client in clients {
        for hit in [true, false] {
            let calls: Vec<_> = log
                .iter()
                .filter(|call| call.client == client && call.hit == hit)
                .filter(|call| call.ended >= event && call.begun < end)
                .collect();
            row(client, hit, &calls, event);
        }
    }
}

fn row(client: &str, hit: bool, calls: &[&Written], event: Instant) {
    let since = |at: Instant| format!("{:.2} s", at.duration_since(event).as_secs_f64());
    let mut errors: BTreeMap<&str, usize> = BTreeMap::new();
    let mut recovered: BTreeMap<usize, Instant> = BTreeMap::new();
    let mut last_error = None;
    for call in calls {
        match &call.outcome {
            Err(error) => {
                *errors.entry(error).or_default() += 1;
                last_error = last_error.max(Some(call.ended));
                recovered.remove(&call.number);
            }
            Ok(()) if call.begun >= event => {
                let first = recovered.entry(call.number).or_insert(call.ended);
                *first = (*first).min(call.ended);
            }
            Ok(()) => {}
        }
    }
    let slowest = calls.iter().map(|call| call.ended - call.begun).max();
    let failed: usize = errors.values().sum();
    println!(
        "{client:<38} {:<7} {:>7} {failed:>7} {:>7.2} s {:>11} {:>11} {:>11}",
        if hit { "of it" } else { "others" },
        calls.len() - failed,
        slowest.unwrap_or_default().as_secs_f64(),
        last_error.map_or("-".into(), since),
        recovered
            .values()
            .min()
            .map_or("never".into(), |at| since(*at)),
        recovered
            .values()
            .max()
            .map_or("never".into(), |at| since(*at)),
    );
    for (error, count) in errors {
        println!("    {count:>6} x {error}");
    }
}

fn driver(error: redis::RedisError) -> Error {
    Error::new(ErrorKind::Unavailable, "the driver fails").with_source(error)
}
