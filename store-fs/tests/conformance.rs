//! The contract, as the conformance kit sees it.

mod harness;

sessionkit_conformance::suite!(harness::FsHarness::new());
