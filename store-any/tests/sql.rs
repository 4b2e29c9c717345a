//! Databases by their URLs, on the servers that the kit finds or starts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use sessionkit::{
    CookieName, Durability, ErrorKind, Label, ManualClock, OsEntropy, Record, Revision,
    SessionStore, Timestamp, Token,
};
use sessionkit_any::{Opener, open};
use sessionkit_conformance::containers::Server;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn token() -> Token {
    Token::random(&OsEntropy, &CookieName::new("id").unwrap()).unwrap()
}

fn random_table() -> String {
    format!("any_{}", &token().key().to_hex()[..16])
}

fn record() -> Record {
    Record {
        data: "data".into(),
        revision: Revision::random(&OsEntropy).unwrap(),
        created_at: START,
        expires_at: Timestamp::MAX,
        subject: None,
        label: Label::default(),
    }
}

/// Used through two handles, expired by the injected clock, kept apart by tables.
async fn works(url: &str) {
    let mark = if url.contains('?') { '&' } else { '?' };
    let clock = Arc::new(ManualClock::new(START));
    let (table, other) = (random_table(), random_table());
    let opener = Opener::new().clock(clock.clone());
    let url = |options: &str| format!("{url}{mark}{options}");
    let store = opener.open(&url(&format!("table={table}"))).await.unwrap();
    let same = opener
        .open(&url(&format!(
            "namespace={table}&migrate=false&max_connections=1"
        )))
        .await
        .unwrap();
    let other_store = opener
        .clone()
        .namespace(&*other)
        .open(&url(""))
        .await
        .unwrap();
    let stored = record();
    let token = store.create(token(), &stored).await.unwrap();
    assert_eq!(same.load(&token).await.unwrap(), Some(stored));
    assert_eq!(other_store.load(&token).await.unwrap(), None);
    store
        .touch(&token, START + std::time::Duration::from_secs(1))
        .await
        .unwrap();
    clock.set(START + std::time::Duration::from_secs(1));
    assert_eq!(same.load(&token).await.unwrap(), None);
    assert_eq!(same.sweep(10).await.unwrap(), 1);

    let destroyer = Opener::new();
    for url in [
        url(&format!("table={table}")),
        url(&format!("namespace={other}")),
    ] {
        destroyer.destroy(&url).await.unwrap();
        destroyer.destroy(&url).await.unwrap();
        let error = open(&format!("{url}&migrate=false")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    let missing = url(&format!("table={}&migrate=false", random_table()));
    for refused in [
        &*missing,
        &url("tabel=x"),
        &url("table=x%20y"),
        &url("table=a&namespace=b"),
        &url("max_connections=0"),
        &url("max_connections=many"),
        &url("deadline_ms=-1"),
        &url("deadline_ms=1"),
        &url("migrate=perhaps"),
    ] {
        let error = opener.open(refused).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{refused}");
    }
}

#[tokio::test]
async fn sqlite_urls_open_files_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/s.db", dir.path().display());
    works(&url).await;
    let durability = |store: Arc<dyn SessionStore>| store.capabilities().durability;
    assert_eq!(durability(open(&url).await.unwrap()), Durability::System);
    let synced = open(&format!("{url}?sync_to_disk=true")).await.unwrap();
    assert_eq!(durability(synced), Durability::Disk);
    open(&format!("{url}?mode=rwc")).await.unwrap();
    open(&format!("{url}?mode=rw&table=other")).await.unwrap();
    let missing = format!("sqlite:{}/missing.db?mode=rw", dir.path().display());
    let error = open(&missing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    open(&missing.replace("=rw", "=rwc")).await.unwrap();
    let memory = open("sqlite::memory:").await.unwrap();
    assert_eq!(durability(memory), Durability::Process);
    for refused in [
        "sqlite:",
        "sqlite://",
        "sqlite:x?mode=ro",
        "sqlite:x?mode=all",
    ] {
        let error = open(refused).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{refused}");
    }
}

#[tokio::test]
async fn postgres_urls_open_postgres() {
    let url = Server::Postgres.shared().await.unwrap();
    works(&url).await;
    works(&url.replacen("postgres:", "postgresql:", 1)).await;
    open(&format!(
        "{url}?application_name=any&transaction_pooling=true"
    ))
    .await
    .unwrap();
}

/// As Neon, Supabase, Prisma and others write them.
#[tokio::test]
async fn postgres_urls_of_providers_open_postgres() {
    let url = Server::Postgres.shared().await.unwrap();
    for options in [
        "connect_timeout=10&channel_binding=prefer",
        "sslmode=prefer&gssencmode=disable&target_session_attrs=read-write",
        "options=-c%20statement_timeout%3D5s",
        "pgbouncer=true&connection_limit=1",
        "search_path=pg_temp,public",
    ] {
        let table = random_table();
        let store = open(&format!("{url}?table={table}&{options}")).await;
        store.unwrap_or_else(|error| panic!("{options}: {error:?}"));
        Opener::new()
            .destroy(&format!("{url}?table={table}"))
            .await
            .unwrap();
    }
    // The host is what the query says.
    let (account, rest) = url.rsplit_once('@').unwrap();
    let (address, database) = rest.split_once('/').unwrap();
    let (host, port) = address.rsplit_once(':').unwrap();
    let by_query = format!("{account}@/{database}?host={host}&port={port}&migrate=false");
    let missing = open(&format!("{by_query}&table={}", random_table())).await;
    assert!(missing.unwrap_err().to_string().contains("does not exist"));
    let socket = open(&format!("{account}@/{database}?host=/no/such/directory")).await;
    assert_eq!(socket.unwrap_err().kind(), ErrorKind::Unavailable);
    // The schema is the table's.
    for schema in ["schema", "currentSchema", "search_path"] {
        let named = format!("{url}?{schema}=nowhere&table=t&migrate=false");
        let error = open(&named).await.unwrap_err().to_string();
        assert!(error.contains("nowhere.t"), "{error}");
    }
    // The server has no certificate.
    for refused in [
        "channel_binding=require",
        "channel_binding=perhaps",
        "connect_timeout=long",
        "connection_limit=0",
        "target_session_attrs=standby",
        "sslmod=require",
    ] {
        let error = open(&format!("{url}?{refused}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{refused}");
    }
}

#[tokio::test]
async fn mysql_urls_of_providers_open_mysql() {
    let url = Server::Mariadb.shared().await.unwrap();
    for options in [
        "charset=utf8mb4&connect_timeout=10",
        "connection_limit=2&ssl-mode=PREFERRED",
    ] {
        let table = random_table();
        let store = open(&format!("{url}?table={table}&{options}")).await;
        store.unwrap_or_else(|error| panic!("{options}: {error:?}"));
        Opener::new()
            .destroy(&format!("{url}?table={table}"))
            .await
            .unwrap();
    }
    for refused in [
        // A certificate that nobody has signed.
        "ssl_cert_reqs=required",
        "sslaccept=strict",
        "ssl_cert_reqs=perhaps",
        "ssl-mod=REQUIRED",
    ] {
        let error = open(&format!("{url}?{refused}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{refused}");
    }
}

#[tokio::test]
async fn mysql_urls_open_mysql() {
    works(&Server::Mysql.shared().await.unwrap()).await;
}

#[tokio::test]
async fn mariadb_urls_open_mariadb() {
    let url = Server::Mariadb.shared().await.unwrap();
    works(&url.replacen("mysql:", "mariadb:", 1)).await;
}

#[tokio::test]
async fn no_error_shows_a_password() {
    for url in [
        "postgres://u:geheim@127.0.0.1:1/d?deadline_ms=200",
        "postgres://u:geheim@127.0.0.1:x/d",
        "postgres://u:geheim@127.0.0.1/d?geheim=1",
        "mysql://u:geheim@127.0.0.1:1/d?deadline_ms=200",
        "mariadb://u:geheim@127.0.0.1:1/d?ssl-mode=geheim",
        "sqlite:/geheim/geheim.db",
    ] {
        let error = open(url).await.unwrap_err();
        assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
    }
}
