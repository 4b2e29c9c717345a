#![doc = include_str!("../README.md")]

#[cfg(feature = "sqlite")]
mod batch;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod codec;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod connections;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod failure;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod options;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod remote;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod schema;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod statement;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod table;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod url;

#[cfg(feature = "mysql")]
pub use mysql::MysqlStore;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use options::StoreOptions;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use sqlx;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use table::TableName;
