//! Works on sessions while their server is broken, and counts what goes wrong:
//! `scripts/soak redis [SECONDS [SEED [server|cluster]]]`. Ends with an error if an acknowledged
//! update was lost, a deleted session was seen again, an answer was another request's, or an error
//! said something about a call that was not so.

mod counts;
mod worker;

use std::{process::ExitCode, sync::Arc, time::Duration};

use sessionkit::{Durability, Result};
use sessionkit_conformance::{
    Random,
    containers::{RedisCluster, Server},
};
use sessionkit_redis::RedisOptions;
use tokio::time::{Instant, sleep};

use crate::{
    counts::{Counts, Recoveries},
    worker::Crew,
};

/// Shorter than some of the faults, so that calls end before their answers come.
const DEADLINE: Duration = Duration::from_secs(1);

/// Between the faults.
const PEACE: Duration = Duration::from_millis(1500);

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
    let crew = begin(container.url(), seed).await?;
    let random = Random::new(seed);
    let mut recoveries = Recoveries::default();
    let end = Instant::now() + duration;
    while Instant::now() < end {
        sleep(PEACE).await;
        let fault = ["kill", "pause", "network cut"][random.below(3)];
        let length = Duration::from_millis(200 + random.below(2500) as u64);
        match fault {
            "kill" => {
                container.kill().await?;
                container.restart().await?;
            }
            "pause" => {
                let paused = container.pause().await?;
                sleep(length).await;
                drop(paused);
            }
            _ => {
                let cut = container.cut().await?;
                sleep(length).await;
                drop(cut);
            }
        }
        recoveries.add(fault, crew.recovered().await);
    }
    Ok(report(
        "one server: killed, paused, cut off; since it is back",
        &crew.end().await,
        &recoveries,
    ))
}

/// A cluster one master of which is killed, replaced by its replica, and comes back as a replica.
async fn cluster(duration: Duration, seed: u64) -> Result<bool> {
    let cluster = RedisCluster::start().await?;
    let crew = begin(cluster.url(), seed).await?;
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
    Ok(report(
        "cluster: a master is killed, and comes back when it is replaced; since then",
        &crew.end().await,
        &recoveries,
    ))
}

async fn begin(url: &str, seed: u64) -> Result<Crew> {
    let options = RedisOptions::from_url(url)?
        .durability(Durability::Disk)
        .deadline(DEADLINE);
    Ok(Crew::begin(Arc::new(options.open().await?), seed))
}

fn report(title: &str, counts: &Counts, recoveries: &Recoveries) -> bool {
    println!("\n{title}\n{recoveries}{counts}");
    counts.is_clean()
}
