//! Secrets leave copies on the stack: what is moved stays behind where it was.

use zeroize::zeroize_stack;

/// How much of the stack is wiped, in bytes: more than any use of a key needs. What is not optimised
/// needs more.
const STACK: usize = if cfg!(debug_assertions) {
    64 << 10
} else {
    8 << 10
};

/// Runs `f`, and wipes the part of the stack that it has used.
pub(crate) fn without_traces<T>(f: impl FnOnce() -> T) -> T {
    let result = apart(f);
    zeroize_stack::<STACK>();
    result
}

/// Not part of the caller's frame, so that all of its own is where the wiped part will be.
#[inline(never)]
fn apart<T>(f: impl FnOnce() -> T) -> T {
    f()
}
