use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use sessionkit::{Entropy, Label, Record, Result, Revision, Subject, Timestamp};

/// The first byte of an encoded envelope; a change of [`Wire`] takes another one.
const FORMAT: u8 = 2;

/// Names a session through all the tokens that it is sealed into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Family([u8; 16]);

impl Family {
    pub(crate) fn random(entropy: &dyn Entropy) -> Result<Self> {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a token contains, besides the keyring's own header and tag.
#[derive(Debug, PartialEq)]
pub(crate) struct Envelope {
    pub(crate) family: Family,
    /// How many renewals this token comes after.
    pub(crate) generation: u32,
    /// When this token was made, by the clock of the process that made it.
    pub(crate) issued_at: Timestamp,
    pub(crate) record: Record,
}

/// The fields as postcard writes them. Texts and data point into the buffer that is read, so that
/// a length that claims more than there is allocates nothing.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    family: [u8; 16],
    generation: u32,
    revision: [u8; 8],
    issued_at: i64,
    created_at: i64,
    expires_at: i64,
    subject: Option<&'a str>,
    label: &'a str,
    #[serde(serialize_with = "bytes")]
    data: &'a [u8],
}

/// Writes what the derived sequence would, in one piece instead of byte by byte.
fn bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

impl Envelope {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let record = &self.record;
        let wire = Wire {
            family: self.family.0,
            generation: self.generation,
            revision: record.revision.to_bits().to_le_bytes(),
            issued_at: self.issued_at.as_millis(),
            created_at: record.created_at.as_millis(),
            expires_at: record.expires_at.as_millis(),
            subject: record.subject.as_ref().map(Subject::as_str),
            label: record.label.as_str(),
            data: &record.data,
        };
        postcard::to_extend(&wire, vec![FORMAT])
            .expect("a vector takes every byte, and every length is known")
    }

    /// The envelope in these bytes, or `None` when they are not exactly one.
    pub(crate) fn decode(encoded: &Bytes) -> Option<Self> {
        let (&FORMAT, fields) = encoded.split_first()? else {
            return None;
        };
        let (wire, &[]) = postcard::take_from_bytes::<Wire<'_>>(fields).ok()? else {
            return None;
        };
        Some(Self {
            family: Family(wire.family),
            generation: wire.generation,
            issued_at: instant(wire.issued_at)?,
            record: Record {
                data: encoded.slice_ref(wire.data),
                revision: Revision::from_bits(u64::from_le_bytes(wire.revision)),
                created_at: instant(wire.created_at)?,
                expires_at: instant(wire.expires_at)?,
                subject: wire.subject.map(Subject::from_stored).transpose().ok()?,
                label: Label::from_stored(wire.label).ok()?,
            },
        })
    }
}

