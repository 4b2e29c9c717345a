//! What a failed statement means: whether it may have taken effect, and what to do about it.

use std::{error, fmt};

use sessionkit::{Error, ErrorKind};

/// Why a statement failed. Cheap to clone, because the calls of a group fail together.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It was never sent.
    Unsent(Cause),
    /// The database refused it, and nothing changed.
    Refused(Refusal, Cause),
    /// It was sent, and the answer was lost.
    Lost(Cause),
}

/// Why a database refuses a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another transaction was in the way: the same statement may succeed at once.
    Contention,
    /// The server was ending the connection before it took the statement.
    Disconnected,
    /// The connection is not to the one process that the statement was prepared in, or a pooler
    /// refuses how it is made.
    #[cfg(feature = "postgres")]
    Pooled,
    /// A key is there already.
    Duplicate,
    /// No room on disk or in memory.
    Full,
    /// The table, the rights or the account are not as they have to be.
    Setup,
    /// The connection cannot be encrypted, or the server cannot prove who it is.
    Insecure,
    /// The file is damaged or no database.
    Damaged,
    /// It only reads, as a standby does: after a failover the primary is behind another connection.
    ReadOnly,
    /// Anything else.
    Other,
}

/// The database's own words, without values: some databases quote the key that a statement carried.
#[derive(Clone, Debug)]
pub(crate) struct Cause(pub(crate) String);

impl Failure {
    pub(crate) fn timed_out() -> Self {
        Self::Lost(Cause("no answer within the deadline".into()))
    }

    /// Whether the same statement may be sent again without the risk that it takes effect twice.
    pub(crate) fn is_repeatable(&self, effect: Effect) -> bool {
        match self {
            Self::Refused(Refusal::Contention | Refusal::Disconnected, _) => true,
            Self::Lost(_) => effect == Effect::Read,
            Self::Unsent(_) | Self::Refused(..) => false,
        }
    }

    /// Whether it is the same the next time, as far as can be known.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Refused(Refusal::Setup | Refusal::Insecure, _))
            || self.is_about_pooling()
    }

    /// The same failure of a statement whose effect the caller does not depend on: nothing that
    /// matters was lost.
    #[cfg(feature = "sqlite")]
    pub(crate) fn of_a_read(self) -> Self {
        match self {
            Self::Lost(cause) => Self::Unsent(cause),
            failure => failure,
        }
    }

    /// Whether another connection may fare better.
    pub(crate) fn spoils_connection(&self) -> bool {
        matches!(
            self,
            Self::Lost(_) | Self::Refused(Refusal::Disconnected | Refusal::ReadOnly, _)
        ) || self.is_about_pooling()
    }

    fn is_about_pooling(&self) -> bool {
        #[cfg(feature = "postgres")]
        return matches!(self, Self::Refused(Refusal::Pooled, _));
        #[cfg(not(feature = "postgres"))]
        return false;
    }

    pub(crate) fn into_error(self, effect: Effect) -> Error {
        let (kind, message, cause) = match self {
            Self::Unsent(cause) => (
                ErrorKind::Unavailable,
                "no connection to the session database",
                cause,
            ),
            Self::Lost(cause) if effect == Effect::Read => (
                ErrorKind::Unavailable,
                "the session database did not answer",
                cause,
            ),
            Self::Lost(cause) => (
                ErrorKind::Ambiguous,
                "the session database may or may not have taken the write",
                cause,
            ),
            Self::Refused(refusal, cause) => {
                let (kind, message) = refusal.meaning();
                (kind, message, cause)
            }
        };
        Error::new(kind, message).with_source(cause)
    }
}

impl Refusal {
    fn meaning(self) -> (ErrorKind, &'static str) {
        match self {
            Self::Contention => (
                ErrorKind::Unavailable,
                "the session database is busy with other transactions",
            ),
            Self::Disconnected => (
                ErrorKind::Unavailable,
                "the session database closed the connection",
            ),
            #[cfg(feature = "postgres")]
            Self::Pooled => (
                ErrorKind::InvalidConfig,
                "a pooler before the session database mixes connections or refuses an option; set \
                 `transaction_pooling`",
            ),
            Self::Insecure => (
                ErrorKind::InvalidConfig,
                "the connection to the session database cannot be secured",
            ),
            Self::Full => (ErrorKind::Full, "the session database is full"),
            Self::Setup => (
                ErrorKind::InvalidConfig,
                "the session table cannot be used; see what the store's check says",
            ),
            Self::ReadOnly => (
                ErrorKind::Unavailable,
                "the session database takes no writes",
            ),
            Self::Damaged => (ErrorKind::Corrupt, "the session database is damaged"),
            Self::Duplicate | Self::Other => (
                ErrorKind::Unavailable,
                "the session database refused the statement",
            ),
        }
    }
}

/// The error of a call that others were faster than again and again: nothing was done.
pub(crate) fn overtaken() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the session changes faster than the call can be decided",
    )
}

/// Whether a statement changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Read,
    Write,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Cause {}

/// What sqlx says about a failure that is not the database's answer, without what a URL may hold.
pub(crate) fn describe(error: &sqlx::Error) -> Cause {
    Cause(match error {
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Tls(_) => "TLS could not be agreed upon".into(),
        sqlx::Error::PoolTimedOut => "no connection was free or could be made in time".into(),
        sqlx::Error::PoolClosed => "the pool is closed".into(),
        sqlx::Error::WorkerCrashed => "the connection's thread has ended".into(),
        sqlx::Error::Protocol(_) => "the server's answer was not understood".into(),
        sqlx::Error::Configuration(_) => "the connection options are not valid".into(),
        _ => "the driver failed".into(),
    })
}
