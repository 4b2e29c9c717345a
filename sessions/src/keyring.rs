use std::{
    env, fmt,
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use aes_gcm::{
    Aes256Gcm,
    aead::{AeadInOut, KeyInit, Nonce, Tag},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    Entropy, Error, ErrorKind, Key, KeyId, Result, key::parse_all, traces::without_traces,
};

const SIGNED: u8 = 1;
const SEALED: u8 = 2;
const HEADER: usize = 1 + KeyId::LEN;
const MAC: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;

/// The longest text of keys that is read from a file, in bytes.
const MAX_TEXT: usize = 64 << 10;

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
/// When the last clone is dropped, or a key is removed, the key and everything that was derived from
/// it are wiped from memory, with the copies that their use has left on the stack.
///
/// Where several processes serve one application, a key changes in two steps: all of them
/// [`accept`](Self::accept) the new one, then all of them [`promote`](Self::promote) it. At no
/// moment does one refuse what another has written. See `docs/key-rotation.md` in the repository.
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
    keys: Arc<RwLock<Keys>>,
}

/// A key keeps its place in memory until it is wiped: what is shared is never moved.
type Keys = Arc<[Arc<RingKey>]>;

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

    /// The keys in a file of at most 64 KiB, written as for [`from_env`](Self::from_env).
    ///
    /// Unlike the environment of a process, a file leaves nothing in memory once it was read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the file cannot be read, or a key is malformed, weak or
    /// there twice.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let text = read(path.as_ref()).map_err(|error| {
            Error::new(ErrorKind::InvalidConfig, "the key file cannot be read").with_source(error)
        })?;
        let text = str::from_utf8(&text)
            .map_err(|_| Error::new(ErrorKind::InvalidConfig, "the key file holds no text"))?;
        Self::new(parse_all(text)?)
    }

    /// Adds a key that only reads, after those that are there: the first step of a rotation over
    /// several processes. The second one is [`promote`](Self::promote).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the keyring has the key already.
    ///
    /// ```
    /// use sessionkit::{Key, Keyring};
    ///
    /// let old = Key::generate()?;
    /// let (here, there) = (Keyring::new([old.clone()])?, Keyring::new([old])?);
    /// let new = Key::generate()?;
    /// let id = new.id();
    ///
    /// here.accept(new.clone())?;
    /// there.accept(new)?;
    /// // Once every process accepts the key, it may write.
    /// here.promote(id)?;
    /// let signed = here.sign("newsletter", "alice", b"payload");
    /// assert!(there.verify("newsletter", "alice", &signed).is_some());
    /// there.promote(id)?;
    /// # Ok::<(), sessionkit::Error>(())
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "the key is handed over")]
    pub fn accept(&self, key: Key) -> Result<()> {
        let key = RingKey::derive(&key, &self.scope);
        self.change(|keys| keys.push(key))
    }

    /// Makes a key that the keyring has the one that writes; the others go on reading.
    ///
    /// Promoting the key that writes already changes nothing. Promoting the one before undoes a
    /// rotation.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the keyring does not have the key.
    pub fn promote(&self, id: KeyId) -> Result<()> {
        self.position(id)?;
        self.change(|keys| keys.sort_by_key(|key| key.id != id))
    }

    /// Makes `newest` the key that writes; the others go on reading.
    ///
    /// This is for an application in one process. Another one would refuse what this one writes
    /// until it has the key too: let all of them [`accept`](Self::accept) it first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the keyring has the key already.
    #[expect(clippy::needless_pass_by_value, reason = "the key is handed over")]
    pub fn rotate(&self, newest: Key) -> Result<()> {
        let newest = RingKey::derive(&newest, &self.scope);
        self.change(|keys| keys.insert(0, newest))
    }

    /// Removes a key: what it wrote is refused from now on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the keyring does not have the key, or no other.
    pub fn remove(&self, id: KeyId) -> Result<()> {
        self.position(id)?;
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
        without_traces(|| {
            let mac = key.authenticate(purpose, context, &signed);
            signed.extend_from_slice(&mac.finalize().into_bytes());
        });
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
        without_traces(|| {
            keys[key]
                .authenticate(purpose, context, &signed[..signed.len() - MAC])
                .verify_slice(mac)
                .ok()
        })?;
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
        without_traces(|| encrypt_onto(&key.aead, entropy, &data, plaintext, &mut sealed))?;
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
            payload: without_traces(|| decrypt(&keys[key].aead, &data, body))?,
            current: key == 0,
        })
    }

    /// Where the key is, the newest being the first.
    fn position(&self, id: KeyId) -> Result<usize> {
        let position = self.keys().iter().position(|key| key.id == id);
        position.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("the keyring has no key {id}"),
            )
        })
    }

    fn keys(&self) -> Keys {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Arc<RingKey>>)) -> Result<()> {
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
    fn derive(key: &Key, scope: &str) -> Arc<Self> {
        without_traces(|| {
            let derived = Hkdf::<Sha256>::new(None, &key.0);
            let expand = |label: &[u8]| {
                let mut bytes = Zeroizing::new([0; 32]);
                derived
                    .expand_multi_info(&[label, scope.as_bytes()], &mut *bytes)
                    .expect("32 bytes are within the limit of HKDF-SHA-256");
                bytes
            };
            Arc::new(Self {
                id: key.id(),
                mac: Hmac::new_from_slice(&*expand(b"sessionkit sign 1\0"))
                    .expect("HMAC takes a key of any length"),
                aead: Aes256Gcm::new((&*expand(b"sessionkit seal 1\0")).into()),
            })
        })
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

/// Reads a file into one buffer, which never moves.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path)?;
    let mut text = Zeroizing::new(vec![0; MAX_TEXT + 1]);
    let mut len = 0;
    while len < text.len() {
        match file.read(&mut text[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if len > MAX_TEXT {
        return Err(io::Error::other("it has more than 64 KiB"));
    }
    text.truncate(len);
    Ok(text)
}

/// The position of the key that a signed or sealed value names, and what follows the header.
fn select<'a>(keys: &[Arc<RingKey>], format: u8, value: &'a [u8]) -> Option<(usize, &'a [u8])> {
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
