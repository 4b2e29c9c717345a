//! SQL databases: the raw statement over a pool of sqlx, this store, and a published store, which
//! is a program of its own because it needs another SQLite library.
//!
//! SQLite is in the directory for temporary files; the servers are those of
//! `SESSIONKIT_TEST_POSTGRES_URL`, `SESSIONKIT_TEST_MYSQL_URL` and `SESSIONKIT_TEST_MARIADB_URL`.
//! All three work on one server with the same durability, and the raw statements on a table like
//! the store's.

use std::{
    process::Stdio,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use sessionkit::{Record, SessionStore, Token};
use sessionkit_sqlx::{
    MysqlStore, PostgresStore, SqliteStore, StoreOptions, TableName,
    sqlx::{
        self, AssertSqlSafe, MySqlPool, PgPool, Row, SqlSafeStr, SqlStr, SqlitePool,
        mysql::MySqlPoolOptions,
        postgres::PgPoolOptions,
        raw_sql,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
};

use crate::{
    measure::{Comparison, median, time_tasks},
    payload::{new_token, new_tokens, record},
};

const LOADS: usize = 16_000;
const WRITES: usize = 4_000;
const CONNECTIONS: u32 = 16;

/// The table of our store.
const OURS: &str = "sessions";

const LOAD: &str = "SELECT revision, created_at, expires_at, subject, label, data \
                    FROM TABLE WHERE session_key = ?";
const UPDATE: &str = "UPDATE TABLE SET revision = ?, created_at = ?, expires_at = ?, \
                      subject = ?, label = ?, data = ? WHERE session_key = ? AND revision = ?";
const CREATE: &str = "INSERT INTO TABLE (session_key, revision, created_at, expires_at, \
                      sweep_at, subject, label, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
const DELETE: &str = "DELETE FROM TABLE WHERE session_key = ?";

/// A kind of database.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Sqlite,
    Postgres,
    Mysql,
    Mariadb,
}

pub const ALL: [Kind; 4] = [Kind::Sqlite, Kind::Postgres, Kind::Mysql, Kind::Mariadb];

/// One table each of the raw driver, of this store and of the published one.
#[derive(Clone)]
struct Scene {
    name: &'static str,
    raw: Raw,
    store: Arc<dyn SessionStore>,
    tokens: Arc<Vec<Token>>,
    record: Arc<Record>,
    peer: Option<Arc<Mutex<Peer>>>,
    _dir: Arc<tempfile::TempDir>,
}

/// The driver, with the statements in the database's own form.
#[derive(Clone)]
struct Raw {
    pool: Pool,
    load: SqlStr,
    update: SqlStr,
    create: SqlStr,
    delete: SqlStr,
}

#[derive(Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
    Mysql(MySqlPool),
}

macro_rules! raw_call {
    ($raw:ident, $pool:ident, $operation:ident, $key:ident, $record:ident) => {{
        let (created, expires) = (
            $record.created_at.as_millis(),
            $record.expires_at.as_millis(),
        );
        let (subject, label, data) = (None::<&[u8]>, &b""[..], &$record.data[..]);
        let done = match $operation {
            "load" => {
                let row = sqlx::query($raw.load.clone())
                    .bind($key)
                    .fetch_optional($pool)
                    .await;
                let row = row.expect("an answer").expect("it is there");
                drop(Row::get::<Vec<u8>, _>(&row, 5));
                return;
            }
            "delete" => {
                sqlx::query($raw.delete.clone())
                    .bind($key)
                    .execute($pool)
                    .await
            }
            "update" => {
                let query = sqlx::query($raw.update.clone()).bind(7_i64).bind(created);
                let query = query.bind(expires).bind(subject).bind(label).bind(data);
                query.bind($key).bind(7_i64).execute($pool).await
            }
            _ => {
                let query = sqlx::query($raw.create.clone()).bind($key).bind(7_i64);
                let query = query.bind(created).bind(expires).bind(expires);
                query
                    .bind(subject)
                    .bind(label)
                    .bind(data)
                    .execute($pool)
                    .await
            }
        };
        assert_eq!(done.expect("an answer").rows_affected(), 1);
    }};
}

