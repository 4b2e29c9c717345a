//! What the servers see: how many statements there are for each call, and how they carry them out.
#![cfg(all(feature = "postgres", feature = "mysql"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/records.rs"]
mod records;

use std::collections::BTreeSet;

use http::{
    HeaderMap,
    header::{COOKIE, SET_COOKIE},
};
use records::{kind, record, subject, token};
use sessionkit::{
    Clock, ErrorKind, Key, Keyring, Record, Session, SessionManager, SessionStore, StoreKey,
    SystemClock, Timestamp, Token,
};
use sessionkit_conformance::containers::{Container, Server};
use sessionkit_sqlx::{
    MysqlStore, PostgresStore, StoreOptions,
    sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, Row, raw_sql},
};

const CALLS: i64 = 20;

/// The table has the name that it has unless told otherwise.
fn options() -> StoreOptions {
    StoreOptions::new().max_connections(1)
}

fn lasting() -> Record {
    Record {
        expires_at: Timestamp::MAX,
        subject: subject("alice"),
        ..record(b"x")
    }
}

/// Makes `CALLS` calls of each kind, with what `count` says after each kind.
async fn one_statement_each(store: &dyn SessionStore, mut count: impl AsyncFnMut() -> i64) {
    let tokens: Vec<Token> = (0..CALLS).map(|_| token()).collect();
    let stored = lasting();
    let index = store.subjects().unwrap();
    // The connection is there, and whatever is said on it first is said.
    store.load(&tokens[0]).await.unwrap();
    let mut before = count().await;
    let mut made = async |what: &str| {
        let now = count().await;
        assert_eq!(
            now - before,
            CALLS,
            "statements for {CALLS} calls of {what}"
        );
        before = now;
    };
    for token in &tokens {
        store.create(token.clone(), &stored).await.unwrap();
    }
    made("create").await;
    for token in &tokens {
        store.load(token).await.unwrap();
    }
    made("load").await;
    for _ in &tokens {
        store.load(&token()).await.unwrap();
    }
    made("load of what is not there").await;
    for token in &tokens {
        store.update(token, stored.revision, &stored).await.unwrap();
    }
    made("update").await;
    for token in &tokens {
        store.touch(token, Timestamp::MAX).await.unwrap();
    }
    made("touch").await;
    for _ in &tokens {
        index
            .list(&stored.subject.clone().unwrap(), None, 10)
            .await
            .unwrap();
    }
    made("list").await;
    for expected in [None, Some(stored.revision)] {
        for token in &tokens {
            assert!(store.delete(token, expected).await.unwrap());
        }
        made("delete").await;
        for token in &tokens {
            store.create(token.clone(), &stored).await.unwrap();
        }
        made("create").await;
    }
    for token in &tokens {
        let alice = stored.subject.clone().unwrap();
        assert!(index.revoke(&alice, &token.key()).await.unwrap());
    }
    made("revoke").await;
}

/// One request whose handler uses the session, with the cookie that the browser then has.
async fn request(
    manager: &SessionManager,
    cookie: &mut HeaderMap,
    handler: impl FnOnce(&Session) -> sessionkit::Result<()>,
) {
    let sessions = manager.begin(cookie);
    handler(&sessions.session().await.unwrap()).unwrap();
    let mut head = HeaderMap::new();
    sessions.finish(&mut head).await.unwrap();
    if let Some(set) = head.get(SET_COOKIE) {
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        cookie.insert(COOKIE, pair.parse().unwrap());
    }
}

