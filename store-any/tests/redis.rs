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
    let options = format!(
        "namespace={prefix}&max_connections=2&deadline_ms=4000&connect_timeout=3\
         &client_name=any&ssl_cert_reqs=required"
    );
    let same = open(&with(&options)).await.unwrap();
    let other = Opener::new().namespace(random_prefix());
    let other = other.open(url).await.unwrap();
    assert_eq!(store.capabilities().time_source, TimeSource::Server);
    assert_eq!(store.capabilities().durability, Durability::Process);

    let (first, second) = (record(), record());
    let token = store.create(token(), &first).await.unwrap();
    assert_eq!(same.load(&token).await.unwrap(), Some(first.clone()));
    assert_eq!(other.load(&token).await.unwrap(), None);
    let updated = same.update(&token, first.revision, &second).await;
    updated.unwrap();
    assert_eq!(store.load(&token).await.unwrap(), Some(second));
    store.ping().await.unwrap();
    let kept = other.create(self::token(), &first).await.unwrap();
    let destroyer = Opener::new().namespace(prefix);
    destroyer.destroy(url).await.unwrap();
    assert_eq!(store.load(&token).await.unwrap(), None);
    assert_eq!(other.load(&kept).await.unwrap(), Some(first));
    other.delete(&kept, None).await.unwrap();

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
        "cert=/nowhere/cert.pem",
        "cert=/nowhere/cert.pem&key=/nowhere/key.pem",
        "ssl_cert_reqs=none",
        "connect_timeout=0",
        "connect_timeout=soon",
        "client_name=",
        "client_name=a%20b",
        "replicas=some",
        "sentinel_username=u",
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
async fn sentinels_may_have_a_login_of_their_own() {
    let set = RedisSentinel::start().await.unwrap();
    let with = |options: &str| format!("{}?{options}", set.url());
    set.require_login("geheim").await.unwrap();
    let error = open(&with("deadline_ms=500")).await.unwrap_err();
    assert!(!format!("{error:?}").contains("geheim"));
    let error = open(&with("deadline_ms=500&sentinel_password=falsch")).await;
    assert!(!format!("{:?}", error.unwrap_err()).contains("falsch"));
    let store = open(&with("sentinel_password=geheim")).await.unwrap();
    store.ping().await.unwrap();
    for login in [
        "sentinel_username=default",
        "sentinel_username=default&sentinel_password=",
    ] {
        let url = Server::Redis.shared().await.unwrap();
        let error = open(&format!("{url}?{login}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
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
