//! What the tests share.

use std::{sync::Arc, time::Duration};

use sessionkit::{
    CookieName, Key, Keyring, Label, ManualClock, OsEntropy, Record, Revision, Timestamp, Token,
};
use sessionkit_cookie::CookieStore;

pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(START))
}

pub(crate) fn keyring() -> Keyring {
    Keyring::new([Key::generate().unwrap()]).unwrap()
}

/// A sealed and a signed store with the same keys, each with its name.
pub(crate) fn both(
    keyring: &Keyring,
    clock: &Arc<ManualClock>,
) -> [(&'static str, CookieStore); 2] {
    [
        ("sealed", CookieStore::new(keyring.clone())),
        ("signed", CookieStore::signed_only(keyring.clone())),
    ]
    .map(|(name, store)| (name, store.with_clock(clock.clone())))
}

pub(crate) fn cookie(name: &str) -> CookieName {
    CookieName::new(name).unwrap()
}

pub(crate) fn token() -> Token {
    Token::random(&OsEntropy, &cookie("__Host-id")).unwrap()
}

pub(crate) fn record(data: impl AsRef<[u8]>) -> Record {
    Record {
        data: data.as_ref().to_vec().into(),
        revision: Revision::random(&OsEntropy).unwrap(),
        created_at: START,
        expires_at: START + HOUR,
        subject: None,
        label: Label::default(),
    }
}

/// The token with other bytes.
pub(crate) fn with_bytes(token: &Token, bytes: impl Into<Vec<u8>>) -> Token {
    Token::from_bytes(bytes.into(), token.cookie())
}
