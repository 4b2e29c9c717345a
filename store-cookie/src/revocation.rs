use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use sessionkit::{
    Clock, CookieName, Custody, Entropy, Error, ErrorKind, Label, Record, Result, Revision,
    SessionStore, Timestamp, Token,
};

use crate::envelope::{Envelope, SessionId};

/// By how much the clocks of two hosts may differ before a token that one of them has sealed could
/// outlive the entry that another one has made.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// A list of session ids that have ended, kept in a server-side store.
#[derive(Clone)]
pub(crate) struct Revocations {
    list: Arc<dyn SessionStore>,
    /// The longest time from the making of a token to its expiry.
    longest: Duration,
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations")
            .field("list", &self.list)
            .field("longest", &self.longest)
            .finish()
    }
}

impl Revocations {
    pub(crate) fn new(list: Arc<dyn SessionStore>, longest: Duration) -> Result<Self> {
        if list.capabilities().custody != Custody::Server {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a revocation list needs a store that keeps its records on a server",
            ));
        }
        if longest.is_zero() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "with a longest life of zero no session could be stored",
            ));
        }
        Ok(Self { list, longest })
    }

    pub(crate) fn list(&self) -> &dyn SessionStore {
        &*self.list
    }

    /// Refuses to make a token that could outlive its entry: entries end, so the tokens that they
    /// revoke have to end before.
    pub(crate) fn check_expiry(&self, now: Timestamp, expires_at: Timestamp) -> Result<()> {
        if expires_at > now + self.longest {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the session would live longer than the revocation list is told to expect",
            ));
        }
        Ok(())
    }

    /// Whether the token has ended, by the list or because it was made under other settings and
    /// could outlive its entry.
    pub(crate) async fn has_ended(&self, envelope: &Envelope, now: Timestamp) -> Result<bool> {
        Ok(now >= envelope.issued_at + self.longest
            || self.list.load(&entry_token(envelope.id)).await?.is_some())
    }

    /// Puts the session on the list. Returns whether it was not on it before.
    pub(crate) async fn add(
        &self,
        envelope: &Envelope,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<bool> {
        let token = entry_token(envelope.id);
        let entry = self.entry(envelope, clock.now(), entropy)?;
        match self.list.create(token.clone(), &entry).await {
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                ErrorKind::Exists => Ok(false),
                ErrorKind::Ambiguous => self.settle(&token, &entry).await.ok_or(error),
                _ => Err(error),
            },
        }
    }

    /// The entry outlives every token of the session: all of them were made before `now`, or before
    /// the moment at which the one that is revoked was made by a clock that runs ahead.
    fn entry(&self, envelope: &Envelope, now: Timestamp, entropy: &dyn Entropy) -> Result<Record> {
        let granularity = self.list.capabilities().expiry_granularity;
        let last_made = now.max(envelope.issued_at);
        Ok(Record {
            data: Bytes::new(),
            revision: Revision::random(entropy)?,
            created_at: now,
            expires_at: last_made + self.longest + granularity + CLOCK_SKEW,
            subject: None,
            label: Label::default(),
        })
    }

    /// What became of an entry whose fate is unknown, or `None` when that stays unknown.
    async fn settle(&self, token: &Token, entry: &Record) -> Option<bool> {
        let found = self.list.load(token).await.ok()??;
        Some(found.revision == entry.revision)
    }
}

/// The token under which a session id is on the list. It has another length than the tokens of
/// sessions, so that a list may share its store with them.
fn entry_token(id: SessionId) -> Token {
    let cookie = CookieName::new("revoked").expect("seven letters are a cookie name");
    Token::from_bytes(
        [b"sessionkit-cookie revoked 1\0", id.as_bytes()].concat(),
        &cookie,
    )
}
