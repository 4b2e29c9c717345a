//! The conformance suite against every database.
#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{Clock, ErrorKind, ManualClock, Result, SessionStore, SystemClock};
use sessionkit_conformance::{
    Fault, Harness, RawEntry,
    containers::{Server, Setup},
    proxy::Proxy,
};
use sessionkit_sqlx::{
    MysqlStore, PostgresStore, SqliteStore, StoreOptions,
    sqlx::{AssertSqlSafe, Connection, Row, raw_sql},
};
use support::{State, admin, hex};
use tokio::sync::Mutex;

/// Shorter than the default, so that hanging servers do not keep the tests.
const DEADLINE: Duration = Duration::from_secs(3);

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(SystemClock.now()))
}

/// The URL with another host and port.
fn through(url: &str, proxy: &Proxy) -> String {
    let (before, rest) = url.rsplit_once('@').expect("a URL with a password");
    let (_, after) = rest.split_once('/').expect("a URL with a database");
    format!("{before}@{}/{after}", proxy.address())
}

async fn proxy_to(url: &str) -> Proxy {
    let (_, rest) = url.rsplit_once('@').expect("a URL with a password");
    let (host, _) = rest.split_once('/').expect("a URL with a database");
    Proxy::start(host).await.unwrap()
}

/// New York with its summer time, for libraries without a list of zones.
const NEW_YORK: &str = "EST5EDT,M3.2.0,M11.1.0";
const TOKYO: &str = "JST-9";

/// The server that the environment names, or one that keeps the time of another place.
async fn server_in(server: Server, zone: &str, set: impl FnOnce(Setup) -> Setup) -> Result<String> {
    let variable = format!("SESSIONKIT_TEST_{server:?}_URL").to_uppercase();
    if std::env::var(variable).is_ok() {
        return server.shared().await;
    }
    let name = format!("{server:?}-{}", &zone[..3]).to_lowercase();
    set(server.setup().env("TZ", zone)).shared(&name).await
}

mod sqlite {
    use std::str::FromStr;

    use sessionkit_sqlx::sqlx::{
        SqliteConnection, SqlitePool,
        sqlite::{SqliteConnectOptions, SqliteJournalMode},
    };
    use tempfile::TempDir;

    use super::*;

