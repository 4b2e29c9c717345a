//! MySQL and MariaDB, on the servers that the kit finds or starts.
#![cfg(feature = "mysql")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Opened, all, clock, drop_after, kind, record, token};
use sessionkit::{ErrorKind, Record, SessionStore, Sweeper, Timestamp};
use sessionkit_conformance::containers::Server;
use sessionkit_sqlx::{
    MysqlStore, StoreOptions, TableName,
    sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row, raw_sql},
};

fn named(table: &str) -> StoreOptions {
    StoreOptions::new().table(TableName::new(table).unwrap())
}

async fn connect(url: &str, options: StoreOptions) -> MysqlStore {
    let store = MysqlStore::connect(url, options).await.unwrap();
    store.migrate().await.unwrap();
    store
}

async fn raw(url: &str) -> MySqlConnection {
    let url = url.replacen("mariadb:", "mysql:", 1);
    MySqlConnection::connect(&url).await.unwrap()
}

async fn execute(connection: &mut MySqlConnection, sql: &str) {
    raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap();
}

async fn number(connection: &mut MySqlConnection, sql: &str) -> i64 {
    let row = raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await;
    row.unwrap().get(0)
}

fn lasting(data: &[u8]) -> Record {
    Record {
        expires_at: Timestamp::MAX,
        ..record(data)
    }
}

async fn open(url: &str, connections: u32) -> Opened {
    let clock = clock();
    let options = named(&common::random_name())
        .clock(clock.clone())
        // What the cases do at a time takes a single connection a while.
        .deadline(Duration::from_secs(30))
        .max_connections(connections);
    Opened {
        a: Arc::new(connect(url, options.clone()).await),
        b: Arc::new(connect(url, options).await),
        clock,
        _keep: None,
    }
}

async fn what_was_found_expired_is_not_prolonged(url: String) {
    let table = common::random_name();
    let clock = common::Asked::new();
    let options = named(&table).clock(clock.clone());
    let stores: [Arc<dyn SessionStore>; 2] = [
        Arc::new(connect(&url, options.clone()).await),
        Arc::new(connect(&url, options).await),
    ];
    let lock = async || {
        let mut raw = raw(&url).await;
        execute(&mut raw, "BEGIN").await;
        let all = format!("SELECT session_key FROM {table} FOR UPDATE");
        execute(&mut raw, &all).await;
        raw
    };
    let unlock = async |mut raw| execute(&mut raw, "ROLLBACK").await;
    common::what_was_found_expired_is_not_prolonged(stores, clock, lock, unlock).await;
}

async fn eight_migrations_at_a_time_succeed(url: String) {
    for _ in 0..5 {
        let options = named(&common::random_name()).max_connections(1);
        let starts = (0..8).map(|_| {
            let (url, options) = (url.clone(), options.clone());
            async move {
                let store = MysqlStore::connect(&url, options).await?;
                store.migrate().await?;
                store.create(token(), &record(b"x")).await
            }
        });
        for started in all(starts).await {
            started.unwrap();
        }
    }
}

async fn a_check_says_what_differs(url: String) {
    let table = common::random_name();
    let store = MysqlStore::connect(&url, named(&table)).await.unwrap();
    let missing = store.check().await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::InvalidConfig);
    assert_eq!(
        missing.to_string(),
        format!("the session table {table}: it does not exist")
    );
    let load = store.load(&token()).await;
    assert_eq!(kind(load), Some(ErrorKind::InvalidConfig));

    let sql = format!(
        "CREATE TABLE {table} (session_key BINARY(32) NOT NULL PRIMARY KEY, revision BIGINT \
         UNSIGNED NOT NULL, created_at BIGINT NOT NULL, expires_at DATETIME NOT NULL, sweep_at \
         BIGINT NOT NULL, subject VARBINARY(255), label VARBINARY(255), data BLOB NOT NULL, \
         INDEX (sweep_at))"
    );
    execute(&mut raw(&url).await, &sql).await;
    let differs = store.migrate().await.unwrap_err().to_string();
    for difference in [
        "the column revision is bigint",
        "the column expires_at is datetime, not bigint",
        "the column label takes null",
        "the column data is blob, not mediumblob",
        "no index begins with subject",
    ] {
        assert!(differs.contains(difference), "{differs}");
    }
    assert_eq!(differs.matches(';').count(), 4, "{differs}");
}

