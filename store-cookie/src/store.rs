use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use sessionkit::{
    Capabilities, Clock, CookieName, Durability, Entropy, Error, ErrorKind, Keyring, Opened,
    OsEntropy, Record, Result, Revision, SessionStore, SubjectIndex, SystemClock, Timestamp, Token,
};

use crate::{
    codec::{Envelope, Family},
    families::{Families, Standing},
};

/// No token of ours is longer: the header, nonce and tag of the keyring, the fields of the
/// envelope, a subject and a label take less than a kilobyte.
const MAX_TOKEN: usize = CookieStore::MAX_DATA + 1024;

/// Keeps each session in the token that the client carries.
///
/// [`new`](Self::new) encrypts and authenticates the record with AES-256-GCM under the newest key
/// of the keyring, together with its expiry, for one cookie name; [`signed_only`](Self::signed_only)
/// authenticates it and leaves it readable. Neither takes what the other has made.
///
/// Nothing is kept on the server, so nothing can be taken back:
/// [`delete`](SessionStore::delete) is [`ErrorKind::Unsupported`] until
/// [`with_revocations`](Self::with_revocations) names a list of ended sessions. See the front page
/// of this crate for what that means for a logout, and for the limits on the size.
///
/// A clone shares the keys and the list. Dropping a store loses nothing.
///
/// ```
/// use sessionkit::{Custody, Key, Keyring, SessionStore};
/// use sessionkit_cookie::CookieStore;
///
/// let keyring = Keyring::new([Key::generate()?])?;
/// let store = CookieStore::new(keyring);
/// assert_eq!(store.capabilities().custody, Custody::Client);
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone)]
pub struct CookieStore {
    keyring: Keyring,
    protection: Protection,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    families: Option<Families>,
}

#[derive(Clone, Copy, Debug)]
enum Protection {
    Sealed,
    Signed,
}

impl CookieStore {
    /// The largest payload, in bytes.
    pub const MAX_DATA: usize = 8192;

    /// A store whose tokens only the holders of the keys can read.
    #[must_use]
    pub fn new(keyring: Keyring) -> Self {
        Self::protected(keyring, Protection::Sealed)
    }

    /// A store whose tokens everybody can read and nobody else can make.
    ///
    /// **Whoever sees the cookie reads the session**: its user, the scripts of a page where the
    /// cookie is not `HttpOnly`, and the logs of a proxy. It is for sessions whose contents the
    /// client is meant to know. In everything else it is like [`new`](Self::new).
    #[must_use]
    pub fn signed_only(keyring: Keyring) -> Self {
        Self::protected(keyring, Protection::Signed)
    }

    fn protected(keyring: Keyring, protection: Protection) -> Self {
        Self {
            keyring,
            protection,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            families: None,
        }
    }

    /// Sets the clock that sessions expire by; [`SystemClock`] by default.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the source of the families' names and the nonces; [`OsEntropy`] by default. Another one has its
    /// place in tests only: a repeated nonce gives the contents away.
    #[must_use]
    pub fn with_entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Keeps a list of ended and renewed sessions in `list`, any store that keeps its records on a
    /// server.
    ///
    /// All tokens of one session are a family: [`create`](SessionStore::create) begins one, and each
    /// [`renew`](SessionStore::renew) a new generation in it. The list has one entry for a family
    /// that was renewed or ended. [`delete`](SessionStore::delete) then works and ends the whole
    /// family, of whatever generation the token is that it is given; a renewal ends the generations
    /// before it, and of several renewals of one token one succeeds. Every other call looks a
    /// genuine, unexpired token up and takes one that has ended for absent. For 30 seconds after a
    /// renewal, [`load`](SessionStore::load) answers [`ErrorKind::Conflict`] to the tokens that it
    /// replaced, so that a request that comes late is not taken for a new visitor. When the list
    /// fails, so does the call: an unknown state is never "not revoked". All processes have to use
    /// the same list.
    ///
    /// `longest` is the longest time from a write or touch to the expiry that it sets: the longest
    /// idle timeout or remember-me period of the application. Later expiries are refused with
    /// [`ErrorKind::InvalidConfig`], and so is a session manager whose sessions have them. Tokens
    /// made under other settings end after this time, and an entry leaves the list a little more than
    /// this time after it was made, when no token that it revokes can be alive. Sweep `list` itself
    /// from time to time.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when `list` leaves its records with the client, or `longest` is
    /// zero.
    pub fn with_revocations(
        mut self,
        list: Arc<dyn SessionStore>,
        longest: Duration,
    ) -> Result<Self> {
        self.families = Some(Families::new(list, longest)?);
        Ok(self)
    }

    /// The token with these contents, under the newest key.
    fn make(&self, cookie: &CookieName, envelope: &Envelope) -> Result<Token> {
        let plain = envelope.encode();
        let purpose = self.protection.purpose();
        let bytes = match self.protection {
            Protection::Sealed => {
                self.keyring
                    .seal(&*self.entropy, purpose, cookie.as_str(), &plain)?
            }
            Protection::Signed => self.keyring.sign(purpose, cookie.as_str(), &plain),
        };
        Ok(Token::from_bytes(bytes, cookie))
    }

    /// The contents of a token that we made, alive or not.
    fn open(&self, token: &Token) -> Option<Envelope> {
        let (bytes, context) = (token.expose(), token.cookie().as_str());
        if bytes.len() > MAX_TOKEN {
            return None;
        }
        let purpose = self.protection.purpose();
        let Opened { payload, .. } = match self.protection {
            Protection::Sealed => self.keyring.open(purpose, context, bytes)?,
            Protection::Signed => self.keyring.verify(purpose, context, bytes)?,
        };
        Envelope::decode(&Bytes::from(payload))
    }

