use std::{any::type_name, collections::BTreeMap, time::Duration};

use aes_gcm::{Aes256Gcm, aead::KeyInit};
use bytes::Bytes;
use hkdf::Hkdf;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    Entropy, Error, ErrorKind, Persistence, Record, Result, Token,
    keyring::{decrypt, encrypt_onto},
};

/// The first byte of the data of a record.
const PLAIN: u8 = 1;
const SEALED: u8 = 2;

/// Everything that a session keeps in the data of its record.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Content {
    /// Encoded values by key.
    pub(crate) values: BTreeMap<Box<str>, Bytes>,
    /// Messages by queue, in the order of their arrival; no queue is empty.
    pub(crate) flashes: BTreeMap<Box<str>, Vec<Flash>>,
    /// The number of the next message. It only grows, so that a message taken by one request is
    /// told from one that another request has added since.
    pub(crate) next_flash: u64,
    pub(crate) persistence: Persistence,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flash {
    pub(crate) number: u64,
    pub(crate) value: Bytes,
}

impl Content {
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.flashes.is_empty()
    }

    /// The keys and queues that take the most room, the largest first, for an error message.
    pub(crate) fn largest(&self) -> String {
        let values = self.values.iter().map(|(key, value)| (key, value.len()));
        let flashes = self.flashes.iter().map(|(queue, flashes)| {
            let len = flashes.iter().map(|flash| flash.value.len()).sum();
            (queue, len)
        });
        let mut sizes: Vec<_> = values.chain(flashes).collect();
        sizes.sort_by_key(|&(_, len)| std::cmp::Reverse(len));
        let sizes = sizes.iter().take(3);
        let texts: Vec<_> = sizes
            .map(|(key, len)| format!("{key:?} {len} bytes"))
            .collect();
        texts.join(", ")
    }

    fn encode_onto(&self, data: Vec<u8>) -> Vec<u8> {
        let wire = Wire {
            persistence: match self.persistence {
                Persistence::Browser => None,
                Persistence::For(lifetime) => Some(lifetime.as_secs()),
            },
            next_flash: self.next_flash,
            values: self
                .values
                .iter()
                .map(|(key, value)| (&**key, serde_bytes::Bytes::new(value)))
                .collect(),
            flashes: self
                .flashes
                .iter()
                .map(|(queue, flashes)| (&**queue, flashes.iter().map(Flash::to_wire).collect()))
                .collect(),
        };
        postcard::to_extend(&wire, data).expect("lengths and bytes always have an encoding")
    }

    fn decode(bytes: &Bytes) -> Option<Self> {
        let (wire, rest): (Wire<'_>, _) = postcard::take_from_bytes(bytes).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let flash = |&(number, value): &(u64, &serde_bytes::Bytes)| Flash {
            number,
            value: bytes.slice_ref(value),
        };
        Some(Self {
            values: wire
                .values
                .iter()
                .map(|&(key, value)| (key.into(), bytes.slice_ref(value)))
                .collect(),
            flashes: wire
                .flashes
                .iter()
                .map(|(queue, flashes)| ((*queue).into(), flashes.iter().map(flash).collect()))
                .collect(),
            next_flash: wire.next_flash,
            persistence: match wire.persistence {
                None => Persistence::Browser,
                Some(seconds) => Persistence::For(Duration::from_secs(seconds)),
            },
        })
    }
}

impl Flash {
    fn to_wire(&self) -> (u64, &serde_bytes::Bytes) {
        (self.number, serde_bytes::Bytes::new(&self.value))
    }
}

/// The envelope, as postcard writes it.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    /// Seconds; none for a session that ends with the browser.
    persistence: Option<u64>,
    next_flash: u64,
    #[serde(borrow)]
    values: Vec<(&'a str, &'a serde_bytes::Bytes)>,
    #[serde(borrow)]
    flashes: Vec<(&'a str, Vec<(u64, &'a serde_bytes::Bytes)>)>,
}

/// Puts the content into the data of `record`, whose other fields are set already: readable, or
/// sealed under a key derived from the token and bound to those fields.
pub(crate) fn write(
    content: &Content,
    record: &mut Record,
    sealed_for: Option<&Token>,
    entropy: &dyn Entropy,
) -> Result<()> {
    let data = match sealed_for {
        None => content.encode_onto(vec![PLAIN]),
        Some(token) => {
            let plaintext = Zeroizing::new(content.encode_onto(Vec::new()));
            let mut data = Vec::with_capacity(plaintext.len() + 29);
            data.push(SEALED);
            let bound = associated_data(record);
            encrypt_onto(&data_key(token), entropy, &bound, &plaintext, &mut data)?;
            data
        }
    };
    record.data = data.into();
    Ok(())
}

/// The content in the data of a record that was loaded under `token`.
///
/// Where sessions are sealed, a readable record is corrupt: someone else wrote it.
pub(crate) fn read(record: &Record, sealed_for: Option<&Token>) -> Result<Content> {
    let content = match (record.data.split_first(), sealed_for) {
        (Some((&PLAIN, _)), None) => Content::decode(&record.data.slice(1..)),
        (Some((&SEALED, sealed)), Some(token)) => {
            decrypt(&data_key(token), &associated_data(record), sealed)
                .and_then(|plaintext| Content::decode(&plaintext.into()))
        }
        _ => None,
    };
    content.ok_or_else(|| ErrorKind::Corrupt.into())
}

/// HKDF-Expand (RFC 5869, section 3.3: a token is uniformly random and needs no extraction).
fn data_key(token: &Token) -> Aes256Gcm {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::from_prk(token.expose())
        .expect("a server-side token has the 32 bytes of a pseudorandom key")
        .expand(b"sessionkit data 1", &mut *key)
        .expect("32 bytes are within the limit of HKDF-SHA-256");
    Aes256Gcm::new((&*key).into())
}

/// Every field that changes only together with the data.
fn associated_data(record: &Record) -> Vec<u8> {
    let subject = record
        .subject
        .as_ref()
        .map_or("", |subject| subject.as_str());
    let mut data = Vec::with_capacity(18 + subject.len() + record.label.as_str().len());
    data.push(SEALED);
    data.extend_from_slice(&record.revision.to_bits().to_le_bytes());
    data.extend_from_slice(&record.created_at.as_millis().to_le_bytes());
    data.push(u8::try_from(subject.len()).expect("a subject has at most 255 bytes"));
    data.extend_from_slice(subject.as_bytes());
    data.extend_from_slice(record.label.as_str().as_bytes());
    data
}

/// MessagePack with field names: it describes itself, so that a struct may gain a defaulted field.
pub(crate) fn encode_value<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Bytes> {
    // The serializer's own error may quote the value.
    rmp_serde::to_vec_named(value)
        .map(Bytes::from)
        .map_err(|_| invalid_value(key, "cannot be serialized from", type_name::<T>()))
}

pub(crate) fn decode_value<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T> {
    let mut deserializer = rmp_serde::Deserializer::new(bytes);
    T::deserialize(&mut deserializer)
        .ok()
        // A longer sequence read as a shorter tuple leaves something over.
        .filter(|_| deserializer.get_ref().is_empty())
        .ok_or_else(|| invalid_value(key, "cannot be read as", type_name::<T>()))
}

fn invalid_value(key: &str, what: &str, type_name: &str) -> Error {
    Error::new(
        ErrorKind::InvalidValue,
        format!("the value of {key:?} {what} {type_name}"),
    )
}
