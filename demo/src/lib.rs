#![doc = include_str!("../README.md")]

mod account;
mod api;
mod app;
mod error;
mod format;
mod keys;
mod options;
mod pages;
mod prefs;
mod server;
mod store;
mod user_agent;

pub use app::App;
pub use options::{Command, Options};
pub use server::{GRACE, run, serve};
pub use store::open as open_store;

/// The code in the README of the repository compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct RepositoryReadme;
