//! Redis and Valkey: one server, a Cluster, or behind Sentinels.

use std::{sync::Arc, time::Duration};

use sessionkit::{Durability, Error, ErrorKind, Result, SessionStore};
use sessionkit_redis::{RedisOptions, RedisStore};

use crate::{
    Opener,
    url::{Address, Options, invalid},
};

/// The options of every layout.
const COMMON: [&str; 12] = [
    "prefix",
    "namespace",
    "max_connections",
    "deadline_ms",
    "connect_timeout",
    "client_name",
    "durability",
    "replicas",
    "ca",
    "cert",
    "key",
    "ssl_cert_reqs",
];

/// Those of the schemes for Sentinels.
const OF_SENTINELS: [&str; 2] = ["sentinel_username", "sentinel_password"];

pub(crate) async fn open(address: Address, opener: &Opener) -> Result<Arc<dyn SessionStore>> {
    Ok(Arc::new(opened(address, opener).await?))
}

pub(crate) async fn destroy(address: Address, opener: &Opener) -> Result<()> {
    opened(address, opener).await?.clear().await
}

async fn opened(address: Address, opener: &Opener) -> Result<RedisStore> {
    let mut url = address.base().to_owned();
    let own: &[&str] = match address.scheme() {
        "redis+unix" => &["db"],
        "redis-sentinel" | "rediss-sentinel" => &OF_SENTINELS,
        _ => &[],
    };
    let options = address.options(&[&COMMON[..], own].concat())?;
    if let Some(database) = options.get("db") {
        url = format!("{url}?db={database}");
    }
    configured(RedisOptions::from_url(&url)?, &options, opener)?
        .open()
        .await
}

fn configured(store: RedisOptions, options: &Options, opener: &Opener) -> Result<RedisOptions> {
    let mut store = store;
    match (options.get("prefix"), opener.namespace_in(options)?) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "a store has one name for its keys: `prefix` or a namespace",
            ));
        }
        (Some(name), None) | (None, Some(name)) => store = store.prefix(name),
        (None, None) => {}
    }
    if let Some(connections) = options.parse("max_connections")? {
        store = store.connections(connections);
    }
    if let Some(millis) = options.parse("deadline_ms")? {
        store = store.deadline(Duration::from_millis(millis));
    }
    if let Some(seconds) = options.parse("connect_timeout")? {
        store = store.connect_timeout(Duration::from_secs(seconds));
    }
    if let Some(name) = options.get("client_name") {
        store = store.client_name(name);
    }
    if let Some(durability) = options.get("durability") {
        store = store.durability(declared(durability)?);
    }
    if let Some(replicas) = options.parse("replicas")? {
        store = store.replicas(replicas);
    }
    store = match (
        options.get("sentinel_username"),
        options.get("sentinel_password"),
    ) {
        (user, Some(password)) => store.sentinel_login(user, password),
        (Some(_), None) => return Err(invalid("`sentinel_username` comes with a password")),
        (None, None) => store,
    };
    with_certificates(store, options)
}

fn with_certificates(mut store: RedisOptions, options: &Options) -> Result<RedisOptions> {
    // What other clients call it, as the URLs of providers have it.
    let required = ["required", "CERT_REQUIRED"];
    if options
        .get("ssl_cert_reqs")
        .is_some_and(|text| !required.contains(&text))
    {
        return Err(invalid(
            "the certificate of a Redis server is always verified: `ssl_cert_reqs` is `required`, \
             and `ca` names the roots to trust",
        ));
    }
    if let Some(path) = options.get("ca") {
        let message = "the root certificates that `ca` names cannot be read";
        store = store.root_certificates(contents(path, message)?);
    }
    match (options.get("cert"), options.get("key")) {
        (Some(cert), Some(key)) => {
            let chain = contents(cert, "the certificates that `cert` names cannot be read")?;
            let key = contents(key, "the private key that `key` names cannot be read")?;
            Ok(store.client_certificate(chain, key))
        }
        (None, None) => Ok(store),
        _ => Err(invalid(
            "a client's certificate (`cert`) and its private `key` come together",
        )),
    }
}

/// What the server is configured to survive, in the words of its own options.
fn declared(durability: &str) -> Result<Durability> {
    match durability {
        "none" => Ok(Durability::Process),
        "everysec" => Ok(Durability::System),
        "always" => Ok(Durability::Disk),
        _ => Err(invalid(
            "the durability of a Redis server is `none`, `everysec` or `always`",
        )),
    }
}

fn contents(path: &str, message: &'static str) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| Error::new(ErrorKind::InvalidConfig, message).with_source(error))
}
