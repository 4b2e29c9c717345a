use std::{borrow::Cow, error, fmt, result};

use http::StatusCode;

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = result::Result<T, E>;

type Source = Box<dyn error::Error + Send + Sync>;

/// What went wrong, as an [`ErrorKind`] to act on, a message for people, and the cause in
/// [`source`](error::Error::source).
///
/// No message contains a session id, a token, session data, a key or a password. An author of a
/// store keeps that promise by passing the driver's error as the source only when the driver keeps
/// it too.
///
/// ```
/// use sessionkit::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Unavailable, "the session table cannot be reached");
/// assert_eq!(error.kind(), ErrorKind::Unavailable);
/// assert_eq!(error.to_string(), "the session table cannot be reached");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Source>,
}

impl Error {
    /// Creates an error; the message is lower case, without a full stop, and free of secrets.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind, for deciding what to do next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The status of a response that fails because of this error: 503 when the store is to blame and
    /// a later request may succeed, 409 when another request was faster, 413 when the session is too
    /// large, and 500 for everything else.
    ///
    /// ```
    /// use sessionkit::{Error, ErrorKind};
    ///
    /// assert_eq!(Error::from(ErrorKind::Unavailable).status(), 503);
    /// assert_eq!(Error::from(ErrorKind::InvalidValue).status(), 500);
    /// ```
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.0.kind {
            ErrorKind::Unavailable | ErrorKind::Ambiguous | ErrorKind::Full => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ErrorKind::Conflict | ErrorKind::Gone => StatusCode::CONFLICT,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Exists
            | ErrorKind::Missing
            | ErrorKind::Corrupt
            | ErrorKind::InvalidValue
            | ErrorKind::InvalidConfig
            | ErrorKind::Reentrant
            | ErrorKind::Unsupported => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The error of this kind with the kind's own description as its message.
impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind, kind.description())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// The kinds of failure that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The backend did not answer or refused, and nothing was changed: the call may be repeated.
    Unavailable,
    /// The call may or may not have taken effect: its answer was lost. Read the record back and
    /// compare its revision before repeating a write.
    Ambiguous,
    /// A record is already stored under the token.
    Exists,
    /// The stored record has another revision than the one expected: load it again.
    Conflict,
    /// There is no live record under the token. Nothing was stored.
    Missing,
    /// Another request has ended the session, or renewed it with a change of privilege, and what
    /// this one changed was dropped.
    Gone,
    /// The data exceed the declared limit. Nothing was stored.
    TooLarge,
    /// The store has reached its configured size, or its disk or memory is full. Nothing was
    /// stored, and what was there before is intact.
    Full,
    /// What is stored cannot be read: damaged, not ours, or written by a newer version.
    Corrupt,
    /// A value of the session cannot be serialized, or not be read as the type asked for. The
    /// message names its key.
    InvalidValue,
    /// A closure that a session runs has called the session: the call would wait for itself. It did
    /// nothing.
    Reentrant,
    /// The configuration cannot work, or is unsafe.
    InvalidConfig,
    /// The store cannot do this, as its [`Capabilities`](crate::Capabilities) say.
    Unsupported,
}

impl ErrorKind {
    const fn description(self) -> &'static str {
        match self {
            Self::Unavailable => "the session store is not available",
            Self::Ambiguous => "the session store may or may not have done it",
            Self::Exists => "a session is stored under this token",
            Self::Conflict => "the session has changed",
            Self::Missing => "there is no such session",
            Self::Gone => "another request has ended or renewed the session; changes were dropped",
            Self::TooLarge => "the session is too large",
            Self::Full => "the session store is full",
            Self::Corrupt => "the stored session cannot be read",
            Self::InvalidValue => "the value cannot be stored in a session",
            Self::Reentrant => "a closure given to a session cannot use the session",
            Self::InvalidConfig => "the session configuration is invalid",
            Self::Unsupported => "the session store cannot do this",
        }
    }
}
