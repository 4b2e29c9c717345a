//! Postgres, on the server that the kit finds or starts.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Opened, all, clock, drop_after, kind, record, subject, token};
use sessionkit::{ErrorKind, Record, SessionStore, Timestamp};
use sessionkit_conformance::containers::Server;
use sessionkit_sqlx::{
    PostgresStore, StoreOptions, TableName,
    sqlx::{AssertSqlSafe, Connection, PgConnection, Row, postgres::PgPoolOptions, raw_sql},
};

async fn url() -> String {
    Server::Postgres.shared().await.unwrap()
}

/// The URL with a setting of the session, such as the time zone.
async fn url_with(setting: &str) -> String {
    let url = url().await;
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}options[{setting}")
}

fn named(table: &str) -> StoreOptions {
    StoreOptions::new().table(TableName::new(table).unwrap())
}

async fn connect(options: StoreOptions) -> PostgresStore {
    let store = PostgresStore::connect(&url().await, options).await.unwrap();
    store.migrate().await.unwrap();
    store
}

async fn raw() -> PgConnection {
    PgConnection::connect(&url().await).await.unwrap()
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap();
}

async fn number(connection: &mut PgConnection, sql: &str) -> i64 {
    let row = raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await;
    row.unwrap().get(0)
}

async fn open(connections: u32) -> Opened {
    let clock = clock();
    let options = named(&common::random_name())
        .clock(clock.clone())
        // What the cases do at a time takes a single connection a while.
        .deadline(Duration::from_secs(30))
        .max_connections(connections);
    Opened {
        a: Arc::new(connect(options.clone()).await),
        b: Arc::new(connect(options).await),
        clock,
        _keep: None,
    }
}

mod with_some_connections {
    use super::*;

    common::cases!(open(5));
}

mod with_one_connection {
    use super::*;

    common::cases!(open(1));
}

/// PgBouncer in transaction mode, without support for prepared statements: the one in
/// `SESSIONKIT_TEST_PGBOUNCER_URL`, or the program of Debian's package.
mod behind_a_transaction_pooler {
    use std::process::{Child, Command, Stdio};

    use tempfile::TempDir;

    use super::*;

    struct PgBouncer {
        child: Child,
        url: String,
        _dir: TempDir,
    }

