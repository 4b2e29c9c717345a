use std::{
    env, fmt, fs,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use aes_gcm::{
    Aes256Gcm,
    aead::{AeadInOut, KeyInit, Nonce, Tag},
};
use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{Entropy, Error, ErrorKind, OsEntropy, Result};

const SIGNED: u8 = 1;
const SEALED: u8 = 2;
const HEADER: usize = 1 + KeyId::LEN;
const MAC: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;

/// The keys that sign and seal what clients carry: the newest writes, every one reads.
///
/// Clones share their keys, so that a rotation reaches every session manager and store that was
/// built with the keyring, without a restart. Everything written names the key it was written
/// with: one key is tried, not all, and what a removed key wrote is refused.
///
/// From each key two others are derived with HKDF-SHA-256 (RFC 5869): one for HMAC-SHA-256 (RFC
/// 2104), one for AES-256-GCM (NIST SP 800-38D) with random 96-bit nonces. The latter allows 2^32
/// sealed values under one key; rotate long before.
///
/// ```
/// use sessionkit::{Key, Keyring};
///
/// let keyring = Keyring::new([Key::generate()?])?;
/// let signed = keyring.sign("newsletter", "alice", b"payload");
/// assert_eq!(&*keyring.verify("newsletter", "alice", &signed).unwrap().payload, b"payload");
/// assert!(keyring.verify("newsletter", "bob", &signed).is_none());
///
/// keyring.rotate(Key::generate()?)?;
/// assert!(!keyring.verify("newsletter", "alice", &signed).unwrap().current);
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone)]
pub struct Keyring {
    scope: Arc<str>,
    keys: Arc<RwLock<Arc<[RingKey]>>>,
}

#[derive(Clone)]
struct RingKey {
    id: KeyId,
    mac: Hmac<Sha256>,
    aead: Aes256Gcm,
}

/// What [`Keyring::verify`] or [`Keyring::open`] found.
#[derive(Clone)]
pub struct Opened {
    /// The bytes that were signed or sealed.
    pub payload: Vec<u8>,
    /// Whether the newest key wrote them. If not, write them anew before that key is removed.
    pub current: bool,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl Keyring {
    /// A keyring of these keys, the newest first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is no key, or one is there twice.
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Result<Self> {
        Self::scoped("", keys)
    }

    /// A keyring for one application or tenant of several that share their keys: what it signs and
    /// seals is worthless under another scope.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn scoped(scope: &str, keys: impl IntoIterator<Item = Key>) -> Result<Self> {
        let keyring = Self {
            scope: scope.into(),
            keys: Arc::new(RwLock::new(Arc::new([]))),
        };
        keyring.replace(keys)?;
        Ok(keyring)
    }

