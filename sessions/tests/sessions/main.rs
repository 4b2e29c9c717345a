//! Sessions as an application uses them, over the memory store.

mod support;

mod concurrency;
mod cookies;
mod faults;
mod flashes;
mod format;
mod headers;
mod keys;
mod lifetimes;
mod registry;
mod subjects;
mod tokens;
mod values;