async fn an_older_table_gets_the_version_and_a_newer_one_is_left_alone(url: String) {
    let table = common::random_name();
    let store = connect(&url, named(&table)).await;
    let mut raw = raw(&url).await;
    execute(&mut raw, &format!("ALTER TABLE {table} COMMENT = ''")).await;
    let older = store.check().await.unwrap_err();
    assert_eq!(older.kind(), ErrorKind::InvalidConfig);
    assert!(older.to_string().contains("its version is 0"), "{older}");
    store.migrate().await.unwrap();
    store.check().await.unwrap();

    let newer = format!("ALTER TABLE {table} COMMENT = 'sessionkit schema 2'");
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

async fn the_printed_schema_is_what_is_needed(url: String) {
    let table = common::random_name();
    let mut raw = raw(&url).await;
    let database: String = raw_sql("SELECT DATABASE()")
        .fetch_one(&mut raw)
        .await
        .unwrap()
        .get(0);
    let name = TableName::new(&format!("{database}.{table}")).unwrap();
    execute(&mut raw, &MysqlStore::schema(&name)).await;
    let store = MysqlStore::connect(&url, StoreOptions::new().table(name))
        .await
        .unwrap();
    store.check().await.unwrap();
    let token = store.create(token(), &lasting(b"x")).await.unwrap();
    let same = connect(&url, named(&table)).await;
    assert!(same.load(&token).await.unwrap().is_some());
}

async fn the_time_zone_of_the_session_does_not_matter(url: String) {
    let table = common::random_name();
    connect(&url, named(&table)).await;
    let clock = clock();
    for zone in ["-05:00", "+09:00"] {
        let mark = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{mark}timezone={}", zone.replace('+', "%2B"));
        let store = MysqlStore::connect(&url, named(&table).clock(clock.clone()))
            .await
            .unwrap();
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

async fn connections_killed_while_idle_are_replaced(url: String) {
    let table = common::random_name();
    let user = &table[..20];
    let mut raw = raw(&url).await;
    let sql = format!("CREATE USER {user} IDENTIFIED BY 'p'; GRANT ALL ON *.* TO {user}");
    for sql in sql.split("; ") {
        execute(&mut raw, sql).await;
    }
    let (scheme, rest) = url.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let url = format!("{scheme}://{user}:p@{host}");
    let store = connect(&url, named(&table).max_connections(4)).await;
    for pause in [0, 20, 1100] {
        let calls = (0..8).map(|_| {
            let store = store.clone();
            async move { store.create(token(), &lasting(b"x")).await.unwrap() }
        });
        let tokens = all(calls).await;
        let sql = format!("SELECT id FROM information_schema.processlist WHERE user = '{user}'");
        // MySQL fails to list what another test is executing, with bytes that are no text.
        let rows = loop {
            let rows = raw_sql(AssertSqlSafe(&*sql)).fetch_all(&mut raw).await;
            if let Ok(rows) = rows {
                break rows;
            }
        };
        assert!(!rows.is_empty());
        for row in rows {
            let id = row
                .try_get::<u64, _>(0)
                .unwrap_or_else(|_| row.get::<i64, _>(0).cast_unsigned());
            // It may have ended by itself.
            let _ = raw_sql(AssertSqlSafe(format!("KILL {id}")))
                .execute(&mut raw)
                .await;
        }
        // The server ends a connection a moment after it was told to.
        tokio::time::sleep(Duration::from_millis(pause.max(20))).await;
        for token in &tokens {
            // One that ended unseen a moment ago may be lost with the first statement.
            let touched = store.touch(token, Timestamp::MAX).await;
            assert!(touched.is_ok() || pause < 1000 && kind(touched) == Some(ErrorKind::Ambiguous));
            assert!(store.load(token).await.unwrap().is_some());
        }
    }
}

async fn a_lock_held_too_long_is_unavailable_and_nothing_is_done(url: String) {
    let table = common::random_name();
    let deadline = Duration::from_secs(3);
    let store = connect(&url, named(&table).max_connections(1).deadline(deadline)).await;
    let before = lasting(b"before");
    let token = store.create(token(), &before).await.unwrap();
    let mut other = raw(&url).await;
    execute(&mut other, "BEGIN").await;
    execute(&mut other, &format!("UPDATE {table} SET label = 'x'")).await;
    let start = Instant::now();
    let update = store
        .update(&token, before.revision, &lasting(b"after"))
        .await;
    assert_eq!(kind(update), Some(ErrorKind::Unavailable));
    // Time for a machine that is ten times slower; the server would wait for 50 seconds.
    assert!(start.elapsed() < deadline * 10);
    assert_eq!(store.load(&token).await.unwrap(), Some(before.clone()));
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

async fn a_thousand_cancelled_calls_leave_nothing_behind(url: String) {
    let store = connect(&url, named(&common::random_name()).max_connections(4)).await;
    for i in 0..1000 {
        let stored = lasting(b"x");
        let call = store.create(token(), &stored);
        let _ = tokio::time::timeout(Duration::from_micros(i), call).await;
    }
    for i in 0..50_u8 {
        let token = store.create(token(), &lasting(&[i])).await.unwrap();
        assert_eq!(store.load(&token).await.unwrap().unwrap().data[..], [i]);
    }
}

async fn one_process_at_a_time_sweeps(url: String) {
    let clock = clock();
    let table = common::random_name();
    let options = named(&table).clock(clock.clone()).max_connections(4);
    let stores = [
        connect(&url, options.clone()).await,
        connect(&url, options).await,
    ];
    for _ in 0..150 {
        // As many as there are connections, so that none waits for one.
        let calls = (0..4).map(|_| {
            let store = stores[0].clone();
            async move { store.create(token(), &record(b"x")).await.unwrap() }
        });
        all(calls).await;
    }
    clock.advance(Duration::from_secs(60));
    let sweepers: Vec<_> = stores
        .iter()
        .map(|store| {
            let store = Arc::new(store.clone());
            Sweeper::spawn(store, Duration::from_millis(10)).unwrap()
        })
        .collect();
    let mut raw = raw(&url).await;
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

async fn a_server_that_allows_fewer_connections_is_used_with_those(url: String) {
    let table = common::random_name();
    connect(&url, named(&table)).await;
    let user = &table[..20];
    let mut raw = raw(&url).await;
    for sql in [
        format!("CREATE USER {user} IDENTIFIED BY 'p' WITH MAX_USER_CONNECTIONS 3"),
        format!("GRANT ALL ON *.* TO {user}"),
    ] {
        execute(&mut raw, &sql).await;
    }
    let (scheme, rest) = url.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let limited = format!("{scheme}://{user}:p@{host}");
    let store = MysqlStore::connect(&limited, named(&table)).await.unwrap();
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

/// Somebody signs in again and again.
async fn sessions_of_a_subject_end_while_others_begin(url: String) {
    let store = connect(&url, named(&common::random_name()).max_connections(4)).await;
    let mut stored = lasting(b"x");
    stored.subject = common::subject("alice");
    let alice = stored.subject.clone().unwrap();
    let mut there = Vec::new();
    for _ in 0..20 {
        there.push(store.create(token(), &stored).await.unwrap());
    }
    let logins = (0..3).map(|_| {
        let (store, stored) = (store.clone(), stored.clone());
        tokio::spawn(async move {
            loop {
                store.create(token(), &stored).await.unwrap();
            }
        })
    });
    let logins: Vec<_> = logins.collect();
    let index = store.subjects().unwrap();
    for _ in 0..5 {
        let revoked = tokio::time::timeout(Duration::from_secs(20), index.revoke_all(&alice, None));
        revoked.await.expect("it ends").unwrap();
    }
    for login in logins {
        login.abort();
    }
    for token in &there {
        assert_eq!(store.load(token).await.unwrap(), None);
    }
}

/// What is left is for the next call.
async fn a_sweep_ends_by_its_deadline(url: String) {
    const ROWS: i64 = 1 << 16;
    let table = common::random_name();
    let options = named(&table).deadline(Duration::from_millis(500));
    let store = connect(&url, options).await;
    let mut raw = raw(&url).await;
    let fill = format!(
        "INSERT INTO {table} WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL \
         SELECT n + 1 FROM numbers WHERE n < 256) \
         SELECT UNHEX(SHA2(a.n * 256 + b.n, 256)), 1, 1, 1, 1, NULL, '', '' \
         FROM numbers a, numbers b"
    );
    execute(&mut raw, &fill).await;
    let removed = store.sweep(1_000_000).await.unwrap().cast_signed();
    let left = number(&mut raw, &format!("SELECT count(*) FROM {table}")).await;
    assert!(0 < removed && removed < ROWS, "{removed} removed at once");
    assert_eq!(left, ROWS - removed);
    store.drop_table().await.unwrap();
}

/// The connection has no database, and the table has its name with its database.
async fn a_table_is_swept_over_a_connection_without_a_database(url: String) {
    let (server, database) = url.rsplit_once('/').unwrap();
    let table = common::random_name();
    let clock = clock();
    let named = named(&format!("{database}.{table}")).clock(clock.clone());
    let store = connect(server, named).await;
    for _ in 0..3 {
        store.create(token(), &record(b"x")).await.unwrap();
    }
    clock.advance(Duration::from_secs(60));
    let mut raw = raw(&url).await;
    let count = format!("SELECT count(*) FROM {table}");
    let sweeper = Sweeper::spawn(Arc::new(store.clone()), Duration::from_millis(10)).unwrap();
    let emptied = async {
        while number(&mut raw, &count).await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let emptied = tokio::time::timeout(Duration::from_secs(20), emptied).await;
    emptied.expect("it is swept");
    sweeper.shutdown().await;
}

async fn a_wrong_account_is_invalid_and_its_password_unsaid(url: String) {
    let (scheme, rest) = url.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let url = format!("{scheme}://nobody:geheim@{host}");
    let error = MysqlStore::connect(&url, StoreOptions::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    assert!(!format!("{error:?}").contains("geheim"));
}

macro_rules! tests {
    ($server:expr; $($case:ident)*) => {
        use super::*;

        async fn url() -> String {
            $server.shared().await.unwrap()
        }

        mod with_some_connections {
            use super::*;

            common::cases!(async { open(&url().await, 5).await });
        }

        mod with_one_connection {
            use super::*;

            common::cases!(async { open(&url().await, 1).await });
        }

        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(url().await).await;
            }
        )*
    };
    ($server:expr) => {
        tests!($server;
            what_was_found_expired_is_not_prolonged
            eight_migrations_at_a_time_succeed
            a_check_says_what_differs
            an_older_table_gets_the_version_and_a_newer_one_is_left_alone
            the_printed_schema_is_what_is_needed
            the_time_zone_of_the_session_does_not_matter
            connections_killed_while_idle_are_replaced
            a_lock_held_too_long_is_unavailable_and_nothing_is_done
            a_thousand_cancelled_calls_leave_nothing_behind
            one_process_at_a_time_sweeps
            a_server_that_allows_fewer_connections_is_used_with_those
            sessions_of_a_subject_end_while_others_begin
            a_sweep_ends_by_its_deadline
            a_table_is_swept_over_a_connection_without_a_database
            a_wrong_account_is_invalid_and_its_password_unsaid
        );
    };
}

mod mysql {
    tests!(Server::Mysql);
}

mod mariadb {
    tests!(Server::Mariadb);
}

/// As after a failover, with connections from before.
#[tokio::test]
async fn a_server_that_was_demoted_does_not_answer_a_ping() {
    for server in [Server::Mysql, Server::Mariadb] {
        let server = server.setup().start().await.unwrap();
        let store = connect(server.url(), StoreOptions::new()).await;
        store.ping().await.unwrap();
        let mut raw = raw(server.url()).await;
        execute(&mut raw, "SET GLOBAL read_only = ON").await;
        assert_eq!(kind(store.ping().await), Some(ErrorKind::Unavailable));
        execute(&mut raw, "SET GLOBAL read_only = OFF").await;
        store.ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("mysql://u:geheim@{}/d", silent.local_addr().unwrap());
    let options = StoreOptions::new().deadline(Duration::from_millis(300));
    let error = MysqlStore::connect(&url, options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(silent);
    let error = MysqlStore::connect(&url, StoreOptions::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error:?}").contains("geheim"));
}
