//! Compares sessionkit with the limit (the raw driver or primitive) and with its peers in one run:
//! `scripts/bench GROUP…`. What counts is the ratio to the first line of each table.

mod core;
mod fs;
mod measure;
mod memory;
mod payload;
mod redis;
mod sql;

use clap::{Parser, ValueEnum};

use crate::sql::Kind;

/// Measures groups of operations beside the raw driver and published stores.
#[derive(Parser)]
struct Options {
    /// What to measure.
    #[arg(required = true)]
    groups: Vec<Group>,
    /// How often each contender runs, in turn with the others; the median counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Group {
    /// Cookies, payloads and the tower layer.
    Core,
    /// The filesystem store, in the directory for temporary files.
    Fs,
    /// The filesystem store with up to a million sessions: 4 GiB and a few minutes.
    FsGrowth,
    /// The memory store.
    Memory,
    /// The Redis store.
    Redis,
    /// The Redis store with up to a million sessions.
    RedisGrowth,
    /// The stores on SQLite, Postgres, MySQL and MariaDB.
    Sql,
    Sqlite,
    Postgres,
    Mysql,
    Mariadb,
    /// The same with up to a million sessions.
    SqlGrowth,
    SqliteGrowth,
    PostgresGrowth,
    MysqlGrowth,
    MariadbGrowth,
}

fn main() {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the runtime starts");
    for group in options.groups {
        match group {
            Group::Core => runtime.block_on(core::run(options.rounds)),
            Group::Fs => runtime.block_on(fs::run(options.rounds)),
            Group::FsGrowth => runtime.block_on(fs::grow()),
            Group::Memory => runtime.block_on(memory::run(options.rounds)),
            Group::Redis => runtime.block_on(redis::run(options.rounds)),
            Group::RedisGrowth => runtime.block_on(redis::grow()),
            Group::Sql => {
                for kind in sql::ALL {
                    runtime.block_on(sql::run(kind, options.rounds));
                }
            }
            Group::Sqlite => runtime.block_on(sql::run(Kind::Sqlite, options.rounds)),
            Group::Postgres => runtime.block_on(sql::run(Kind::Postgres, options.rounds)),
            Group::Mysql => runtime.block_on(sql::run(Kind::Mysql, options.rounds)),
            Group::Mariadb => runtime.block_on(sql::run(Kind::Mariadb, options.rounds)),
            Group::SqlGrowth => {
                for kind in sql::ALL {
                    runtime.block_on(sql::grow(kind));
                }
            }
            Group::SqliteGrowth => runtime.block_on(sql::grow(Kind::Sqlite)),
            Group::PostgresGrowth => runtime.block_on(sql::grow(Kind::Postgres)),
            Group::MysqlGrowth => runtime.block_on(sql::grow(Kind::Mysql)),
            Group::MariadbGrowth => runtime.block_on(sql::grow(Kind::Mariadb)),
        }
    }
}
