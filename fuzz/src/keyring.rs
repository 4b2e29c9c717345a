use std::{cell::LazyCell, fs};

use sessionkit::{ErrorKind, Key, Keyring};
use tempfile::TempDir;

use crate::support::{assert_kind, directory};

thread_local! {
    static DIRECTORY: LazyCell<TempDir> = const { LazyCell::new(directory) };
}

/// The text that [`Keyring::from_file`] reads: the keyring has the keys of its parts in their order,
/// each key's own text is read as the same key, and no error shows a part.
pub fn keyring(input: &[u8]) -> bool {
    let read = from_file(input);
    let text = str::from_utf8(input).unwrap_or_default();
    let parts: Vec<_> = text
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|part| !part.is_empty())
        .collect();
    let ring = match read {
        Ok(ring) => ring,
        Err(error) => {
            assert_kind(&error, ErrorKind::InvalidConfig);
            let shown = format!("{error} {error:?}");
            let is_secret = |part: &&&str| part.len() >= 32;
            assert!(
                !parts
                    .iter()
                    .filter(is_secret)
                    .any(|part| shown.contains(*part))
            );
            return false;
        }
    };
    let keys = parts.iter().map(|part| Key::parse(part));
    let keys: Vec<_> = keys.map(|key| key.expect("the keyring has it")).collect();
    let ids: Vec<_> = keys.iter().map(Key::id).collect();
    assert_eq!(ring.ids(), ids);
    let texts: Vec<_> = keys
        .iter()
        .map(|key| key.expose_base64().to_string())
        .collect();
    let again = from_file(texts.join("\n").as_bytes()).expect("these are the keys' own texts");
    assert_eq!(again.ids(), ids);
    true
}

fn from_file(text: &[u8]) -> sessionkit::Result<Keyring> {
    DIRECTORY.with(|directory| {
        let path = directory.path().join("keys");
        fs::write(&path, text).expect("the directory is writable");
        Keyring::from_file(&path)
    })
}