/// Makes one request of each kind, with what `count` says after each.
async fn few_statements_each(store: impl SessionStore, mut count: impl AsyncFnMut() -> i64) {
    // The connection is there, and whatever is said on it first is said.
    store.load(&token()).await.unwrap();
    let keyring = Keyring::new([Key::generate().unwrap()]).unwrap();
    let manager = SessionManager::new(store, keyring).unwrap();
    let mut before = count().await;
    let mut made = async |what: &str, expected: i64| {
        let now = count().await;
        assert_eq!(now - before, expected, "statements for a request: {what}");
        before = now;
    };
    let mut cookie = HeaderMap::new();
    request(&manager, &mut cookie, |session| {
        session.get::<u8>("a").map(drop)
    })
    .await;
    made("no cookie", 0).await;
    let alice = subject("alice").unwrap();
    request(&manager, &mut cookie, |session| session.sign_in(alice)).await;
    made("begin", 1).await;
    request(&manager, &mut cookie, |session| {
        session.get::<u8>("a").map(drop)
    })
    .await;
    made("read", 1).await;
    request(&manager, &mut cookie, |session| session.insert("a", &1)).await;
    made("change", 2).await;
    request(&manager, &mut cookie, |session| {
        session.renew();
        Ok(())
    })
    .await;
    made("renewal", 2).await;
    request(&manager, &mut cookie, |session| {
        session.destroy();
        Ok(())
    })
    .await;
    made("sign-out", 2).await;
}

fn store_now() -> Timestamp {
    SystemClock.now()
}

/// Every statement that there is, at least once.
async fn everything(store: &dyn SessionStore) {
    let (stored, index) = (lasting(), store.subjects().unwrap());
    let alice = stored.subject.clone().unwrap();
    let first = store.create(token(), &stored).await.unwrap();
    let expired = Record {
        expires_at: Timestamp::from_millis(1),
        ..stored.clone()
    };
    let second = store.create(token(), &expired).await.unwrap();
    assert_eq!(store.load(&second).await.unwrap(), None);
    let to = store.create(token(), &expired).await.unwrap();
    store.touch(&first, Timestamp::MAX).await.unwrap();
    store
        .update(&first, stored.revision, &stored)
        .await
        .unwrap();
    let touched = store.touch(&second, Timestamp::MAX).await;
    assert_eq!(kind(touched), Some(ErrorKind::Missing));
    let soon = Record {
        expires_at: store_now() + std::time::Duration::from_secs(30),
        ..stored.clone()
    };
    let third = store.create(token(), &soon).await.unwrap();
    store.touch(&third, Timestamp::MAX).await.unwrap();
    let missing = store.update(&second, stored.revision, &stored).await;
    assert_eq!(kind(missing), Some(ErrorKind::Missing));
    assert!(!store.delete(&second, Some(stored.revision)).await.unwrap());
    assert!(!store.delete(&second, None).await.unwrap());
    store.ping().await.unwrap();
    index.list(&alice, None, 10).await.unwrap();
    assert!(
        !index
            .revoke(&alice, &StoreKey::from_bytes([7; 32]))
            .await
            .unwrap()
    );
    index.revoke_all(&alice, Some(&to.key())).await.unwrap();
    store.sweep(1000).await.unwrap();
    store.delete(&to, None).await.unwrap();
}

/// How many rows the plans are made for.
fn rows() -> u64 {
    std::env::var("SESSIONKIT_TEST_ROWS").map_or(20_000, |rows| rows.parse().unwrap())
}

mod postgres {
    use super::*;

    async fn server() -> Container {
        let preload = ["-c", "shared_preload_libraries=pg_stat_statements"];
        Server::Postgres
            .setup()
            .args(preload)
            .start()
            .await
            .unwrap()
    }

    async fn execute(admin: &mut PgConnection, sql: &str) {
        raw_sql(AssertSqlSafe(sql)).execute(admin).await.unwrap();
    }

