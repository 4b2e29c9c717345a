//! Sessions as an application uses them, over the memory store.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]

mod support;

mod concurrency;
mod cookies;
mod faults;
mod flashes;
mod format;
mod headers;
mod keys;
mod late;
mod lifetimes;
mod limits;
mod reentrance;
mod registry;
mod removals;
mod renewals;
mod rotation;
mod subjects;
mod tokens;
mod twins;
mod values;
mod with_client;