    impl PgBouncer {
        async fn start() -> Self {
            let upstream = url().await;
            let (_, rest) = upstream.rsplit_once('@').unwrap();
            let (address, database) = rest.split_once('/').unwrap();
            let (host, port) = address.rsplit_once(':').unwrap_or((address, "5432"));
            let (user, password) = upstream["postgres://".len()..]
                .rsplit_once('@')
                .and_then(|(account, _)| account.split_once(':'))
                .unwrap();
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let own = free.local_addr().unwrap().port();
            drop(free);
            let dir = TempDir::new().unwrap();
            let file = dir.path().join("pgbouncer.ini");
            let settings = format!(
                "[databases]\n{database} = host={host} port={port} user={user} \
                 password={password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {own}\n\
                 auth_type = any\npool_mode = transaction\nunix_socket_dir =\n"
            );
            std::fs::write(&file, settings).unwrap();
            let mut command = Command::new("pgbouncer");
            command
                .arg("-q")
                .arg(&file)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if running_as_root() {
                // Which it refuses to be.
                open_for_all(dir.path());
                command.args(["-u", "nobody"]);
            }
            let child = command
                .spawn()
                .expect("pgbouncer: install the package, or set SESSIONKIT_TEST_PGBOUNCER_URL");
            let url = format!("postgres://{user}:{password}@127.0.0.1:{own}/{database}");
            let pooler = Self {
                child,
                url,
                _dir: dir,
            };
            let connected = async {
                while tokio::net::TcpStream::connect(("127.0.0.1", own))
                    .await
                    .is_err()
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), connected)
                .await
                .expect("pgbouncer does not take connections");
            pooler
        }
    }

    impl Drop for PgBouncer {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn running_as_root() -> bool {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
    }

    fn open_for_all(dir: &std::path::Path) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    }

    async fn open() -> Opened {
        let clock = clock();
        let options = named(&common::random_name())
            .clock(clock.clone())
            .deadline(Duration::from_secs(30))
            .max_connections(4)
            .transaction_pooling(true);
        let own = match std::env::var("SESSIONKIT_TEST_PGBOUNCER_URL") {
            Ok(_) => None,
            Err(_) => Some(PgBouncer::start().await),
        };
        let url = match &own {
            Some(pooler) => pooler.url.clone(),
            None => std::env::var("SESSIONKIT_TEST_PGBOUNCER_URL").unwrap(),
        };
        let store = PostgresStore::connect(&url, options.clone()).await.unwrap();
        store.migrate().await.unwrap();
        Opened {
            a: Arc::new(store),
            b: Arc::new(PostgresStore::connect(&url, options).await.unwrap()),
            clock,
            _keep: own.map(|pooler| Box::new(pooler) as _),
        }
    }

    common::cases!(open());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_expired_is_not_prolonged() {
    let table = common::random_name();
    let clock = common::Asked::new();
    let options = named(&table).clock(clock.clone());
    let stores: [Arc<dyn SessionStore>; 2] = [
        Arc::new(connect(options.clone()).await),
        Arc::new(connect(options).await),
    ];
    let lock = async || {
        let mut raw = raw().await;
        let all = format!("BEGIN; SELECT 1 FROM {table} FOR UPDATE");
        execute(&mut raw, &all).await;
        raw
    };
    let unlock = async |mut raw| execute(&mut raw, "ROLLBACK").await;
    common::what_was_found_expired_is_not_prolonged(stores, clock, lock, unlock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_migrations_at_a_time_succeed() {
    for _ in 0..5 {
        let options = named(&common::random_name()).max_connections(1);
        let starts = (0..8).map(|_| {
            let options = options.clone();
            async move {
                let store = PostgresStore::connect(&url().await, options).await?;
                store.migrate().await?;
                store.create(token(), &record(b"x")).await
            }
        });
        for started in all(starts).await {
            started.unwrap();
        }
    }
}

#[tokio::test]
async fn a_check_says_what_differs() {
    let table = common::random_name();
    let store = PostgresStore::connect(&url().await, named(&table))
        .await
        .unwrap();
    let missing = store.check().await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::InvalidConfig);
    assert_eq!(
        missing.to_string(),
        format!("the session table {table}: it does not exist")
    );
    assert_eq!(
        kind(store.load(&token()).await),
        Some(ErrorKind::InvalidConfig)
    );
    let create = store.create(token(), &record(b"x")).await;
    assert_eq!(kind(create), Some(ErrorKind::InvalidConfig));

    let sql = format!(
        "CREATE TABLE {table} (session_key bytea PRIMARY KEY, revision text NOT NULL, \
         created_at bigint NOT NULL, expires_at timestamptz, sweep_at bigint NOT NULL, \
         subject bytea, label bytea NOT NULL); CREATE INDEX ON {table} (sweep_at)"
    );
    execute(&mut raw().await, &sql).await;
    let differs = store.migrate().await.unwrap_err();
    assert_eq!(
        differs.to_string(),
        format!(
            "the session table {table}: the column revision is text, not bigint; the column \
             expires_at is timestamp with time zone, not bigint; the column data is missing; no \
             index begins with subject"
        )
    );
}

#[tokio::test]
async fn an_older_table_gets_the_version_and_a_newer_one_is_left_alone() {
    let table = common::random_name();
    let store = connect(named(&table)).await;
    let mut raw = raw().await;
    execute(&mut raw, &format!("COMMENT ON TABLE {table} IS NULL")).await;
    let older = store.check().await.unwrap_err();
    assert_eq!(older.kind(), ErrorKind::InvalidConfig);
    assert!(older.to_string().contains("its version is 0"), "{older}");
    store.migrate().await.unwrap();
    store.check().await.unwrap();

    let newer = format!("COMMENT ON TABLE {table} IS 'sessionkit schema 2'");
    execute(&mut raw, &newer).await;
    for refused in [store.check().await, store.migrate().await] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidConfig);
        assert!(
            refused.to_string().contains("its version is 2"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_schema_is_used_and_never_made() {
    let (schema, table) = (common::random_name(), common::random_name());
    let options = named(&format!("{schema}.{table}"));
    let store = PostgresStore::connect(&url().await, options.clone())
        .await
        .unwrap();
    assert_eq!(kind(store.migrate().await), Some(ErrorKind::InvalidConfig));
    let mut raw = raw().await;
    let sql = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{schema}'");
    assert_eq!(number(&mut raw, &sql).await, 0);
    execute(&mut raw, &format!("CREATE SCHEMA {schema}")).await;
    // What is printed is what is needed.
    let printed = PostgresStore::schema(&TableName::new(&format!("{schema}.{table}")).unwrap());
    execute(&mut raw, &printed).await;
    store.check().await.unwrap();
    let token = store.create(token(), &record(b"x")).await.unwrap();
    let same_name = connect(named(&table)).await;
    assert_eq!(same_name.load(&token).await.unwrap(), None);
}

#[tokio::test]
async fn normal_work_needs_no_right_but_the_tables() {
    let table = common::random_name();
    connect(named(&table)).await;
    let mut raw = raw().await;
    let sql = format!(
        "CREATE ROLE {table} LOGIN PASSWORD 'p'; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {table}; \
         REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    );
    execute(&mut raw, &sql).await;
    let url = url().await;
    let (_, host) = url.rsplit_once('@').unwrap();
    let as_guest = format!("postgres://{table}:p@{host}");
    let store = PostgresStore::connect(&as_guest, named(&table))
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let token = store.create(token(), &lasting(b"x")).await.unwrap();
    store.touch(&token, Timestamp::MAX).await.unwrap();
    store.sweep(10).await.unwrap();
    store.delete(&token).await.unwrap();

    let wrong = format!("postgres://{table}_unknown:geheim@{host}");
    let opened = PostgresStore::connect(&wrong, named(&table)).await;
    if let Err(error) = opened {
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(!format!("{error:?}").contains("geheim"));
    }
}

#[tokio::test]
async fn the_time_zone_of_the_server_does_not_matter() {
    let table = common::random_name();
    connect(named(&table)).await;
    let clock = clock();
    for zone in ["America/New_York", "Asia/Tokyo"] {
        let url = url_with(&format!("timezone]={zone}")).await;
        let options = named(&table).clock(clock.clone());
        let store = PostgresStore::connect(&url, options).await.unwrap();
        clock.set(common::START);
        let stored = record(b"x");
        let token = store.create(token(), &stored).await.unwrap();
        clock.set(Timestamp::from_millis(stored.expires_at.as_millis() - 1));
        assert_eq!(store.sweep(10).await.unwrap(), 0);
        assert_eq!(store.load(&token).await.unwrap(), Some(stored.clone()));
        clock.set(stored.expires_at);
        assert_eq!(store.load(&token).await.unwrap(), None);
        assert_eq!(store.sweep(10).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_standby_that_only_reads_is_unavailable_for_writes() {
    let table = common::random_name();
    let token = connect(named(&table))
        .await
        .create(token(), &lasting(b"x"))
        .await;
    let token = token.unwrap();
    let url = url_with("default_transaction_read_only]=on").await;
    let store = PostgresStore::connect(&url, named(&table)).await.unwrap();
    assert!(store.load(&token).await.unwrap().is_some());
    let create = store.create(common::token(), &lasting(b"x")).await;
    assert_eq!(kind(create), Some(ErrorKind::Unavailable));
    let touch = store.touch(&token, Timestamp::MAX).await;
    assert_eq!(kind(touch), Some(ErrorKind::Unavailable));
    assert_eq!(
        kind(store.delete(&token).await),
        Some(ErrorKind::Unavailable)
    );
}

fn lasting(data: &[u8]) -> Record {
    Record {
        expires_at: Timestamp::MAX,
        ..record(data)
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("postgres://u:geheim@{free}/d");
    let error = PostgresStore::connect(&url, StoreOptions::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error:?}").contains("geheim"));

    // One that takes the connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u:geheim@{}/d", silent.local_addr().unwrap());
    let options = StoreOptions::new().deadline(Duration::from_millis(300));
    let start = Instant::now();
    let error = PostgresStore::connect(&url, options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(start.elapsed() < Duration::from_secs(2));

    for url in [
        "postgres://h:x/d",
        "postgres://h/d?sslmode=geheim",
        "mysql://h/d",
        "x",
    ] {
        let error = PostgresStore::connect(url, StoreOptions::new())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
        assert!(!format!("{error:?}").contains("geheim"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_while_idle_are_replaced() {
    let table = common::random_name();
    let url = url_with(&format!("application_name]={table}")).await;
    let options = named(&table).max_connections(4);
    let store = PostgresStore::connect(&url, options).await.unwrap();
    store.migrate().await.unwrap();
    let mut raw = raw().await;
    let kill = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE application_name = '{table}'"
    );
    for pause in [0, 20, 1100] {
        let calls = (0..8).map(|_| {
            let store = store.clone();
            async move { store.create(token(), &lasting(b"x")).await.unwrap() }
        });
        let tokens = all(calls).await;
        assert!(number(&mut raw, &kill).await > 0);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        for token in &tokens {
            store.touch(token, Timestamp::MAX).await.unwrap();
            assert!(store.load(token).await.unwrap().is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_waits_too_long_is_ambiguous_and_the_connection_is_replaced() {
    let options = named(&common::random_name())
        .max_connections(1)
        .deadline(Duration::from_millis(1500));
    let table = options.clone();
    let store = connect(options).await;
    let before = lasting(b"before");
    let token = store.create(token(), &before).await.unwrap();
    let mut other = raw().await;
    let name = format!("{table:?}");
    let name = name
        .split("table: \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    execute(&mut other, &format!("BEGIN; UPDATE {name} SET label = 'x'")).await;
    let start = Instant::now();
    let update = store
        .update(&token, before.revision, &lasting(b"after"))
        .await;
    assert_eq!(kind(update), Some(ErrorKind::Ambiguous));
    assert!(start.elapsed() < Duration::from_secs(3));
    // Others are not kept waiting behind it.
    assert_eq!(store.load(&token).await.unwrap(), Some(before.clone()));
    // A call that is dropped while the server keeps it waiting leaves the connection usable too.
    drop_after(20, store.touch(&token, Timestamp::MAX)).await;
    execute(&mut other, "ROLLBACK").await;
    let other = store
        .create(common::token(), &lasting(b"other"))
        .await
        .unwrap();
    assert_eq!(
        &store.load(&other).await.unwrap().unwrap().data[..],
        b"other"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cancelled_calls_leave_nothing_behind() {
    let table = common::random_name();
    let url = url_with(&format!("application_name]={table}")).await;
    let options = named(&table).max_connections(4);
    let store = PostgresStore::connect(&url, options).await.unwrap();
    store.migrate().await.unwrap();
    let mut raw = raw().await;
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{table}'");
    for i in 0..1000 {
        let stored = record(b"x");
        let call = store.create(token(), &stored);
        let _ = tokio::time::timeout(Duration::from_micros(i), call).await;
    }
    assert!(number(&mut raw, &sql).await <= 4);
    let token = store.create(token(), &lasting(b"x")).await.unwrap();
    assert!(store.load(&token).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_at_a_time_sweeps() {
    let clock = clock();
    let table = common::random_name();
    let options = named(&table).clock(clock.clone()).max_connections(2);
    let stores = [connect(options.clone()).await, connect(options).await];
    for _ in 0..600 {
        stores[0].create(token(), &record(b"x")).await.unwrap();
    }
    clock.advance(Duration::from_secs(60));
    let sweepers: Vec<_> = stores
        .iter()
        .map(|store| store.spawn_sweeper(Duration::from_millis(10)))
        .collect();
    let mut raw = raw().await;
    let count = format!("SELECT count(*) FROM {table}");
    let emptied = async {
        while number(&mut raw, &count).await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), emptied)
        .await
        .unwrap();
    for sweeper in sweepers {
        sweeper.shutdown().await;
    }
}

/// Two transactions that take the locks of two rows in opposite order: one is a victim, tries
/// again, and nobody hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_tried_again() {
    let table = common::random_name();
    let store = connect(named(&table)).await;
    let mut stored = lasting(b"x");
    stored.subject = subject("alice");
    for _ in 0..50 {
        store.create(token(), &stored).await.unwrap();
    }
    let alice = stored.subject.clone().unwrap();
    let mut other = raw().await;
    execute(&mut other, "BEGIN; SET LOCAL deadlock_timeout = '10s'").await;
    let last = format!(
        "SELECT 1 FROM {table} WHERE session_key = (SELECT max(session_key) FROM {table}) \
         FOR UPDATE"
    );
    execute(
        &mut other,
        &last.replace("max(session_key)", "session_key").replace(
            &format!("FROM {table})"),
            &format!("FROM {table} ORDER BY session_key DESC LIMIT 1)"),
        ),
    )
    .await;
    let revoking = {
        let store = store.clone();
        let alice = alice.clone();
        tokio::spawn(async move { store.subjects().unwrap().revoke_all(&alice, None).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    let everything = format!("SELECT 1 FROM {table} FOR UPDATE; COMMIT");
    execute(&mut other, &everything).await;
    assert_eq!(revoking.await.unwrap().unwrap(), 50);
}

#[tokio::test]
async fn a_connection_goes_from_call_to_call_and_others_who_use_the_pool_get_it_too() {
    let given_back = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&given_back);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .after_release(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(true) })
        })
        .connect(&url().await)
        .await
        .unwrap();
    let options = named(&common::random_name()).clock(clock());
    let store = PostgresStore::with_pool(pool.clone(), options).unwrap();
    store.migrate().await.unwrap();
    let token = store.create(token(), &record(b"data")).await.unwrap();
    given_back.store(0, Ordering::Relaxed);
    // They end together: who is alone gives the connection back each time.
    let calls = Arc::new(AtomicUsize::new(0));
    let loads = (0..8).map(|_| {
        let (store, token, calls) = (store.clone(), token.clone(), Arc::clone(&calls));
        async move {
            while calls.fetch_add(1, Ordering::Relaxed) < 800 {
                assert!(store.load(&token).await.unwrap().is_some());
            }
        }
    });
    let loads: Vec<_> = loads.collect();
    let loading = tokio::spawn(all(loads));
    for _ in 0..3 {
        drop(pool.acquire().await.unwrap());
    }
    loading.await.unwrap();
    // Each time that others had it, the calls of all tasks may have asked the pool.
    let given_back = given_back.load(Ordering::Relaxed);
    assert!(given_back < 100, "{given_back} times for 800 calls");
    store.drop_table().await.unwrap();
}