    /// A store with an account of its own, whose statements the server counts.
    async fn open(server: &Container, admin: &mut PgConnection) -> PostgresStore {
        for sql in [
            "CREATE EXTENSION pg_stat_statements",
            "CREATE ROLE app LOGIN PASSWORD 'p'",
            "GRANT CREATE ON SCHEMA public TO app",
        ] {
            execute(admin, sql).await;
        }
        let (_, host) = server.url().rsplit_once('@').unwrap();
        let url = format!("postgres://app:p@{host}");
        let store = PostgresStore::connect(&url, options()).await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    const BY_APP: &str = "FROM pg_stat_statements JOIN pg_roles ON pg_roles.oid = userid \
                          WHERE rolname = 'app'";

    #[tokio::test]
    async fn a_call_is_one_statement() {
        let server = server().await;
        let mut admin = PgConnection::connect(server.url()).await.unwrap();
        let store = open(&server, &mut admin).await;
        let sql = format!("SELECT sum(calls)::bigint {BY_APP}");
        let mut count = async || {
            let row = raw_sql(AssertSqlSafe(&*sql)).fetch_one(&mut admin).await;
            row.unwrap().get(0)
        };
        one_statement_each(&store, &mut count).await;
        few_statements_each(store, count).await;
    }

    #[tokio::test]
    async fn every_statement_uses_an_index() {
        let server = server().await;
        let mut admin = PgConnection::connect(server.url()).await.unwrap();
        let store = open(&server, &mut admin).await;
        let fill = format!(
            "INSERT INTO sessions SELECT sha256(n::text::bytea), n, 1, 2000000000000 + n, \
             2000000000000 + n, convert_to('subject ' || n / 10, 'UTF8'), ''::bytea, \
             convert_to(repeat('x', 300), 'UTF8') FROM generate_series(1, {}) AS n",
            rows()
        );
        execute(&mut admin, &fill).await;
        execute(&mut admin, "VACUUM ANALYZE sessions").await;
        execute(&mut admin, "SELECT pg_stat_statements_reset()").await;
        everything(&store).await;
        let sql = format!("SELECT query {BY_APP} AND query LIKE '%\"sessions\"%'");
        let sent = raw_sql(AssertSqlSafe(sql))
            .fetch_all(&mut admin)
            .await
            .unwrap();
        assert!(sent.len() > 10, "{} statements", sent.len());
        let mut scans = Vec::new();
        for query in sent.iter().map(|row| row.get::<String, _>(0)) {
            let explain = format!(
                "EXPLAIN (GENERIC_PLAN, COSTS OFF) {}",
                with_constant(&query)
            );
            let lines = raw_sql(AssertSqlSafe(explain))
                .fetch_all(&mut admin)
                .await
                .unwrap();
            let lines: Vec<String> = lines.iter().map(|row| row.get(0)).collect();
            let plan = lines.join("\n    ");
            println!("{query}\n    {plan}\n");
            if plan.contains("Seq Scan on sessions") || plan.contains("Seq Scan on sessions s") {
                scans.push(query);
            }
        }
        assert!(scans.is_empty(), "{scans:#?}");
    }
}

/// The server shows a parameter in the place of the sweep's only constant.
fn with_constant(query: &str) -> String {
    match query.split_once("MATERIALIZED (SELECT $") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
            format!("{before}MATERIALIZED (SELECT true{after}")
        }
        None => query.to_owned(),
    }
}

mod mysql_and_mariadb {
    use super::*;

    async fn text(admin: &mut MySqlConnection, sql: &str, column: usize) -> Vec<String> {
        let rows = raw_sql(AssertSqlSafe(sql)).fetch_all(admin).await.unwrap();
        let bytes = |row| Row::get::<Vec<u8>, _>(row, column);
        rows.iter()
            .map(|row| String::from_utf8_lossy(&bytes(row)).into_owned())
            .collect()
    }

    async fn execute(admin: &mut MySqlConnection, sql: &str) {
        raw_sql(AssertSqlSafe(sql)).execute(admin).await.unwrap();
    }

    async fn a_call_is_one_statement(server: Server) {
        // Nobody else is there.
        let server = server.setup().start().await.unwrap();
        let mut admin = MySqlConnection::connect(server.url()).await.unwrap();
        let store = MysqlStore::connect(server.url(), options()).await.unwrap();
        store.migrate().await.unwrap();
        let mut own = 0;
        let mut count = async || {
            own += 1;
            let row = raw_sql("SHOW GLOBAL STATUS LIKE 'Questions'")
                .fetch_one(&mut admin)
                .await;
            let questions: String = row.unwrap().get(1);
            questions.parse::<i64>().unwrap() - own
        };
        one_statement_each(&store, &mut count).await;
        few_statements_each(store, count).await;
    }

