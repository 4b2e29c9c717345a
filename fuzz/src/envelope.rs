use std::sync::{Arc, LazyLock};

use sessionkit::{ErrorKind, SessionStore, Token};
use sessionkit_cookie::CookieStore;

use crate::support::{Counter, KEYRING, assert_kind, at_once, clock, cookie_name};

/// What the store signs and seals for, so that the input stands where an envelope does. The seeds
/// show that it is still so.
const PURPOSES: [&str; 2] = ["sessionkit-cookie signed 1", "sessionkit-cookie sealed 1"];

/// The envelope in a token of the cookie store, and the token itself: what is read is a record that
/// comes back from a token of its own, and nothing unsigned is a session.
pub fn envelope(input: &[u8]) -> bool {
    let name = cookie_name();
    let entropy = Counter::default();
    let sealed = KEYRING.seal(&entropy, PURPOSES[1], name.as_str(), input);
    let tokens = [
        KEYRING.sign(PURPOSES[0], name.as_str(), input),
        sealed.expect("counting does not fail"),
    ];
    let read = STORES.iter().zip(tokens).map(|(store, token)| {
        let unsigned = Token::from_bytes(input.to_vec(), &name);
        assert_eq!(at_once(store.load(&unsigned)).ok(), Some(None));
        let record = at_once(store.load(&Token::from_bytes(token, &name)));
        let record = record.expect("what is no envelope is absent")?;
        match at_once(store.create(Token::from_bytes(Vec::new(), &name), &record)) {
            Ok(token) => {
                let again = at_once(store.load(&token)).expect("it was just made");
                assert_eq!(again.as_ref(), Some(&record));
            }
            Err(error) => {
                assert_kind(&error, ErrorKind::TooLarge);
                assert!(record.data.len() > CookieStore::MAX_DATA);
            }
        }
        Some(record)
    });
    let [signed, sealed] = read
        .collect::<Vec<_>>()
        .try_into()
        .expect("there are two stores");
    assert_eq!(signed, sealed);
    signed.is_some()
}

static STORES: LazyLock<[CookieStore; 2]> = LazyLock::new(|| {
    let keyring = || KEYRING.clone();
    [
        CookieStore::signed_only(keyring()),
        CookieStore::new(keyring()),
    ]
    .map(|store| {
        let entropy = Arc::new(Counter::default());
        store.with_clock(clock()).with_entropy(entropy)
    })
});
