use sessionkit::Record;

use crate::support::decoded;

/// The very file that the store is built from: a server would have to hand over the bytes otherwise.
#[expect(dead_code, reason = "the scripts of the store need the rest")]
#[path = "../../store-redis/src/codec.rs"]
mod codec;

/// The places of a value with a subject where the scripts note what they have told its index.
const TOLD: std::ops::Range<usize> = 23..35;

/// The value under a session's key in Redis: what is read is written to the same bytes.
pub fn redis_value(input: &[u8]) -> bool {
    let head = codec::Head::read(input);
    let Some(record) = decoded(codec::decode(input.to_vec())) else {
        assert!(head.is_none());
        return false;
    };
    let (head, len) = head.expect("a record has a head");
    assert_eq!(input[len..], record.data);
    let listed = (head.revision, head.created_at, head.expires_at);
    assert_eq!(
        listed,
        (record.revision, record.created_at, record.expires_at)
    );
    assert_eq!(
        (&head.subject, &head.label),
        (&record.subject, &record.label)
    );
    let mut again = codec::encode(&record, head.number);
    if let Record {
        subject: Some(_), ..
    } = record
    {
        again[TOLD].copy_from_slice(&input[TOLD]);
    }
    assert_eq!(again, input);
    true
}
