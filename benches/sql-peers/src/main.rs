//! `tower-sessions-sqlx-store` at the URL of the first argument. Each line that it reads is an
//! operation, a number of tasks and a number of calls; it answers with the nanoseconds for a call.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::io::{AsyncBufReadExt, BufReader};
use tower_sessions_core::{
    SessionStore,
    session::{Id, Record},
};
use tower_sessions_sqlx_store::{
    MySqlStore, PostgresStore, SqliteStore,
    sqlx::{
        mysql::MySqlPoolOptions,
        postgres::PgPoolOptions,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
    },
};

/// As many bytes as the session that the others keep.
const DATA: usize = 300;

const CONNECTIONS: u32 = 16;

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).expect("a URL");
    let store = open(&url).await;
    let mut sessions: Vec<Record> = Vec::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.expect("a line") {
        let words: Vec<_> = line.split(' ').collect();
        let number = |index: usize| words[index].parse::<usize>().expect("a number");
        let (operation, tasks, count) = (words[0], number(1), number(2));
        if matches!(operation, "create" | "fill") {
            sessions = (0..count).map(|_| session()).collect();
        }
        let nanos = time(&store, operation.to_owned(), tasks, count, sessions.clone()).await;
        println!("{nanos}");
    }
}

/// Over pools that do not ping, and for SQLite with a log that is synced at checkpoints only.
async fn open(url: &str) -> Arc<dyn SessionStore> {
    if url.starts_with("postgres") {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .test_before_acquire(false)
            .connect(url)
            .await
            .expect("the server answers");
        let store = PostgresStore::new(pool);
        store.migrate().await.expect("a table");
        return Arc::new(store);
    }
    if url.starts_with("mysql") {
        let pool = MySqlPoolOptions::new()
            .max_connections(CONNECTIONS)
            .test_before_acquire(false)
            .connect(url)
            .await
            .expect("the server answers");
        let store = MySqlStore::new(pool);
        store.migrate().await.expect("a table");
        return Arc::new(store);
    }
    let options = SqliteConnectOptions::from_str(url)
        .expect("a URL")
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(30));
    let pool = SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(Duration::from_secs(60))
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .expect("a file");
    let store = SqliteStore::new(pool);
    store.migrate().await.expect("a table");
    Arc::new(store)
}

fn session() -> Record {
    let text = "x".repeat(DATA);
    Record {
        id: Id::default(),
        data: [("visitor".to_owned(), serde_json::Value::String(text))].into(),
        expiry_date: time::OffsetDateTime::now_utc() + time::Duration::hours(1),
    }
}

async fn time(
    store: &Arc<dyn SessionStore>,
    operation: String,
    tasks: usize,
    count: usize,
    sessions: Vec<Record>,
) -> u128 {
    let (operation, sessions) = (Arc::new(operation), Arc::new(sessions));
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let workers: Vec<_> = (0..tasks)
        .map(|_| {
            let (store, operation) = (Arc::clone(store), Arc::clone(&operation));
            let (sessions, next) = (Arc::clone(&sessions), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    call(&*store, &operation, &sessions[number % sessions.len()]).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no operation panics");
    }
    start.elapsed().as_nanos() / count as u128
}

async fn call(store: &dyn SessionStore, operation: &str, session: &Record) {
    match operation {
        "load" => {
            let loaded = store.load(&session.id).await.expect("an answer");
            loaded.expect("it is there");
        }
        "update" => store.save(session).await.expect("an answer"),
        "delete" => store.delete(&session.id).await.expect("an answer"),
        _ => {
            let mut session = session.clone();
            store.create(&mut session).await.expect("an answer");
        }
    }
}
