//! The bytes of a session's file.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic; the last byte is the version of the format |
//! | 8 | 32 | store key |
//! | 40 | 8 | revision |
//! | 48 | 8 | created, milliseconds |
//! | 56 | 8 | expires, milliseconds |
//! | 64 | 4 | length of the data |
//! | 68 | 1 | length of the subject, 0 for none |
//! | 69 | 1 | length of the label |
//! | 70 | 2 | zero |
//! | 72 | 16 | checksum of the data |
//! | 88 | | subject, label |
//! | | 16 | checksum of everything before it |
//! | | | data |
//!
//! Integers are little-endian, checksums the first half of a SHA-256 hash: they detect damage, not
//! somebody who can write to the directory. The key is the one that the file's name stands for.

use bytes::{Buf, Bytes};
use sessionkit::{Error, Label, Record, Result, Revision, StoreKey, Subject, Timestamp};
use sha2::{Digest, Sha256};

use crate::failure::corrupt;

pub(crate) const MAX_DATA: usize = 4 << 20;

const MAGIC: [u8; 7] = *b"skfs\r\n\x1a";
const VERSION: u8 = 1;
const FIXED: usize = 88;
const SUM: usize = 16;

/// The longest header.
pub(crate) const MAX_HEADER: usize = FIXED + Subject::MAX_LEN + Label::MAX_LEN + SUM;
/// The longest file.
pub(crate) const MAX_FILE: usize = MAX_HEADER + MAX_DATA;

/// A record in the form in which it is written.
#[derive(Clone)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) expires_at: Timestamp,
    pub(crate) subject: Option<Subject>,
}

impl Encoded {
    pub(crate) fn new(key: &StoreKey, record: &Record) -> Result<Self> {
        record.check_size(MAX_DATA)?;
        let subject = record.subject.as_ref().map_or("", Subject::as_str);
        let label = record.label.as_str();
        let mut bytes = Vec::with_capacity(MAX_HEADER + record.data.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(&record.revision.to_bits().to_le_bytes());
        bytes.extend_from_slice(&record.created_at.as_millis().to_le_bytes());
        bytes.extend_from_slice(&record.expires_at.as_millis().to_le_bytes());
        bytes.extend_from_slice(&length::<4>(record.data.len()));
        bytes.extend_from_slice(&length::<1>(subject.len()));
        bytes.extend_from_slice(&length::<1>(label.len()));
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&checksum(&record.data));
        bytes.extend_from_slice(subject.as_bytes());
        bytes.extend_from_slice(label.as_bytes());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        bytes.extend_from_slice(&record.data);
        Ok(Self {
            bytes,
            expires_at: record.expires_at,
            subject: record.subject.clone(),
        })
    }
}

/// What a file says about its record.
pub(crate) struct Header {
    pub(crate) key: StoreKey,
    pub(crate) revision: Revision,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) subject: Option<Subject>,
    pub(crate) label: Label,
    /// The bytes of the file before the data.
    len: usize,
    data_len: usize,
    data_sum: [u8; SUM],
}

impl Header {
    /// Reads the header that `bytes` begin with, of a file of `size` bytes for the session of `key`.
    pub(crate) fn of(key: &StoreKey, bytes: &[u8], size: usize) -> Result<Self> {
        let header = Self::parse(bytes)?;
        if header.len + header.data_len != size {
            return Err(damaged());
        }
        if header.key != *key {
            return Err(corrupt("the file holds the session of another token"));
        }
        Ok(header)
    }

    /// Reads the header that `bytes` begin with; more may follow.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields(bytes);
        if fields.take()? != MAGIC {
            return Err(corrupt("the file is not a session"));
        }
        if fields.take()? != [VERSION] {
            return Err(corrupt("the session is in a format of another version"));
        }
        let key = StoreKey::from_bytes(fields.take()?);
        let revision = Revision::from_bits(u64::from_le_bytes(fields.take()?));
        let created_at = fields.instant()?;
        let expires_at = fields.instant()?;
        let data_len = u32::from_le_bytes(fields.take()?) as usize;
        let [subject_len, label_len] = fields.take()?.map(usize::from);
        let zero: [u8; 2] = fields.take()?;
        let data_sum = fields.take()?;
        let subject = fields.text(subject_len)?;
        let label = fields.text(label_len)?;
        let len = FIXED + subject_len + label_len + SUM;
        let is_whole = fields.take()? == checksum(&bytes[..len - SUM]);
        if !is_whole || data_len > MAX_DATA || zero != [0; 2] {
            return Err(damaged());
        }
        Ok(Self {
            key,
            revision,
            created_at,
            expires_at,
            subject: match subject {
                "" => None,
                subject => Some(Subject::from_stored(subject).map_err(|_| damaged())?),
            },
            label: Label::from_stored(label).map_err(|_| damaged())?,
            len,
            data_len,
            data_sum,
        })
    }

    /// The record of the file with these contents.
    pub(crate) fn record(self, mut contents: Bytes) -> Result<Record> {
        // Cheaper than a slice, which would be shared with what it was cut out of.
        contents.advance(self.len);
        let data = contents;
        if checksum(&data) != self.data_sum {
            return Err(damaged());
        }
        Ok(Record {
            data,
            revision: self.revision,
            created_at: self.created_at,
            expires_at: self.expires_at,
            subject: self.subject,
            label: self.label,
        })
    }
}

pub(crate) fn damaged() -> Error {
    corrupt("the session's file is damaged")
}

fn checksum(bytes: &[u8]) -> [u8; SUM] {
    let mut sum = [0; SUM];
    sum.copy_from_slice(&Sha256::digest(bytes)[..SUM]);
    sum
}

/// The `N` low bytes of a length that was checked to fit.
fn length<const N: usize>(len: usize) -> [u8; N] {
    *len.to_le_bytes()
        .first_chunk()
        .expect("N is less than the size of a length")
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(*field)
    }

    /// An instant that a record can have; no other is written.
    fn instant(&mut self) -> Result<Timestamp> {
        let millis = i64::from_le_bytes(self.take()?);
        let instant = Timestamp::from_millis(millis);
        match instant.as_millis() == millis {
            true => Ok(instant),
            false => Err(damaged()),
        }
    }

    fn text(&mut self, len: usize) -> Result<&'a str> {
        let (field, rest) = self.0.split_at_checked(len).ok_or_else(damaged)?;
        self.0 = rest;
        str::from_utf8(field).map_err(|_| damaged())
    }
}
