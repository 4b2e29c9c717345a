//! What a write and a read of one token do: Y04, Y05, Y06, Y07 and Y08 of the catalogue.

use std::{collections::HashSet, sync::Arc, time::Duration};

use crate::support::{self, HOUR, START, both, clock, keyring, record, token};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sessionkit::{
    Custody, Entropy, Error, ErrorKind, Key, Label, Result, Revision, SessionStore, Subject, Sweep,
    Timestamp,
};
use sessionkit_cookie::CookieStore;

const MILLISECOND: Duration = Duration::from_millis(1);

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn a_session_ends_at_the_sealed_instant_and_not_before() {
    let clock = clock();
    for (_, store) in both(&keyring(), &clock) {
        clock.set(START);
        let record = record("data");
        let token = store.create(token(), &record).await.unwrap();
        clock.set(record.expires_at - MILLISECOND);
        assert_eq!(store.load(&token).await.unwrap(), Some(record.clone()));
        clock.set(record.expires_at);
        assert_eq!(store.load(&token).await.unwrap(), None);
        for result in [
            store.update(&token, record.revision, &record).await,
            store.touch(&token, record.expires_at + HOUR).await,
            store.renew(&token, record.revision, &record).await,
        ] {
            assert_eq!(kind(result), ErrorKind::Missing);
        }
    }
}

#[tokio::test]
async fn a_record_that_has_expired_already_is_accepted_and_not_visible() {
    let clock = clock();
    for (_, store) in both(&keyring(), &clock) {
        for expires_at in [START, START - HOUR, Timestamp::MIN] {
            let mut record = record("data");
            record.expires_at = expires_at;
            let token = store.create(token(), &record).await.unwrap();
            assert_eq!(store.load(&token).await.unwrap(), None);
        }
        let mut record = record("data");
        record.expires_at = Timestamp::MAX;
        let token = store.create(token(), &record).await.unwrap();
        clock.set(Timestamp::MAX - MILLISECOND);
        assert_eq!(store.load(&token).await.unwrap(), Some(record));
        clock.set(START);
    }
}

#[tokio::test]
async fn touch_moves_the_expiry_both_ways_and_nothing_else() {
    let clock = clock();
    for (_, store) in both(&keyring(), &clock) {
        let mut record = record("data");
        record.subject = Some(Subject::new("alice").unwrap());
        record.label = Label::new("Firefox").unwrap();
        let mut token = store.create(token(), &record).await.unwrap();
        for expires_at in [START + 2 * HOUR, START + HOUR / 2] {
            token = store.touch(&token, expires_at).await.unwrap();
            record.expires_at = expires_at;
            assert_eq!(store.load(&token).await.unwrap(), Some(record.clone()));
        }
    }
}

#[tokio::test]
async fn update_takes_the_revision_of_the_token_only() {
    let clock = clock();
    for (_, store) in both(&keyring(), &clock) {
        let (old, new) = (record("old"), record("new"));
        let first = store.create(token(), &old).await.unwrap();
        let other = Revision::from_bits(old.revision.to_bits() ^ 1);
        assert_eq!(
            kind(store.update(&first, other, &new).await),
            ErrorKind::Conflict
        );
        assert_eq!(
            kind(store.renew(&first, other, &new).await),
            ErrorKind::Conflict
        );
        let second = store.update(&first, old.revision, &new).await.unwrap();
        assert_eq!(store.load(&second).await.unwrap(), Some(new.clone()));
        assert_eq!(
            kind(store.update(&second, old.revision, &new).await),
            ErrorKind::Conflict
        );
        let third = store.renew(&second, new.revision, &old).await.unwrap();
        assert_eq!(store.load(&third).await.unwrap(), Some(old));
    }
}

#[tokio::test]
async fn create_leaves_a_live_session_alone() {
    let clock = clock();
    for (_, store) in both(&keyring(), &clock) {
        let one = record("one");
        let second = store.create(token(), &record("two")).await.unwrap();
        assert_eq!(
            kind(store.create(second.clone(), &one).await),
            ErrorKind::Exists
        );
        clock.set(START + HOUR);
        let fresh = record("fresh");
        assert!(store.create(second, &fresh).await.is_ok());
        clock.set(START);
    }
}

#[tokio::test]
async fn the_newest_key_writes_older_keys_read_and_removed_keys_are_dead() {
    let clock = clock();
    let keyring = keyring();
    let oldest = keyring.ids()[0];
    for (_, store) in both(&keyring, &clock) {
        let record = record("data");
        let old = store.create(token(), &record).await.unwrap();
        keyring.rotate(Key::generate().unwrap()).unwrap();
        assert_eq!(store.load(&old).await.unwrap(), Some(record.clone()));
        let writes = [
            store.touch(&old, record.expires_at).await.unwrap(),
            store.update(&old, record.revision, &record).await.unwrap(),
            store.renew(&old, record.revision, &record).await.unwrap(),
        ];
        let key_of_old = *keyring.ids().get(1).unwrap();
        keyring.remove(key_of_old).unwrap();
        assert_eq!(store.load(&old).await.unwrap(), None);
        assert_eq!(
            kind(store.touch(&old, record.expires_at).await),
            ErrorKind::Missing
        );
        for token in &writes {
            assert_eq!(store.load(token).await.unwrap(), Some(record.clone()));
        }
    }
    assert!(!keyring.ids().contains(&oldest));
}

