#![doc = include_str!("../README.md")]

mod address;
mod backend;
mod clear;
mod cluster;
mod codec;
mod connection;
mod fault;
mod index;
mod node;
mod options;
mod race;
mod script;
mod store;
mod tls;

pub use deadpool_redis;
pub use options::{Protocol, RedisOptions};
pub use store::RedisStore;