    /// The keys in an environment variable: texts as [`Key::parse`] takes them, separated by white
    /// space or commas, the newest first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the variable is not set, or a key is malformed, weak or
    /// there twice.
    pub fn from_env(variable: &str) -> Result<Self> {
        let text = env::var(variable).map(Zeroizing::new).map_err(|_| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("the environment variable {variable} does not hold a text"),
            )
        })?;
        Self::new(parse_all(&text)?)
    }

    /// The keys in a file, written as for [`from_env`](Self::from_env).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the file cannot be read, or a key is malformed, weak or
    /// there twice.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let text = fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|error| {
                Error::new(ErrorKind::InvalidConfig, "the key file cannot be read")
                    .with_source(error)
            })?;
        Self::new(parse_all(&text)?)
    }

    /// Makes `newest` the key that writes; the others go on reading.
    ///
    /// Where several processes serve one application, first give all of them the new key as a
    /// reading one with [`replace`](Self::replace), then rotate.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the keyring has the key already.
    #[expect(clippy::needless_pass_by_value, reason = "the key is handed over")]
    pub fn rotate(&self, newest: Key) -> Result<()> {
        self.change(|keys| {
            keys.insert(0, RingKey::derive(&newest, &self.scope));
        })
    }

    /// Removes a key: what it wrote is refused from now on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the keyring does not have the key, or no other.
    pub fn remove(&self, id: KeyId) -> Result<()> {
        if !self.ids().contains(&id) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the keyring has no key {id}"),
            ));
        }
        self.change(|keys| keys.retain(|key| key.id != id))
    }

    /// Replaces all keys, the newest first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is no key, or one is there twice; the keyring then
    /// stays as it was.
    pub fn replace(&self, keys: impl IntoIterator<Item = Key>) -> Result<()> {
        let new: Vec<_> = keys
            .into_iter()
            .map(|key| RingKey::derive(&key, &self.scope))
            .collect();
        self.change(|keys| *keys = new)
    }

    /// The ids of the keys, the newest first.
    #[must_use]
    pub fn ids(&self) -> Vec<KeyId> {
        self.keys().iter().map(|key| key.id).collect()
    }

    /// Signs `payload` with the newest key, for a purpose and a context that
    /// [`verify`](Self::verify) has to be given again. The payload stays readable.
    #[must_use]
    pub fn sign(&self, purpose: &str, context: &str, payload: &[u8]) -> Vec<u8> {
        let keys = self.keys();
        let key = &keys[0];
        let mut signed = Vec::with_capacity(HEADER + payload.len() + MAC);
        signed.push(SIGNED);
        signed.extend_from_slice(&key.id.0);
        signed.extend_from_slice(payload);
        let mac = key.authenticate(purpose, context, &signed);
        signed.extend_from_slice(&mac.finalize().into_bytes());
        signed
    }

    /// The payload of what [`sign`](Self::sign) returned, or `None` when this keyring has not
    /// signed it for this purpose and context. The comparison takes the same time for every wrong
    /// signature.
    #[must_use]
    pub fn verify(&self, purpose: &str, context: &str, signed: &[u8]) -> Option<Opened> {
        let keys = self.keys();
        let (key, body) = select(&keys, SIGNED, signed)?;
        let (payload, mac) = body.split_at_checked(body.len().checked_sub(MAC)?)?;
        keys[key]
            .authenticate(purpose, context, &signed[..signed.len() - MAC])
            .verify_slice(mac)
            .ok()?;
        Some(Opened {
            payload: payload.to_vec(),
            current: key == 0,
        })
    }

    /// Encrypts and authenticates `plaintext` with the newest key, for a purpose and a context that
    /// [`open`](Self::open) has to be given again.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the source of randomness fails.
    pub fn seal(
        &self,
        entropy: &dyn Entropy,
        purpose: &str,
        context: &str,
        plaintext: &[u8],
    ) -> Result<Vec<u8>> {
        let keys = self.keys();
        let key = &keys[0];
        let mut sealed = Vec::with_capacity(HEADER + NONCE + plaintext.len() + TAG);
        sealed.push(SEALED);
        sealed.extend_from_slice(&key.id.0);
        let data = associated_data(purpose, context, &sealed);
        encrypt_onto(&key.aead, entropy, &data, plaintext, &mut sealed)?;
        Ok(sealed)
    }

    /// The plaintext of what [`seal`](Self::seal) returned, or `None` when this keyring has not
    /// sealed it for this purpose and context.
    #[must_use]
    pub fn open(&self, purpose: &str, context: &str, sealed: &[u8]) -> Option<Opened> {
        let keys = self.keys();
        let (key, body) = select(&keys, SEALED, sealed)?;
        let data = associated_data(purpose, context, &sealed[..HEADER]);
        Some(Opened {
            payload: decrypt(&keys[key].aead, &data, body)?,
            current: key == 0,
        })
    }

    fn keys(&self) -> Arc<[RingKey]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<RingKey>)) -> Result<()> {
        let mut guard = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let mut keys = guard.to_vec();
        edit(&mut keys);
        if keys.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a keyring needs a key",
            ));
        }
        for (position, key) in keys.iter().enumerate() {
            if keys[..position].iter().any(|other| other.id == key.id) {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("the keyring has the key {} twice", key.id),
                ));
            }
        }
        *guard = keys.into();
        Ok(())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.ids()).finish()
    }
}

impl RingKey {
    fn derive(key: &Key, scope: &str) -> Self {
        let derived = Hkdf::<Sha256>::new(None, &key.0);
        let expand = |label: &[u8]| {
            let mut bytes = Zeroizing::new([0; 32]);
            derived
                .expand_multi_info(&[label, scope.as_bytes()], &mut *bytes)
                .expect("32 bytes are within the limit of HKDF-SHA-256");
            bytes
        };
        Self {
            id: key.id(),
            mac: Hmac::new_from_slice(&*expand(b"sessionkit sign 1\0"))
                .expect("HMAC takes a key of any length"),
            aead: Aes256Gcm::new((&*expand(b"sessionkit seal 1\0")).into()),
        }
    }

    fn authenticate(&self, purpose: &str, context: &str, message: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        for part in [purpose, context] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac.update(message);
        mac
    }
}

/// The position of the key that a signed or sealed value names, and what follows the header.
fn select<'a>(keys: &[RingKey], format: u8, value: &'a [u8]) -> Option<(usize, &'a [u8])> {
    let (header, body) = value.split_at_checked(HEADER)?;
    let position = keys.iter().position(|key| key.id.0 == header[1..])?;
    (header[0] == format).then_some((position, body))
}

fn associated_data(purpose: &str, context: &str, header: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(16 + purpose.len() + context.len() + header.len());
    for part in [purpose, context] {
        data.extend_from_slice(&(part.len() as u64).to_le_bytes());
        data.extend_from_slice(part.as_bytes());
    }
    data.extend_from_slice(header);
    data
}

