//! Networks that swallow, endpoints that move, servers that are not what the URL says, and calls
//! that have to end by their deadline.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use sessionkit::{ErrorKind, Record, SessionStore, Token};
use sessionkit_conformance::{
    containers::{RedisCluster, RedisSentinel, Server},
    proxy::{Proxy, Traffic},
};
use sessionkit_redis::{RedisOptions, RedisStore, deadpool_redis};
use support::{Admin, WATCHDOG, record, token};
use tokio::time::timeout;

async fn proxy_to(url: &str) -> Proxy {
    let (_, address) = url.split_once("://").unwrap();
    Proxy::start(address).await.unwrap()
}

fn through(proxy: &Proxy) -> RedisOptions {
    RedisOptions::from_url(&format!("redis://{}", proxy.address())).unwrap()
}

/// Loads with less patience than the store has, until several calls in a row have an answer.
async fn until_impatient_callers_are_served(store: &RedisStore, token: &Token, record: &Record) {
    let begun = Instant::now();
    let mut answers = 0;
    while answers < 10 {
        match timeout(Duration::from_millis(300), store.load(token)).await {
            Ok(Ok(loaded)) => {
                assert_eq!(loaded.as_ref(), Some(record));
                answers += 1;
            }
            _ => answers = 0,
        }
        assert!(
            begun.elapsed() < WATCHDOG,
            "the connections are not replaced"
        );
    }
}

#[tokio::test]
async fn connections_that_swallow_everything_are_replaced_though_no_caller_waits_for_the_deadline()
{
    let proxy = proxy_to(&Server::Redis.shared().await.unwrap()).await;
    let store = through(&proxy).open().await.unwrap();
    let record = record(None);
    let token = store.create(token(), &record).await.unwrap();
    until_impatient_callers_are_served(&store, &token, &record).await;
    proxy.swallow_connections();
    until_impatient_callers_are_served(&store, &token, &record).await;
}

#[tokio::test]
async fn a_connection_of_a_pool_that_swallows_everything_is_replaced() {
    let proxy = proxy_to(&Server::Redis.shared().await.unwrap()).await;
    let pool = deadpool_redis::Config::from_url(format!("redis://{}", proxy.address()))
        .create_pool(Some(deadpool_redis::Runtime::Tokio1))
        .unwrap();
    let store = RedisOptions::from_pool(pool).open().await.unwrap();
    let record = record(None);
    let token = store.create(token(), &record).await.unwrap();
    proxy.swallow_connections();
    until_impatient_callers_are_served(&store, &token, &record).await;
}

#[tokio::test]
async fn a_master_that_was_demoted_is_left_and_its_sessions_are_not_served() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = RedisStore::open(container.url()).await.unwrap();
    let (first, second) = (record(None), record(None));
    let token = store.create(token(), &first).await.unwrap();
    let demote = |host, port| {
        let command = ["redis-cli", "replicaof", host, port];
        let container = &container;
        async move { container.exec(&command).await.unwrap() }
    };
    demote("127.0.0.1", "1").await;
    let error = store.ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = store.update(&token, first.revision, &second).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
    // What it has may have been deleted at the new master.
    let error = store.load(&token).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    demote("no", "one").await;
    store.ping().await.unwrap();
    assert_eq!(store.load(&token).await.unwrap(), Some(first));
}

#[tokio::test]
async fn a_demoted_master_is_noticed_by_those_who_only_read() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = RedisStore::open(container.url()).await.unwrap();
    let token = store.create(token(), &record(None)).await.unwrap();
    let command = ["redis-cli", "replicaof", "127.0.0.1", "1"];
    container.exec(&command).await.unwrap();
    let begun = Instant::now();
    while store.load(&token).await.is_ok() {
        assert!(begun.elapsed() < WATCHDOG, "a replica is read for ever");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_replica_is_refused_with_words_that_say_what_to_use() {
    let sentinels = RedisSentinel::start().await.unwrap();
    let (master, servers) = (sentinels.master().await.unwrap(), sentinels.servers());
    let replica = servers.iter().find(|port| **port != master).unwrap();
    let url = format!("redis://127.0.0.1:{replica}");
    let error = RedisStore::open(&url).await.unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains("replica") && words.contains("redis-sentinel://"),
        "{words}"
    );
}

