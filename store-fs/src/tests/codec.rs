use sessionkit::{ErrorKind, StoreKey};
use sha2::{Digest, Sha256};

use super::{A, B, call, create, load, record, tree};
use crate::codec::{Encoded, Header};

fn read(key: &StoreKey, file: &[u8]) -> sessionkit::Result<sessionkit::Record> {
    Header::of(key, file, file.len())?.record(file.to_vec().into())
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let whole = Encoded::new(&A, &record(1, Some("alice"))).unwrap().bytes;
    assert_eq!(read(&A, &whole).unwrap(), record(1, Some("alice")));
    for position in 0..whole.len() * 8 {
        let mut file = whole.clone();
        file[position / 8] ^= 1 << (position % 8);
        let damaged = read(&A, &file).unwrap_err();
        assert_eq!(damaged.kind(), ErrorKind::Corrupt, "bit {position}");
    }
    for len in 0..whole.len() {
        let cut = read(&A, &whole[..len]).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::Corrupt, "{len} bytes");
    }
    for more in [&b"\0"[..], &whole] {
        let longer = [&whole[..], more].concat();
        assert_eq!(read(&A, &longer).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// The checksums are right: only another program can have written such a file.
#[test]
fn a_file_with_a_field_that_nobody_writes_is_damaged() {
    let whole = Encoded::new(&A, &record(1, Some("alice"))).unwrap().bytes;
    let before_1970 = (-1_i64).to_le_bytes();
    let after_9999 = 253_402_300_800_000_i64.to_le_bytes();
    for (at, field) in [
        (48, &before_1970[..]),
        (48, &after_9999),
        (56, &before_1970),
        (56, &after_9999),
        (70, &[1, 0]),
        (70, &[0, 1]),
    ] {
        let mut file = whole.clone();
        file[at..at + field.len()].copy_from_slice(field);
        let sum_at = 88 + "alice".len() + "label 1".len();
        let sum = Sha256::digest(&file[..sum_at]);
        file[sum_at..sum_at + 16].copy_from_slice(&sum[..16]);
        let error = read(&A, &file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{at}: {field:?}");
    }
}

#[test]
fn a_file_of_a_newer_version_is_refused_as_such() {
    let mut bytes = Encoded::new(&A, &record(1, None)).unwrap().bytes;
    bytes[7] += 1;
    let error = Header::parse(&bytes).err().unwrap();
    assert_eq!(
        error.to_string(),
        "the session is in a format of another version"
    );
}

/// The format is kept: a file written by the first release is read by every later one.
#[test]
fn a_golden_file_is_read() {
    let golden = include_bytes!("golden-1.session");
    assert_eq!(
        Encoded::new(&A, &record(1, Some("alice"))).unwrap().bytes,
        golden
    );
    assert_eq!(read(&A, golden).unwrap(), record(1, Some("alice")));
}

#[test]
fn a_session_copied_under_another_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    create(&tree, &call(), &A, &record(1, None)).unwrap();
    create(&tree, &call(), &B, &record(2, None)).unwrap();
    let path = |key: &StoreKey| {
        let name = key.to_hex();
        dir.path().join(&name[..2]).join(&name)
    };
    std::fs::copy(path(&A), path(&B)).unwrap();
    let error = load(&tree, &B).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(load(&tree, &A).unwrap(), Some(record(1, None)));
}
