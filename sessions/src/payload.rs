use std::{collections::BTreeMap, time::Duration};

use aes_gcm::{Aes256Gcm, aead::KeyInit};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    Entropy, ErrorKind, Persistence, Record, Result, Token,
    header::{Header, derive_key},
    keyring::{decrypt, encrypt_onto},
};

/// The first byte of the data of a record, which says what follows.
///
/// The content: the whole record is sealed or signed, in the client's token.
const CLIENT: u8 = 1;
/// The header, and the content sealed under a key derived from the token.
const SEALED: u8 = 3;
/// The header and the content.
const READABLE: u8 = 4;

/// How the data of a session are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// By the client-side store that seals the whole record.
    Client,
    /// Under a key that only the holder of the token has.
    Sealed,
    /// Not at all.
    Readable,
}

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
        // Nobody writes a session that ends at once: what is stored under it would be gone unseen.
        if !rest.is_empty() || wire.persistence == Some(0) {
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

/// Puts header and content into the data of `record`, whose other fields are set already. What is
/// sealed is bound to those fields. There is no header where the client has the record.
pub(crate) fn write(
    content: &Content,
    record: &mut Record,
    protection: Protection,
    header: Option<&Header>,
    token: &Token,
    entropy: &dyn Entropy,
) -> Result<()> {
    let mut data = vec![protection.format()];
    if let Some(header) = header {
        data =
            postcard::to_extend(header, data).expect("lengths and bytes always have an encoding");
    }
    record.data = match protection {
        Protection::Client | Protection::Readable => content.encode_onto(data),
        Protection::Sealed => {
            let plaintext = Zeroizing::new(content.encode_onto(Vec::new()));
            let bound = associated_data(&data, record);
            data.reserve_exact(plaintext.len() + 28);
            encrypt_onto(&data_key(token), entropy, &bound, &plaintext, &mut data)?;
            data
        }
    }
    .into();
    Ok(())
}

/// The header of a record and the length of what stands before the content; no header where the
/// client has the record.
///
/// Where sessions are sealed, a readable record is corrupt: someone else wrote it.
pub(crate) fn read_header(
    record: &Record,
    protection: Protection,
) -> Result<(Option<Header>, usize)> {
    let Some((&format, rest)) = record.data.split_first() else {
        return Err(ErrorKind::Corrupt.into());
    };
    if format != protection.format() {
        return Err(ErrorKind::Corrupt.into());
    }
    if protection == Protection::Client {
        return Ok((None, 1));
    }
    let (header, content) = postcard::take_from_bytes(rest).map_err(|_| ErrorKind::Corrupt)?;
    Ok((Some(header), record.data.len() - content.len()))
}

/// The content of a record, which begins at `start`; `token` is the present one.
pub(crate) fn read_content(
    record: &Record,
    protection: Protection,
    start: usize,
    token: &Token,
) -> Result<Content> {
    let (before, content) = record.data.split_at(start);
    let content = match protection {
        Protection::Client | Protection::Readable => Content::decode(&record.data.slice(start..)),
        Protection::Sealed => decrypt(&data_key(token), &associated_data(before, record), content)
            .and_then(|plaintext| Content::decode(&plaintext.into())),
    };
    content.ok_or_else(|| ErrorKind::Corrupt.into())
}

impl Protection {
    const fn format(self) -> u8 {
        match self {
            Self::Client => CLIENT,
            Self::Sealed => SEALED,
            Self::Readable => READABLE,
        }
    }
}

fn data_key(token: &Token) -> Aes256Gcm {
    Aes256Gcm::new((&*derive_key(token, b"sessionkit data 2")).into())
}

/// The format and the header, and every field that changes only together with the data.
fn associated_data(before: &[u8], record: &Record) -> Vec<u8> {
    let subject = record
        .subject
        .as_ref()
        .map_or("", |subject| subject.as_str());
    let label = record.label.as_str();
    let mut data = Vec::with_capacity(before.len() + 18 + subject.len() + label.len());
    data.extend_from_slice(&record.revision.to_bits().to_le_bytes());
    data.extend_from_slice(&record.created_at.as_millis().to_le_bytes());
    data.push(u8::try_from(subject.len()).expect("a subject has at most 255 bytes"));
    data.extend_from_slice(subject.as_bytes());
    data.push(u8::try_from(label.len()).expect("a label has at most 255 bytes"));
    data.extend_from_slice(label.as_bytes());
    data.extend_from_slice(before);
    data
}