/// Appends a random nonce, the ciphertext and the tag.
pub(crate) fn encrypt_onto(
    aead: &Aes256Gcm,
    entropy: &dyn Entropy,
    associated_data: &[u8],
    plaintext: &[u8],
    sealed: &mut Vec<u8>,
) -> Result<()> {
    let mut nonce = [0; NONCE];
    entropy.fill(&mut nonce)?;
    sealed.extend_from_slice(&nonce);
    let start = sealed.len();
    sealed.extend_from_slice(plaintext);
    let tag = aead
        .encrypt_inout_detached(
            &Nonce::<Aes256Gcm>::from(nonce),
            associated_data,
            sealed[start..].as_mut().into(),
        )
        .map_err(|_| Error::new(ErrorKind::TooLarge, "the data are too large to encrypt"))?;
    sealed.extend_from_slice(&tag);
    Ok(())
}

/// Undoes [`encrypt_onto`]; `None` when a bit is wrong.
pub(crate) fn decrypt(aead: &Aes256Gcm, associated_data: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG>()?;
    let mut plaintext = ciphertext.to_vec();
    aead.decrypt_inout_detached(
        &Nonce::<Aes256Gcm>::from(*nonce),
        associated_data,
        plaintext.as_mut_slice().into(),
        &Tag::<Aes256Gcm>::from(*tag),
    )
    .ok()?;
    Some(plaintext)
}

/// A secret of at least 32 random bytes, wiped from memory when dropped.
///
/// ```
/// use sessionkit::{ErrorKind, Key};
///
/// let key = Key::generate()?;
/// let text = key.expose_base64();
/// assert_eq!(Key::parse(&text)?.id(), key.id());
/// assert_eq!(Key::from_bytes(&[0; 32]).unwrap_err().kind(), ErrorKind::InvalidConfig);
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone)]
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// The shortest key, in bytes.
    pub const MIN_LEN: usize = 32;

    /// A new random key.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the operating system has no random bytes.
    pub fn generate() -> Result<Self> {
        let mut bytes = Zeroizing::new(vec![0; Self::MIN_LEN]);
        OsEntropy.fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The key with these bytes, which come from a generator of random bytes: not from a person, a
    /// word list or a hash of a password.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there are fewer than [`MIN_LEN`](Self::MIN_LEN) bytes, or
    /// they are evidently not random: few different ones, a counter, or readable text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        match weakness(bytes) {
            None => Ok(Self(Zeroizing::new(bytes.to_vec()))),
            Some(weakness) => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the key {weakness}; generate 32 random bytes"),
            )),
        }
    }

    /// The key in a text: hexadecimal digits, or base64 (RFC 4648) in either alphabet, padded or
    /// not.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the text is neither, or the key is weak.
    pub fn parse(text: &str) -> Result<Self> {
        let bytes = decode_hex(text)
            .or_else(|| decode_base64(text))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    "the key is neither hexadecimal nor base64",
                )
            })?;
        Self::from_bytes(&bytes)
    }

    /// The key in base64, to be kept where secrets are kept.
    #[must_use]
    pub fn expose_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(&*self.0))
    }

    /// The key's id, which is no secret.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let mut hash = Sha256::new_with_prefix(b"sessionkit key id 1\0");
        hash.update(&*self.0);
        let mut id = [0; KeyId::LEN];
        id.copy_from_slice(&hash.finalize()[..KeyId::LEN]);
        KeyId(id)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

/// The public name of a key: the first four bytes of a hash of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; Self::LEN]);

impl KeyId {
    const LEN: usize = 4;
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn weakness(bytes: &[u8]) -> Option<&'static str> {
    let mut seen = [false; 256];
    bytes
        .iter()
        .for_each(|&byte| seen[usize::from(byte)] = true);
    let step = |pair: &[u8]| pair[1].wrapping_sub(pair[0]);
    if bytes.len() < Key::MIN_LEN {
        Some("has fewer than 32 bytes")
    } else if seen.iter().filter(|&&seen| seen).count() < Key::MIN_LEN / 2 {
        Some("repeats itself")
    } else if bytes.windows(2).all(|pair| step(pair) == step(bytes)) {
        Some("is a counter")
    } else if bytes.iter().all(u8::is_ascii) && bytes.iter().all(|byte| !byte.is_ascii_control()) {
        Some("is readable text")
    } else {
        None
    }
}

fn parse_all(text: &str) -> Result<Vec<Key>> {
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|key| !key.is_empty())
        .map(Key::parse)
        .collect()
}

fn decode_hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|start| u8::from_str_radix(&text[start..start + 2], 16).ok())
        .collect::<Option<_>>()
        .map(Zeroizing::new)
}

fn decode_base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [&STANDARD, &URL_SAFE]
        .into_iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, lenient).decode(text).ok())
        .map(Zeroizing::new)
}
