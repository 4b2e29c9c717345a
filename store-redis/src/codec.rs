//! How a record is written into one Redis string.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format, 1 |
//! | 8 | revision |
//! | 6 | expiry, in milliseconds |
//! | 6 | beginning, in milliseconds |
//! | 1 | length of the subject, 0 for none |
//! | 1 | length of the label |
//! | 6 | only with a subject: until when the subject's index is sure to hold the session |
//! | | subject, label, data |
//!
//! A session that moves between two nodes of a cluster is, for a moment, in two places. At the new
//! key it is arriving:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format, 2 |
//! | 8 | the move, a random number |
//! | 8 | the revision that the record at the old key has to have |
//! | 32 | the old key |
//! | | the record, as above |
//!
//! and from the old key it has gone:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format, 4 |
//! | 8 | the move |
//! | 32 | the new key |
//!
//! Numbers are big-endian. The scripts know these places too. No flipped bit makes one format out
//! of another.

use std::time::Duration;

use bytes::Bytes;
use sessionkit::{Error, ErrorKind, Label, Record, Result, Revision, StoreKey, Subject, Timestamp};

/// The formats so far.
const FORMAT: u8 = 1;
const ARRIVING: u8 = 2;
const GONE: u8 = 4;

/// What every record begins with.
const FIXED: usize = 23;

const TIME_LEN: usize = 6;

/// The longest header: what has to be read to list a session.
pub(crate) const MAX_HEAD: usize = FIXED + TIME_LEN + Subject::MAX_LEN + Label::MAX_LEN;

/// An entry of the index outlives the expiry that was known when it was written by the lifetime of
/// the session so far, within these bounds: then most renewals leave the index alone.
const MIN_SLACK: Duration = Duration::from_secs(60 * 60);
const MAX_SLACK: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(crate) fn encode(record: &Record) -> Vec<u8> {
    let (subject, label) = (subject_bytes(record), record.label.as_str().as_bytes());
    let mut out =
        Vec::with_capacity(FIXED + TIME_LEN + subject.len() + label.len() + record.data.len());
    out.extend(head(record.revision));
    out.extend(time(record.expires_at));
    out.extend(time(record.created_at));
    out.push(short_len(subject));
    out.push(short_len(label));
    if !subject.is_empty() {
        out.extend(time(indexed_until(record.created_at, record.expires_at)));
    }
    out.extend(subject);
    out.extend(label);
    out.extend(&record.data);
    out
}

/// What a stored record of this revision begins with.
pub(crate) fn head(revision: Revision) -> [u8; 9] {
    let mut head = [FORMAT; 9];
    head[1..].copy_from_slice(&revision.to_bits().to_be_bytes());
    head
}

/// An instant as the six bytes of a header.
pub(crate) fn time(at: Timestamp) -> [u8; TIME_LEN] {
    let bytes = at.as_millis().to_be_bytes();
    [bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]
}

/// Until when the index is told to keep a session.
pub(crate) fn indexed_until(created_at: Timestamp, expires_at: Timestamp) -> Timestamp {
    let lifetime = expires_at.saturating_duration_since(created_at);
    expires_at + lifetime.clamp(MIN_SLACK, MAX_SLACK)
}

pub(crate) fn decode(stored: Vec<u8>) -> Result<Record> {
    let stored = Bytes::from(stored);
    let (head, len) = Head::read(&stored).ok_or_else(unreadable)?;
    Ok(Record {
        data: stored.slice(len..),
        revision: head.revision,
        created_at: head.created_at,
        expires_at: head.expires_at,
        subject: head.subject,
        label: head.label,
    })
}

/// A record without its data.
pub(crate) struct Head {
    pub(crate) revision: Revision,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) indexed_until: Timestamp,
    pub(crate) subject: Option<Subject>,
    pub(crate) label: Label,
}

impl Head {
    /// Reads a header, and says how long it is. `None` for what nobody can have written.
    pub(crate) fn read(stored: &[u8]) -> Option<(Self, usize)> {
        let mut rest = stored;
        let [format] = take(&mut rest)?;
        if format != FORMAT {
            return None;
        }
        let revision = Revision::from_bits(u64::from_be_bytes(take(&mut rest)?));
        let expires_at = read_time(&mut rest)?;
        let created_at = read_time(&mut rest)?;
        let [subject_len, label_len] = take(&mut rest)?;
        let (indexed_until, subject) = match subject_len {
            0 => (expires_at, None),
            len => (
                read_time(&mut rest)?,
                Some(Subject::new(text(&mut rest, len)?).ok()?),
            ),
        };
        let label = Label::new(text(&mut rest, label_len)?).ok()?;
        let head = Self {
            revision,
            created_at,
            expires_at,
            indexed_until,
            subject,
            label,
        };
        Some((head, stored.len() - rest.len()))
    }
}