    async fn every_statement_uses_an_index(server: Server) {
        let quick = ["--innodb-buffer-pool-size=1G", "--innodb-doublewrite=0"];
        let container = server.setup().args(quick).start().await.unwrap();
        let mut admin = MySqlConnection::connect(container.url()).await.unwrap();
        let store = MysqlStore::connect(container.url(), options())
            .await
            .unwrap();
        store.migrate().await.unwrap();
        fill(&mut admin, rows()).await;
        execute(&mut admin, "ANALYZE TABLE sessions").await;
        execute(&mut admin, "SET GLOBAL log_output = 'TABLE'").await;
        execute(&mut admin, "SET GLOBAL general_log = ON").await;
        everything(&store).await;
        execute(&mut admin, "SET GLOBAL general_log = OFF").await;
        let sent = "SELECT CAST(argument AS BINARY) FROM mysql.general_log \
                    WHERE command_type = 'Prepare' AND argument LIKE '%`sessions`%'";
        let sent: BTreeSet<_> = text(&mut admin, sent, 0).await.into_iter().collect();
        assert!(sent.len() > 10, "{} statements", sent.len());
        let mut scans = Vec::new();
        for query in sent {
            // MySQL's default is another format since its version 9.
            let format = if server == Server::Mysql {
                "FORMAT=TRADITIONAL"
            } else {
                ""
            };
            let explain = format!("EXPLAIN {format} {}", with_values(&query));
            let rows = raw_sql(AssertSqlSafe(explain))
                .fetch_all(&mut admin)
                .await
                .unwrap();
            for row in &rows {
                let column = |name| row.get_unchecked::<Option<String>, _>(name);
                let (kind, key) = (column("type"), column("key"));
                println!(
                    "{query:.150}\n    type {kind:?}, key {key:?}, {:?}",
                    column("Extra")
                );
                let scan = matches!(kind.as_deref(), Some("ALL" | "index"));
                // An insert has a line for the table that it inserts into.
                if scan && !query.starts_with("INSERT") {
                    scans.push(query.clone());
                }
            }
        }
        assert!(scans.is_empty(), "{scans:#?}");
    }

    async fn fill(admin: &mut MySqlConnection, rows: u64) {
        execute(admin, "CREATE TABLE digits (d INT)").await;
        execute(
            admin,
            "INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
        )
        .await;
        let fill = format!(
            "INSERT INTO sessions SELECT UNHEX(SHA2(n, 256)), n, 1, 2000000000000 + n, \
             2000000000000 + n, CONCAT('subject ', n DIV 10), '', REPEAT('x', 300) FROM \
             (SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d + 100000 * g.d AS n \
             FROM digits a, digits b, digits c, digits e, digits f, digits g) AS numbers \
             WHERE n < {rows} ORDER BY 1"
        );
        execute(admin, &fill).await;
    }

    /// Values in the place of the parameters, of the type that each of them has.
    fn with_values(query: &str) -> String {
        let mut parts = query.split('?');
        let first = parts.next().unwrap_or_default().to_owned();
        let key = format!("x'{}'", "07".repeat(32));
        parts.fold(first, |sql, part| {
            let before = sql.trim_end();
            let value = if before.ends_with("LIMIT") {
                "256"
            } else if [
                "session_key =",
                "session_key >",
                "session_key <>",
                "session_key IN (",
            ]
            .iter()
            .any(|place| before.ends_with(place))
                || before.ends_with("',")
            {
                &key
            } else if before.ends_with("subject =") || before.ends_with("label =") {
                "'subject 7'"
            } else {
                "1900000000000"
            };
            format!("{sql}{value}{part}")
        })
    }

    macro_rules! tests {
        ($server:expr) => {
            #[tokio::test]
            async fn a_call_is_one_statement() {
                super::a_call_is_one_statement($server).await;
            }

            #[tokio::test]
            async fn every_statement_uses_an_index() {
                super::every_statement_uses_an_index($server).await;
            }
        };
    }

    mod mysql {
        use super::*;
        tests!(Server::Mysql);
    }

    mod mariadb {
        use super::*;
        tests!(Server::Mariadb);
    }
}
