//! What the two processes say to each other: values in postcard, each behind its length.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Mutex,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sessionkit::{
    Capabilities, CookieName, Durability, ErrorKind, Label, Revision, StoreKey, Subject,
    SubjectSession, Timestamp,
};

use super::locked;

/// From the test process.
#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    CommitPoint {
        id: u64,
        store: u64,
        call: CommitPoint,
    },
    /// The future of a call was dropped.
    Cancel { id: u64 },
    /// A store was dropped.
    Close { store: u64 },
    /// The answer to [`Reply::AskTime`].
    Time { id: u64, now: i64 },
}

/// A method and its arguments.
#[derive(Serialize, Deserialize)]
pub(crate) enum CommitPoint {
    Open {
        path: PathBuf,
    },
    Create {
        token: Token,
        record: Record,
    },
    Load {
        token: Token,
    },
    Update {
        token: Token,
        expected: u64,
        record: Record,
    },
    Touch {
        token: Token,
        expires_at: i64,
    },
    Delete {
        token: Token,
        expected: Option<u64>,
    },
    Ping,
    Sweep {
        limit: usize,
    },
    List {
        subject: String,
        after: Option<[u8; 32]>,
        limit: usize,
    },
    Revoke {
        subject: String,
        key: [u8; 32],
    },
    RevokeAll {
        subject: String,
        except: Option<[u8; 32]>,
    },
}

/// From the other process.
#[derive(Serialize, Deserialize)]
pub(crate) enum Reply {
    Answer {
        id: u64,
        answer: Answer,
    },
    /// A store wants to know the time, and waits.
    AskTime {
        id: u64,
        store: u64,
    },
}

