//! Works on sessions while the server is killed, paused and cut off, and counts what goes wrong:
//! `scripts/soak redis [SECONDS [SEED]]`. Ends with an error if an acknowledged update was lost, a
//! deleted session was seen again, or an answer was another request's.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sessionkit::{
    Clock, CookieName, Durability, ErrorKind, OsEntropy, Record, Result, Revision, SessionStore,
    SystemClock, Token,
};
use sessionkit_conformance::{
    Random,
    containers::{RedisCluster, Server},
};
use sessionkit_redis::{RedisOptions, RedisStore};

const WORKERS: usize = 16;

/// How many updates a session lives for.
const LIFE: u64 = 200;

#[derive(Debug, Default)]
struct Counts {
    operations: u64,
    errors: BTreeMap<String, u64>,
    lost_updates: u64,
    seen_again: u64,
    foreign_answers: u64,
    longest_outage: Duration,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut args = std::env::args()
        .skip(1)
        .map(|arg| arg.parse().expect("a number"));
    let duration = Duration::from_secs(args.next().unwrap_or(120));
    let seed = args.next().unwrap_or(1);
    println!("seed {seed}, {duration:?} each");
    let single = single_server(duration, seed).await?;
    let cluster = cluster(duration).await?;
    let clean = report("one server: kill, pause, network cut", &single)
        & report("cluster: a master is killed and comes back", &cluster);
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn report(title: &str, counts: &Counts) -> bool {
    println!("\n{title}\n{counts:#?}");
    counts.lost_updates + counts.seen_again + counts.foreign_answers == 0
}

async fn single_server(duration: Duration, seed: u64) -> Result<Counts> {
    let args = ["--appendonly", "yes", "--appendfsync", "always"];
    let container = Server::Redis.setup().args(args).start().await?;
    let work = Work::begin(container.url()).await?;
    let random = Random::new(seed);
    let end = Instant::now() + duration;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(2)).await;
        match random.below(3) {
            0 => {
                container.kill().await?;
                container.restart().await?;
            }
            fault => {
                let guard = match fault {
                    1 => container.pause().await?,
                    _ => container.cut().await?,
                };
                tokio::time::sleep(Duration::from_secs(1)).await;
                drop(guard);
            }
        }
    }
    Ok(work.end().await)
}

async fn cluster(duration: Duration) -> Result<Counts> {
    let cluster = RedisCluster::start().await?;
    let work = Work::begin(cluster.url()).await?;
    let end = Instant::now() + duration;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let master = cluster.masters().await?[0];
        cluster.kill(master).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        cluster.restart(master).await?;
        cluster.wait_until_settled().await?;
    }
    Ok(work.end().await)
}

/// Workers with a session each, on one handle.
struct Work {
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl Work {
    async fn begin(url: &str) -> Result<Self> {
        let options = RedisOptions::from_url(url)?.durability(Durability::Disk);
        let store = Arc::new(options.deadline(Duration::from_secs(2)).open().await?);
        let (stop, counts) = (Arc::default(), Arc::default());
        let workers = (0..WORKERS)
            .map(|number| {
                let worker = Worker {
                    number,
                    store: Arc::clone(&store),
                    stop: Arc::clone(&stop),
                    counts: Arc::clone(&counts),
                };
                tokio::spawn(worker.run())
            })
            .collect();
        Ok(Self {
            stop,
            counts,
            workers,
        })
    }

    async fn end(self) -> Counts {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.await.expect("no worker panics");
        }
        std::mem::take(&mut *self.counts.lock().expect("not poisoned"))
    }
}

struct Worker {
    number: usize,
    store: Arc<RedisStore>,
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
}

impl Worker {
    async fn run(self) {
        let mut dead: Vec<Token> = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let token = self.live().await;
            dead.push(token);
            for token in dead.iter().rev().take(5) {
                let seen = self.until_ok(|| self.store.load(token)).await;
                self.count(|counts| counts.seen_again += u64::from(seen.is_some()));
            }
        }
    }

    /// One session from its creation to its end.
    async fn live(&self) -> Token {
        let name = CookieName::new("id").expect("a cookie name");
        let token = Token::random(&OsEntropy, &name).expect("randomness");
        let mut stored = self.record(0);
        while let Err(error) = self.store.create(token.clone(), &stored).await {
            let kind = self.note(&error);
            // Perhaps it was stored after all.
            if kind != ErrorKind::Unavailable && self.read(&token).await.as_ref() == Some(&stored) {
                break;
            }
        }
        for count in 1..LIFE {
            let next = self.record(count);
            self.update(&token, &stored, &next).await;
            stored = next;
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        self.until_ok(|| self.store.delete(&token)).await;
        token
    }

    /// Until `next` is there.
    async fn update(&self, token: &Token, stored: &Record, next: &Record) {
        let begun = Instant::now();
        while let Err(error) = self.store.update(token, stored.revision, next).await {
            self.note(&error);
            let seen = self.read(token).await;
            if seen.as_ref() == Some(next) {
                break;
            }
            if seen.as_ref() != Some(stored) {
                self.count(|counts| counts.lost_updates += 1);
                // Goes on with a new session.
                drop(self.store.create(token.clone(), next).await);
                break;
            }
        }
        self.count(|counts| {
            counts.operations += 1;
            counts.longest_outage = counts.longest_outage.max(begun.elapsed());
        });
    }

    async fn read(&self, token: &Token) -> Option<Record> {
        let seen = self.until_ok(|| self.store.load(token)).await;
        let mine = format!("{}:", self.number);
        if seen
            .as_ref()
            .is_some_and(|seen| !seen.data.starts_with(mine.as_bytes()))
        {
            self.count(|counts| counts.foreign_answers += 1);
        }
        seen
    }

    async fn until_ok<T, F: Future<Output = Result<T>>>(&self, call: impl Fn() -> F) -> T {
        loop {
            match call().await {
                Ok(answer) => {
                    self.count(|counts| counts.operations += 1);
                    return answer;
                }
                Err(error) => {
                    self.note(&error);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    fn note(&self, error: &sessionkit::Error) -> ErrorKind {
        self.count(|counts| {
            *counts
                .errors
                .entry(format!("{:?}", error.kind()))
                .or_default() += 1
        });
        error.kind()
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().expect("not poisoned"));
    }

    fn record(&self, count: u64) -> Record {
        Record {
            data: format!("{}:{count}", self.number).into(),
            revision: Revision::random(&OsEntropy).expect("randomness"),
            created_at: SystemClock.now(),
            expires_at: SystemClock.now() + Duration::from_secs(3600),
            subject: None,
            label: Default::default(),
        }
    }
}
