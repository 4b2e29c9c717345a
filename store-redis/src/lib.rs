#![doc = include_str!("../README.md")]

mod address;
mod backend;
mod clear;
mod cluster;
mod codec;
mod fault;
mod index;
mod line;
mod moving;
mod node;
mod options;
mod script;
mod store;
mod tls;

pub use deadpool_redis;
pub use options::{Protocol, RedisOptions};
pub use store::RedisStore;