/// The published store's program.
struct Peer {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

pub async fn run(kind: Kind, rounds: usize) {
    let Some(scene) = Scene::open(kind, WRITES, "raw_sessions").await else {
        return;
    };
    for tasks in [1, 64] {
        for operation in ["load", "update", "create", "delete"] {
            let count = if operation == "load" { LOADS } else { WRITES };
            let count = if tasks == 1 { count / 8 } else { count };
            compare(&scene, operation, tasks, count, rounds).await;
        }
    }
}

/// What an operation costs with more and more sessions in the table.
pub async fn grow(kind: Kind) {
    const TASKS: usize = 16;
    const CALLS: usize = 4_000;
    let Some(scene) = Scene::open(kind, 1_000_000, OURS).await else {
        return;
    };
    println!(
        "\n{}, us for each operation of {TASKS} tasks, medians of 5; raw is the driver's statement on \
         the same table",
        scene.name
    );
    let columns = [
        ("load", false),
        ("load", true),
        ("update", false),
        ("update", true),
        ("touch", false),
        ("create+delete", false),
    ];
    let titles = columns.map(|(operation, is_raw)| {
        let title = if is_raw { "raw" } else { operation };
        format!(" {title:>13}")
    });
    println!("{:>9}{}", "sessions", titles.concat());
    let mut filled = 0;
    for sessions in [1_000, 100_000, 1_000_000] {
        scene.fill_up(filled, sessions).await;
        filled = sessions;
        let mut micros = columns.map(|_| Vec::new());
        // The first round warms up.
        for round in 0..6 {
            for (times, (operation, is_raw)) in micros.iter_mut().zip(columns) {
                let scene = scene.clone();
                let nanos = time_tasks(TASKS, CALLS, move |number| {
                    let scene = scene.clone();
                    // All over the table.
                    let number = number.wrapping_mul(7_919) % sessions;
                    async move {
                        match is_raw {
                            true => scene.raw_call(operation, number).await,
                            false => scene.at(operation, number).await,
                        }
                    }
                });
                let micros = nanos.await / 1000.0;
                if round > 0 {
                    times.push(micros);
                }
            }
        }
        let medians = micros.map(|times| format!(" {:>13.1}", median(&times)));
        println!("{sessions:>9}{}", medians.concat());
    }
    scene.sweep_all().await;
    scene.raw.execute(&[kind.drop_table("sessions")]).await;
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
        }
    }

    fn drop_table(self, table: &str) -> String {
        format!("DROP TABLE IF EXISTS {table}")
    }
}

impl Scene {
    /// The raw statements work on `table`; on another one than ours for a comparison, which has the
    /// published store too.
    async fn open(kind: Kind, sessions: usize, table: &str) -> Option<Self> {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        let url = match kind {
            Kind::Sqlite => format!("sqlite:{}/ours.db", dir.path().display()),
            _ => server(kind)?,
        };
        let raw = Raw::open(kind, &url, table).await;
        if kind != Kind::Sqlite {
            let tables = ["sessions", "raw_sessions"].map(|table| kind.drop_table(table));
            raw.execute(&tables).await;
        }
        raw.execute(&[schema(kind)]).await;
        let peer = match kind {
            _ if table == OURS => None,
            Kind::Sqlite => {
                Some(Peer::start(&format!("sqlite:{}/peer.db", dir.path().display())).await)
            }
            _ => Some(Peer::start(&url).await),
        };
        Some(Self {
            name: kind.name(),
            raw,
            store: open_ours(kind, &url).await,
            tokens: Arc::new(new_tokens(sessions)),
            record: Arc::new(record()),
            peer: peer.map(|peer| Arc::new(Mutex::new(peer))),
            _dir: dir,
        })
    }

    async fn empty(&self) {
        let empty = match self.raw.pool {
            Pool::Sqlite(_) => "DELETE FROM",
            _ => "TRUNCATE TABLE",
        };
        let tables = ["sessions", "raw_sessions"].map(|table| format!("{empty} {table}"));
        self.raw.execute(&tables).await;
    }

    async fn fill(&self, count: usize) {
        self.empty().await;
        let scene = self.clone();
        time_tasks(64, count, move |number| {
            let scene = scene.clone();
            async move {
                scene.raw_call("create", number).await;
                scene.our_call("create", number).await;
            }
        })
        .await;
    }

    async fn our_call(&self, operation: &str, number: usize) {
        let (token, record) = (&self.tokens[number], &*self.record);
        let store = &self.store;
        match operation {
            "load" => {
                let loaded = store.load(token).await.expect("an answer");
                loaded.expect("it is there");
            }
            "delete" => drop(store.delete(token, None).await.expect("an answer")),
            "touch" => drop(
                store
                    .touch(token, record.expires_at)
                    .await
                    .expect("it is there"),
            ),
            "update" => {
                let updated = store.update(token, record.revision, record).await;
                updated.expect("it is there");
            }
            _ => {
                let created = store.create(token.clone(), record).await;
                created.expect("it is new");
            }
        }
    }

