//! Redis and Valkey: one server, a Cluster, or behind Sentinels.

use std::{sync::Arc, time::Duration};

use sessionkit::{Durability, Error, ErrorKind, Result, SessionStore};
use sessionkit_redis::{RedisOptions, RedisStore};

use crate::{
    Opener,
    address::{Address, Options, invalid},
};

/// The options of every layout.
const COMMON: [&str; 6] = [
    "prefix",
    "namespace",
    "max_connections",
    "deadline_ms",
    "durability",
    "ca",
];

pub(crate) async fn open(address: Address, opener: &Opener) -> Result<Arc<dyn SessionStore>> {
    Ok(Arc::new(opened(address, opener).await?))
}

pub(crate) async fn destroy(address: Address, opener: &Opener) -> Result<()> {
    opened(address, opener).await?.clear().await
}

async fn opened(address: Address, opener: &Opener) -> Result<RedisStore> {
    let mut url = address.base().to_owned();
    let by_socket = address.scheme() == "redis+unix";
    let own: &[&str] = if by_socket { &["db"] } else { &[] };
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
    if let Some(durability) = options.get("durability") {
        store = store.durability(declared(durability)?);
    }
    if let Some(path) = options.get("ca") {
        store = store.root_certificates(certificates(path)?);
    }
    Ok(store)
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

fn certificates(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Error::new(
            ErrorKind::InvalidConfig,
            "the root certificates that `ca` names cannot be read",
        )
        .with_source(error)
    })
}
