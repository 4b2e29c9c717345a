#![doc = include_str!("../README.md")]

mod envelope;
mod families;
mod store;

pub use store::CookieStore;
