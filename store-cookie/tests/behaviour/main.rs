//! What the cookie store promises, with an injected clock and no network.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod flows;
mod golden;
mod interleavings;
mod records;
mod revocation;
mod support;
mod tampering;
