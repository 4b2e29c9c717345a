#![cfg_attr(feature = "axum", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "axum"),
    doc = "Web sessions: see the README, whose example needs axum."
)]

mod cache;
mod clock;
mod commit;
mod cookie;
mod entropy;
mod error;
mod header;
#[cfg(test)]
mod interleavings;
mod key;
mod keyring;
pub mod layers;
mod manager;
mod memory;
#[cfg(test)]
mod mistakes;
mod patterns;
mod payload;
mod queues;
mod record;
mod response;
mod save;
mod session;
mod store;
#[cfg(feature = "tokio")]
mod sweeper;
mod token;
mod traces;
mod value;
mod web;

pub use cache::CacheControl;
pub use clock::{Clock, ManualClock, SystemClock};
pub use commit::Persistence;
pub use cookie::{CookieOptions, SameSite};
pub use entropy::{Entropy, OsEntropy};
pub use error::{Error, ErrorKind, Result};
pub use key::{Key, KeyId};
pub use keyring::{Keyring, Opened};
pub use manager::{
    Failure, OnUnreadable, SaveErrors, SessionConfig, SessionManager, SessionManagerBuilder,
    Sessions,
};
pub use memory::MemoryStore;
pub use record::{Label, Record, Revision, Subject, Timestamp};
pub use save::Saved;
pub use session::{Origin, Session};
pub use store::{
    Capabilities, Custody, Durability, SessionStore, SubjectIndex, SubjectSession, Sweep,
    TimeSource,
};
#[cfg(feature = "tokio")]
pub use sweeper::Sweeper;
pub use token::{CookieName, StoreKey, Token};
#[cfg(feature = "axum")]
pub use web::axum::SessionRejection;
#[cfg(feature = "tower")]
pub use web::{
    body::SessionBody,
    tower::{SessionFuture, SessionLayer, SessionService},
};
