//! Which backend serves which scheme.
//!
//! To add one:
//! 1. A feature of the backend's name in `Cargo.toml`, with the store's crate as optional
//!    dependency.
//! 2. A file of its name, with one function `open(address, opener)` that first asks
//!    [`Address::options`] for the options it knows, takes the namespace from
//!    [`Opener::namespace_in`] and the clock from [`Opener::clock_or_system`], and returns the
//!    store. It passes no error on whose text holds a part of the URL.
//! 3. A line in [`open`], in [`destroy`] and in [`FEATURES`], all below.
//! 4. A row in the README, and tests in `tests/`: opened and used, and each option refused when its
//!    value cannot be.

use std::sync::Arc;

use sessionkit::{Error, Result, SessionStore};

use crate::{
    Opener, memory,
    url::{Address, invalid},
};

/// The schemes of each feature, compiled in or not.
const FEATURES: &[(&[&str], &str)] = &[
    (&["cookie"], "cookie"),
    (&["fs"], "fs"),
    (&["sqlite"], "sqlite"),
    (&["postgres", "postgresql"], "postgres"),
    (&["mysql", "mariadb"], "mysql"),
    (
        &[
            "redis",
            "rediss",
            "valkey",
            "valkeys",
            "redis+unix",
            "redis-cluster",
            "rediss-cluster",
            "redis-sentinel",
            "rediss-sentinel",
        ],
        "redis",
    ),
];

#[cfg_attr(
    not(any(
        feature = "fs",
        feature = "sqlite",
        feature = "postgres",
        feature = "mysql",
        feature = "redis"
    )),
    expect(
        clippy::unused_async,
        reason = "none of these stores waits to be opened"
    )
)]
pub(crate) async fn open(address: Address, opener: &Opener) -> Result<Arc<dyn SessionStore>> {
    match address.scheme() {
        "memory" => memory::open(address, opener),
        #[cfg(feature = "cookie")]
        "cookie" => crate::cookie::open(address, opener),
        #[cfg(feature = "fs")]
        "fs" => crate::fs::open(address, opener).await,
        #[cfg(feature = "sqlite")]
        "sqlite" => crate::sql::open_sqlite(address, opener).await,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => crate::sql::open_postgres(address, opener).await,
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => crate::sql::open_mysql(address, opener).await,
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "valkey" | "valkeys" | "redis+unix" | "redis-cluster"
        | "rediss-cluster" | "redis-sentinel" | "rediss-sentinel" => {
            crate::redis::open(address, opener).await
        }
        scheme => Err(unknown(scheme)),
    }
}

/// Removes what the store of a URL keeps its sessions in.
pub(crate) async fn destroy(address: Address, opener: &Opener) -> Result<()> {
    match address.scheme() {
        // What is in the memory of this process ends with its last handle.
        "memory" => Ok(()),
        #[cfg(feature = "cookie")]
        "cookie" => Err(invalid("the clients keep the sessions of the cookie store")),
        #[cfg(feature = "fs")]
        "fs" => crate::fs::destroy(address, opener),
        #[cfg(feature = "sqlite")]
        "sqlite" => crate::sql::destroy_sqlite(address, opener).await,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => crate::sql::destroy_postgres(address, opener).await,
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => crate::sql::destroy_mysql(address, opener).await,
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "valkey" | "valkeys" | "redis+unix" | "redis-cluster"
        | "rediss-cluster" | "redis-sentinel" | "rediss-sentinel" => {
            crate::redis::destroy(address, opener).await
        }
        scheme => Err(unknown(scheme)),
    }
}

/// A scheme that is not ours is not repeated: in a malformed URL it may be somebody's name.
fn unknown(scheme: &str) -> Error {
    let compiled_out = FEATURES
        .iter()
        .find(|(schemes, _)| schemes.contains(&scheme));
    match compiled_out {
        Some((_, feature)) => invalid(format!(
            "the store for `{scheme}:` is not compiled in: enable the feature `{feature}` of \
             sessionkit-any"
        )),
        None => {
            let known = FEATURES.iter().flat_map(|(schemes, _)| *schemes);
            let known: Vec<_> = ["memory"]
                .iter()
                .chain(known)
                .map(|s| format!("`{s}:`"))
                .collect();
            invalid(format!(
                "no store has the scheme of this URL; there are {}",
                known.join(", ")
            ))
        }
    }
}
