//! Works on sessions while their server is broken, and counts what goes wrong:
//! `scripts/soak redis [SECONDS [SEED [server|flows|cluster|promotion]]]`. Ends with an error if an
//! acknowledged update was lost, a deleted session was seen again, an answer was another request's, or
//! an error said something about a call that was not so. What the promotion of a replica undoes that
//! did not have the last writes is counted apart.

use std::{process::ExitCode, sync::Arc, time::Duration};

use sessionkit::{Durability, Error, ErrorKind, Result, SessionStore};
use sessionkit_conformance::{
    Random,
    containers::{RedisCluster, Server},
    proxy::{Proxy, Traffic},
    soak::{self, Crew, PEACE, Recoveries, Report},
};
use sessionkit_redis::RedisOptions;
use tokio::time::{Instant, sleep};

/// Shorter than some of the faults, so that calls end before their answers come.
const DEADLINE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let mut number = |default| {
        let arg = args.next();
        arg.map_or(default, |arg| arg.parse().expect("a number"))
    };
    let (seconds, seed) = (number(120), number(1));
    let only = args.next();
    let wanted = |name| only.as_deref().is_none_or(|only| only == name);
    let duration = Duration::from_secs(seconds);
    println!("seed {seed}, {duration:?} each, calls end after {DEADLINE:?}");
    let mut clean = true;
    if wanted("server") {
        clean &= server(duration, seed).await?;
    }
    if wanted("flows") {
        clean &= flows(duration, seed).await?;
    }
    if wanted("cluster") {
        clean &= cluster(duration, seed).await?;
    }
    if wanted("promotion") {
        clean &= promotion(duration, seed).await?;
    }
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One server that loses nothing by being killed.
async fn server(duration: Duration, seed: u64) -> Result<bool> {
    let args = ["--appendonly", "yes", "--appendfsync", "always"];
    let container = Server::Redis.setup().args(args).start().await?;
    let store = open(container.url()).await?;
    let report = soak::break_server(&container, store, duration, seed).await?;
    println!("\none server: killed, paused, cut off; since it is back\n{report}");
    Ok(report.counts.is_clean())
}

/// One server behind a network that forgets the connections, swallows everything for a while, or
/// closes them.
async fn flows(duration: Duration, seed: u64) -> Result<bool> {
    let container = Server::Redis.setup().start().await?;
    let (_, address) = container.url().split_once("://").expect("a URL");
    let proxy = Proxy::start(address).await.map_err(io)?;
    let crew = Crew::begin(open(&format!("redis://{}", proxy.address())).await?, seed);
    let random = Random::new(seed);
    let mut recoveries = Recoveries::default();
    let end = Instant::now() + duration;
    while Instant::now() < end {
        sleep(PEACE).await;
        let fault = match random.below(3) {
            0 => {
                proxy.swallow_connections();
                "connections swallowed"
            }
            1 => {
                proxy.set(Traffic::BlackHole).await.map_err(io)?;
                sleep(Duration::from_millis(200 + random.below(2500) as u64)).await;
                proxy.set(Traffic::Normal).await.map_err(io)?;
                "everything swallowed"
            }
            _ => {
                proxy.close_connections().await.map_err(io)?;
                "connections closed"
            }
        };
        recoveries.add(fault, crew.recovered().await);
    }
    let report = Report::new(crew.end().await, recoveries);
    println!("\none server: its connections are broken; since then\n{report}");
    Ok(report.counts.is_clean())
}

/// A cluster one master of which is killed, replaced by its replica, and comes back as a replica.
async fn cluster(duration: Duration, seed: u64) -> Result<bool> {
    let cluster = RedisCluster::start().await?;
    let crew = Crew::begin(open(cluster.url()).await?, seed);
    let random = Random::new(seed);
    let mut recoveries = Recoveries::default();
    let end = Instant::now() + duration;
    while Instant::now() < end {
        sleep(PEACE).await;
        let masters = cluster.masters().await?;
        let master = masters[random.below(masters.len())];
        cluster.kill(master).await?;
        recoveries.add("master killed", crew.recovered().await);
        cluster.restart(master).await?;
        cluster.wait_until_settled().await?;
        recoveries.add("master back, as a replica", crew.recovered().await);
    }
    let report = Report::new(crew.end().await, recoveries);
    println!(
        "\ncluster: a master is killed, and comes back when it is replaced; since then\n{report}"
    );
    Ok(report.counts.is_clean())
}

/// A cluster one master of which is killed, and replaced by a replica that was down for a while before.
async fn promotion(duration: Duration, seed: u64) -> Result<bool> {
    let cluster = RedisCluster::start().await?;
    let crew = Crew::begin(open(cluster.url()).await?, seed);
    let random = Random::new(seed);
    let mut recoveries = Recoveries::default();
    let end = Instant::now() + duration;
    while Instant::now() < end {
        sleep(PEACE).await;
        let masters = cluster.masters().await?;
        let master = masters[random.below(masters.len())];
        let replica = cluster.replica_of(master).await?;
        cluster.kill(replica).await?;
        sleep(Duration::from_millis(300)).await;
        cluster.kill(master).await?;
        cluster.restart(replica).await?;
        let takeover = ["cluster", "failover", "takeover"];
        while cluster.cli(replica, &takeover).await.ok().as_deref() != Some("OK") {
            sleep(Duration::from_millis(50)).await;
        }
        recoveries.add("replica promoted too early", crew.recovered().await);
        cluster.restart(master).await?;
        cluster.wait_until_settled().await?;
    }
    let report = Report::new(crew.end().await, recoveries);
    println!(
        "\ncluster: what promotions of replicas without the last writes undo, counted apart\n{report}"
    );
    // Nobody is ever given what belongs to somebody else, whatever is lost.
    Ok(report.counts.foreign_answers == 0)
}

fn io(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the proxy fails").with_source(error)
}

async fn open(url: &str) -> Result<Arc<dyn SessionStore>> {
    let options = RedisOptions::from_url(url)?
        .durability(Durability::Disk)
        .deadline(DEADLINE);
    Ok(Arc::new(options.open().await?))
}
