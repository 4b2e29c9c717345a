//! Tokens, records and names for tests.

use std::time::Duration;

use sessionkit::{
    CookieName, ErrorKind, Label, OsEntropy, Record, Result, Revision, Subject, Timestamp, Token,
};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub(crate) fn token() -> Token {
    Token::random(&OsEntropy, &CookieName::new("id").unwrap()).unwrap()
}

/// As a store gets it, which layers have marked with control characters.
pub(crate) fn subject(name: &str) -> Option<Subject> {
    Some(Subject::from_stored(name).unwrap())
}

pub(crate) fn record(data: &[u8]) -> Record {
    Record {
        data: data.to_vec().into(),
        revision: Revision::random(&OsEntropy).unwrap(),
        created_at: START,
        expires_at: START + Duration::from_secs(60),
        subject: None,
        label: Label::default(),
    }
}

pub(crate) fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}