    admin!(SqliteConnection, |bytes| format!("x'{}'", hex(bytes)));

    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        File,
        Memory,
        Pool,
    }

    struct SqliteHarness {
        kind: Kind,
        dir: TempDir,
        clock: Arc<ManualClock>,
        state: State,
        /// In memory two handles are one store.
        memory: Mutex<Vec<(String, Arc<SqliteStore>)>>,
        lock: Mutex<Option<SqliteConnection>>,
    }

    impl SqliteHarness {
        fn new(kind: Kind) -> Self {
            Self {
                kind,
                dir: TempDir::new().unwrap(),
                clock: clock(),
                state: State::default(),
                memory: Mutex::default(),
                lock: Mutex::default(),
            }
        }

        fn url(&self) -> String {
            format!("sqlite:{}/sessions.db", self.dir.path().display())
        }

        async fn admin(&self) -> Result<SqliteConnection> {
            if self.kind == Kind::Memory {
                return Err(ErrorKind::Unsupported.into());
            }
            let connection = SqliteConnection::connect(&self.url()).await;
            connection.map_err(support::driver)
        }

        fn pool(&self) -> SqlitePool {
            let options = SqliteConnectOptions::from_str(&self.url())
                .unwrap()
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .busy_timeout(DEADLINE / 4);
            SqlitePool::connect_lazy_with(options)
        }
    }

    #[async_trait]
    impl Harness for SqliteHarness {
        async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
            let options = StoreOptions::new()
                .table(self.state.table(namespace)?)
                .clock(self.clock.clone())
                .deadline(DEADLINE);
            let mut memory = self.memory.lock().await;
            if let Some((_, store)) = memory.iter().find(|(name, _)| name == namespace) {
                return Ok(store.clone());
            }
            let store = Arc::new(match self.kind {
                Kind::Memory => SqliteStore::connect("sqlite::memory:", options).await?,
                Kind::File => SqliteStore::connect(&self.url(), options).await?,
                Kind::Pool => SqliteStore::with_pool(self.pool(), options)?,
            });
            if !self.state.has_vanished() {
                store.migrate().await?;
            }
            if self.kind == Kind::Memory {
                memory.push((namespace.to_owned(), store.clone()));
            }
            Ok(store)
        }

        async fn destroy(&self, namespace: &str) -> Result<()> {
            self.memory
                .lock()
                .await
                .retain(|(name, _)| name != namespace);
            if self.kind == Kind::Memory {
                return Ok(());
            }
            let Ok(table) = self.state.table(namespace) else {
                // What is no name was not opened.
                return Ok(());
            };
            admin_destroy(&mut self.admin().await?, table.table()).await
        }

        fn clock(&self) -> Option<Arc<ManualClock>> {
            Some(self.clock.clone())
        }

        fn deadline(&self) -> Duration {
            DEADLINE
        }

        async fn raw_dump(&self, namespace: &str) -> Result<Vec<RawEntry>> {
            let table = self.state.table(namespace)?;
            admin_dump(&mut self.admin().await?, table.table()).await
        }

        async fn raw_write(&self, namespace: &str, entry: &RawEntry) -> Result<()> {
            let table = self.state.table(namespace)?;
            admin_write(&mut self.admin().await?, table.table(), entry).await
        }

        async fn foreign(&self, namespace: &str) -> Result<Vec<RawEntry>> {
            let table = self.state.table(namespace)?;
            admin_foreign(&mut self.admin().await?, table.table()).await
        }

        async fn fault(&self, fault: Fault) -> Result<()> {
            match fault {
                Fault::None => {
                    *self.lock.lock().await = None;
                    if self.state.vanished.swap(false, Ordering::SeqCst) {
                        for table in self.state.tables() {
                            let sql = format!("ALTER TABLE gone_{table} RENAME TO {table}");
                            admin_execute(&mut self.admin().await?, &sql).await?;
                        }
                    }
                }
                Fault::Busy if self.kind != Kind::Memory => {
                    let mut other = self.admin().await?;
                    admin_execute(&mut other, "BEGIN IMMEDIATE").await?;
                    *self.lock.lock().await = Some(other);
                }
                Fault::Vanished if self.kind != Kind::Memory => {
                    for table in self.state.tables() {
                        let sql = format!("ALTER TABLE {table} RENAME TO gone_{table}");
                        // It may not have been there.
                        let _ = admin_execute(&mut self.admin().await?, &sql).await;
                    }
                    self.state.vanished.store(true, Ordering::SeqCst);
                }
                _ => return Err(ErrorKind::Unsupported.into()),
            }
            Ok(())
        }
    }

    mod in_a_file {
        use super::*;
        sessionkit_conformance::suite!(SqliteHarness::new(Kind::File));
    }

    mod in_memory {
        use super::*;
        sessionkit_conformance::suite!(SqliteHarness::new(Kind::Memory));
    }

    mod with_the_options_of_a_pool {
        use super::*;
        sessionkit_conformance::suite!(SqliteHarness::new(Kind::Pool));
    }

    /// The cases of a file once more, in a process that keeps the time of another place.
    fn in_a_process_in(zone: &str) {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .arg("sqlite::in_a_file::")
            .env("TZ", zone)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let cases = said.matches(" ... ok").count();
        assert!(output.status.success() && cases > 80, "{said}");
    }

    #[test]
    fn in_new_york() {
        in_a_process_in(NEW_YORK);
    }

    #[test]
    fn in_tokyo() {
        in_a_process_in(TOKYO);
    }
}

mod postgres {
    use sessionkit_sqlx::sqlx::PgConnection;

    use super::*;

    admin!(PgConnection, |bytes| format!("'\\x{}'::bytea", hex(bytes)));

    struct PostgresHarness {
        url: String,
        /// An account of its own, whose settings can be changed.
        role: String,
        proxy: Proxy,
        clock: Arc<ManualClock>,
        state: State,
        lock: Mutex<Option<PgConnection>>,
    }

    impl PostgresHarness {
        async fn new(url: Result<String>) -> Self {
            let url = url.unwrap();
            let random = sessionkit::Revision::random(&sessionkit::OsEntropy).unwrap();
            let harness = Self {
                proxy: proxy_to(&url).await,
                role: format!("kit_{:016x}", random.to_bits()),
                url,
                clock: clock(),
                state: State::default(),
                lock: Mutex::default(),
            };
            let sql = format!(
                "CREATE ROLE {} LOGIN SUPERUSER PASSWORD 'kit'",
                harness.role
            );
            let mut admin = harness.admin().await.unwrap();
            admin_execute(&mut admin, &sql).await.unwrap();
            harness
        }

        async fn admin(&self) -> Result<PgConnection> {
            PgConnection::connect(&self.url)
                .await
                .map_err(support::driver)
        }

        async fn on_each_table(&self, sql: impl Fn(&str) -> String) -> Result<()> {
            let mut admin = self.admin().await?;
            for table in self.state.tables() {
                admin_execute(&mut admin, &sql(&table)).await?;
            }
            Ok(())
        }