/// The instant of this many milliseconds, if a record can have it.
fn instant(millis: i64) -> Option<Timestamp> {
    let instant = Timestamp::from_millis(millis);
    (instant.as_millis() == millis).then_some(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            family: Family([7; 16]),
            generation: 70_000,
            issued_at: Timestamp::from_millis(1_700_000_000_000),
            record: Record {
                data: Bytes::from_static(b"\x00\xff data"),
                revision: Revision::from_bits(u64::MAX - 1),
                created_at: Timestamp::MIN,
                expires_at: Timestamp::MAX,
                subject: Some(Subject::new("user-42").unwrap()),
                label: Label::new("Firefox").unwrap(),
            },
        }
    }

    /// The number of encoded bytes before the subject: format, family, generation, revision and three
    /// instants of the lengths that [`envelope`] gives them.
    fn subject_at(encoded: &[u8]) -> usize {
        encoded
            .windows(8)
            .position(|window| window == b"\x07user-42")
            .unwrap()
            - 1
    }

    #[test]
    fn decode_returns_what_encode_was_given() {
        let envelope = envelope();
        assert_eq!(Envelope::decode(&envelope.encode().into()), Some(envelope));
    }

    #[test]
    fn decode_copies_no_data() {
        let encoded = Bytes::from(envelope().encode());
        let data = Envelope::decode(&encoded).unwrap().record.data;
        assert!(encoded.as_ptr_range().contains(&data.as_ptr()));
    }

    #[test]
    fn decode_refuses_every_other_format() {
        for format in (0..=u8::MAX).filter(|&format| format != FORMAT) {
            let mut encoded = envelope().encode();
            encoded[0] = format;
            assert_eq!(Envelope::decode(&encoded.into()), None);
        }
    }

    #[test]
    fn decode_refuses_every_truncation_and_any_byte_too_many() {
        let mut encoded = envelope().encode();
        for len in 0..encoded.len() {
            assert_eq!(
                Envelope::decode(&Bytes::copy_from_slice(&encoded[..len])),
                None
            );
        }
        encoded.push(0);
        assert_eq!(Envelope::decode(&encoded.into()), None);
    }

    #[test]
    fn decode_refuses_lengths_beyond_the_end() {
        let encoded = envelope().encode();
        let at = subject_at(&encoded) + 1;
        for length in [
            &[0xff, 0xff, 0xff, 0xff, 0x0f][..],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0xff; 20],
        ] {
            let mut hostile = encoded[..at].to_vec();
            hostile.extend_from_slice(length);
            hostile.extend_from_slice(b"user-42");
            assert_eq!(Envelope::decode(&hostile.into()), None);
        }
    }

    #[test]
    fn decode_refuses_what_no_record_can_hold() {
        let encoded = envelope().encode();
        let at = subject_at(&encoded);
        let with_subject = |subject: &[u8]| {
            let mut changed = encoded[..at].to_vec();
            changed.extend_from_slice(subject);
            changed.extend_from_slice(&encoded[at + 9..]);
            Envelope::decode(&changed.into())
        };
        assert!(with_subject(b"\x01\x07user-43").is_some());
        assert!(with_subject(b"\x00").is_some());
        assert_eq!(with_subject(b"\x01\x00"), None, "empty");
        assert_eq!(with_subject(b"\x01\x02\xc3\x28"), None, "not UTF-8");
        assert_eq!(with_subject(b"\x02"), None, "no such variant");
        let long = [&[1, 0x80, 0x02][..], &[b'a'; 256]].concat();
        assert_eq!(with_subject(&long), None, "256 bytes");
    }

    #[test]
    fn decode_refuses_instants_that_no_record_can_have() {
        let encoded = |issued_at, created_at, expires_at| {
            let wire = Wire {
                family: [7; 16],
                generation: 0,
                revision: [1; 8],
                issued_at,
                created_at,
                expires_at,
                subject: None,
                label: "",
                data: b"",
            };
            let encoded = postcard::to_extend(&wire, vec![FORMAT]).unwrap();
            Envelope::decode(&encoded.into())
        };
        assert!(encoded(0, 0, Timestamp::MAX.as_millis()).is_some());
        for outside in [-1, i64::MIN, Timestamp::MAX.as_millis() + 1, i64::MAX] {
            assert_eq!(encoded(outside, 0, 0), None);
            assert_eq!(encoded(0, outside, 0), None);
            assert_eq!(encoded(0, 0, outside), None);
        }
    }

    #[test]
    fn decode_of_arbitrary_bytes_never_panics() {
        // Numbers of a fixed linear congruential generator (Knuth, MMIX).
        let mut state = 1_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        for length in 0..20_000 {
            let mut bytes: Vec<u8> = (0..length % 200).map(|_| next()).collect();
            if let Some(first) = bytes.first_mut() {
                *first = FORMAT;
            }
            let bytes = Bytes::from(bytes);
            if let Some(envelope) = Envelope::decode(&bytes) {
                assert!(envelope.record.data.len() <= bytes.len());
            }
        }
    }
}
