#![doc = include_str!("../README.md")]

mod clear;
mod client;
mod cluster;
mod codec;
mod connection;
mod failure;
mod index;
mod node;
mod options;
mod race;
mod script;
mod store;
mod tls;
mod url;

pub use deadpool_redis;
pub use options::{Protocol, RedisOptions};
pub use store::RedisStore;
