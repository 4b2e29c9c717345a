use sessionkit::{ErrorKind, StoreKey};

use super::{A, B, call, record, tree};
use crate::format::{Header, Section, find};

fn read(key: &StoreKey, file: &[u8]) -> sessionkit::Result<sessionkit::Record> {
    let (start, header) = find(key, file.len(), |start| Ok(&file[start..]))?;
    header.record(file[start..].to_vec().into())
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let both = [
        Section::new(&B, &record(2, Some("bob"))).unwrap().bytes,
        Section::new(&A, &record(1, Some("alice"))).unwrap().bytes,
    ]
    .concat();
    assert_eq!(read(&A, &both).unwrap(), record(1, Some("alice")));
    assert_eq!(read(&B, &both).unwrap(), record(2, Some("bob")));
    for position in 0..both.len() * 8 {
        let mut file = both.clone();
        file[position / 8] ^= 1 << (position % 8);
        // Damage in the other record's data is no damage to this one.
        let damaged = [A, B].map(|key| match read(&key, &file) {
            Ok(read) => {
                let expected = [record(1, Some("alice")), record(2, Some("bob"))];
                assert!(expected.contains(&read), "bit {position}");
                false
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                true
            }
        });
        assert!(damaged[0] || damaged[1], "bit {position}");
    }
    let single = Section::new(&A, &record(1, None)).unwrap().bytes;
    for len in 0..single.len() {
        let cut = read(&A, &single[..len]).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::Corrupt, "{len} bytes");
    }
    let longer = [&single[..], b"\0"].concat();
    assert_eq!(read(&A, &longer).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_file_of_a_newer_version_is_refused_as_such() {
    let mut bytes = Section::new(&A, &record(1, None)).unwrap().bytes;
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
        Section::new(&A, &record(1, Some("alice"))).unwrap().bytes,
        golden
    );
    assert_eq!(read(&A, golden).unwrap(), record(1, Some("alice")));
}

#[test]
fn a_session_copied_under_another_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    tree.create(&call(), &A, &record(1, None)).unwrap();
    tree.create(&call(), &B, &record(2, None)).unwrap();
    let path = |key: &StoreKey| {
        let name = key.to_hex();
        dir.path().join(&name[..2]).join(&name)
    };
    std::fs::copy(path(&A), path(&B)).unwrap();
    let error = sessionkit::Error::from(tree.load(&call(), &B).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(tree.load(&call(), &A).unwrap(), Some(record(1, None)));
}
