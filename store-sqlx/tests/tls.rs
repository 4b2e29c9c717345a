//! Encrypted connections, against servers with a certificate of an authority of our own.
#![cfg(all(feature = "postgres", feature = "mysql", feature = "tls"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/records.rs"]
mod records;

use std::sync::Arc;

use records::{kind, record, subject, token};
use sessionkit::{ErrorKind, Record, Result, SessionStore, Timestamp};
use sessionkit_conformance::containers::{Server, Setup};
use sessionkit_sqlx::{
    MysqlStore, PostgresStore, StoreOptions, TableName,
    sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, PgPool, Row, raw_sql},
};

const CA: &str = include_str!("tls/ca.pem");
const CERTIFICATE: &str = include_str!("tls/server.pem");
const KEY: &str = include_str!("tls/server.key");

/// Postgres refuses a key that others can read, as a file in a container is.
const POSTGRES: &str = r#"
install -m 600 /tls/server.key "$PGDATA/tls.key"
printf "ssl = on\nssl_cert_file = '/tls/server.pem'\nssl_key_file = 'tls.key'\n" >>"$PGDATA/postgresql.conf"
"#;

fn with_certificate(server: Server) -> Setup {
    let setup = server
        .setup()
        .file("/tls/server.pem", CERTIFICATE)
        .file("/tls/server.key", KEY);
    match server {
        Server::Postgres => setup.file("/docker-entrypoint-initdb.d/tls.sh", POSTGRES),
        _ => setup.args(["--ssl-cert=/tls/server.pem", "--ssl-key=/tls/server.key"]),
    }
}

fn without_tls(server: Server) -> Setup {
    match server {
        Server::Mysql => server.setup().arg("--tls-version="),
        Server::Mariadb => server.setup().arg("--skip-ssl"),
        _ => server.setup(),
    }
}

/// The certificate is for this name of the host.
async fn encrypted(server: Server, name: &str) -> String {
    let url = with_certificate(server).shared(name).await.unwrap();
    url.replace("127.0.0.1", "localhost")
}

fn random_name() -> String {
    format!("t{}", &token().key().to_hex()[..20])
}

async fn open(url: &str, options: StoreOptions) -> Result<Arc<dyn SessionStore>> {
    let table = TableName::new(&random_name())?;
    let options = options.table(table);
    if url.starts_with("postgres") {
        let store = PostgresStore::connect(url, options).await?;
        store.migrate().await?;
        return Ok(Arc::new(store));
    }
    let store = MysqlStore::connect(url, options).await?;
    store.migrate().await?;
    Ok(Arc::new(store))
}

fn required() -> StoreOptions {
    StoreOptions::new().require_tls().root_certificates(CA)
}

async fn works(store: Arc<dyn SessionStore>) {
    let stored = Record {
        expires_at: Timestamp::MAX,
        subject: subject("alice"),
        ..record(b"secret")
    };
    let token = store.create(token(), &stored).await.unwrap();
    assert_eq!(store.load(&token).await.unwrap(), Some(stored));
}

async fn a_server_of_a_known_authority_is_trusted(server: Server, name: &str) {
    works(
        open(&encrypted(server, name).await, required())
            .await
            .unwrap(),
    )
    .await;
}

async fn a_server_of_an_unknown_authority_is_refused(server: Server, name: &str) {
    let url = encrypted(server, name).await;
    let opened = open(&url, StoreOptions::new().require_tls()).await;
    assert_eq!(kind(opened), Some(ErrorKind::InvalidConfig));
}

async fn a_server_of_another_name_is_refused(server: Server, name: &str) {
    let url = encrypted(server, name).await;
    let opened = open(&url.replace("localhost", "127.0.0.1"), required()).await;
    assert_eq!(kind(opened), Some(ErrorKind::InvalidConfig));
}

async fn a_server_without_tls_is_refused(server: Server, name: &str) {
    let name = format!("{name}-none");
    let url = without_tls(server).shared(&name).await.unwrap();
    works(open(&url, StoreOptions::new()).await.unwrap()).await;
    let error = open(&url, required()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    // Not even if the URL says that it may.
    for relaxed in ["sslmode=prefer", "sslmode=disable", "sslmode=disabled"] {
        let opened = open(&format!("{url}?{relaxed}"), required()).await;
        assert_eq!(kind(opened), Some(ErrorKind::InvalidConfig), "{relaxed}");
    }
}

macro_rules! tests {
    ($server:expr, $name:literal: $($case:ident)*) => {
        use super::*;

        $(
            #[tokio::test]
            async fn $case() {
                super::$case($server, $name).await;
            }
        )*
    };
    ($server:expr, $name:literal) => {
        tests!($server, $name:
            a_server_of_a_known_authority_is_trusted
            a_server_of_an_unknown_authority_is_refused
            a_server_of_another_name_is_refused
            a_server_without_tls_is_refused
        );
    };
}

mod postgres {
    tests!(Server::Postgres, "postgres-tls");

    #[tokio::test]
    async fn the_server_sees_every_connection_encrypted() {
        let url = encrypted(Server::Postgres, "postgres-tls").await;
        let name = random_name();
        // What the URL says does not count.
        let named = format!("{url}?sslmode=disable&application_name={name}");
        let store = open(&named, required()).await.unwrap();
        works(Arc::clone(&store)).await;
        let mut admin = PgConnection::connect(&url).await.unwrap();
        let sql = format!(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = '{name}'"
        );
        let rows = raw_sql(AssertSqlSafe(sql)).fetch_all(&mut admin).await;
        let encrypted: Vec<bool> = rows.unwrap().iter().map(|row| row.get(0)).collect();
        assert!(!encrypted.is_empty() && encrypted.iter().all(|encrypted| *encrypted));
    }
}

/// With an account that the server does not let in otherwise.
async fn the_server_sees_every_connection_encrypted(server: Server, name: &str) {
    let url = encrypted(server, name).await;
    let mut admin = MySqlConnection::connect(&url).await.unwrap();
    let user = &random_name()[..20];
    for sql in [
        format!("CREATE USER {user} IDENTIFIED BY 'p' REQUIRE SSL"),
        format!("GRANT ALL ON *.* TO {user}"),
    ] {
        raw_sql(AssertSqlSafe(sql))
            .execute(&mut admin)
            .await
            .unwrap();
    }
    let (_, host) = url.rsplit_once('@').unwrap();
    // What the URL says does not count.
    let url = format!("mysql://{user}:p@{host}?ssl-mode=disabled");
    let plain = open(&url, StoreOptions::new()).await;
    assert_eq!(kind(plain), Some(ErrorKind::InvalidConfig));
    works(open(&url, required()).await.unwrap()).await;
}

mod mysql {
    tests!(Server::Mysql, "mysql-tls");

    #[tokio::test]
    async fn the_server_sees_every_connection_encrypted() {
        super::the_server_sees_every_connection_encrypted(Server::Mysql, "mysql-tls").await;
    }
}

mod mariadb {
    tests!(Server::Mariadb, "mariadb-tls");

    #[tokio::test]
    async fn the_server_sees_every_connection_encrypted() {
        super::the_server_sees_every_connection_encrypted(Server::Mariadb, "mariadb-tls").await;
    }
}

#[tokio::test]
async fn a_pool_decides_about_its_connections_itself() {
    let url = Server::Postgres.shared().await.unwrap();
    let pool = PgPool::connect_lazy(&url).unwrap();
    let opened = PostgresStore::with_pool(pool, required());
    assert_eq!(kind(opened), Some(ErrorKind::InvalidConfig));
}
