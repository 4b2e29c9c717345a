//! The store that the broken ones are made of outside of its crate, so that a change of it compiles
//! in seconds.

pub mod broken;

use std::sync::Arc;

use sessionkit_conformance::MakeHarness;
pub(crate) use sessionkit_conformance::{Fault, Golden, Harness, RawEntry};

pub(crate) mod harness {
    use sessionkit::Timestamp;

    pub(crate) const START: Timestamp = Timestamp::from_millis(1_900_000_000_123);
}

pub fn harnesses() -> Vec<MakeHarness> {
    let make = |name: &'static str| -> MakeHarness {
        Arc::new(move || {
            Box::pin(async move {
                Ok(Arc::new(broken::BrokenHarness::new(name)?) as Arc<dyn Harness>)
            })
        })
    };
    vec![make(""), make("client")]
}
