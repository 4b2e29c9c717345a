use std::{fmt, sync::Arc};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{Entropy, Error, ErrorKind, Result};

/// What the client carries to name its session, and the cookie that it belongs to.
///
/// For a store that keeps state on a server this is [`LEN`](Self::LEN) random bytes: the id of the
/// session, which it keeps for life, and a secret, which a renewal replaces. The store files the
/// record under [`key`](Self::key), which depends on the id alone, and looks at nothing else: a
/// session has one record under one key, whatever its secret is. A client-side store puts the
/// sealed record into the token it returns, and authenticates the [`cookie`](Self::cookie) with it.
///
/// Two tokens are equal when their bytes are; `Debug` shows none of them.
///
/// ```
/// use sessionkit::{CookieName, OsEntropy, Token};
///
/// let token = Token::random(&OsEntropy, &CookieName::new("__Host-id")?)?;
/// assert_eq!(token.expose().len(), Token::LEN);
/// assert_eq!(token.key(), token.clone().key());
/// assert_eq!(format!("{token:?}"), "Token(..)");
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone)]
pub struct Token {
    bytes: Bytes,
    cookie: CookieName,
}

impl Token {
    /// The length of a random token, in bytes: 128 bits of id and 128 bits of secret.
    pub const LEN: usize = 32;

    /// The length of the id, the first part of a random token, in bytes.
    pub const ID_LEN: usize = 16;

    /// The length of the secret, the second part of a random token, in bytes.
    pub(crate) const SECRET_LEN: usize = Self::LEN - Self::ID_LEN;

    /// A new token for a session in the cookie of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the source of randomness fails.
    pub fn random(entropy: &dyn Entropy, cookie: &CookieName) -> Result<Self> {
        let mut bytes = [0; Self::LEN];
        entropy.fill(&mut bytes)?;
        Ok(Self::from_bytes(Bytes::copy_from_slice(&bytes), cookie))
    }

    /// The token made of these bytes, which the client sent and the caller has verified, or which a
    /// client-side store has sealed.
    pub fn from_bytes(bytes: impl Into<Bytes>, cookie: &CookieName) -> Self {
        Self {
            bytes: bytes.into(),
            cookie: cookie.clone(),
        }
    }

    /// The secret bytes. Whoever has them has the session: they belong in the client's cookie and
    /// nowhere else.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// The name of the cookie that carries the token.
    #[must_use]
    pub fn cookie(&self) -> &CookieName {
        &self.cookie
    }

    /// The key under which a server-side store files the record. It follows from the id, so that
    /// it stays the same when the secret is replaced; bytes of another length than a random token's
    /// are one id as a whole.
    #[must_use]
    pub fn key(&self) -> StoreKey {
        let id = match self.bytes.len() {
            Self::LEN => &self.bytes[..Self::ID_LEN],
            _ => &self.bytes,
        };
        let mut hash = Sha256::new_with_prefix(b"sessionkit store key 2\0");
        hash.update(id);
        StoreKey(hash.finalize().into())
    }

    /// The token of the same session with another secret.
    ///
    /// # Panics
    /// When this is not a random token: a client-side store makes its own.
    pub(crate) fn with_secret(&self, secret: &[u8; Self::SECRET_LEN]) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes[..Self::ID_LEN].copy_from_slice(&self.bytes[..Self::ID_LEN]);
        bytes[Self::ID_LEN..].copy_from_slice(secret);
        Self::from_bytes(Bytes::copy_from_slice(&bytes), &self.cookie)
    }

    /// The token of the same session with a new random secret.
    pub(crate) fn with_new_secret(&self, entropy: &dyn Entropy) -> Result<Self> {
        let mut secret = [0; Self::SECRET_LEN];
        entropy.fill(&mut secret)?;
        Ok(self.with_secret(&secret))
    }

    /// The second part of a random token.
    pub(crate) fn secret(&self) -> &[u8] {
        &self.bytes[Self::ID_LEN..]
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The name under which a server-side store files a record: the SHA-256 hash (FIPS 180-4) of a
/// fixed prefix and the id of the session.
///
/// The token cannot be computed from it, so that a copy of the database opens no session. It stays
/// the same for the life of the session, over every renewal, and serves as the handle by which
/// lists, logs and events name the session and by which it is ended.
///
/// ```
/// use sessionkit::StoreKey;
///
/// let key = StoreKey::from_bytes([7; 32]);
/// assert_eq!(StoreKey::from_hex(&key.to_hex()), Some(key));
/// assert_eq!(StoreKey::from_hex("../../etc/passwd"), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey([u8; 32]);

impl StoreKey {
    /// The key with these bytes, as read back from a backend.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes as 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| char::from(DIGITS[usize::from(digit)]))
            .collect()
    }

    /// Reads what [`to_hex`](Self::to_hex) wrote, and nothing else.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let hex: &[u8; 64] = hex.as_bytes().try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(..)")
    }
}

/// The name of a cookie: an RFC 9110 token, compared byte for byte.
///
/// ```
/// use sessionkit::{CookieName, ErrorKind};
///
/// assert_eq!(CookieName::new("__Host-id")?.as_str(), "__Host-id");
/// assert_eq!(CookieName::new("a;b").unwrap_err().kind(), ErrorKind::InvalidConfig);
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CookieName(Arc<str>);

impl CookieName {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Checks the grammar (RFC 6265, section 4.1.1: a `token` of RFC 9110, section 5.6.2) and the
    /// length.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the name is empty, longer than
    /// [`MAX_LEN`](Self::MAX_LEN) bytes, or holds a character that no cookie name may have.
    pub fn new(name: &str) -> Result<Self> {
        let is_token_byte =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || name.len() > Self::MAX_LEN || !name.bytes().all(is_token_byte) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("{name:?} is not a cookie name of 1 to 128 token characters"),
            ));
        }
        Ok(Self(name.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
