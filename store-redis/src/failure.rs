//! Why a command has no result, by what is known about it.

use std::{error, fmt};

use redis::{RedisError, ServerError, ServerErrorKind};
use sessionkit::{Error, ErrorKind};

pub(crate) type Cause = Box<dyn error::Error + Send + Sync>;

/// What happened to a command that has no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It never left this process.
    Unsent(Cause),
    /// It may have arrived; the answer did not.
    Lost(Cause),
    /// The time was over before the answer came.
    Late,
    /// Done, but on fewer replicas than demanded.
    Unconfirmed,
    /// The server answered with an error, and did nothing.
    Refused(Refusal),
    /// The server is a replica, so that nothing was sent to it.
    Replica,
    /// The server is a node of a cluster, and was addressed as one that stands by itself.
    ClusterNode,
    /// The connection cannot be made as it is configured, which time does not change.
    Misconfigured(&'static str, Cause),
}

/// What a command does, for what may be repeated and how its failure is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// None, or one that is the same however often it comes.
    Read,
    Write,
}

impl Failure {
    pub(crate) fn into_error(self, effect: Effect) -> Error {
        let lost = match effect {
            Effect::Read => ErrorKind::Unavailable,
            Effect::Write => ErrorKind::Ambiguous,
        };
        match self {
            Self::Unsent(cause) => {
                Error::new(ErrorKind::Unavailable, "the Redis server cannot be reached")
                    .with_source(cause)
            }
            Self::Lost(cause) => {
                Error::new(lost, "the connection to Redis broke").with_source(cause)
            }
            Self::Late => Error::new(lost, "Redis did not answer in time"),
            Self::Unconfirmed => Error::new(
                ErrorKind::Ambiguous,
                "the write is not on as many replicas as demanded",
            ),
            Self::Refused(refusal) => refusal.into_error(),
            Self::Replica => Error::new(
                ErrorKind::Unavailable,
                "the Redis server is a replica: name its master, or the Sentinels that know it by a \
                 redis-sentinel:// URL",
            ),
            Self::ClusterNode => Error::new(
                ErrorKind::InvalidConfig,
                "the Redis server is a node of a cluster: use a redis-cluster:// URL",
            ),
            Self::Misconfigured(message, cause) => {
                Error::new(ErrorKind::InvalidConfig, message).with_source(cause)
            }
        }
    }
}

/// An error that the server answered with. Only its code is kept for people: the text may repeat
/// the arguments of the command.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: Code,
    name: String,
    pub(crate) moved_to: Option<String>,
}

/// The errors of a server that make a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Another node serves the slot from now on.
    Moved,
    /// Another node has the key for this once.
    Ask,
    /// The server will take the command a little later.
    Later,
    /// A replica, or a former master.
    ReadOnly,
    NoScript,
    Full,
    WrongType,
    Denied,
    Other,
}

