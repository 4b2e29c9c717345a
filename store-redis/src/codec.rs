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
//! | 6 | only with a subject: when the subject's index was last told of the session |
//! | 6 | only with a subject: of which expiry it was told |
//! | 4 | only with a subject: a random number that the record has for its life |
//! | | subject, label, data |
//!
//! Numbers are big-endian. The scripts know these places too.

use bytes::Bytes;
use sessionkit::{
    Entropy, Error, ErrorKind, Label, OsEntropy, Record, Result, Revision, Subject, Timestamp,
};

/// The only format so far.
const FORMAT: u8 = 1;

/// What every record begins with.
const FIXED: usize = 23;

const TIME_LEN: usize = 6;

/// When an index was told, of which expiry, and the record's number.
const INDEXED_LEN: usize = 2 * TIME_LEN + size_of::<Number>();

/// Tells two records apart that were at one place one after the other.
pub(crate) type Number = [u8; 4];

/// The longest header: what has to be read to list a session.
pub(crate) const MAX_HEAD: usize = FIXED + INDEXED_LEN + Subject::MAX_LEN + Label::MAX_LEN;

/// The value of a record whose index is told at its beginning. The script of an update keeps what was
/// there about that, or says when it was, and keeps the number.
pub(crate) fn encode(record: &Record, number: Number) -> Vec<u8> {
    let (subject, label) = (subject_bytes(record), record.label.as_str().as_bytes());
    let mut out =
        Vec::with_capacity(FIXED + INDEXED_LEN + subject.len() + label.len() + record.data.len());
    out.extend(head(record.revision));
    out.extend(time(record.expires_at));
    out.extend(time(record.created_at));
    out.push(short_len(subject));
    out.push(short_len(label));
    if !subject.is_empty() {
        out.extend(time(record.created_at));
        out.extend(time(record.expires_at));
        out.extend(number);
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

/// A new number.
pub(crate) fn number() -> Result<Number> {
    let mut number = Number::default();
    OsEntropy.fill(&mut number)?;
    Ok(number)
}

/// An instant as the six bytes of a header.
pub(crate) fn time(at: Timestamp) -> [u8; TIME_LEN] {
    let bytes = at.as_millis().to_be_bytes();
    [bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]
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
    pub(crate) number: Number,
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
        let mut number = Number::default();
        let subject = match subject_len {
            0 => None,
            len => {
                take::<{ 2 * TIME_LEN }>(&mut rest)?;
                number = take(&mut rest)?;
                Some(Subject::from_stored(text(&mut rest, len)?).ok()?)
            }
        };
        let label = Label::from_stored(text(&mut rest, label_len)?).ok()?;
        let head = Self {
            revision,
            created_at,
            expires_at,
            number,
            subject,
            label,
        };
        Some((head, stored.len() - rest.len()))
    }
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

    const NUMBER: Number = [0, 0, 0, 7];

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
                assert_eq!(decode(encode(&record, NUMBER)).unwrap(), record);
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
            b"\x01\x8b\xcf\xe5\x68\x00",
            b"\x01\x8b\xcf\xe6\x52\x60",
            b"\0\0\0\x07",
            b"uldata",
        ]
        .concat();
        assert_eq!(encode(&record, NUMBER), expected);
    }

    #[test]
    fn every_shortened_header_is_corrupt_and_no_bit_flip_panics() {
        let whole = encode(&record("user", "label", b""), NUMBER);
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
    fn the_longest_header_fits_what_a_listing_reads() {
        let long = "x".repeat(255);
        assert_eq!(encode(&record(&long, &long, b""), NUMBER).len(), MAX_HEAD);
    }
}
