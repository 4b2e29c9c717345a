//! The stores that the broken ones are made of keep the contract: what a broken one fails, it fails
//! for its bug.

use sessionkit_conformance::broken::BrokenHarness;

mod server {
    use super::BrokenHarness;

    sessionkit_conformance::suite!(BrokenHarness::new("")?);
}

mod client {
    use super::BrokenHarness;

    sessionkit_conformance::suite!(BrokenHarness::new("client")?);
}
