//! How values are written: as MessagePack with field names, of which nothing is accepted that could
//! not be read back.

use std::any::type_name;

use bytes::Bytes;
use rmp_serde::{Deserializer, Serializer, config::SerializerConfig, decode::ReadReader};
use serde::{Serialize, de::DeserializeOwned};

use self::{
    faithful::{Faithful, Reason},
    shape::is_whole,
};
use crate::{Error, ErrorKind, Result};

mod faithful;
mod shape;

/// How many levels a value may have: each struct, sequence, map, tuple, enum variant with content,
/// newtype and `Some` is one. It bounds the recursion of writing and of reading, whose frames are
/// mostly the application's, so that the stack of a small thread holds them.
const MAX_DEPTH: usize = 64;

/// Writes a value as MessagePack with field names: it describes itself, so that a struct may gain a
/// defaulted field.
///
/// Addresses and the like are text. Where serde has to keep what it reads before it knows the type
/// (`untagged`, `tag`, `flatten`), it reads that as a text-based format would have written it.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] naming the key for what cannot be serialized, or not be read back.
pub(crate) fn encode_value<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Bytes> {
    let mut serializer = Serializer::new(Vec::new())
        .with_struct_map()
        .with_human_readable();
    let reason = Reason::default();
    let written = value.serialize(Faithful::new(&mut serializer, &reason));
    let bytes = serializer.into_inner();
    let name = type_name::<T>();
    if written.is_err() {
        let what = "cannot be serialized from";
        return Err(invalid_value(key, what, name, reason.get()));
    }
    if cfg!(debug_assertions) && !is_whole(&bytes, MAX_DEPTH) {
        let reason = Some("it has another number of parts than it says");
        return Err(invalid_value(
            key,
            "cannot be serialized from",
            name,
            reason,
        ));
    }
    Ok(bytes.into())
}

/// Reads a value. What it does is bounded by the number of bytes, and its recursion by the depth,
/// whatever the bytes are.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] naming the key for what is not a `T`.
pub(crate) fn decode_value<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T> {
    let read_whole = || {
        read(Deserializer::new(bytes).with_human_readable())
            // It may have been written when addresses and the like were no text.
            .or_else(|| read(Deserializer::new(bytes)))
    };
    // The deserializer itself counts no levels of enums.
    is_whole(bytes, MAX_DEPTH)
        .then(read_whole)
        .flatten()
        .ok_or_else(|| invalid_value(key, "cannot be read as", type_name::<T>(), None))
}

fn read<T, C>(mut deserializer: Deserializer<ReadReader<&[u8]>, C>) -> Option<T>
where
    T: DeserializeOwned,
    C: SerializerConfig,
{
    T::deserialize(&mut deserializer)
        .ok()
        // A longer sequence read as a shorter tuple leaves something over.
        .filter(|_| deserializer.get_ref().is_empty())
}

fn invalid_value(key: &str, what: &str, type_name: &str, reason: Option<&str>) -> Error {
    let (colon, reason) = reason.map_or(("", ""), |reason| (": ", reason));
    Error::new(
        ErrorKind::InvalidValue,
        format!("the value of {key:?} {what} {type_name}{colon}{reason}"),
    )
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use serde::{Deserialize, de::IgnoredAny};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum List {
        End,
        More(Box<Self>),
        Both { first: Box<Self> },
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Tree(Vec<Self>);

    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "it is never read with success")]
    enum Any {
        Seq(Vec<Self>),
        Number(u8),
    }

    /// Runs what may overflow a stack where there is little of it.
    fn on_a_small_stack(f: fn()) {
        let builder = std::thread::Builder::new().stack_size(256 << 10);
        builder.spawn(f).unwrap().join().unwrap();
    }

    #[test]
    fn hostile_depth_is_refused_without_recursion() {
        on_a_small_stack(|| {
            for levels in [65, 1_000, 2_000, 1_000_000] {
                let list = b"\x81\xa4More".repeat(levels);
                let both = b"\x81\xa4Both\x81\xa5first".repeat(levels);
                for list in [list, both] {
                    let list = [list, b"\xa3End".to_vec()].concat();
                    assert!(decode_value::<List>("key", &list).is_err());
                    assert!(decode_value::<IgnoredAny>("key", &list).is_err());
                }
                let tree = [vec![0x91; levels], vec![0x90]].concat();
                assert!(decode_value::<Tree>("key", &tree).is_err());
                assert!(decode_value::<Any>("key", &tree).is_err());
            }
        });
    }

    #[test]
    fn the_deepest_value_is_written_and_read_on_a_small_stack() {
        on_a_small_stack(|| {
            let both = |list, _| List::Both {
                first: Box::new(list),
            };
            let deepest = (0..MAX_DEPTH / 2).fold(List::End, both);
            let bytes = encode_value("key", &deepest).unwrap();
            assert_eq!(decode_value::<List>("key", &bytes).unwrap(), deepest);
            // A newtype around each sequence.
            let tree = (1..MAX_DEPTH / 2).fold(Tree(Vec::new()), |tree, _| Tree(vec![tree]));
            let bytes = encode_value("key", &tree).unwrap();
            assert!(decode_value::<Tree>("key", &bytes).is_ok());
            assert!(encode_value("key", &Tree(vec![tree])).is_err());
            let deepest = [vec![0x91; MAX_DEPTH - 1], vec![0x90]].concat();
            assert!(decode_value::<Tree>("key", &deepest).is_ok());
            assert!(decode_value::<Any>("key", &deepest).is_ok());
        });
    }

    #[test]
    fn a_huge_length_takes_no_memory() {
        for claim in [
            &b"\xdd\xff\xff\xff\xff"[..],
            b"\xdf\x7f\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
        ] {
            assert!(decode_value::<Vec<u64>>("key", claim).is_err());
            assert!(decode_value::<IgnoredAny>("key", claim).is_err());
        }
    }

    #[test]
    fn values_are_read_from_before_addresses_were_text() {
        let address = IpAddr::from([127, 0, 0, 1]);
        let before = rmp_serde::to_vec_named(&(address, 7)).unwrap();
        let now = encode_value("key", &(address, 7)).unwrap();
        assert_ne!(before, now);
        for bytes in [&before[..], &now] {
            let read = decode_value::<(IpAddr, u8)>("key", bytes).unwrap();
            assert_eq!(read, (address, 7));
        }
    }

    #[test]
    fn wide_integers_are_read_from_before_they_were_refused() {
        let before = rmp_serde::to_vec_named(&u128::MAX).unwrap();
        assert_eq!(decode_value::<u128>("key", &before).unwrap(), u128::MAX);
    }
}