/// How a call ended.
#[derive(Serialize, Deserialize)]
pub(crate) enum Answer {
    /// With a `Result`, encoded: the caller knows of which type.
    Returned(#[serde(with = "serde_bytes")] Vec<u8>),
    Panicked(String),
}

/// Sends a value, whole: threads may send at the same time.
pub(crate) fn send(socket: &Mutex<UnixStream>, value: &impl Serialize) -> io::Result<()> {
    let bytes = encode(value);
    let len = u32::try_from(bytes.len()).expect("nobody sends gigabytes");
    let frame = [&len.to_le_bytes()[..], &bytes].concat();
    locked(socket).write_all(&frame)
}

/// The next value, or `None` when the other end is gone.
pub(crate) fn receive<T: DeserializeOwned>(mut from: impl Read) -> Option<T> {
    let mut len = [0; 4];
    from.read_exact(&mut len).ok()?;
    let mut bytes = vec![0; u32::from_le_bytes(len) as usize];
    from.read_exact(&mut bytes).ok()?;
    Some(decode(&bytes))
}

pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("every value can be encoded")
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> T {
    postcard::from_bytes(bytes).expect("both ends are the same program")
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Token {
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    cookie: String,
}

impl From<&sessionkit::Token> for Token {
    fn from(token: &sessionkit::Token) -> Self {
        Self {
            bytes: token.expose().to_vec(),
            cookie: token.cookie().as_str().to_owned(),
        }
    }
}

impl From<Token> for sessionkit::Token {
    fn from(token: Token) -> Self {
        let cookie = CookieName::new(&token.cookie).expect("it was one");
        Self::from_bytes(token.bytes, &cookie)
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(with = "serde_bytes")]
    data: Vec<u8>,
    revision: u64,
    created_at: i64,
    expires_at: i64,
    subject: Option<String>,
    label: String,
}

impl From<&sessionkit::Record> for Record {
    fn from(record: &sessionkit::Record) -> Self {
        Self {
            data: record.data.to_vec(),
            revision: record.revision.to_bits(),
            created_at: record.created_at.as_millis(),
            expires_at: record.expires_at.as_millis(),
            subject: record.subject.as_ref().map(|s| s.as_str().to_owned()),
            label: record.label.as_str().to_owned(),
        }
    }
}

impl From<Record> for sessionkit::Record {
    fn from(record: Record) -> Self {
        let subject = |subject: String| Subject::from_stored(subject).expect("it was one");
        Self {
            data: record.data.into(),
            revision: Revision::from_bits(record.revision),
            created_at: Timestamp::from_millis(record.created_at),
            expires_at: Timestamp::from_millis(record.expires_at),
            subject: record.subject.map(subject),
            label: Label::from_stored(&record.label).expect("it was one"),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Listed {
    key: [u8; 32],
    created_at: i64,
    expires_at: i64,
    label: String,
}

impl From<SubjectSession> for Listed {
    fn from(session: SubjectSession) -> Self {
        Self {
            key: *session.key.as_bytes(),
            created_at: session.created_at.as_millis(),
            expires_at: session.expires_at.as_millis(),
            label: session.label.as_str().to_owned(),
        }
    }
}

impl From<Listed> for SubjectSession {
    fn from(listed: Listed) -> Self {
        Self {
            key: StoreKey::from_bytes(listed.key),
            created_at: Timestamp::from_millis(listed.created_at),
            expires_at: Timestamp::from_millis(listed.expires_at),
            label: Label::from_stored(&listed.label).expect("it was one"),
        }
    }
}

/// What a store says of itself, which never changes.
#[derive(Serialize, Deserialize)]
pub(crate) struct Opened {
    max_data: usize,
    durability: usize,
    pub(crate) debug: String,
    pub(crate) process: u32,
}

const DURABILITIES: [Durability; 3] = [Durability::Process, Durability::System, Durability::Disk];

impl Opened {
    pub(crate) fn new(store: &impl sessionkit::SessionStore) -> Self {
        let capabilities = store.capabilities();
        let opened = Self {
            max_data: capabilities.max_data,
            durability: position(&DURABILITIES, &capabilities.durability),
            debug: format!("{store:?}"),
            process: std::process::id(),
        };
        assert_eq!(opened.capabilities(), capabilities, "more has to be sent");
        opened
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        Capabilities::server(self.max_data).durability(DURABILITIES[self.durability])
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Error {
    kind: usize,
    message: String,
    /// The messages of its causes, each with its `Debug`.
    causes: Vec<[String; 2]>,
}

const KINDS: [ErrorKind; 11] = [
    ErrorKind::Unavailable,
    ErrorKind::Ambiguous,
    ErrorKind::Exists,
    ErrorKind::Conflict,
    ErrorKind::Missing,
    ErrorKind::TooLarge,
    ErrorKind::Full,
    ErrorKind::Corrupt,
    ErrorKind::InvalidValue,
    ErrorKind::InvalidConfig,
    ErrorKind::Unsupported,
];

impl From<sessionkit::Error> for Error {
    fn from(error: sessionkit::Error) -> Self {
        let first = std::error::Error::source(&error);
        let causes = std::iter::successors(first, |cause| cause.source());
        Self {
            kind: position(&KINDS, &error.kind()),
            message: error.to_string(),
            causes: causes
                .map(|cause| [cause.to_string(), format!("{cause:?}")])
                .collect(),
        }
    }
}

impl From<Error> for sessionkit::Error {
    fn from(error: Error) -> Self {
        let kind = KINDS[error.kind];
        let wrap = |source: Option<Box<Cause>>, text| Some(Box::new(Cause { text, source }));
        match error.causes.into_iter().rev().fold(None, wrap) {
            Some(cause) => Self::new(kind, error.message).with_source(*cause),
            None => Self::new(kind, error.message),
        }
    }
}

/// The cause of an error of the other process.
struct Cause {
    text: [String; 2],
    source: Option<Box<Self>>,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text[0])
    }
}

impl std::fmt::Debug for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text[1])
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

fn position<T: PartialEq>(all: &[T], wanted: &T) -> usize {
    let found = all.iter().position(|one| one == wanted);
    found.expect("each of them is in the list")
}