/// When the session of a header began, and whose it is, from a header that may end there.
pub(crate) fn read_subject(stored: &[u8]) -> Option<(Timestamp, Subject)> {
    let (_, mut rest) = stored.split_at_checked(FIXED - 2 - TIME_LEN)?;
    let created_at = read_time(&mut rest)?;
    let [len, _] = take(&mut rest)?;
    read_time(&mut rest)?;
    Some((created_at, Subject::new(text(&mut rest, len)?).ok()?))
}

/// A session that moves to another key, on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    /// A random number that no other move has.
    pub(crate) id: u64,
    pub(crate) from: StoreKey,
    pub(crate) to: StoreKey,
}

/// What begins the value of a session that is arriving, and decides whether it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) moved: Move,
    /// The revision of the record that has to be at the old key.
    pub(crate) expected: Revision,
    pub(crate) expires_at: Timestamp,
}

impl Move {
    /// What the value at the new key begins with, until the move is over.
    pub(crate) fn arriving(&self) -> [u8; 9] {
        self.head(ARRIVING)
    }

    /// What the value at the old key begins with, until the move is over.
    pub(crate) fn gone(&self) -> [u8; 9] {
        self.head(GONE)
    }

    /// The whole value at the old key.
    pub(crate) fn encode_gone(&self) -> Vec<u8> {
        [self.gone().as_slice(), self.to.as_bytes()].concat()
    }

    /// Reads what was left at a key when its session went.
    pub(crate) fn read_gone(from: &StoreKey, stored: &[u8]) -> Option<Self> {
        let mut rest = stored;
        let (format, id) = (take(&mut rest)?, take(&mut rest)?);
        let to = take(&mut rest)?;
        (format == [GONE] && rest.is_empty()).then(|| Self {
            id: u64::from_be_bytes(id),
            from: *from,
            to: StoreKey::from_bytes(to),
        })
    }

    fn head(&self, format: u8) -> [u8; 9] {
        let mut head = [format; 9];
        head[1..].copy_from_slice(&self.id.to_be_bytes());
        head
    }
}

impl Arrival {
    /// The longest value, or beginning of one, that is needed to know what becomes of it.
    pub(crate) const LEN: usize = 1 + 8 + 8 + 32 + FIXED;

    /// The value at the new key.
    pub(crate) fn encode(&self, record: &Record) -> Vec<u8> {
        [
            self.moved.arriving().as_slice(),
            &self.expected.to_bits().to_be_bytes(),
            self.moved.from.as_bytes(),
            &encode(record),
        ]
        .concat()
    }

    /// Reads the beginning of a value that is arriving at a key.
    pub(crate) fn read(to: &StoreKey, stored: &[u8]) -> Option<Self> {
        let mut rest = stored;
        let (format, id) = (take(&mut rest)?, take(&mut rest)?);
        let (expected, from) = (take(&mut rest)?, take(&mut rest)?);
        let record = take::<{ 1 + 8 }>(&mut rest)?;
        let expires_at = read_time(&mut rest)?;
        (format == [ARRIVING] && record[0] == FORMAT).then(|| Self {
            moved: Move {
                id: u64::from_be_bytes(id),
                from: StoreKey::from_bytes(from),
                to: *to,
            },
            expected: Revision::from_bits(u64::from_be_bytes(expected)),
            expires_at,
        })
    }
}

/// Whether a value begins as one that is arriving does.
pub(crate) fn is_arriving(stored: &[u8]) -> bool {
    stored.first() == Some(&ARRIVING)
}

/// Whether a value begins as what is left of a session that went.
pub(crate) fn is_gone(stored: &[u8]) -> bool {
    stored.first() == Some(&GONE)
}

/// The error for a value that is not a record of ours.
pub(crate) fn unreadable() -> Error {
    ErrorKind::Corrupt.into()
}

