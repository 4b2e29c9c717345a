#![doc = include_str!("../README.md")]

mod clock;
mod entropy;
mod error;
mod keyring;
mod memory;
mod record;
mod store;
mod token;

pub use clock::{Clock, ManualClock, SystemClock};
pub use entropy::{Entropy, OsEntropy};
pub use error::{Error, ErrorKind, Result};
pub use keyring::{Key, KeyId, Keyring, Opened};
pub use memory::MemoryStore;
pub use record::{Label, Record, Revision, Subject, Timestamp};
pub use store::{
    Capabilities, Custody, Durability, SessionStore, SubjectIndex, SubjectSession, Sweep,
    TimeSource,
};
pub use token::{CookieName, StoreKey, Token};