#[tokio::test]
async fn a_node_of_a_cluster_is_refused_with_words_that_say_what_to_use() {
    let cluster = RedisCluster::shared().await.unwrap();
    let node = cluster.split(['/', ',']).nth(2).unwrap();
    let error = RedisStore::open(&format!("redis://{node}")).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let words = error.to_string();
    assert!(words.contains("redis-cluster://"), "{words}");
}

#[tokio::test]
async fn a_cluster_whose_nodes_all_have_other_addresses_is_found_by_its_seeds() {
    let cluster = RedisCluster::start().await.unwrap();
    let mut proxies = Vec::new();
    for port in cluster.ports() {
        proxies.push(Proxy::start(format!("127.0.0.1:{port}")).await.unwrap());
    }
    for (port, proxy) in cluster.ports().iter().zip(&proxies) {
        announce(&cluster, *port, proxy.address().port()).await;
    }
    let options = RedisOptions::from_url(cluster.url()).unwrap();
    let store = options
        .deadline(Duration::from_secs(1))
        .open()
        .await
        .unwrap();
    let record = record(None);
    let mut tokens = Vec::new();
    for _ in 0..20 {
        tokens.push(store.create(token(), &record).await.unwrap());
    }
    assert!(proxies.iter().any(|proxy| proxy.accepted() > 0));
    for (port, proxy) in cluster.ports().iter().zip(&proxies) {
        announce(&cluster, *port, *port).await;
        proxy.set(Traffic::BlackHole).await.unwrap();
    }
    let begun = Instant::now();
    for token in &tokens {
        while store.load(token).await.ok().flatten().as_ref() != Some(&record) {
            assert!(begun.elapsed() < WATCHDOG, "the nodes are not found");
        }
    }
    eprintln!(
        "cluster: all nodes found {:?} after they moved",
        begun.elapsed()
    );
}

/// Has a node say that it is at another port, and waits until all nodes have heard it.
async fn announce(cluster: &RedisCluster, node: u16, port: u16) {
    let port = port.to_string();
    let setting = ["config", "set", "cluster-announce-port", &port];
    cluster.cli(node, &setting).await.unwrap();
    let address = format!("127.0.0.1:{port}@");
    let begun = Instant::now();
    for other in cluster.ports() {
        while !cluster
            .cli(*other, &["cluster", "nodes"])
            .await
            .unwrap()
            .contains(&address)
        {
            assert!(
                begun.elapsed() < WATCHDOG,
                "the address does not get around"
            );
        }
    }
}

#[tokio::test]
async fn clearing_ends_by_the_deadline_and_can_be_repeated() {
    let container = Server::Redis.setup().start().await.unwrap();
    let mut admin = Admin::connect(container.url()).await.unwrap();
    let mut fill = ::redis::cmd("DEBUG");
    fill.arg(&["POPULATE", "20000", "somebody"]);
    // Where the command is not allowed, keys are made one by one.
    if fill.exec_async(admin.connection()).await.is_err() {
        let mut pipe = ::redis::pipe();
        for number in 0..20_000 {
            pipe.cmd("SET")
                .arg(format!("somebody:{number}"))
                .arg("x")
                .ignore();
        }
        pipe.exec_async(admin.connection()).await.unwrap();
    }
    let proxy = proxy_to(container.url()).await;
    let store = through(&proxy).deadline(Duration::from_secs(2));
    let store = store.open().await.unwrap();
    let token = store.create(token(), &record(None)).await.unwrap();
    let slow = Traffic::Delay {
        latency: Duration::from_millis(100),
        jitter: Duration::ZERO,
    };
    proxy.set(slow).await.unwrap();
    let cleared = timeout(WATCHDOG, store.clear()).await.unwrap();
    assert_eq!(cleared.unwrap_err().kind(), ErrorKind::Unavailable);
    proxy.set(Traffic::Normal).await.unwrap();
    store.clear().await.unwrap();
    assert_eq!(store.load(&token).await.unwrap(), None);
}