        /// A setting of the account, in force with the next connection.
        async fn set(&self, setting: &str) -> Result<()> {
            let sql = format!("ALTER ROLE {} {setting}", self.role);
            admin_execute(&mut self.admin().await?, &sql).await?;
            self.proxy.fault(Fault::CloseConnections).await?;
            tokio::time::sleep(Duration::from_millis(1100)).await;
            Ok(())
        }
    }

    #[async_trait]
    impl Harness for PostgresHarness {
        async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
            let options = StoreOptions::new()
                .table(self.state.table(namespace)?)
                .clock(self.clock.clone())
                .max_connections(4)
                .deadline(DEADLINE);
            let url = through(&self.url, &self.proxy);
            let (_, rest) = url.rsplit_once('@').expect("a URL with a password");
            let zone = match self.state.is_far_away() {
                true => "America/New_York",
                false => "Asia/Tokyo",
            };
            let url = format!(
                "postgres://{}:kit@{rest}?options[timezone]={zone}",
                self.role
            );
            let store = PostgresStore::connect(&url, options).await?;
            if !self.state.has_vanished() {
                store.migrate().await?;
            }
            Ok(Arc::new(store))
        }

        async fn destroy(&self, namespace: &str) -> Result<()> {
            let Ok(table) = self.state.table(namespace) else {
                // What is no name was not opened.
                return Ok(());
            };
            let mut admin = self.admin().await?;
            admin_destroy(&mut admin, table.table()).await?;
            // Fails while it owns the table of another namespace.
            let _ = admin_execute(&mut admin, &format!("DROP ROLE {}", self.role)).await;
            Ok(())
        }

        fn clock(&self) -> Option<Arc<ManualClock>> {
            Some(self.clock.clone())
        }

        fn deadline(&self) -> Duration {
            DEADLINE
        }

        async fn raw_dump(&self, namespace: &str) -> Result<Vec<RawEntry>> {
            let table = self.state.table(namespace)?;
            admin_dump(&mut self.admin().await?, table.table()).await
        }

        async fn raw_write(&self, namespace: &str, entry: &RawEntry) -> Result<()> {
            let table = self.state.table(namespace)?;
            admin_write(&mut self.admin().await?, table.table(), entry).await
        }

        async fn foreign(&self, namespace: &str) -> Result<Vec<RawEntry>> {
            let table = self.state.table(namespace)?;
            admin_foreign(&mut self.admin().await?, table.table()).await
        }

        async fn fault(&self, fault: Fault) -> Result<()> {
            match fault {
                Fault::None => {
                    *self.lock.lock().await = None;
                    self.state.far_away.store(false, Ordering::SeqCst);
                    self.proxy.fault(fault).await?;
                    if self.state.vanished.swap(false, Ordering::SeqCst) {
                        self.on_each_table(|t| format!("ALTER TABLE gone_{t} RENAME TO {t}"))
                            .await?;
                    }
                    // A primary has no connections from the time before it was one.
                    if self.state.read_only.swap(false, Ordering::SeqCst) {
                        self.set("RESET ALL").await?;
                    }
                }
                Fault::ReadOnly => {
                    self.state.read_only.store(true, Ordering::SeqCst);
                    self.set("SET default_transaction_read_only = on").await?;
                }
                Fault::TimeZone => self.state.far_away.store(true, Ordering::SeqCst),
                Fault::Busy => {
                    let mut other = self.admin().await?;
                    for table in self.state.tables() {
                        let sql = format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE");
                        admin_execute(&mut other, &sql).await?;
                    }
                    *self.lock.lock().await = Some(other);
                }
                Fault::Vanished => {
                    self.on_each_table(|t| format!("ALTER TABLE IF EXISTS {t} RENAME TO gone_{t}"))
                        .await?;
                    self.state.vanished.store(true, Ordering::SeqCst);
                }
                fault => self.proxy.fault(fault).await?,
            }
            Ok(())
        }
    }

    /// A server in New York, whose sessions are in Tokyo until they move to New York.
    async fn server() -> Result<String> {
        let zone = ["-c", "timezone=America/New_York"];
        server_in(Server::Postgres, NEW_YORK, |setup| setup.args(zone)).await
    }

    sessionkit_conformance::suite!(PostgresHarness::new(server().await).await);
}

mod mysql_and_mariadb {
    use sessionkit_sqlx::sqlx::MySqlConnection;

    use super::*;

    admin!(MySqlConnection, |bytes| format!("x'{}'", hex(bytes)));

