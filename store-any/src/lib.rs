#![doc = include_str!("../README.md")]

mod address;
mod backend;
#[cfg(feature = "cookie")]
mod cookie;
#[cfg(feature = "fs")]
mod fs;
mod memory;
mod opener;

pub use opener::{Opener, open};
