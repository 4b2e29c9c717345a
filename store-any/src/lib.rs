#![doc = include_str!("../README.md")]

mod backend;
#[cfg(feature = "cookie")]
mod cookie;
#[cfg(feature = "fs")]
mod fs;
mod memory;
mod opener;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod sql;
mod url;

pub use opener::{Opener, open};
