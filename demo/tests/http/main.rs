//! The app over real HTTP on the loopback interface.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod api;
mod client;
mod cookies;
mod forms;
mod nutshell;
mod pages;
mod program;
mod races;
mod security;
mod server;
mod watched;
