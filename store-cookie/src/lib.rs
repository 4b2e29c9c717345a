#![doc = include_str!("../README.md")]

mod codec;
mod families;
mod store;

pub use store::CookieStore;