    async fn raw_call(&self, operation: &str, number: usize) {
        let (key, record) = (self.tokens[number].key(), &self.record);
        self.raw.call(operation, key.as_bytes(), record).await;
    }

    /// An operation on a table that stays as large as it is.
    async fn at(&self, operation: &str, number: usize) {
        if operation != "create+delete" {
            return self.our_call(operation, number).await;
        }
        let created = self.store.create(new_token(), &self.record).await;
        let token = created.expect("it is new");
        self.store.delete(&token, None).await.expect("an answer");
    }

    /// Adds sessions in large statements, past the store.
    async fn fill_up(&self, from: usize, to: usize) {
        let expires_at = self.record.expires_at.as_millis();
        let data = hex(&self.record.data);
        for tokens in self.tokens[from..to].chunks(500) {
            let row = |token: &Token| {
                let key = hex(token.key().as_bytes());
                match self.raw.pool {
                    Pool::Postgres(_) => format!(
                        "('\\x{key}', 7, 1700000000000, {expires_at}, {expires_at}, NULL, '', '\\x{data}')"
                    ),
                    _ => format!(
                        "(x'{key}', 7, 1700000000000, {expires_at}, {expires_at}, NULL, x'', x'{data}')"
                    ),
                }
            };
            let rows: Vec<_> = tokens.iter().map(row).collect();
            let sql = format!("INSERT INTO sessions VALUES {}", rows.join(", "));
            self.raw.execute(&[sql]).await;
        }
        if let Pool::Postgres(_) = self.raw.pool {
            self.raw
                .execute(&["VACUUM ANALYZE sessions".to_owned()])
                .await;
        }
    }

    /// Lets a part of the sessions expire and removes them, in the batches of a sweeper.
    async fn sweep_all(&self) {
        let expire = "UPDATE sessions SET expires_at = 1, sweep_at = 1 WHERE session_key < ";
        let twentieth = match self.raw.pool {
            Pool::Postgres(_) => "'\\x0c'",
            _ => "x'0c'",
        };
        self.raw.execute(&[format!("{expire}{twentieth}")]).await;
        let mut batches = Vec::new();
        loop {
            let start = Instant::now();
            let removed = self.store.sweep(256).await.expect("an answer");
            if removed == 0 {
                break;
            }
            batches.push(start.elapsed());
        }
        batches.sort();
        let (count, last) = (batches.len(), batches.len() - 1);
        println!(
            "a sweep of 256: median {:.1?}, 99 % {:.1?}, longest {:.1?}, of {count}",
            batches[count / 2],
            batches[last * 99 / 100],
            batches[last]
        );
    }
}

async fn compare(
    scene: &Scene,
    operation: &'static str,
    tasks: usize,
    count: usize,
    rounds: usize,
) {
    let sessions = count.min(WRITES);
    let fills = matches!(operation, "load" | "update");
    if fills {
        scene.fill(sessions).await;
    }
    macro_rules! contender {
        ($call:ident) => {{
            let scene = scene.clone();
            move || {
                let scene = scene.clone();
                async move {
                    match operation {
                        "create" => scene.empty().await,
                        "delete" => scene.fill(count).await,
                        _ => {}
                    }
                    time_tasks(tasks, count, move |number| {
                        let scene = scene.clone();
                        async move { scene.$call(operation, number % sessions).await }
                    })
                    .await
                }
            }
        }};
    }
    let mut comparison = Comparison::new(format!("{}, {operation}, {tasks} tasks", scene.name))
        .add("sqlx, the raw statement", contender!(raw_call))
        .add("sessionkit-sqlx", contender!(our_call));
    if let Some(peer) = scene.peer.clone() {
        if fills {
            peer.lock().await.ask("fill", 64, sessions).await;
        }
        comparison = comparison.add("tower-sessions-sqlx-store", move || {
            let peer = Arc::clone(&peer);
            async move {
                let mut peer = peer.lock().await;
                if operation == "delete" {
                    peer.ask("fill", 64, count).await;
                }
                peer.ask(operation, tasks, count).await
            }
        });
    }
    comparison.print(rounds).await;
}

