//! Published stores of `tower-sessions` under the conformance kit: real code that nobody here wrote.
//!
//! Their trait has four operations (create, save, load, delete) where ours has seven, so an adapter
//! stands between. It makes up for nothing that a store gets wrong, and takes the one liberty that
//! every application takes: between the load and the save of a change it lets a moment pass, in
//! which a handler would run. What the kit finds is listed with each store and explained in
//! `docs/conformance-findings.md`.

mod adapter;
mod stores;

pub use adapter::{Adapter, Published, Row};
pub use stores::{Caching, Memory, Moka, Sqlite};
