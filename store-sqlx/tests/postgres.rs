//! Postgres, on the server that the kit finds or starts.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Opened, all, clock, drop_after, kind, record, subject, token};
use sessionkit::{ErrorKind, Record, SessionStore, Sweeper, Timestamp};
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
    format!("{url}{mark}{setting}")
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

    use sessionkit_sqlx::sqlx::PgPool;

    use tempfile::TempDir;

    use super::*;

    struct PgBouncer {
        child: Child,
        url: String,
        _dir: TempDir,
    }

    impl PgBouncer {
        async fn start() -> Self {
            Self::start_with("").await
        }

        /// `ignored` is a line of the settings.
        async fn start_with(ignored: &str) -> Self {
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
                 auth_type = any\npool_mode = transaction\nunix_socket_dir =\n{}{ignored}\n",
                without_prepared_statements()
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

    /// An older one knows neither prepared statements nor the setting.
    fn without_prepared_statements() -> &'static str {
        let version = Command::new("pgbouncer").arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let minor = version.ok().and_then(|version| {
            let (_, minor) = version.split_once("PgBouncer 1.")?;
            minor.split('.').next()?.parse::<u32>().ok()
        });
        match minor {
            Some(..21) => "",
            _ => "max_prepared_statements = 0\n",
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

    /// The names that the driver gives to prepared statements are the same on each connection.
    async fn nobody_runs_the_statements_of_others(ignored: &str, stores: Stores) {
        let pooler = PgBouncer::start_with(ignored).await;
        let table = common::random_name();
        // What they do at a time takes a busy machine a while.
        let options = named(&table)
            .max_connections(1)
            .deadline(Duration::from_secs(30));
        let direct = connect(options.clone()).await;
        let creates = (0..200).map(|_| {
            let direct = direct.clone();
            async move { direct.create(token(), &lasting(b"x")).await.unwrap() }
        });
        let tokens = Arc::new(all(creates).await);
        let clients = (0..30_usize).map(|client| {
            let (url, options) = (pooler.url.clone(), options.clone());
            let tokens = Arc::clone(&tokens);
            async move {
                let store = match stores {
                    Stores::ByUrl => PostgresStore::connect(&url, options).await.unwrap(),
                    Stores::OverPools => {
                        let pool = PgPool::connect_lazy(&url).unwrap();
                        PostgresStore::with_pool(pool, options).unwrap()
                    }
                };
                for call in 0..100 {
                    if client % 2 == 0 {
                        let known = &tokens[(client + call) % tokens.len()];
                        let loaded = store.load(known).await;
                        assert!(loaded.is_ok_and(|loaded| loaded.is_some()));
                    } else {
                        store.delete(&token(), None).await.unwrap();
                    }
                }
            }
        });
        let clients: Vec<_> = clients.map(tokio::spawn).collect();
        let mut failed = 0;
        for client in clients {
            failed += usize::from(client.await.is_err());
        }
        let left = number(&mut raw().await, &format!("SELECT count(*) FROM {table}")).await;
        assert_eq!((left, failed), (200, 0), "sessions left, clients failed");
        direct.drop_table().await.unwrap();
    }

    /// The name of the host leads to a pooler from now on.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_pooler_that_comes_later_is_noticed() {
        let pooler = PgBouncer::start().await;
        let upstream = url().await;
        let (account, rest) = upstream.rsplit_once('@').unwrap();
        let (address, database) = rest.split_once('/').unwrap();
        let (_, pooled) = pooler.url.rsplit_once('@').unwrap();
        let (pooled, _) = pooled.split_once('/').unwrap();
        let firewall = swallowing::Firewall::start(address.to_owned()).await;
        let through = format!("{account}@127.0.0.1:{}/{database}", firewall.port);
        let table = common::random_name();
        let options = named(&table)
            .max_connections(1)
            .deadline(Duration::from_secs(3));
        let stores = [(); 4].map(|()| PostgresStore::connect(&through, options.clone()));
        let stores = futures_util::future::try_join_all(stores).await.unwrap();
        stores[0].migrate().await.unwrap();
        let token = stores[0].create(token(), &lasting(b"x")).await.unwrap();
        firewall.lead_to(pooled.to_owned());
        for store in &stores {
            // The connection that there was has ended.
            let _ = store.load(&token).await;
        }
        for call in 0..100 {
            let store = &stores[call % 4];
            assert!(store.load(&token).await.unwrap().is_some());
            stores[(call + 1) % 4]
                .delete(&self::token(), None)
                .await
                .unwrap();
        }
        stores[0].drop_table().await.unwrap();
    }

    /// An option of the URL that this pooler does not know.
    #[tokio::test]
    async fn a_pooler_that_refuses_an_option_is_said_to() {
        let pooler = PgBouncer::start().await;
        let url = format!("{}?options[geqo]=off", pooler.url);
        let opened = PostgresStore::connect(&url, StoreOptions::new()).await;
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(
            error.to_string().contains("`transaction_pooling`"),
            "{error}"
        );
    }

    #[derive(Clone, Copy)]
    enum Stores {
        ByUrl,
        OverPools,
    }

    /// Who has told PgBouncer to let all pass that it does not know.
    const ALL_IGNORED: &str = "ignore_startup_parameters = extra_float_digits, options";

    #[tokio::test(flavor = "multi_thread")]
    async fn without_the_switch_nobody_runs_the_statements_of_others() {
        nobody_runs_the_statements_of_others("", Stores::ByUrl).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_the_switch_nobody_runs_the_statements_of_others_where_options_are_ignored() {
        nobody_runs_the_statements_of_others(ALL_IGNORED, Stores::ByUrl).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_the_switch_nobody_runs_the_statements_of_others_over_pools() {
        nobody_runs_the_statements_of_others(ALL_IGNORED, Stores::OverPools).await;
    }
}

/// Takes connections and forwards them, until it swallows all that is sent on those that there are:
/// as a firewall does that has forgotten them. New ones are welcome.
mod swallowing {
    use tokio::{
        io::copy_bidirectional,
        net::{TcpListener, TcpStream},
        sync::watch,
    };

    pub(crate) struct Firewall {
        pub(crate) port: u16,
        /// Where new connections lead to.
        upstream: watch::Sender<String>,
    }

    impl Firewall {
        pub(crate) async fn start(upstream: String) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (upstream, changes) = watch::channel(upstream);
            tokio::spawn(async move {
                loop {
                    let (mut client, _) = listener.accept().await.unwrap();
                    let mut changes = changes.clone();
                    let upstream = changes.borrow_and_update().clone();
                    tokio::spawn(async move {
                        let mut server = TcpStream::connect(upstream).await.unwrap();
                        tokio::select! {
                            _ = copy_bidirectional(&mut client, &mut server) => {}
                            _ = changes.changed() => {
                                // Neither end hears of it.
                                std::future::pending::<()>().await;
                            }
                        }
                    });
                }
            });
            Self { port, upstream }
        }

        pub(crate) fn forget(&self) {
            self.upstream.send_modify(|_| {});
        }

        pub(crate) fn lead_to(&self, upstream: String) {
            self.upstream.send_replace(upstream);
        }
    }
}

/// Connections over which nothing comes any more, while they are used and while they are not.
#[tokio::test]
async fn connections_that_were_forgotten_on_the_way_are_replaced() {
    let upstream = url().await;
    let (account, rest) = upstream.rsplit_once('@').unwrap();
    let (address, database) = rest.split_once('/').unwrap();
    let firewall = swallowing::Firewall::start(address.to_owned()).await;
    let through = format!("{account}@127.0.0.1:{}/{database}", firewall.port);
    let options = named(&common::random_name())
        .max_connections(4)
        .deadline(Duration::from_secs(2));
    let store = PostgresStore::connect(&through, options).await.unwrap();
    store.migrate().await.unwrap();
    let token = store.create(token(), &lasting(b"x")).await.unwrap();
    for _ in 0..3 {
        let loads = (0..4).map(|_| {
            let (store, token) = (store.clone(), token.clone());
            async move { store.load(&token).await }
        });
        for loaded in all(loads).await {
            assert!(loaded.unwrap().is_some());
        }
        firewall.forget();
        // Each of the four connections may cost one call its answer.
        let mut answers = 0;
        for _ in 0..8 {
            answers += u32::from(store.load(&token).await.is_ok());
        }
        assert!(answers >= 4, "{answers} of 8 calls answered");
    }
    store.drop_table().await.unwrap();
}

/// What a call was waiting for when it was given up holds no connection of the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_takes_no_more_connections_than_the_store_may_have() {
    let table = common::random_name();
    let url = url_with(&format!("application_name={table}")).await;
    let options = named(&table)
        .max_connections(4)
        .deadline(Duration::from_millis(600));
    let store = PostgresStore::connect(&url, options).await.unwrap();
    store.migrate().await.unwrap();
    let mut other = raw().await;
    execute(&mut other, &format!("BEGIN; LOCK TABLE {table}")).await;
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{table}'");
    for _ in 0..4 {
        let loads = (0..8).map(|_| {
            let store = store.clone();
            async move { kind(store.load(&token()).await) }
        });
        for kind in all(loads).await {
            assert_eq!(kind, Some(ErrorKind::Unavailable));
        }
        assert!(number(&mut raw().await, &count).await <= 4);
    }
    execute(&mut other, "ROLLBACK").await;
    store.load(&token()).await.unwrap();
    store.drop_table().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_allows_fewer_connections_is_used_with_those() {
    let table = common::random_name();
    connect(named(&table)).await;
    let sql = format!(
        "CREATE ROLE {table} LOGIN PASSWORD 'p' CONNECTION LIMIT 3; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {table}"
    );
    execute(&mut raw().await, &sql).await;
    let url = url().await;
    let (_, host) = url.rsplit_once('@').unwrap();
    let limited = format!("postgres://{table}:p@{host}");
    let store = PostgresStore::connect(&limited, named(&table))
        .await
        .unwrap();
    for _ in 0..3 {
        let visits = (0..24).map(|_| {
            let store = store.clone();
            async move { store.create(token(), &lasting(b"x")).await }
        });
        for visit in all(visits).await {
            visit.unwrap();
        }
    }
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
    store.delete(&token, None).await.unwrap();

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
        let url = url_with(&format!("options[timezone]={zone}")).await;
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
    let primary = connect(named(&table)).await;
    primary.ping().await.unwrap();
    let token = primary.create(token(), &lasting(b"x")).await.unwrap();
    let url = url_with("options[default_transaction_read_only]=on").await;
    let store = PostgresStore::connect(&url, named(&table)).await.unwrap();
    assert_eq!(kind(store.ping().await), Some(ErrorKind::Unavailable));
    assert!(store.load(&token).await.unwrap().is_some());
    let create = store.create(common::token(), &lasting(b"x")).await;
    assert_eq!(kind(create), Some(ErrorKind::Unavailable));
    let touch = store.touch(&token, Timestamp::MAX).await;
    assert_eq!(kind(touch), Some(ErrorKind::Unavailable));
    assert_eq!(
        kind(store.delete(&token, None).await),
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
    // Time for a machine that is ten times slower, and then some.
    assert!(start.elapsed() < Duration::from_secs(30));

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
    let url = url_with(&format!("application_name={table}")).await;
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
async fn a_lock_held_too_long_is_unavailable_and_nothing_is_done() {
    let table = common::random_name();
    let options = named(&table)
        .max_connections(1)
        .deadline(Duration::from_millis(1500));
    let store = connect(options).await;
    let before = lasting(b"before");
    let token = store.create(token(), &before).await.unwrap();
    let mut other = raw().await;
    execute(
        &mut other,
        &format!("BEGIN; UPDATE {table} SET label = 'x'"),
    )
    .await;
    let update = store
        .update(&token, before.revision, &lasting(b"after"))
        .await;
    assert_eq!(kind(update), Some(ErrorKind::Unavailable));
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
    assert_eq!(
        &store.load(&token).await.unwrap().unwrap().data[..],
        b"before"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cancelled_calls_leave_nothing_behind() {
    let table = common::random_name();
    let url = url_with(&format!("application_name={table}")).await;
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
        .map(|store| {
            let store = Arc::new(store.clone());
            Sweeper::spawn(store, Duration::from_millis(10)).unwrap()
        })
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

/// What is left is for the next call.
#[tokio::test]
async fn a_sweep_ends_by_its_deadline() {
    const ROWS: i64 = 200_000;
    let table = common::random_name();
    let store = connect(named(&table).deadline(Duration::from_secs(1))).await;
    let mut raw = raw().await;
    let fill = format!(
        "INSERT INTO {table} SELECT sha256(n::text::bytea), 1, 1, 1, 1, NULL, ''::bytea, \
         ''::bytea FROM generate_series(1, {ROWS}) AS n"
    );
    execute(&mut raw, &fill).await;
    let removed = store.sweep(1_000_000).await.unwrap().cast_signed();
    let left = number(&mut raw, &format!("SELECT count(*) FROM {table}")).await;
    assert!(0 < removed && removed < ROWS, "{removed} removed at once");
    assert_eq!(left, ROWS - removed);
    store.drop_table().await.unwrap();
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

/// The application has the only connection of its pool.
#[tokio::test]
async fn a_store_over_a_pool_opens_connections_of_its_own() {
    let table = common::random_name();
    let url = url_with(&format!("application_name={table}")).await;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect(&url)
        .await
        .unwrap();
    let _only = pool.acquire().await.unwrap();
    let store = PostgresStore::with_pool(pool.clone(), named(&table)).unwrap();
    store.migrate().await.unwrap();
    let token = store.create(token(), &lasting(b"data")).await.unwrap();
    let loads = (0..8).map(|_| {
        let (store, token) = (store.clone(), token.clone());
        async move { store.load(&token).await.unwrap() }
    });
    assert!(all(loads).await.iter().all(Option::is_some));
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{table}'");
    assert_eq!(number(&mut raw().await, &sql).await, 2);
    store.drop_table().await.unwrap();
}