impl Raw {
    async fn open(kind: Kind, url: &str, table: &str) -> Self {
        let pool = match kind {
            Kind::Sqlite => {
                let options = SqliteConnectOptions::from_str(url)
                    .expect("a URL")
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Normal)
                    .busy_timeout(Duration::from_secs(30));
                let pool = SqlitePoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(Duration::from_secs(60))
                    .test_before_acquire(false);
                Pool::Sqlite(pool.connect_with(options).await.expect("a file"))
            }
            Kind::Postgres => {
                let pool = PgPoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .test_before_acquire(false);
                Pool::Postgres(pool.connect(url).await.expect("the server answers"))
            }
            Kind::Mysql | Kind::Mariadb => {
                let pool = MySqlPoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .test_before_acquire(false);
                Pool::Mysql(pool.connect(url).await.expect("the server answers"))
            }
        };
        let sql = |sql: &str| {
            let sql = sql.replace("TABLE", table);
            match kind {
                Kind::Postgres => safe(numbered(&sql)),
                _ => safe(sql),
            }
        };
        Self {
            pool,
            load: sql(LOAD),
            update: sql(UPDATE),
            create: sql(CREATE),
            delete: sql(DELETE),
        }
    }

    /// Statements without parameters, one after the other.
    async fn execute(&self, statements: &[String]) {
        for sql in statements {
            let sql = raw_sql(AssertSqlSafe(&**sql));
            match &self.pool {
                Pool::Sqlite(pool) => drop(sql.execute(pool).await.expect("an answer")),
                Pool::Postgres(pool) => drop(sql.execute(pool).await.expect("an answer")),
                Pool::Mysql(pool) => drop(sql.execute(pool).await.expect("an answer")),
            }
        }
    }

    async fn call(&self, operation: &str, key: &[u8], record: &Record) {
        match &self.pool {
            Pool::Sqlite(pool) => raw_call!(self, pool, operation, key, record),
            Pool::Postgres(pool) => raw_call!(self, pool, operation, key, record),
            Pool::Mysql(pool) => raw_call!(self, pool, operation, key, record),
        }
    }
}

impl Peer {
    async fn start(url: &str) -> Self {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/sql-peers/Cargo.toml");
        let mut child = Command::new(env!("CARGO"))
            .args([
                "run",
                "--quiet",
                "--release",
                "--locked",
                "--manifest-path",
                manifest,
            ])
            .args(["--", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("cargo starts");
        let output = child.stdout.take().expect("it is piped");
        Self {
            input: child.stdin.take().expect("it is piped"),
            output: BufReader::new(output).lines(),
            _child: child,
        }
    }

    /// The nanoseconds of one operation.
    async fn ask(&mut self, operation: &str, tasks: usize, count: usize) -> f64 {
        let line = format!("{operation} {tasks} {count}\n");
        let written = self.input.write_all(line.as_bytes()).await;
        written.expect("the published store runs");
        let answer = self.output.next_line().await.expect("it answers");
        let answer = answer.expect("the published store runs");
        answer.parse().expect("a number")
    }
}

/// The URL of a server, if there is one to measure.
fn server(kind: Kind) -> Option<String> {
    let variable = format!("SESSIONKIT_TEST_{}_URL", kind.name().to_uppercase());
    match std::env::var(&variable) {
        Ok(url) => Some(url.replacen("mariadb:", "mysql:", 1)),
        Err(_) => {
            println!(
                "\n{}: not measured, because {variable} is not set",
                kind.name()
            );
            None
        }
    }
}

async fn open_ours(kind: Kind, url: &str) -> Arc<dyn SessionStore> {
    let options = StoreOptions::new().deadline(Duration::from_secs(30));
    match kind {
        Kind::Sqlite => {
            let store = SqliteStore::connect(url, options).await.expect("a store");
            store.migrate().await.expect("a table");
            Arc::new(store)
        }
        Kind::Postgres => {
            let store = PostgresStore::connect(url, options).await.expect("a store");
            store.migrate().await.expect("a table");
            Arc::new(store)
        }
        Kind::Mysql | Kind::Mariadb => {
            let store = MysqlStore::connect(url, options).await.expect("a store");
            store.migrate().await.expect("a table");
            Arc::new(store)
        }
    }
}

/// A table like the store's.
fn schema(kind: Kind) -> String {
    let table = TableName::new("raw_sessions").expect("a name");
    match kind {
        Kind::Sqlite => SqliteStore::schema(&table),
        Kind::Postgres => PostgresStore::schema(&table),
        Kind::Mysql | Kind::Mariadb => MysqlStore::schema(&table),
    }
}

/// Parameters as Postgres writes them.
fn numbered(sql: &str) -> String {
    let mut parts = sql.split('?');
    let first = parts.next().unwrap_or_default().to_owned();
    let number = |sql, (part, number)| format!("{sql}${number}{part}");
    parts.zip(1..).fold(first, number)
}

fn safe(sql: String) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(sql)).into_sql_str()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
