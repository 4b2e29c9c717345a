//! How the store of this module writes a record: a format byte, a checksum, the fields, the data.

use sessionkit::{ErrorKind, Label, Record, Result, Revision, Subject, Timestamp};

const FORMAT: u8 = 1;
const HEADER: usize = 1 + 8;

pub(super) fn encode(record: &Record) -> Vec<u8> {
    let mut body = Vec::with_capacity(64 + record.data.len());
    body.extend_from_slice(&record.revision.to_bits().to_le_bytes());
    body.extend_from_slice(&record.created_at.as_millis().to_le_bytes());
    body.extend_from_slice(&record.expires_at.as_millis().to_le_bytes());
    let subject = record.subject.as_ref().map_or("", Subject::as_str);
    for text in [subject, record.label.as_str()] {
        body.push(u8::try_from(text.len()).expect("subjects and labels have at most 255 bytes"));
        body.extend_from_slice(text.as_bytes());
    }
    body.extend_from_slice(&record.data);
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&checksum(&body).to_le_bytes());
    bytes.append(&mut body);
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Record> {
    parse(bytes).ok_or_else(|| ErrorKind::Corrupt.into())
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    if header[0] != FORMAT || header[1..] != checksum(body).to_le_bytes() {
        return None;
    }
    let mut rest = body;
    let revision = u64::from_le_bytes(take(&mut rest)?);
    let created_at = i64::from_le_bytes(take(&mut rest)?);
    let expires_at = i64::from_le_bytes(take(&mut rest)?);
    let subject = take_text(&mut rest)?;
    let label = take_text(&mut rest)?;
    Some(Record {
        data: rest.to_vec().into(),
        revision: Revision::from_bits(revision),
        created_at: Timestamp::from_millis(created_at),
        expires_at: Timestamp::from_millis(expires_at),
        subject: match subject {
            "" => None,
            subject => Some(Subject::from_stored(subject).ok()?),
        },
        label: Label::from_stored(label).ok()?,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(*first)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let [len] = take(rest)?;
    let (text, others) = rest.split_at_checked(len.into())?;
    *rest = others;
    std::str::from_utf8(text).ok()
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
