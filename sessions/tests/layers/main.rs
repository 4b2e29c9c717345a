//! The layers around a store, with every interleaving of their calls to it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod explore;
mod migrate;
mod migrate_subjects;
mod near_cache;
mod support;
#[cfg(feature = "tokio")]
mod timeout;