#[tokio::test]
async fn too_much_data_is_refused_and_never_cut() {
    let clock = clock();
    for (_, store) in both(&keyring(), &clock) {
        let small = record("small");
        let held = store.create(token(), &small).await.unwrap();
        let large = record(vec![b'x'; CookieStore::MAX_DATA + 1]);
        for result in [
            store.create(token(), &large).await,
            store.update(&held, small.revision, &large).await,
            store.renew(&held, small.revision, &large).await,
        ] {
            assert_eq!(kind(result), ErrorKind::TooLarge);
        }
        assert_eq!(store.load(&held).await.unwrap(), Some(small));
    }
}

#[tokio::test]
async fn the_documented_amount_of_data_fits_one_cookie() {
    let clock = clock();
    for (_, store) in both(&keyring(), &clock) {
        let mut record = record(vec![b'x'; 2_900]);
        record.subject = Some(Subject::new("user-1234567890").unwrap());
        record.label = Label::new("Firefox on Linux").unwrap();
        let token = store.create(token(), &record).await.unwrap();
        let value = URL_SAFE_NO_PAD.encode(token.expose());
        assert!(token.cookie().as_str().len() + value.len() <= 4096);
        record.data = vec![b'x'; CookieStore::MAX_DATA].into();
        let token = store.create(token, &record).await;
        assert_eq!(kind(token), ErrorKind::Exists);
        let token = store.create(support::token(), &record).await.unwrap();
        let value = URL_SAFE_NO_PAD.encode(token.expose());
        assert!(value.len() <= 3 * (4096 - 16), "{}", value.len());
    }
}

/// The header is one byte of format and four of the key's id; the nonce has twelve bytes.
#[tokio::test]
async fn a_hundred_thousand_seals_repeat_no_nonce() {
    let clock = clock();
    let [(_, store), _] = both(&keyring(), &clock);
    let record = record("the same");
    let mut nonces = HashSet::new();
    let mut tokens = HashSet::new();
    for _ in 0..100_000 {
        let token = store.create(token(), &record).await.unwrap();
        let bytes = token.expose();
        assert!(nonces.insert(<[u8; 12]>::try_from(&bytes[5..17]).unwrap()));
        assert!(tokens.insert(bytes[17..].to_vec()));
    }
}

#[tokio::test]
async fn touching_to_the_same_expiry_gives_another_token() {
    let clock = clock();
    let [(_, store), _] = both(&keyring(), &clock);
    let record = record("data");
    let first = store.create(token(), &record).await.unwrap();
    let second = store.touch(&first, record.expires_at).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(store.load(&second).await.unwrap(), Some(record));
}

#[derive(Debug)]
struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&self, _bytes: &mut [u8]) -> Result<()> {
        Err(Error::from(ErrorKind::Unavailable))
    }
}

#[tokio::test]
async fn without_random_bytes_no_token_is_made() {
    let clock = clock();
    let [(_, sealed), (_, signed)] = both(&keyring(), &clock);
    let record = record("data");
    let held = sealed.create(token(), &record).await.unwrap();
    let sealed = sealed.with_entropy(Arc::new(NoEntropy));
    let signed = signed.with_entropy(Arc::new(NoEntropy));
    for result in [
        sealed.create(token(), &record).await,
        signed.create(token(), &record).await,
        sealed.update(&held, record.revision, &record).await,
        sealed.touch(&held, record.expires_at).await,
        sealed.renew(&held, record.revision, &record).await,
    ] {
        assert_eq!(kind(result), ErrorKind::Unavailable);
    }
    assert_eq!(sealed.load(&held).await.unwrap(), Some(record));
}

#[tokio::test]
async fn what_a_cookie_cannot_do_is_unsupported_and_has_no_effect() {
    let clock = clock();
    for (_, store) in both(&keyring(), &clock) {
        let capabilities = store.capabilities();
        assert_eq!(capabilities.custody, Custody::Client);
        assert_eq!(capabilities.sweep, Sweep::Unsupported);
        assert_eq!(capabilities.max_data, CookieStore::MAX_DATA);
        assert!(!capabilities.compare_and_swap);
        assert!(store.subjects().is_none());
        let record = record("data");
        let held = store.create(token(), &record).await.unwrap();
        for token in [&held, &token()] {
            let deleted = store.delete(token, Some(record.revision)).await;
            assert_eq!(kind(deleted), ErrorKind::Unsupported);
            let deleted = store.delete(token, None).await;
            assert_eq!(kind(deleted), ErrorKind::Unsupported);
        }
        store.ping().await.unwrap();
        assert_eq!(kind(store.sweep(10).await), ErrorKind::Unsupported);
        assert_eq!(store.load(&held).await.unwrap(), Some(record));
    }
}

#[tokio::test]
async fn nothing_secret_is_in_debug_or_errors() {
    let clock = clock();
    let key = Key::generate().unwrap();
    let secret = key.expose_base64().to_string();
    let keyring = sessionkit::Keyring::new([key]).unwrap();
    for (_, store) in both(&keyring, &clock) {
        let held = store.create(token(), &record("canary")).await.unwrap();
        let large = record("canary".repeat(2_000));
        let text = format!(
            "{store:?} {held:?} {:?} {:?} {:?}",
            store.create(token(), &large).await,
            store.delete(&held, None).await,
            store
                .update(&held, Revision::from_bits(0), &record("canary"))
                .await,
        );
        assert!(
            !text.contains("canary") && !text.contains(&secret),
            "{text}"
        );
    }
}
