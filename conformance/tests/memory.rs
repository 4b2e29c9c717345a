//! The reference store keeps the contract.

use sessionkit_conformance::MemoryHarness;

sessionkit_conformance::suite!(MemoryHarness::new());