    struct MysqlHarness {
        url: String,
        session_zone: &'static str,
        server_zone: &'static str,
        proxy: Proxy,
        clock: Arc<ManualClock>,
        state: State,
        lock: Mutex<Option<MySqlConnection>>,
    }

    impl MysqlHarness {
        async fn new(url: Result<String>, [server_zone, session_zone]: [&'static str; 2]) -> Self {
            let url = url.unwrap().replacen("mariadb:", "mysql:", 1);
            Self {
                proxy: proxy_to(&url).await,
                url,
                session_zone,
                server_zone,
                clock: clock(),
                state: State::default(),
                lock: Mutex::default(),
            }
        }

        async fn admin(&self) -> Result<MySqlConnection> {
            MySqlConnection::connect(&self.url)
                .await
                .map_err(support::driver)
        }
    }

    #[async_trait]
    impl Harness for MysqlHarness {
        async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
            let options = StoreOptions::new()
                .table(self.state.table(namespace)?)
                .clock(self.clock.clone())
                .max_connections(4)
                .deadline(DEADLINE);
            let zone = match self.state.is_far_away() {
                true => self.server_zone,
                false => self.session_zone,
            };
            let url = format!("{}?timezone={zone}", through(&self.url, &self.proxy));
            let store = MysqlStore::connect(&url, options).await?;
            if !self.state.has_vanished() {
                store.migrate().await?;
            }
            Ok(Arc::new(store))
        }

        async fn destroy(&self, namespace: &str) -> Result<()> {
            let Ok(table) = self.state.table(namespace) else {
                // What is no name was not opened.
                return Ok(());
            };
            admin_destroy(&mut self.admin().await?, table.table()).await
        }

        fn clock(&self) -> Option<Arc<ManualClock>> {
            Some(self.clock.clone())
        }

        fn deadline(&self) -> Duration {
            DEADLINE
        }

        async fn raw_dump(&self, namespace: &str) -> Result<Vec<RawEntry>> {
            let table = self.state.table(namespace)?;
            admin_dump(&mut self.admin().await?, table.table()).await
        }

        async fn raw_write(&self, namespace: &str, entry: &RawEntry) -> Result<()> {
            let table = self.state.table(namespace)?;
            admin_write(&mut self.admin().await?, table.table(), entry).await
        }

        async fn foreign(&self, namespace: &str) -> Result<Vec<RawEntry>> {
            let table = self.state.table(namespace)?;
            admin_foreign(&mut self.admin().await?, table.table()).await
        }

        async fn fault(&self, fault: Fault) -> Result<()> {
            match fault {
                Fault::None => {
                    *self.lock.lock().await = None;
                    self.state.far_away.store(false, Ordering::SeqCst);
                    self.proxy.fault(fault).await?;
                    if self.state.vanished.swap(false, Ordering::SeqCst) {
                        let mut admin = self.admin().await?;
                        for t in self.state.tables() {
                            let sql = format!("ALTER TABLE gone_{t} RENAME TO {t}");
                            let _ = admin_execute(&mut admin, &sql).await;
                        }
                    }
                }
                Fault::TimeZone => self.state.far_away.store(true, Ordering::SeqCst),
                Fault::Busy => {
                    let mut other = self.admin().await?;
                    admin_execute(&mut other, "BEGIN").await?;
                    for table in self.state.tables() {
                        let sql = format!("SELECT session_key FROM {table} FOR UPDATE");
                        admin_execute(&mut other, &sql).await?;
                    }
                    *self.lock.lock().await = Some(other);
                }
                Fault::Vanished => {
                    let mut admin = self.admin().await?;
                    for t in self.state.tables() {
                        let sql = format!("ALTER TABLE {t} RENAME TO gone_{t}");
                        // It may not have been there.
                        let _ = admin_execute(&mut admin, &sql).await;
                    }
                    self.state.vanished.store(true, Ordering::SeqCst);
                }
                fault => self.proxy.fault(fault).await?,
            }
            Ok(())
        }
    }

    /// A server in Tokyo with sessions in New York, until they move to Tokyo.
    mod mysql {
        use super::*;

        async fn server() -> Result<String> {
            server_in(Server::Mysql, TOKYO, |setup| setup).await
        }

        sessionkit_conformance::suite!(
            MysqlHarness::new(server().await, ["%2B09:00", "-05:00"]).await
        );
    }

    /// A server in New York with sessions in Tokyo, until they move to New York.
    mod mariadb {
        use super::*;

        async fn server() -> Result<String> {
            server_in(Server::Mariadb, NEW_YORK, |setup| setup).await
        }

        sessionkit_conformance::suite!(
            MysqlHarness::new(server().await, ["-05:00", "%2B09:00"]).await
        );
    }
}
