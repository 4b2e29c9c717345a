//! SQLite, Postgres, MySQL and MariaDB.

use std::{sync::Arc, time::Duration};

use sessionkit::{Result, SessionStore};
use sessionkit_sqlx::{StoreOptions, TableName};

use crate::{
    Opener,
    url::{Address, Options, invalid},
};

/// The options that every database has.
const COMMON: [&str; 5] = [
    "table",
    "namespace",
    "max_connections",
    "deadline_ms",
    "migrate",
];

/// Makes or checks the table of a store, as the URL says.
macro_rules! prepared {
    ($connected:expr) => {{
        let (store, options) = $connected;
        if options.parse("migrate")?.unwrap_or(true) {
            store.migrate().await?;
        } else {
            store.check().await?;
        }
        Ok(Arc::new(store))
    }};
}

#[cfg(feature = "sqlite")]
pub(crate) async fn open_sqlite(
    address: Address,
    opener: &Opener,
) -> Result<Arc<dyn SessionStore>> {
    prepared!(sqlite(address, opener).await?)
}

#[cfg(feature = "sqlite")]
pub(crate) async fn destroy_sqlite(address: Address, opener: &Opener) -> Result<()> {
    sqlite(address, opener).await?.0.drop_table().await
}

#[cfg(feature = "sqlite")]
async fn sqlite(
    address: Address,
    opener: &Opener,
) -> Result<(sessionkit_sqlx::SqliteStore, Options)> {
    if matches!(address.rest(), "" | "//") {
        return Err(invalid(
            "a path or `:memory:` has to follow `sqlite:` in the store's URL",
        ));
    }
    let (options, url) = address.split(&with_common(&["sync_to_disk"]));
    let sync_to_disk = options.parse("sync_to_disk")?.unwrap_or(false);
    let store_options = common(&options, opener)?.sync_to_disk(sync_to_disk);
    let store = sessionkit_sqlx::SqliteStore::connect(&url, store_options).await?;
    Ok((store, options))
}

#[cfg(feature = "postgres")]
pub(crate) async fn open_postgres(
    address: Address,
    opener: &Opener,
) -> Result<Arc<dyn SessionStore>> {
    prepared!(postgres(address, opener).await?)
}

#[cfg(feature = "postgres")]
pub(crate) async fn destroy_postgres(address: Address, opener: &Opener) -> Result<()> {
    postgres(address, opener).await?.0.drop_table().await
}

#[cfg(feature = "postgres")]
async fn postgres(
    address: Address,
    opener: &Opener,
) -> Result<(sessionkit_sqlx::PostgresStore, Options)> {
    let (options, url) = address.split(&with_common(&["transaction_pooling"]));
    let pooling = options.parse("transaction_pooling")?.unwrap_or(false);
    let store_options = common(&options, opener)?.transaction_pooling(pooling);
    let store = sessionkit_sqlx::PostgresStore::connect(&url, store_options).await?;
    Ok((store, options))
}

#[cfg(feature = "mysql")]
pub(crate) async fn open_mysql(address: Address, opener: &Opener) -> Result<Arc<dyn SessionStore>> {
    prepared!(mysql(address, opener).await?)
}

#[cfg(feature = "mysql")]
pub(crate) async fn destroy_mysql(address: Address, opener: &Opener) -> Result<()> {
    mysql(address, opener).await?.0.drop_table().await
}

#[cfg(feature = "mysql")]
async fn mysql(
    address: Address,
    opener: &Opener,
) -> Result<(sessionkit_sqlx::MysqlStore, Options)> {
    let (options, url) = address.split(&COMMON);
    let store_options = common(&options, opener)?;
    let store = sessionkit_sqlx::MysqlStore::connect(&url, store_options).await?;
    Ok((store, options))
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn with_common<'a>(own: &[&'a str]) -> Vec<&'a str> {
    [&COMMON[..], own].concat()
}

fn common(options: &Options, opener: &Opener) -> Result<StoreOptions> {
    let table = match (options.get("table"), opener.namespace_in(options)?) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "a store has one name for its table: `table` or a namespace",
            ));
        }
        (Some(name), None) | (None, Some(name)) => TableName::new(name)?,
        (None, None) => TableName::default(),
    };
    let mut store_options = StoreOptions::new()
        .table(table)
        .clock(opener.clock_or_system());
    if let Some(connections) = options.parse("max_connections")? {
        store_options = store_options.max_connections(connections);
    }
    if let Some(millis) = options.parse("deadline_ms")? {
        store_options = store_options.deadline(Duration::from_millis(millis));
    }
    Ok(store_options)
}
