use std::fmt::Debug;

use crate::{Error, ErrorKind, Result};

/// A source of random bytes for tokens, revisions and nonces.
///
/// [`OsEntropy`] is the one to use. Another implementation has its place in tests only: a failing
/// one, or one that repeats a sequence.
pub trait Entropy: Debug + Send + Sync + 'static {
    /// Fills `bytes` with random bytes, all of them or none.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when no random bytes can be had. The caller gives up: there is no
    /// second-best source.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// The generator of the operating system.
///
/// ```
/// use sessionkit::{Entropy, OsEntropy};
///
/// let mut bytes = [0; 32];
/// OsEntropy.fill(&mut bytes)?;
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                "the operating system has no random bytes",
            )
            .with_source(error)
        })
    }
}