impl Refusal {
    pub(crate) fn new(error: &ServerError) -> Self {
        let details = error.details().unwrap_or_default();
        // Servers before version 7 put the error of a command inside a script into the text.
        let is = |code: &str| error.code() == code || details.contains(&format!("{code} "));
        let code = match error.kind() {
            Some(ServerErrorKind::Moved) => Code::Moved,
            Some(ServerErrorKind::Ask) => Code::Ask,
            Some(
                ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading,
            ) => Code::Later,
            Some(ServerErrorKind::ReadOnly) => Code::ReadOnly,
            Some(ServerErrorKind::NoScript) => Code::NoScript,
            Some(ServerErrorKind::NoPerm) => Code::Denied,
            _ if is("OOM") => Code::Full,
            _ if is("WRONGTYPE") => Code::WrongType,
            _ if is("READONLY") => Code::ReadOnly,
            _ if is("BUSY") => Code::Later,
            _ if is("NOAUTH") || is("WRONGPASS") || is("NOPERM") => Code::Denied,
            _ => Code::Other,
        };
        let moved_to = matches!(code, Code::Moved | Code::Ask)
            .then(|| details.split_ascii_whitespace().nth(1))
            .flatten();
        Self {
            code,
            name: error.code().to_owned(),
            moved_to: moved_to.map(str::to_owned),
        }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    fn into_error(self) -> Error {
        let (kind, message) = match self.code {
            Code::Full => (ErrorKind::Full, "the memory of the Redis server is full"),
            Code::WrongType => (
                ErrorKind::Corrupt,
                "another type of value is in the place of a session",
            ),
            Code::Denied => (
                ErrorKind::InvalidConfig,
                "the Redis server denies the access",
            ),
            Code::ReadOnly => (ErrorKind::Unavailable, "the Redis server is read-only"),
            Code::Later => (ErrorKind::Unavailable, "the Redis server is not ready"),
            Code::Moved | Code::Ask => (
                ErrorKind::Unavailable,
                "the Redis server belongs to a cluster and sends elsewhere",
            ),
            Code::NoScript | Code::Other => (
                ErrorKind::Unavailable,
                "the Redis server refuses the command",
            ),
        };
        Error::new(kind, message).with_source(self)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}", self.name)
    }
}

impl error::Error for Refusal {}

/// The server's error inside an error of the client, if there is one.
pub(crate) fn refusal(error: RedisError) -> Result<Refusal, RedisError> {
    ServerError::try_from(error).map(|error| Refusal::new(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reply: &str) -> Refusal {
        let value = redis::parse_redis_value(reply.as_bytes()).unwrap();
        refusal(value.extract_error().unwrap_err()).unwrap()
    }

    fn kind(reply: &str) -> ErrorKind {
        refused(reply).into_error().kind()
    }

    #[test]
    fn every_refusal_has_its_kind() {
        assert_eq!(kind("-OOM command not allowed\r\n"), ErrorKind::Full);
        assert_eq!(
            kind("-ERR Error running script: @user_script: 3: -OOM command not allowed\r\n"),
            ErrorKind::Full
        );
        assert_eq!(
            kind("-WRONGTYPE Operation against a key\r\n"),
            ErrorKind::Corrupt
        );
        assert_eq!(
            kind("-READONLY You can't write\r\n"),
            ErrorKind::Unavailable
        );
        assert_eq!(
            kind("-LOADING Redis is loading\r\n"),
            ErrorKind::Unavailable
        );
        assert_eq!(
            kind("-NOAUTH Authentication required.\r\n"),
            ErrorKind::InvalidConfig
        );
        assert_eq!(kind("-NOPERM no permissions\r\n"), ErrorKind::InvalidConfig);
        assert_eq!(kind("-MISCONF cannot persist\r\n"), ErrorKind::Unavailable);
    }

    #[test]
    fn a_redirection_names_the_node() {
        let refusal = refused("-MOVED 123 127.0.0.1:7001\r\n");
        assert_eq!(refusal.code(), Code::Moved);
        assert_eq!(refusal.moved_to.as_deref(), Some("127.0.0.1:7001"));
    }

    #[test]
    fn the_text_of_a_server_is_not_repeated() {
        let error = refused("-ERR unknown command 'GET', with args beginning with: 'secret'\r\n")
            .into_error();
        let source = error::Error::source(&error).unwrap();
        assert!(!format!("{error:?} {source} {source:?}").contains("secret"));
    }

    #[test]
    fn only_a_write_whose_answer_was_lost_is_ambiguous() {
        let kind = |failure: Failure, effect| failure.into_error(effect).kind();
        assert_eq!(kind(Failure::Late, Effect::Write), ErrorKind::Ambiguous);
        assert_eq!(kind(Failure::Late, Effect::Read), ErrorKind::Unavailable);
        assert_eq!(
            kind(Failure::Lost("x".into()), Effect::Write),
            ErrorKind::Ambiguous
        );
        assert_eq!(
            kind(Failure::Unsent("x".into()), Effect::Write),
            ErrorKind::Unavailable
        );
    }
}
