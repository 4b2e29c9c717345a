use std::{cell::LazyCell, net::Ipv4Addr};

use sessionkit::ErrorKind;
use sessionkit_any::Opener;
use sessionkit_redis::RedisOptions;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::{KEYRING, clock, directory, runtime};

/// What stands in the seeds where a password does.
const SECRET: &str = "hunter2";

thread_local! {
    static WORLD: LazyCell<(Runtime, TempDir)> = const { LazyCell::new(|| (runtime(), directory())) };
}

/// The URL of a store: it opens one or is refused, and no error shows a password.
///
/// No server is asked and no file is touched that the input names: where a URL says where the store
/// is, that is replaced, and the rest of it is tried.
pub fn url(input: &[u8]) -> bool {
    let Ok(url) = str::from_utf8(input) else {
        return false;
    };
    if names_the_secret(url) {
        return false;
    }
    let redis = RedisOptions::from_url(url).map(|_| ());
    let is_redis = redis.is_ok();
    check(redis, &[ErrorKind::InvalidConfig]);
    let Some(url) = harmless(url) else {
        return is_redis;
    };
    WORLD.with(|world| {
        let (runtime, directory) = &**world;
        let url = url.replace("{directory}", &directory.path().display().to_string());
        let opener = Opener::new().keyring(KEYRING.clone()).clock(clock());
        let opened = runtime.block_on(opener.open(&url)).map(|_| ());
        let is_open = opened.is_ok();
        check(opened, &[ErrorKind::InvalidConfig, ErrorKind::Unavailable]);
        is_open || is_redis
    })
}

/// Whether the name of a table or a prefix is the word that stands for a password. An error that
/// refuses such a name shows it.
fn names_the_secret(url: &str) -> bool {
    let (_, query) = url.split_once('?').unwrap_or((url, ""));
    let mut options = form_urlencoded::parse(query.as_bytes());
    options.any(|(name, value)| {
        matches!(&*name, "namespace" | "table" | "prefix") && value.contains(SECRET)
    })
}

/// The URL of a store that is nowhere else, or none where only a server could tell.
fn harmless(url: &str) -> Option<String> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let scheme = base.split_once(':').map_or("", |(scheme, _)| scheme);
    let scheme = scheme.to_ascii_lowercase();
    let names = |text: &str| form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == text);
    match scheme.as_str() {
        "fs" => Some(format!("{base}?{query}").replace(base, "fs://{directory}/sessions")),
        "sqlite" => Some(format!("sqlite::memory:?{query}")),
        "postgres" | "postgresql" | "mysql" | "mariadb" => {
            if ["host", "hostaddr", "port", "socket", "deadline_ms"]
                .into_iter()
                .any(names)
            {
                return None;
            }
            let host = Ipv4Addr::LOCALHOST;
            Some(format!(
                "{scheme}://{SECRET}:{SECRET}@{host}:1/{SECRET}?deadline_ms=20&{query}"
            ))
        }
        "redis" | "rediss" | "valkey" | "valkeys" | "redis+unix" | "redis-cluster"
        | "rediss-cluster" | "redis-sentinel" | "rediss-sentinel" => None,
        _ => Some(url.to_owned()),
    }
}

fn check(opened: sessionkit::Result<()>, kinds: &[ErrorKind]) {
    if let Err(error) = opened {
        let shown = format!("{error} {error:?}");
        assert!(kinds.contains(&error.kind()), "{shown}");
        assert!(!shown.contains(SECRET), "{shown}");
    }
}
