//! The filesystem store from outside; the contract itself is tested by `conformance.rs`.

mod attacks;
mod disk;
mod processes;
mod store;
mod support;