fn subject_bytes(record: &Record) -> &[u8] {
    record
        .subject
        .as_ref()
        .map_or(&[], |subject| subject.as_str().as_bytes())
}

fn short_len(text: &[u8]) -> u8 {
    u8::try_from(text.len()).expect("subjects and labels have at most 255 bytes")
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

fn read_time(rest: &mut &[u8]) -> Option<Timestamp> {
    let bytes: [u8; TIME_LEN] = take(rest)?;
    let mut wide = [0; 8];
    wide[2..].copy_from_slice(&bytes);
    let millis = i64::from_be_bytes(wide);
    let at = Timestamp::from_millis(millis);
    (at.as_millis() == millis).then_some(at)
}

fn text<'a>(rest: &mut &'a [u8], len: u8) -> Option<&'a str> {
    let (taken, left) = rest.split_at_checked(usize::from(len))?;
    *rest = left;
    str::from_utf8(taken).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(subject: &str, label: &str, data: &'static [u8]) -> Record {
        Record {
            data: Bytes::from_static(data),
            revision: Revision::from_bits(0x0102_0304_0506_0708),
            created_at: Timestamp::from_millis(1_700_000_000_000),
            expires_at: Timestamp::MAX,
            subject: (!subject.is_empty()).then(|| Subject::new(subject).unwrap()),
            label: Label::new(label).unwrap(),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_given() {
        let long = "é".repeat(127) + "x";
        for (subject, label) in [("", ""), ("user", ""), ("", "Firefox"), (&*long, &*long)] {
            for data in [&b""[..], b"\0\xff", b"\x01text"] {
                let record = record(subject, label, data);
                assert_eq!(decode(encode(&record)).unwrap(), record);
            }
        }
    }

    #[test]
    fn the_format_is_the_one_of_the_first_release() {
        let mut record = record("u", "l", b"data");
        record.expires_at = Timestamp::from_millis(1_700_000_060_000);
        let expected = [
            &b"\x01\x01\x02\x03\x04\x05\x06\x07\x08"[..],
            b"\x01\x8b\xcf\xe6\x52\x60",
            b"\x01\x8b\xcf\xe5\x68\x00",
            b"\x01\x01",
            b"\x01\x8b\xd0\x1d\x40\xe0",
            b"uldata",
        ]
        .concat();
        assert_eq!(encode(&record), expected);
    }

    #[test]
    fn every_shortened_header_is_corrupt_and_no_bit_flip_panics() {
        let whole = encode(&record("user", "label", b""));
        for len in 0..whole.len() {
            let error = decode(whole[..len].to_vec()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{len}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            drop(decode(flipped));
        }
    }

    #[test]
    fn both_ends_of_a_move_come_back_as_they_were_written() {
        let moved = Move {
            id: 0x0102_0304_0506_0708,
            from: StoreKey::from_bytes([3; 32]),
            to: StoreKey::from_bytes([4; 32]),
        };
        let mut record = record("user", "", b"data");
        record.expires_at = Timestamp::from_millis(1_700_000_060_000);
        let arrival = Arrival {
            moved,
            expected: Revision::from_bits(9),
            expires_at: record.expires_at,
        };
        let gone = moved.encode_gone();
        assert_eq!(gone[..9], *b"\x04\x01\x02\x03\x04\x05\x06\x07\x08");
        assert_eq!(Move::read_gone(&moved.from, &gone), Some(moved));
        let whole = arrival.encode(&record);
        assert_eq!(whole[..9], *b"\x02\x01\x02\x03\x04\x05\x06\x07\x08");
        assert_eq!(whole[49..], encode(&record));
        let beginning = &whole[..Arrival::LEN];
        assert_eq!(Arrival::read(&moved.to, beginning), Some(arrival));
        for len in 0..gone.len() {
            assert_eq!(Move::read_gone(&moved.from, &gone[..len]), None);
            assert_eq!(Arrival::read(&moved.to, &whole[..len]), None);
        }
        assert!(is_arriving(&whole) && !is_gone(&whole) && decode(whole).is_err());
        assert!(is_gone(&gone) && !is_arriving(&gone) && decode(gone).is_err());
    }

    #[test]
    fn the_longest_header_fits_what_a_listing_reads() {
        let long = "x".repeat(255);
        assert_eq!(encode(&record(&long, &long, b"")).len(), MAX_HEAD);
    }
}
