#![doc = include_str!("../README.md")]

#[cfg(not(unix))]
compile_error!("sessionkit-fs needs a Unix system: descriptors of directories, modes and `flock`");

mod call;
mod dir;
mod fail;
mod fault;
mod format;
mod lock;
mod options;
mod quota;
mod store;
mod subjects;
mod sweep;
mod temp;
mod tree;

#[cfg(test)]
mod tests;

pub use options::{FsOptions, Quota, SyncPolicy};
pub use store::FsStore;
