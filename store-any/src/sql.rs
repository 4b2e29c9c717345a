//! SQLite, Postgres, MySQL and MariaDB.

use std::{sync::Arc, time::Duration};

use sessionkit::{Result, SessionStore};
use sessionkit_sqlx::{StoreOptions, TableName};

use crate::{
    Opener,
    address::{Address, Options, invalid},
};

/// The options that every database has.
const COMMON: [&str; 5] = [
    "table",
    "namespace",
    "max_connections",
    "deadline_ms",
    "migrate",
];

/// Opens the store by `$connect`, then makes or checks its table.
macro_rules! connect {
    ($store:ident, $url:expr, $options:expr, $store_options:expr) => {{
        let migrate = $options.parse("migrate")?.unwrap_or(true);
        let store = sessionkit_sqlx::$store::connect($url, $store_options).await?;
        if migrate {
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
    if matches!(address.rest(), "" | "//") {
        return Err(invalid(
            "a path or `:memory:` has to follow `sqlite:` in the store's URL",
        ));
    }
    let url = address.base().to_owned();
    let options = address.options(&with_common(&["sync_to_disk"]))?;
    let sync_to_disk = options.parse("sync_to_disk")?.unwrap_or(false);
    let store_options = common(&options, opener)?.sync_to_disk(sync_to_disk);
    connect!(SqliteStore, &url, options, store_options)
}

#[cfg(feature = "postgres")]
pub(crate) async fn open_postgres(
    address: Address,
    opener: &Opener,
) -> Result<Arc<dyn SessionStore>> {
    const DRIVER: [&str; 5] = [
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "application_name",
    ];
    let url = address.base().to_owned();
    let mut known = with_common(&DRIVER);
    known.push("transaction_pooling");
    let options = address.options(&known)?;
    let pooling = options.parse("transaction_pooling")?.unwrap_or(false);
    let store_options = common(&options, opener)?.transaction_pooling(pooling);
    let url = with_query(url, &options, &DRIVER);
    connect!(PostgresStore, &url, options, store_options)
}

#[cfg(feature = "mysql")]
pub(crate) async fn open_mysql(address: Address, opener: &Opener) -> Result<Arc<dyn SessionStore>> {
    const DRIVER: [&str; 4] = ["ssl-mode", "ssl-ca", "ssl-cert", "ssl-key"];
    let url = address.base().to_owned();
    let options = address.options(&with_common(&DRIVER))?;
    let store_options = common(&options, opener)?;
    let url = with_query(url, &options, &DRIVER);
    connect!(MysqlStore, &url, options, store_options)
}

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

/// The URL for the driver, with the options that are the driver's.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn with_query(url: String, options: &Options, names: &[&str]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for name in names {
        if let Some(value) = options.get(name) {
            query.append_pair(name, value);
        }
    }
    match query.finish().as_str() {
        "" => url,
        query => format!("{url}?{query}"),
    }
}
