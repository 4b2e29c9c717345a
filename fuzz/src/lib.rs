//! What holds for every input of the decoders that meet bytes from outside: one function for each.
//!
//! Each takes any bytes, panics when a property does not hold, and says whether the decoder took the
//! input. The fuzzer calls them (`scripts/fuzz`), and so does `tests/properties.rs` on the stable
//! compiler, with the seeds and with variations of them.

mod cookie_header;
mod envelope;
mod file;
mod keyring;
mod payload;
mod redis_value;
mod row;
mod sealed;
mod set_cookie;
mod signed;
mod support;
mod url;

pub use cookie_header::cookie_header;
pub use envelope::envelope;
pub use file::file;
pub use keyring::keyring;
pub use payload::payload;
pub use redis_value::redis_value;
pub use row::row;
pub use sealed::sealed;
pub use set_cookie::set_cookie;
pub use signed::signed;
pub use url::url;

/// A property of one decoder; whether the decoder took the input.
pub type Property = fn(&[u8]) -> bool;

/// Every property under the name of its target and of its directory of seeds.
pub const TARGETS: [(&str, Property); 11] = [
    ("cookie_header", cookie_header),
    ("envelope", envelope),
    ("file", file),
    ("keyring", keyring),
    ("payload", payload),
    ("redis_value", redis_value),
    ("row", row),
    ("sealed", sealed),
    ("set_cookie", set_cookie),
    ("signed", signed),
    ("url", url),
];
