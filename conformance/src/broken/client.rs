//! The client-side store: the record sealed into the token.

use std::sync::Arc;

use async_trait::async_trait;
use sessionkit::{
    Capabilities, Clock, CookieName, Entropy, Error, ErrorKind, Keyring, OsEntropy, Record, Result,
    Revision, SessionStore, SubjectIndex, Timestamp, Token,
};

use super::{
    Shared,
    codec::{decode, encode},
};

/// What fits into three cookies of 4096 bytes.
const MAX_DATA: usize = 8000;

#[derive(Debug)]
pub(super) struct SealedStore {
    shared: Arc<Shared>,
    keyring: Keyring,
}

impl SealedStore {
    pub(super) fn new(shared: Arc<Shared>, keyring: Keyring) -> Self {
        Self { shared, keyring }
    }

    fn has(&self, bug: &str) -> bool {
        self.shared.bug == bug
    }

    fn purpose(&self, cookie: &CookieName) -> String {
        match self.has("seal-forgets-the-cookie") {
            true => String::new(),
            false => cookie.as_str().into(),
        }
    }

    fn seal(&self, cookie: &CookieName, record: &Record) -> Result<Token> {
        let mut record = record.clone();
        match self.shared.bug {
            "cookie-is-cut" => record.data.truncate(MAX_DATA),
            _ => record.check_size(self.capabilities().max_data)?,
        }
        let plain = encode(&record);
        let purpose = self.purpose(cookie);
        let sealed = match self.shared.bug {
            "sealed-is-only-signed" => self.keyring.sign("store", &purpose, &plain),
            "nonces-repeat" => self.keyring.seal(&Same, "store", &purpose, &plain)?,
            _ => self.keyring.seal(&OsEntropy, "store", &purpose, &plain)?,
        };
        Ok(Token::from_bytes(sealed, cookie))
    }

    fn unseal(&self, token: &Token) -> Result<Option<Record>> {
        let (bytes, purpose) = (token.expose(), self.purpose(token.cookie()));
        let opened = match self.shared.bug {
            "sealed-is-only-signed" => self.keyring.verify("store", &purpose, bytes),
            "a-tail-is-ignored" => (0..bytes.len().min(64)).find_map(|tail| {
                self.keyring
                    .open("store", &purpose, &bytes[..bytes.len() - tail])
            }),
            _ => self.keyring.open("store", &purpose, bytes),
        };
        match opened {
            Some(opened) => decode(&opened.payload).map(Some),
            None if self.has("plain-is-accepted") => Ok(decode(bytes).ok()),
            None if self.has("bad-cookies-differ") && bytes.first() == Some(&2) => {
                Err(ErrorKind::Corrupt.into())
            }
            None => Ok(None),
        }
    }

    fn live(&self, token: &Token) -> Result<Option<Record>> {
        let record = self.unseal(token)?;
        if self.has("sealed-expiry-is-ignored") {
            return Ok(record);
        }
        Ok(record.filter(|record| record.is_live(self.shared.clock.now())))
    }

    /// The record, whose revision can only be compared with the one that the client sent.
    fn live_at(&self, token: &Token, expected: Revision) -> Result<Record> {
        let record = self.live(token)?.ok_or(ErrorKind::Missing)?;
        if record.revision != expected {
            return Err(ErrorKind::Conflict.into());
        }
        Ok(record)
    }
}

/// A source of randomness that always says the same.
#[derive(Debug)]
struct Same;

impl Entropy for Same {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(4);
        Ok(())
    }
}

#[async_trait]
impl SessionStore for SealedStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::client(MAX_DATA)
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        self.seal(token.cookie(), record)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        self.live(token)
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        record.check_size(self.capabilities().max_data)?;
        self.live_at(token, expected)?;
        match self.has("update-returns-the-old-cookie") {
            true => Ok(token.clone()),
            false => self.seal(token.cookie(), record),
        }
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let record = match self.has("touch-revives-a-cookie") {
            true => self.unseal(token)?,
            false => self.live(token)?,
        };
        let record = Record {
            expires_at,
            ..record.ok_or(ErrorKind::Missing)?
        };
        self.seal(token.cookie(), &record)
    }

    async fn delete(&self, _token: &Token, expected: Option<Revision>) -> Result<bool> {
        match self.shared.bug {
            "delete-of-a-cookie-is-ok" => Ok(true),
            "delete-of-a-cookie-at-a-revision-is-ok" if expected.is_some() => Ok(true),
            _ => Err(Error::from(ErrorKind::Unsupported)),
        }
    }

    async fn sweep(&self, _limit: usize) -> Result<u64> {
        Err(ErrorKind::Unsupported.into())
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        None
    }

    fn has_made(&self, token: &Token) -> bool {
        match self.shared.bug {
            "every-token-is-its-own" => true,
            "disowns-what-has-expired" => matches!(self.live(token), Ok(Some(_))),
            _ => matches!(self.unseal(token), Ok(Some(_))),
        }
    }
}
