//! Redis in every layout by its URL, on servers that the kit finds or starts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use sessionkit::{
    Clock, CookieName, Durability, ErrorKind, Label, OsEntropy, Record, Revision, SystemClock,
    TimeSource, Token,
};
use sessionkit_any::{Opener, open};
use sessionkit_conformance::containers::{RedisCluster, RedisSentinel, Server};

fn token() -> Token {
    Token::random(&OsEntropy, &CookieName::new("id").unwrap()).unwrap()
}

fn random_prefix() -> String {
    format!("any-{}", &token().key().to_hex()[..16])
}

fn record() -> Record {
    let now = SystemClock.now();
    Record {
        data: "data".into(),
        revision: Revision::random(&OsEntropy).unwrap(),
        created_at: now,
        expires_at: now + Duration::from_secs(60),
        subject: None,
        label: Label::default(),
    }
}

/// Used through two handles, kept apart by prefixes, each option refused when it cannot be.
async fn works(url: &str) {
    let prefix = random_prefix();
    let with = |options: &str| {
        let mark = if url.contains('?') { '&' } else { '?' };
        format!("{url}{mark}{options}")
    };
    let store = open(&with(&format!("prefix={prefix}"))).await.unwrap();
    let options = format!("namespace={prefix}&max_connections=2&deadline_ms=4000");
    let same = open(&with(&options)).await.unwrap();
    let other = Opener::new().namespace(random_prefix());
    let other = other.open(url).await.unwrap();
    assert_eq!(store.capabilities().time_source, TimeSource::Server);
    assert_eq!(store.capabilities().durability, Durability::Process);

    let (first, second) = (record(), record());
    let token = store.create(token(), &first).await.unwrap();
    assert_eq!(same.load(&token).await.unwrap(), Some(first.clone()));
    assert_eq!(other.load(&token).await.unwrap(), None);
    let moved = self::token();
    let moved = same
        .rotate(&token, moved, first.revision, &second)
        .await
        .unwrap();
    assert_eq!(store.load(&token).await.unwrap(), None);
    assert_eq!(store.load(&moved).await.unwrap(), Some(second));
    let kept = other.create(self::token(), &first).await.unwrap();
    let destroyer = Opener::new().namespace(prefix);
    destroyer.destroy(url).await.unwrap();
    assert_eq!(store.load(&moved).await.unwrap(), None);
    assert_eq!(other.load(&kept).await.unwrap(), Some(first));
    other.delete(&kept).await.unwrap();

    let durable = open(&with("durability=always")).await.unwrap();
    assert_eq!(durable.capabilities().durability, Durability::Disk);
    for refused in [
        "prefixx=x",
        "prefix=a%20b",
        "prefix=a&namespace=b",
        "namespace=",
        "max_connections=0",
        "max_connections=many",
        "deadline_ms=0",
        "durability=maybe",
        "ca=/nowhere/ca.pem",
        "table=x",
    ] {
        let error = open(&with(refused)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{refused}");
    }
}

#[tokio::test]
async fn redis_urls_open_one_server() {
    works(&Server::Redis.shared().await.unwrap()).await;
}

#[tokio::test]
async fn valkey_urls_open_one_server() {
    let url = Server::Valkey.shared().await.unwrap();
    works(&url.replacen("redis:", "valkey:", 1)).await;
}

#[tokio::test]
async fn redis_cluster_urls_open_a_cluster() {
    works(&RedisCluster::shared().await.unwrap()).await;
}

#[tokio::test]
async fn redis_sentinel_urls_open_the_master() {
    works(&RedisSentinel::shared().await.unwrap()).await;
}

#[tokio::test]
async fn a_socket_has_its_database_in_the_query() {
    for url in [
        "redis+unix:///nowhere/redis.sock?db=x",
        "redis+unix:///nowhere/redis.sock?db=-1",
        "redis+unix:relative.sock?db=1",
        "redis://localhost?db=1",
    ] {
        let error = open(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
    }
    let error = open("redis+unix:///nowhere/redis.sock?db=1&deadline_ms=100")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn no_error_shows_a_password() {
    for url in [
        "redis://u:geheim@127.0.0.1:1/0?deadline_ms=200",
        "redis://u:geheim@127.0.0.1:x/0",
        "rediss://u:geheim@127.0.0.1:1/0?ca=/geheim",
        "redis-cluster://u:geheim@127.0.0.1:1?geheim=1",
        "redis-sentinel://u:geheim@127.0.0.1:1/geheim?durability=geheim",
    ] {
        let error = open(url).await.unwrap_err();
        assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
    }
}