    /// The contents of a token that we made and that has not ended by itself.
    fn open_live(&self, token: &Token, now: Timestamp) -> Option<Envelope> {
        self.open(token)
            .filter(|envelope| self.is_live(envelope, now))
    }

    fn is_live(&self, envelope: &Envelope, now: Timestamp) -> bool {
        let families = self.families.as_ref();
        envelope.record.is_live(now)
            && !families.is_some_and(|families| families.could_outlive_entry(envelope, now))
    }

    /// As [`open_live`](Self::open_live), and whether the list has anything against the token.
    async fn standing(
        &self,
        token: &Token,
        now: Timestamp,
    ) -> Result<Option<(Envelope, Standing)>> {
        let Some(envelope) = self.open_live(token, now) else {
            return Ok(None);
        };
        let standing = match &self.families {
            Some(families) => families.standing(&envelope, now).await?,
            None => Standing::Good,
        };
        Ok(Some((envelope, standing)))
    }

    /// The contents of a token that names a session.
    async fn live(&self, token: &Token, now: Timestamp) -> Result<Option<Envelope>> {
        Ok(match self.standing(token, now).await? {
            Some((envelope, Standing::Good)) => Some(envelope),
            _ => None,
        })
    }

    fn check(&self, now: Timestamp, record: &Record) -> Result<()> {
        record.check_size(Self::MAX_DATA)?;
        self.check_expiry(now, record.expires_at)
    }

    fn check_expiry(&self, now: Timestamp, expires_at: Timestamp) -> Result<()> {
        match &self.families {
            Some(families) => families.check_expiry(now, expires_at),
            None => Ok(()),
        }
    }
}

impl Protection {
    const fn purpose(self) -> &'static str {
        match self {
            Self::Sealed => "sessionkit-cookie sealed 1",
            Self::Signed => "sessionkit-cookie signed 1",
        }
    }
}

impl fmt::Debug for CookieStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieStore")
            .field("keyring", &self.keyring)
            .field("protection", &self.protection)
            .field("families", &self.families)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for CookieStore {
    fn capabilities(&self) -> Capabilities {
        let capabilities = Capabilities::client(Self::MAX_DATA).durability(Durability::Disk);
        match &self.families {
            None => capabilities,
            Some(families) => {
                let list = families.list().capabilities();
                capabilities
                    .durability(list.durability)
                    .staleness(list.staleness)
                    .max_lifetime(families.longest())
            }
        }
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        let now = self.clock.now();
        self.check(now, record)?;
        if self.live(&token, now).await?.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        let envelope = Envelope {
            family: Family::random(&*self.entropy)?,
            generation: 0,
            issued_at: now,
            record: record.clone(),
        };
        self.make(token.cookie(), &envelope)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        match self.standing(token, self.clock.now()).await? {
            Some((envelope, Standing::Good)) => Ok(Some(envelope.record)),
            Some((_, Standing::Late)) => Err(Error::new(
                ErrorKind::Conflict,
                "the session was renewed a moment ago",
            )),
            Some((_, Standing::Dead)) | None => Ok(None),
        }
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let now = self.clock.now();
        self.check(now, record)?;
        let old = self.live(token, now).await?.ok_or(ErrorKind::Missing)?;
        expect(&old, expected)?;
        let envelope = Envelope {
            issued_at: now,
            record: record.clone(),
            ..old
        };
        self.make(token.cookie(), &envelope)
    }

    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let now = self.clock.now();
        self.check(now, record)?;
        let old = self.open_live(token, now).ok_or(ErrorKind::Missing)?;
        expect(&old, expected)?;
        let generation = old.generation.checked_add(1).ok_or(ErrorKind::Missing)?;
        // Made first: once the old generation has ended, nothing may fail any more.
        let new = self.make(
            token.cookie(),
            &Envelope {
                family: old.family,
                generation,
                issued_at: now,
                record: record.clone(),
            },
        )?;
        if let Some(families) = &self.families {
            let (clock, entropy) = (&*self.clock, &*self.entropy);
            families
                .renew(&old, generation, record.revision, clock, entropy)
                .await?;
        }
        Ok(new)
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let now = self.clock.now();
        self.check_expiry(now, expires_at)?;
        let mut envelope = self.live(token, now).await?.ok_or(ErrorKind::Missing)?;
        envelope.issued_at = now;
        envelope.record.expires_at = expires_at;
        self.make(token.cookie(), &envelope)
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let Some(families) = &self.families else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a session in a cookie can only be ended with a revocation list",
            ));
        };
        let Some(envelope) = self.open(token) else {
            return Ok(false);
        };
        let is_live = self.is_live(&envelope, self.clock.now());
        if let Some(expected) = expected
            && is_live
        {
            expect(&envelope, expected)?;
        }
        // Expired tokens too: a clock that is set back must not revive them.
        let ended = families
            .end(&envelope, &*self.clock, &*self.entropy)
            .await?;
        Ok(ended && is_live)
    }

    async fn sweep(&self, _limit: usize) -> Result<u64> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "sessions in cookies need no sweep",
        ))
    }

    async fn ping(&self) -> Result<()> {
        match &self.families {
            Some(families) => families.list().ping().await,
            None => Ok(()),
        }
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        None
    }

    fn has_made(&self, token: &Token) -> bool {
        self.open(token).is_some()
    }
}

/// The revision is the token's own: what other copies have become of it, nobody knows.
fn expect(envelope: &Envelope, expected: Revision) -> Result<()> {
    if envelope.record.revision != expected {
        return Err(ErrorKind::Conflict.into());
    }
    Ok(())
}
