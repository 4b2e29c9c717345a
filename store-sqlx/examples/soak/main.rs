//! Works on sessions while the database is broken, and counts what goes wrong:
//! `scripts/soak postgres|mysql|sqlite [SECONDS [SEED]]`. Ends with an error if an acknowledged
//! change was lost, a deleted session was seen again, an answer was another request's, or an error
//! said what was not so.

mod journal;

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

use sessionkit::{Result, SessionStore};
use sessionkit_conformance::{
    Random,
    containers::Server,
    soak::{self, Crew, Recoveries, Report},
};
use sessionkit_sqlx::{
    MysqlStore, PostgresStore, SqliteStore, StoreOptions,
    sqlx::{Connection, Row, SqliteConnection, raw_sql},
};
use tokio::time::{Instant, sleep};

use crate::journal::{Journal, Writer};

/// Shorter than some of the faults, so that calls end before their answers come.
const DEADLINE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let database = args.next().unwrap_or_default();
    if database == journal::WRITER {
        let file = args.next().expect("a file");
        return journal::write(open_sqlite(Path::new(&file)).await?).await;
    }
    if database == journal::COUNTER {
        let file = args.next().expect("a file");
        count(Path::new(&file)).await;
        return Ok(ExitCode::SUCCESS);
    }
    let mut number = |default| {
        let arg = args.next();
        arg.map_or(default, |arg| arg.parse().expect("a number"))
    };
    let (seconds, seed) = (number(120), number(1));
    let duration = Duration::from_secs(seconds);
    println!("{database}: seed {seed}, {duration:?}, calls end after {DEADLINE:?}");
    let clean = match &*database {
        "postgres" => server(Server::Postgres, duration, seed).await?,
        "mysql" => server(Server::Mysql, duration, seed).await?,
        "mariadb" => server(Server::Mariadb, duration, seed).await?,
        "sqlite" => sqlite(duration, seed).await?,
        _ => panic!("postgres, mysql, mariadb or sqlite"),
    };
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A server that loses nothing by being killed.
async fn server(server: Server, duration: Duration, seed: u64) -> Result<bool> {
    let container = server.setup().start().await?;
    let store = open(server, container.url()).await?;
    let report = soak::break_server(&container, store, duration, seed).await?;
    println!("\nthe server is killed, paused, cut off; since it is back\n{report}");
    Ok(report.counts.is_clean())
}

async fn open(server: Server, url: &str) -> Result<Arc<dyn SessionStore>> {
    let options = StoreOptions::new().deadline(DEADLINE);
    if server == Server::Postgres {
        let store = PostgresStore::connect(url, options).await?;
        store.migrate().await?;
        return Ok(Arc::new(store));
    }
    let store = MysqlStore::connect(url, options).await?;
    store.migrate().await?;
    Ok(Arc::new(store))
}

/// One file, on which this process works, and another one that is killed and begun again. Meanwhile
/// others open and close it: a second store of this process, and processes that only count.
async fn sqlite(duration: Duration, seed: u64) -> Result<bool> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("sessions.db");
    let store = open_sqlite(&file).await?;
    let crew = Crew::begin(Arc::clone(&store), seed);
    let random = Random::new(seed);
    let (mut recoveries, mut journal) = (Recoveries::default(), Journal::default());
    let end = Instant::now() + duration;
    while Instant::now() < end {
        let writer = Writer::start(&file);
        for _ in 0..1 + random.below(4) {
            sleep(Duration::from_millis(50 + random.below(600) as u64)).await;
            if random.below(2) == 0 {
                drop(open_sqlite(&file).await?);
                journal.stores_beside += 1;
            } else {
                journal::count_beside(&file).await;
                journal.counts_beside += 1;
            }
        }
        let lines = writer.kill();
        recoveries.add("writer killed", crew.recovered().await);
        journal.compare(&lines, &*store).await;
        let found = integrity(&file).await;
        journal.integrity_errors += u64::from(found != "ok");
    }
    let mut counts = crew.end().await;
    counts.lost_updates += journal.lost;
    counts.seen_again += journal.seen_again;
    let report = Report::new(counts, recoveries);
    println!(
        "\none of two processes is killed, and others open the file; one of them, since a kill\n{report}"
    );
    println!("the killed processes\n{journal}");
    Ok(report.counts.is_clean() && journal.integrity_errors == 0)
}

async fn open_sqlite(file: &Path) -> Result<Arc<dyn SessionStore>> {
    let url = format!("sqlite:{}", file.display());
    let options = StoreOptions::new().deadline(DEADLINE);
    let store = SqliteStore::connect(&url, options).await?;
    store.migrate().await?;
    Ok(Arc::new(store))
}

/// What the database says about itself: `ok`.
async fn integrity(file: &Path) -> String {
    let row = raw_sql("PRAGMA integrity_check")
        .fetch_one(&mut raw(file).await)
        .await;
    row.map_or_else(|error| error.to_string(), |row| row.get(0))
}

async fn count(file: &Path) {
    let mut connection = raw(file).await;
    let row = raw_sql("SELECT count(*) FROM sessions")
        .fetch_one(&mut connection)
        .await;
    println!("{}", row.expect("a count").get::<i64, _>(0));
    connection.close().await.expect("it can be closed");
}

async fn raw(file: &Path) -> SqliteConnection {
    let url = format!("sqlite:{}", file.display());
    SqliteConnection::connect(&url).await.expect("a connection")
}
