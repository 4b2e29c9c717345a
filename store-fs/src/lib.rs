#![doc = include_str!("../README.md")]

#[cfg(not(unix))]
compile_error!("sessionkit-fs needs a Unix system: descriptors of directories, modes and `flock`");

mod call;
mod codec;
mod dir;
mod failpoint;
mod failure;
mod index;
mod lock;
mod options;
mod quota;
mod store;
mod sweep;
mod temp;
mod tree;

#[cfg(test)]
mod tests;

pub use options::{FsOptions, Quota, SyncPolicy};
pub use store::FsStore;
