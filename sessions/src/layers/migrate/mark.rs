//! What a move leaves in the two stores, written as records.

use std::str;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{
    CookieName, Error, ErrorKind, Label, Record, Result, Revision, StoreKey, Subject, Token,
};

/// A label that begins so is a mark's. Labels of sessions are short texts for people, without
/// control characters.
const MARK: &str = "\u{1}sessionkit moved ";

/// What the old store has under a token.
pub(super) enum Found {
    /// The session.
    Whole(Record),
    /// A mark.
    Moved(Moved),
}

/// What a mark says.
pub(super) struct Moved {
    /// The revision of the fence that now is the session.
    pub(super) fence: Revision,
    /// What the fence does not have of the session.
    revision: Revision,
    subject: Option<Subject>,
}

impl Found {
    pub(super) fn new(record: Record) -> Result<Self> {
        if !is_mark(&record.label) {
            return Ok(Self::Whole(record));
        }
        Moved::read(&record)
            .map(Self::Moved)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the mark of a move cannot be read"))
    }
}

impl Moved {
    pub(super) fn new(record: &Record, fence: Revision) -> Self {
        Self {
            fence,
            revision: record.revision,
            subject: record.subject.clone(),
        }
    }

    /// The record that takes the place of `record` in the old store.
    pub(super) fn mark(&self, record: &Record, revision: Revision) -> Record {
        let (fence, original) = (self.fence.to_bits(), self.revision.to_bits());
        let subject = self.subject.as_ref().map_or("", Subject::as_str);
        Record {
            data: Bytes::copy_from_slice(subject.as_bytes()),
            revision,
            subject: self.subject.as_ref().map(on_the_way),
            label: Label::new(&format!("{MARK}{fence:016x}{original:016x}"))
                .expect("the prefix and 32 digits are within the limit"),
            ..record.clone()
        }
    }

    /// The session that the fence is a copy of.
    pub(super) fn restore(&self, fence: Record) -> Record {
        Record {
            revision: self.revision,
            subject: self.subject.clone(),
            ..fence
        }
    }

    fn read(mark: &Record) -> Option<Self> {
        let (fence, revision) = revisions(&mark.label)?;
        let subject = match str::from_utf8(&mark.data).ok()? {
            "" => None,
            subject => Some(Subject::new(subject).ok()?),
        };
        Some(Self {
            fence,
            revision,
            subject,
        })
    }
}

/// The copy of a record that goes into the new store.
pub(super) fn fence(record: &Record, revision: Revision) -> Record {
    Record {
        revision,
        subject: record.subject.as_ref().map(on_the_way),
        ..record.clone()
    }
}

/// Whether a fence holds this record.
pub(super) fn is_copy(found: &Record, record: &Record) -> bool {
    *found == fence(record, found.revision)
}

/// Where the fence of a session is kept: a token of another length than any that a client is
/// given.
pub(super) fn fence_token(key: &StoreKey) -> Token {
    let cookie = CookieName::new("moving").expect("six letters are a cookie name");
    Token::from_bytes(
        [b"sessionkit migrate 1\0", &key.as_bytes()[..]].concat(),
        &cookie,
    )
}

/// The subject of a subject's fences and marks: another one, so that they are told from its sessions
/// in a listing, and that a revocation ends either, knows which, and can spare one of each.
pub(super) fn on_the_way(subject: &Subject) -> Subject {
    let hash = StoreKey::from_bytes(Sha256::digest(subject.as_str()).into());
    Subject::new(format!("\u{1}sessionkit moving {}", hash.to_hex()))
        .expect("the prefix and 64 digits are within the limit")
}

/// The revision of the fence, if this is the label of a mark.
pub(super) fn fence_in(label: &Label) -> Option<Revision> {
    revisions(label).map(|(fence, _)| fence)
}

fn is_mark(label: &Label) -> bool {
    label.as_str().starts_with(MARK)
}

/// The revisions of the fence and of the session in the label of a mark.
fn revisions(label: &Label) -> Option<(Revision, Revision)> {
    let digits = label.as_str().strip_prefix(MARK)?;
    let read = |digits| Some(Revision::from_bits(u64::from_str_radix(digits, 16).ok()?));
    let (fence, revision) = digits.split_at_checked(16)?;
    (revision.len() == 16).then_some((read(fence)?, read(revision)?))
}
