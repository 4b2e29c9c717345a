//! What a move leaves in the two stores, written as records.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{Error, ErrorKind, Label, Record, Result, Revision, StoreKey, Subject};

/// A label that begins so is a mark's, or a fence's. Labels of sessions are short texts for people,
/// without control characters.
const MARK: &str = "\u{1}sessionkit moved ";
const FENCE: &str = "\u{1}sessionkit moving ";

/// What the old store has under a token.
pub(super) enum Found {
    /// The session.
    Whole(Record),
    /// A mark.
    Moved(Moved),
}

/// What the new store has under a token.
pub(super) enum Place {
    /// The session.
    Arrived(Record),
    /// A fence.
    Fence(Record),
}

/// What a mark says.
pub(super) struct Moved {
    /// The revision of the fence that now is the session.
    pub(super) fence: Revision,
    /// The revision of the session.
    pub(super) revision: Revision,
    /// What else the fence does not have of the session.
    subject: Option<Subject>,
    label: Label,
}

impl Found {
    pub(super) fn new(record: Record) -> Result<Self> {
        if !record.label.as_str().starts_with(MARK) {
            return Ok(Self::Whole(record));
        }
        Moved::read(&record)
            .map(Self::Moved)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the mark of a move cannot be read"))
    }
}

impl Place {
    pub(super) fn new(record: Record) -> Self {
        match record.label.as_str().starts_with(FENCE) {
            true => Self::Fence(record),
            false => Self::Arrived(record),
        }
    }
}

impl Moved {
    pub(super) fn new(record: &Record, fence: Revision) -> Self {
        Self {
            fence,
            revision: record.revision,
            subject: record.subject.clone(),
            label: record.label.clone(),
        }
    }

    /// The record that takes the place of `record` in the old store.
    pub(super) fn mark(&self, record: &Record, revision: Revision) -> Record {
        let subject = self.subject.as_ref().map_or("", Subject::as_str);
        let original = self.revision.to_bits().to_be_bytes();
        let length = u8::try_from(subject.len()).expect("a subject has at most 255 bytes");
        let parts: [&[u8]; 4] = [
            &original,
            &[length],
            subject.as_bytes(),
            self.label.as_str().as_bytes(),
        ];
        Record {
            data: Bytes::from(parts.concat()),
            revision,
            subject: self.subject.as_ref().map(on_the_way),
            label: label_with(MARK, self.fence, ""),
            ..record.clone()
        }
    }

    /// The session that the fence is a copy of.
    pub(super) fn restore(&self, fence: Record) -> Record {
        Record {
            revision: self.revision,
            subject: self.subject.clone(),
            label: self.label.clone(),
            ..fence
        }
    }

    fn read(mark: &Record) -> Option<Self> {
        let (fence, _) = fence_in(&mark.label)?;
        let (revision, rest) = mark.data.split_first_chunk()?;
        let (&length, rest) = rest.split_first()?;
        let (subject, label) = rest.split_at_checked(length.into())?;
        let subject = match str::from_utf8(subject).ok()? {
            "" => None,
            subject => Some(Subject::from_stored(subject).ok()?),
        };
        Some(Self {
            fence,
            revision: Revision::from_bits(u64::from_be_bytes(*revision)),
            subject,
            label: Label::from_stored(str::from_utf8(label).ok()?).ok()?,
        })
    }
}

/// The copy of a record that goes into the new store. Its label is for a list; the whole of it is
/// in the mark.
pub(super) fn fence(record: &Record, revision: Revision) -> Record {
    Record {
        revision,
        subject: record.subject.as_ref().map(on_the_way),
        label: label_with(FENCE, revision, record.label.as_str()),
        ..record.clone()
    }
}

/// The revision of the fence that the label of a mark or a fence names, and the label that the
/// session has, cut where it had no room.
pub(super) fn fence_in(label: &Label) -> Option<(Revision, Label)> {
    let text = label.as_str();
    let rest = text.strip_prefix(MARK).or(text.strip_prefix(FENCE))?;
    let (digits, label) = rest.split_at_checked(16)?;
    let bits = u64::from_str_radix(digits, 16).ok()?;
    Some((Revision::from_bits(bits), Label::from_stored(label).ok()?))
}

fn label_with(prefix: &str, fence: Revision, label: &str) -> Label {
    let prefix = format!("{prefix}{:016x}", fence.to_bits());
    let room = label.floor_char_boundary(Label::MAX_LEN - prefix.len());
    Label::from_stored(&format!("{prefix}{}", &label[..room])).expect("it was cut to the limit")
}

/// The subject of a subject's fences and marks: another one, so that they are told from its sessions
/// in a listing, and that a revocation ends either, knows which, and can spare one of each.
pub(super) fn on_the_way(subject: &Subject) -> Subject {
    let hash = StoreKey::from_bytes(Sha256::digest(subject.as_str()).into());
    Subject::from_stored(format!("\u{1}sessionkit moving {}", hash.to_hex()))
        .expect("the prefix and 64 digits are within the limit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    #[test]
    fn no_application_can_write_what_the_layer_marks_records_with() {
        let session = Record {
            data: "data".into(),
            revision: Revision::from_bits(1),
            created_at: Timestamp::MIN,
            expires_at: Timestamp::MAX,
            subject: Some(Subject::new("alice").unwrap()),
            label: Label::new("Firefox").unwrap(),
        };
        let fence = fence(&session, Revision::from_bits(2));
        let moved = Moved::new(&session, fence.revision);
        let mark = moved.mark(&session, Revision::from_bits(3));
        for record in [fence, mark] {
            let subject = record.subject.as_ref().map_or("", Subject::as_str);
            for text in [record.label.as_str(), subject] {
                assert!(Label::new(text).is_err(), "{text:?}");
                assert!(Subject::new(text).is_err(), "{text:?}");
            }
            // Stores give them back all the same.
            assert_eq!(
                Label::from_stored(record.label.as_str()).ok(),
                Some(record.label)
            );
        }
    }
}
