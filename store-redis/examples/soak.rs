//! Works on sessions while their server is broken, and counts what goes wrong:
//! `scripts/soak redis [SECONDS [SEED [server|cluster]]]`. Ends with an error if an acknowledged
//! update was lost, a deleted session was seen again, an answer was another request's, or an error
//! said something about a call that was not so.

use std::{process::ExitCode, sync::Arc, time::Duration};

use sessionkit::{Durability, Result, SessionStore};
use sessionkit_conformance::{
    Random,
    containers::{RedisCluster, Server},
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
    if wanted("cluster") {
        clean &= cluster(duration, seed).await?;
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

async fn open(url: &str) -> Result<Arc<dyn SessionStore>> {
    let options = RedisOptions::from_url(url)?
        .durability(Durability::Disk)
        .deadline(DEADLINE);
    Ok(Arc::new(options.open().await?))
}
