#![doc = include_str!("../README.md")]

mod envelope;
mod revocation;
mod store;

pub use store::CookieStore;
