#![doc = include_str!("../README.md")]

pub mod broken;
mod browser;
mod capture;
mod cases;
#[cfg(all(feature = "containers", unix))]
pub mod containers;
mod context;
mod gate;
mod harness;
pub mod history;
mod interleave;
pub mod linearizability;
pub mod matrix;
mod model;
pub mod proxy;
mod random;
mod recorder;
mod registry;
pub mod report;
mod runner;
#[cfg(all(feature = "containers", unix))]
pub mod soak;
mod suite;
mod verdict;
mod waivers;

pub use context::Context;
pub use harness::{Fault, Golden, Harness, MemoryHarness, RawEntry};
pub use random::Random;
pub use registry::{Case, Group, Need, find_case, registry};
pub use runner::{CaseReport, MakeHarness, Options, probe, run_case};
pub use verdict::{Failure, Outcome, Verdict};
pub use waivers::Waivers;

#[doc(hidden)]
pub use suite::run_suite_test;
