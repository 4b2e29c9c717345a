use std::fmt;

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    Entropy, Error, ErrorKind, OsEntropy, Result,
    patterns::{Alphabet, bits},
    traces::without_traces,
};

/// By how many bits a key has to be easier to describe than a random one to be refused.
///
/// A description that is a probability distribution makes one random key in `2^n` shorter by `n`
/// bits at most (Markov's inequality). A key is described twice, as bytes and as text, so that a
/// random one is refused with a probability of at most `2 * 2^-42 = 2^-41`.
const REFUSED_AT: f64 = 42.0;

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
pub struct Key(pub(crate) Zeroizing<Vec<u8>>);

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
    /// they are evidently not random: text in any script and encoding, repetition, a counter. A
    /// random key is refused with a probability below 2^-40.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.len() < Self::MIN_LEN {
            return Err(refuse("has fewer than 32 bytes"));
        }
        without_traces(|| {
            if is_evidently_not_random(bytes, Alphabet::Bytes, bytes.len()) {
                return Err(refuse("is text, or follows a pattern"));
            }
            Ok(Self(Zeroizing::new(bytes.to_vec())))
        })
    }

    /// The key in a text: hexadecimal digits, or base64 (RFC 4648) in either alphabet, padded or
    /// not.
    ///
    /// `openssl rand -base64 32` prints such a text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the text is neither, when the key is refused by
    /// [`from_bytes`](Self::from_bytes), or when the text is evidently not random: words, as in a
    /// placeholder that nobody has replaced, repetition, dates, a walk over the keyboard. A random
    /// key is refused with a probability below 2^-40.
    pub fn parse(text: &str) -> Result<Self> {
        without_traces(|| {
            let (digits, bytes, alphabet) = decode(text).ok_or_else(|| {
                let problem = "the key is neither hexadecimal nor base64";
                Error::new(ErrorKind::InvalidConfig, problem)
            })?;
            let key = Self::from_bytes(&bytes)?;
            if is_evidently_not_random(&digits, alphabet, bytes.len()) {
                return Err(refuse("is made of words, or follows a pattern"));
            }
            Ok(key)
        })
    }

    /// The key in base64, to be kept where secrets are kept.
    #[must_use]
    pub fn expose_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(&*self.0))
    }

    /// The key's id, which is no secret.
    #[must_use]
    pub fn id(&self) -> KeyId {
        without_traces(|| {
            let mut hash = Sha256::new_with_prefix(b"sessionkit key id 1\0");
            hash.update(&*self.0);
            let mut id = [0; KeyId::LEN];
            id.copy_from_slice(&hash.finalize()[..KeyId::LEN]);
            KeyId(id)
        })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

/// The public name of a key: the first four bytes of a hash of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub(crate) [u8; Self::LEN]);

impl KeyId {
    pub(crate) const LEN: usize = 4;
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

/// The keys in a text, separated by white space or commas.
pub(crate) fn parse_all(text: &str) -> Result<Vec<Key>> {
    let keys = text.split(|c: char| c == ',' || c.is_whitespace());
    keys.filter(|key| !key.is_empty())
        .enumerate()
        .map(|(position, key)| {
            Key::parse(key).map_err(|error| {
                let problem = format!("number {} of the keys: {error}", position + 1);
                Error::new(ErrorKind::InvalidConfig, problem)
            })
        })
        .collect()
}

fn refuse(problem: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("the key {problem}; generate 32 random bytes"),
    )
}

fn is_evidently_not_random(symbols: &[u8], alphabet: Alphabet, key_len: usize) -> bool {
    8.0 * key_len as f64 - bits(symbols, alphabet) >= REFUSED_AT
}

/// The digits, the bytes, and the alphabet of the digits.
type Decoded = (Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>, Alphabet);

fn decode(text: &str) -> Option<Decoded> {
    decode_hexadecimal(text).or_else(|| decode_base64(text))
}

/// The digits are in lower case.
fn decode_hexadecimal(text: &str) -> Option<Decoded> {
    let digits = Zeroizing::new(text.to_ascii_lowercase().into_bytes());
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = Zeroizing::new(vec![0; pairs.len()]);
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(high)? << 4 | value(low)?;
    }
    Some((digits, bytes, Alphabet::Hexadecimal))
}

fn decode_base64(text: &str) -> Option<Decoded> {
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let digits = Zeroizing::new(text.trim_end_matches('=').as_bytes().to_vec());
    // One buffer for both alphabets: what the wrong one has decoded until it failed is wiped too.
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let len = [&STANDARD, &URL_SAFE].into_iter().find_map(|alphabet| {
        GeneralPurpose::new(alphabet, lenient)
            .decode_slice(text, &mut bytes)
            .ok()
    })?;
    bytes.truncate(len);
    Some((digits, bytes, Alphabet::Base64))
}
