use std::io;

use rustix::io::Errno;
use sessionkit::{Error, ErrorKind};

/// Why a step failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A directory or a temporary file was removed under us, by a sweep that found it empty or
    /// abandoned: nothing has happened, and trying again will succeed.
    Vanished,
    Error(Error),
}

impl Failure {
    pub(crate) fn is_corrupt(&self) -> bool {
        matches!(self, Self::Error(error) if error.kind() == ErrorKind::Corrupt)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Self {
        Self::Error(kind.into())
    }
}

/// For steps that find what they need unless somebody has removed it; where absence is an answer,
/// the caller asks for it before.
impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Vanished,
            errno => Self::Error(error(errno)),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Vanished => Self::new(
                ErrorKind::Unavailable,
                "the session directory has been removed",
            ),
            Failure::Error(error) => error,
        }
    }
}

/// The error for a failed system call that has changed nothing.
pub(crate) fn error(errno: Errno) -> Error {
    let (kind, message) = match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => {
            (ErrorKind::Full, "the disk of the session directory is full")
        }
        Errno::ROFS => (
            ErrorKind::Unavailable,
            "the file system of the session directory is read-only",
        ),
        Errno::ACCESS | Errno::PERM => (
            ErrorKind::Unavailable,
            "the session directory does not allow this process to do it",
        ),
        _ => (
            ErrorKind::Unavailable,
            "the session directory cannot be used",
        ),
    };
    Error::new(kind, message).with_source(io::Error::from(errno))
}

/// The error for a write that is visible already, but may not survive a power failure.
pub(crate) fn unsettled(errno: Errno) -> Error {
    Error::new(
        ErrorKind::Ambiguous,
        "the session directory cannot be synchronized with the disk",
    )
    .with_source(io::Error::from(errno))
}

pub(crate) fn corrupt(message: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}
