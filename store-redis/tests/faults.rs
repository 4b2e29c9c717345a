//! Servers that are killed, paused, full, read-only and replaced, each in a container of its own.

#[path = "support/mod.rs"]
mod support;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use sessionkit::{
    Durability, ErrorKind, OsEntropy, Record, Result, Revision, SessionStore, Subject, Token,
};
use sessionkit_conformance::{
    Fault, Harness, RawEntry,
    containers::{Container, Guard, RedisCluster, RedisSentinel, Server},
    proxy::Proxy,
};
use sessionkit_redis::{RedisOptions, RedisStore};
use support::{Admin, RedisHarness, WATCHDOG, admin, record, token};

/// A server of its own behind a proxy: what the network cannot do, the server does.
struct FaultyServer {
    container: Container,
    proxy: Proxy,
    behind: RedisHarness,
    paused: Mutex<Option<Guard>>,
}

impl FaultyServer {
    async fn start(server: Server) -> Self {
        let container = server
            .setup()
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .start()
            .await
            .expect("a server to test with");
        let (_, address) = container.url().split_once("://").expect("a URL");
        Self {
            proxy: Proxy::start(address).await.expect("a port for the proxy"),
            behind: RedisHarness::new(Ok(format!("redis://{address}"))),
            container,
            paused: Mutex::default(),
        }
    }

    async fn configure(&self, command: &[&str]) -> Result<()> {
        let mut server = Admin::connect(&self.behind.url).await.map_err(admin)?;
        let mut cmd = ::redis::cmd(command[0]);
        cmd.arg(&command[1..]);
        cmd.exec_async(server.connection()).await.map_err(admin)
    }

    async fn repair(&self) -> Result<()> {
        drop(self.paused.lock().expect("not poisoned").take());
        self.configure(&["CONFIG", "SET", "maxmemory", "0"]).await?;
        self.configure(&["CONFIG", "SET", "min-replicas-to-write", "0"])
            .await?;
        self.proxy.fault(Fault::None).await
    }
}

#[async_trait]
impl Harness for FaultyServer {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let url = format!("redis://{}", self.proxy.address());
        let options = RedisOptions::from_url(&url)?.prefix(namespace);
        let store = options.durability(Durability::Disk).open().await?;
        Ok(Arc::new(store))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        self.behind.destroy(namespace).await
    }

    async fn raw_dump(&self, namespace: &str) -> Result<Vec<RawEntry>> {
        self.behind.raw_dump(namespace).await
    }

    async fn fault(&self, fault: Fault) -> Result<()> {
        self.repair().await?;
        match fault {
            Fault::None => Ok(()),
            Fault::Crash => {
                self.container.kill().await?;
                self.container.restart().await
            }
            Fault::Hang => {
                let guard = self.container.pause().await?;
                *self.paused.lock().expect("not poisoned") = Some(guard);
                Ok(())
            }
            Fault::Full => self.configure(&["CONFIG", "SET", "maxmemory", "1"]).await,
            // A replica would be no server to read from either.
            Fault::ReadOnly => {
                self.configure(&["CONFIG", "SET", "min-replicas-to-write", "9"])
                    .await
            }
            fault => self.proxy.fault(fault).await,
        }
    }
}

/// Of calls to a cluster, which wait until then for another master to take over.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(2);

/// A cluster of its own, all masters of which fail together.
struct FaultyCluster {
    cluster: RedisCluster,
    behind: RedisHarness,
    fault: Mutex<Fault>,
}

impl FaultyCluster {
    async fn start() -> Self {
        let cluster = RedisCluster::start().await.expect("a cluster to test with");
        Self {
            behind: RedisHarness::new(Ok(cluster.url().to_owned())),
            cluster,
            fault: Mutex::new(Fault::None),
        }
    }

    async fn everywhere(&self, command: &[&str]) -> Result<()> {
        for port in self.cluster.ports() {
            self.cluster.cli(*port, command).await?;
        }
        Ok(())
    }

