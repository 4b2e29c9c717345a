//! Stores around stores: each takes a [`SessionStore`](crate::SessionStore) and is one.
//!
//! - `Timeout` (feature `tokio`) gives every call a deadline.
//! - [`NearCache`] answers repeated loads from the memory of the process.
//! - [`Migrate`] moves sessions from one store to another without ending one.
//!
//! Layers nest. A deadline belongs around a store that talks to a server, and a cache around both.

mod migrate;
mod near_cache;
#[cfg(feature = "tokio")]
mod timeout;

pub use migrate::Migrate;
pub use near_cache::NearCache;
#[cfg(feature = "tokio")]
pub use timeout::Timeout;