    async fn repair(&self, fault: Fault) -> Result<()> {
        for port in self.cluster.ports() {
            match fault {
                Fault::Down => self.cluster.restart(*port).await?,
                Fault::Hang => self.cluster.resume(*port).await?,
                _ => {}
            }
        }
        match fault {
            Fault::Down | Fault::Hang => self.cluster.wait_until_settled().await,
            Fault::Full => self.everywhere(&["config", "set", "maxmemory", "0"]).await,
            Fault::ReadOnly => {
                self.everywhere(&["config", "set", "min-replicas-to-write", "0"])
                    .await
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Harness for FaultyCluster {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let options = self.behind.options(namespace)?;
        Ok(Arc::new(options.deadline(CLUSTER_DEADLINE).open().await?))
    }

    fn deadline(&self) -> Duration {
        CLUSTER_DEADLINE
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        self.behind.destroy(namespace).await
    }

    async fn fault(&self, fault: Fault) -> Result<()> {
        let before = std::mem::replace(&mut *self.fault.lock().expect("not poisoned"), fault);
        self.repair(before).await?;
        match fault {
            Fault::None => {}
            Fault::Down | Fault::Crash => {
                for port in self.cluster.ports() {
                    self.cluster.kill(*port).await?;
                }
                if fault == Fault::Crash {
                    self.repair(Fault::Down).await?;
                }
            }
            Fault::Hang => {
                for port in self.cluster.ports() {
                    self.cluster.pause(*port).await?;
                }
            }
            Fault::CloseConnections => {
                self.everywhere(&["client", "kill", "type", "normal"])
                    .await?;
            }
            Fault::Full => {
                self.everywhere(&["config", "set", "maxmemory", "1"])
                    .await?
            }
            // The nearest that a master of a cluster has.
            Fault::ReadOnly => {
                self.everywhere(&["config", "set", "min-replicas-to-write", "9"])
                    .await?
            }
            _ => {
                *self.fault.lock().expect("not poisoned") = Fault::None;
                return Err(ErrorKind::Unsupported.into());
            }
        }
        Ok(())
    }
}

/// The kit's cases of faults, on servers that one case may break.
macro_rules! faults {
    ($module:ident, $harness:expr, $($case:ident)+) => {
        mod $module {
            use super::*;

            $(#[test]
            fn $case() {
                let make: sessionkit_conformance::MakeHarness = Arc::new(|| {
                    Box::pin(async {
                        let harness: Arc<dyn Harness> = Arc::new($harness);
                        Ok(harness)
                    })
                });
                sessionkit_conformance::run_suite_test(
                    stringify!($case),
                    env!("CARGO_PKG_NAME"),
                    "faults",
                    &make,
                    "",
                );
            })+
        }
    };
}

faults! { redis, FaultyServer::start(Server::Redis).await,
    e01_a_backend_that_is_down_is_an_error_never_none
    e02_opening_without_a_backend_is_an_error_in_time
    e03_after_a_crash_the_same_handle_works_and_nothing_acknowledged_is_lost
    e04_every_call_ends_when_the_server_hangs
    e05_a_lost_answer_is_ambiguous_and_not_repeated_blindly
    e06_a_slow_network_changes_no_answer
    e07_a_closed_connection_is_replaced_without_an_error
    e08_a_full_backend_refuses_and_keeps_what_it_has
    e09_a_read_only_backend_refuses_writes_and_answers_reads
    e12_ping_tells_whether_the_backend_answers
    e14_calls_of_the_index_end_when_the_server_hangs
    e60_a_call_whose_answer_alone_is_lost_says_nothing_false
    e61_revoking_whose_answer_alone_is_lost_says_nothing_false
    e62_a_full_backend_lies_about_no_call
    e63_a_full_backend_revokes_or_says_that_it_does_not
}

faults! { valkey, FaultyServer::start(Server::Valkey).await,
    e03_after_a_crash_the_same_handle_works_and_nothing_acknowledged_is_lost
    e04_every_call_ends_when_the_server_hangs
    e08_a_full_backend_refuses_and_keeps_what_it_has
    e09_a_read_only_backend_refuses_writes_and_answers_reads
    e12_ping_tells_whether_the_backend_answers
    e14_calls_of_the_index_end_when_the_server_hangs
    e62_a_full_backend_lies_about_no_call
    e63_a_full_backend_revokes_or_says_that_it_does_not
}

faults! { cluster, FaultyCluster::start().await,
    e01_a_backend_that_is_down_is_an_error_never_none
    e03_after_a_crash_the_same_handle_works_and_nothing_acknowledged_is_lost
    e04_every_call_ends_when_the_server_hangs
    e07_a_closed_connection_is_replaced_without_an_error
    e08_a_full_backend_refuses_and_keeps_what_it_has
    e09_a_read_only_backend_refuses_writes_and_answers_reads
    e12_ping_tells_whether_the_backend_answers
    e14_calls_of_the_index_end_when_the_server_hangs
    e62_a_full_backend_lies_about_no_call
    e63_a_full_backend_revokes_or_says_that_it_does_not
}

/// Sessions that are created, changed and read over a time in which something happens.
struct Load {
    store: RedisStore,
    sessions: Vec<(Token, Record)>,
}

impl Load {
    async fn begin(url: &str) -> Self {
        let store = RedisStore::open(url).await.expect("the store opens");
        let mut sessions = Vec::new();
        for _ in 0..30 {
            let record = record(None);
            let token = store
                .create(token(), &record)
                .await
                .expect("a session is created");
            sessions.push((token, record));
        }
        Self { store, sessions }
    }

    /// Updates every session until each has been updated once more, and says how long it took.
    async fn recover(&mut self) -> Duration {
        let begun = Instant::now();
        for (token, record) in &mut self.sessions {
            let next = Record {
                revision: Revision::random(&OsEntropy).expect("randomness"),
                ..record.clone()
            };
            loop {
                match self.store.update(token, record.revision, &next).await {
                    Ok(_) => break,
                    Err(error) => match error.kind() {
                        ErrorKind::Unavailable => {}
                        // What the core does too: whose revision is there now?
                        ErrorKind::Ambiguous | ErrorKind::Conflict => {
                            let stored = self.store.load(token).await;
                            if stored
                                .is_ok_and(|stored| stored.is_some_and(|stored| stored == next))
                            {
                                break;
                            }
                        }
                        kind => panic!("{kind:?}: {error}"),
                    },
                }
                assert!(begun.elapsed() < WATCHDOG, "no recovery");
            }
            *record = next;
        }
        begun.elapsed()
    }

    /// Creates sessions, and does with each what can be done.
    async fn use_new_sessions(&self, count: usize) {
        for _ in 0..count {
            let (first, second) = (record(None), record(None));
            let token = self.store.create(token(), &first).await.expect("create");
            let updated = self.store.update(&token, first.revision, &second).await;
            updated.expect("update");
            let stored = self.store.load(&token).await.expect("load");
            assert_eq!(stored.as_ref(), Some(&second));
            let touched = self.store.touch(&token, second.expires_at).await;
            touched.expect("touch");
        }
    }

    async fn check(&self) {
        for (token, record) in &self.sessions {
            let stored = self.store.load(token).await.expect("a session is loaded");
            assert_eq!(stored.as_ref(), Some(record));
        }
    }
}

#[tokio::test]
async fn after_the_death_of_a_master_of_a_cluster_the_same_handle_goes_on() {
    let cluster = RedisCluster::start().await.unwrap();
    let mut load = Load::begin(cluster.url()).await;
    let master = cluster.masters().await.unwrap()[0];
    cluster.wait_until_replicated().await.unwrap();
    cluster.kill(master).await.unwrap();
    let took = load.recover().await;
    eprintln!("cluster: 30 sessions updated {took:?} after the death of a master");
    load.check().await;
    cluster.restart(master).await.unwrap();
    cluster.wait_until_settled().await.unwrap();
    load.recover().await;
    load.check().await;
}

#[tokio::test]
async fn a_paused_master_of_a_cluster_is_replaced() {
    let cluster = RedisCluster::start().await.unwrap();
    let mut load = Load::begin(cluster.url()).await;
    let master = cluster.masters().await.unwrap()[1];
    cluster.wait_until_replicated().await.unwrap();
    cluster.pause(master).await.unwrap();
    let took = load.recover().await;
    eprintln!("cluster: 30 sessions updated {took:?} after a master stopped");
    load.check().await;
    cluster.resume(master).await.unwrap();
    cluster.wait_until_settled().await.unwrap();
    load.recover().await;
    load.check().await;
}

#[tokio::test]
async fn sessions_are_found_while_their_slots_move() {
    let cluster = Arc::new(RedisCluster::start().await.unwrap());
    let mut load = Load::begin(cluster.url()).await;
    let masters = cluster.masters().await.unwrap();
    let mover = Arc::clone(&cluster);
    let moving = tokio::spawn(async move { mover.reshard(masters[0], masters[1], 3000).await });
    let mut rounds = 0;
    while !moving.is_finished() {
        load.recover().await;
        rounds += 1;
    }
    moving.await.unwrap().unwrap();
    assert!(rounds > 1, "the move was over before a session was changed");
    load.recover().await;
    load.check().await;
}

#[tokio::test]
async fn a_session_that_is_at_the_next_node_already_is_asked_for_there() {
    let cluster = RedisCluster::start().await.unwrap();
    let load = Load::begin(cluster.url()).await;
    let masters = cluster.masters().await.unwrap();
    let (from, to) = (masters[0], masters[1]);
    announce_move(&cluster, from, to).await;
    let before: usize = dbsize(to).await;
    load.use_new_sessions(40).await;
    load.check().await;
    // About a third belongs to the slots that move, and as many to the other node anyway.
    assert!(dbsize(to).await > before + 15);
}

#[tokio::test]
async fn a_node_that_serves_no_slot_yet_is_connected_to_once() {
    let cluster = RedisCluster::start().await.unwrap();
    let load = Load::begin(cluster.url()).await;
    let master = cluster.masters().await.unwrap()[0];
    let guest = cluster.empty_replica().await.unwrap();
    announce_move(&cluster, master, guest).await;
    let before = connections(guest).await;
    load.use_new_sessions(40).await;
    load.check().await;
    assert!(dbsize(guest).await > 0, "no session was created there");
    // Those of this look are the last ones.
    assert_eq!(connections(guest).await - before, 3);
}

#[tokio::test]
async fn a_redirection_without_a_host_leads_to_the_same_host() {
    let cluster = RedisCluster::start().await.unwrap();
    let load = Load::begin(cluster.url()).await;
    for port in cluster.ports() {
        let setting = ["cluster-preferred-endpoint-type", "unknown-endpoint"];
        let command = [&["config", "set"][..], &setting].concat();
        cluster.cli(*port, &command).await.unwrap();
    }
    let masters = cluster.masters().await.unwrap();
    announce_move(&cluster, masters[0], masters[1]).await;
    load.use_new_sessions(40).await;
    load.check().await;
}

/// Tells two nodes that every slot of the first is about to move to the second: what the first does
/// not have, the second one has.
async fn announce_move(cluster: &RedisCluster, from: u16, to: u16) {
    let nodes = cluster.cli(from, &["cluster", "nodes"]).await;
    let nodes = nodes.expect("the node answers");
    let node = |port: u16| -> Vec<&str> {
        let line = nodes
            .lines()
            .find(|line| line.contains(&format!(":{port}@")));
        line.expect("the node is known").split(' ').collect()
    };
    let slots = node(from)[8].split_once('-');
    let (first, last) = slots.expect("a range of slots");
    let number = |text: &str| -> u16 { text.parse().expect("a number") };
    let slots = number(first)..=number(last);
    for (port, state, other) in [(to, "IMPORTING", from), (from, "MIGRATING", to)] {
        let mut pipe = ::redis::pipe();
        for slot in slots.clone() {
            pipe.cmd("CLUSTER")
                .arg("SETSLOT")
                .arg(slot)
                .arg(state)
                .arg(node(other)[0])
                .ignore();
        }
        let mut connection = Admin::node(port).await.expect("the node answers");
        let told = pipe.exec_async(&mut connection).await;
        told.expect("the node takes it");
    }
}

/// How many connections a node has had.
async fn connections(port: u16) -> usize {
    let mut connection = Admin::node(port).await.expect("the node answers");
    let mut info = ::redis::cmd("INFO");
    let stats: String = info
        .arg("stats")
        .query_async(&mut connection)
        .await
        .expect("the node answers");
    let count = stats
        .lines()
        .find_map(|line| line.strip_prefix("total_connections_received:"));
    count
        .and_then(|count| count.parse().ok())
        .expect("the node counts connections")
}

async fn dbsize(port: u16) -> usize {
    let mut connection = Admin::node(port).await.expect("the node answers");
    let size = ::redis::cmd("DBSIZE").query_async(&mut connection).await;
    size.expect("the node answers")
}

#[tokio::test]
async fn after_the_death_of_the_master_behind_sentinels_the_same_handle_goes_on() {
    let set = RedisSentinel::start().await.unwrap();
    let mut load = Load::begin(set.url()).await;
    let master = set.master().await.unwrap();
    set.wait_until_replicated().await.unwrap();
    set.kill(master).await.unwrap();
    let took = load.recover().await;
    eprintln!("sentinel: 30 sessions updated {took:?} after the death of the master");
    load.check().await;
    set.restart(master).await.unwrap();
    set.wait_until_settled().await.unwrap();
    load.recover().await;
    load.check().await;
}

#[tokio::test]
async fn a_cut_network_ends_in_time_and_heals() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = RedisOptions::from_url(container.url())
        .unwrap()
        .deadline(Duration::from_secs(1))
        .open()
        .await
        .unwrap();
    let record = record(None);
    let token = store.create(token(), &record).await.unwrap();
    let cut = container.cut().await.unwrap();
    let loaded = tokio::time::timeout(WATCHDOG, store.load(&token)).await;
    let error = loaded.expect("the call ends").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(cut);
    let begun = Instant::now();
    while store.load(&token).await.ok().flatten().as_ref() != Some(&record) {
        assert!(begun.elapsed() < WATCHDOG, "no recovery");
    }
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_subject_is_ended_everywhere_on_a_cluster() {
    let url = RedisCluster::shared().await.unwrap();
    let store = RedisOptions::from_url(&url)
        .unwrap()
        .prefix("everywhere")
        .open()
        .await
        .unwrap();
    let subject = Subject::new("alice").unwrap();
    let of_alice = record(Some(subject.clone()));
    let mut tokens = Vec::new();
    for _ in 0..20 {
        tokens.push(store.create(token(), &of_alice).await.unwrap());
    }
    let index = store.subjects().unwrap();
    assert_eq!(index.list(&subject, None, 100).await.unwrap().len(), 20);
    let except = tokens[3].key();
    assert_eq!(index.revoke_all(&subject, Some(&except)).await.unwrap(), 19);
    for (number, token) in tokens.iter().enumerate() {
        assert_eq!(store.load(token).await.unwrap().is_some(), number == 3);
    }
}
