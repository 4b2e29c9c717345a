//! What is not exactly ours is no session: Y01, Y02, Y03 and Y09 of the catalogue.

use crate::support::{HOUR, START, both, clock, cookie, keyring, record, token, with_bytes};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sessionkit::{ErrorKind, Key, Keyring, OsEntropy, Revision, SessionStore, Subject, Token};
use sessionkit_cookie::CookieStore;

async fn is_absent(store: &CookieStore, token: &Token) {
    let revision = Revision::from_bits(1);
    let mut messages = Vec::new();
    assert_eq!(store.load(token).await.unwrap(), None);
    for result in [
        store.update(token, revision, &record("new")).await,
        store.touch(token, START + HOUR).await,
        store.renew(token, revision, &record("new")).await,
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Missing);
        messages.push(format!("{error} {error:?}"));
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "the outcomes differ: {messages:?}");
}

#[tokio::test]
async fn a_record_comes_back_as_it_was_given() {
    let clock = clock();
    for (_, store) in both(&keyring(), &clock) {
        for data in [vec![], (0..=255).collect(), vec![0; CookieStore::MAX_DATA]] {
            let mut given = record(data);
            given.subject = Some(Subject::new("a".repeat(Subject::MAX_LEN)).unwrap());
            given.label = sessionkit::Label::new(&"é".repeat(127)).unwrap();
            let token = store.create(token(), &given).await.unwrap();
            assert_eq!(store.load(&token).await.unwrap(), Some(given.clone()));
            let reopened = store.clone();
            assert_eq!(reopened.load(&token).await.unwrap(), Some(given));
        }
    }
}

#[tokio::test]
async fn every_flipped_bit_is_refused() {
    let clock = clock();
    for (name, store) in both(&keyring(), &clock) {
        let token = store.create(token(), &record("some data")).await.unwrap();
        for bit in 0..8 * token.expose().len() {
            let mut bytes = token.expose().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let forged = with_bytes(&token, bytes);
            assert_eq!(store.load(&forged).await.unwrap(), None, "{name} bit {bit}");
        }
        assert!(store.load(&token).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn every_truncation_and_extension_is_refused() {
    let clock = clock();
    for (name, store) in both(&keyring(), &clock) {
        let token = store.create(token(), &record("some data")).await.unwrap();
        let bytes = token.expose();
        for cut in 0..bytes.len() {
            for part in [&bytes[..cut], &bytes[bytes.len() - cut..]] {
                let forged = with_bytes(&token, part);
                assert_eq!(store.load(&forged).await.unwrap(), None, "{name} {cut}");
            }
        }
        for extra in [&[0][..], &[0; 16], &[255; 32], bytes] {
            for longer in [[bytes, extra].concat(), [extra, bytes].concat()] {
                let forged = with_bytes(&token, longer);
                assert_eq!(store.load(&forged).await.unwrap(), None, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn every_reordering_is_refused() {
    let clock = clock();
    for (name, store) in both(&keyring(), &clock) {
        let one = store.create(token(), &record([1; 40])).await.unwrap();
        let two = store.create(token(), &record([2; 40])).await.unwrap();
        let (one, two) = (one.expose().to_vec(), two.expose().to_vec());
        assert_eq!(one.len(), two.len());
        for at in 0..one.len() - 1 {
            let mut swapped = one.clone();
            swapped.swap(at, at + 1);
            if swapped != one {
                let forged = with_bytes(&token(), swapped);
                assert_eq!(store.load(&forged).await.unwrap(), None, "{name} {at}");
            }
        }
        // The head of one token with the tail of another.
        for at in 1..one.len() {
            let spliced = [&one[..at], &two[at..]].concat();
            if spliced == one || spliced == two {
                continue;
            }
            let forged = with_bytes(&token(), spliced);
            assert_eq!(store.load(&forged).await.unwrap(), None, "{name} {at}");
        }
        for block in [4, 8, 16] {
            let mut reversed = one.clone();
            reversed.rotate_left(block);
            let forged = with_bytes(&token(), reversed);
            assert_eq!(store.load(&forged).await.unwrap(), None, "{name} {block}");
        }
    }
}

#[tokio::test]
async fn plain_encoded_and_foreign_payloads_are_refused() {
    let clock = clock();
    let keyring = keyring();
    let stores = both(&keyring, &clock);
    let (_, sealed) = &stores[0];
    let real = sealed.create(token(), &record("data")).await.unwrap();
    let foreign = [
        Vec::new(),
        b"||".to_vec(),
        b"{\"user\":\"admin\"}".to_vec(),
        b"dXNlcj1hZG1pbg==".to_vec(),
        vec![0; 32],
        vec![1; 200],
        vec![2; 200],
        URL_SAFE_NO_PAD.encode(real.expose()).into_bytes(),
        vec![2; 10 << 20],
        keyring.sign("other purpose", "__Host-id", b"data"),
        keyring
            .seal(&OsEntropy, "other purpose", "__Host-id", b"data")
            .unwrap(),
    ];
    for (_, store) in &stores {
        for bytes in &foreign {
            is_absent(store, &with_bytes(&token(), bytes.clone())).await;
        }
        is_absent(store, &token()).await;
    }
}

#[tokio::test]
async fn sealed_and_signed_never_take_each_other_for_their_own() {
    let clock = clock();
    let [(_, sealed), (_, signed)] = both(&keyring(), &clock);
    let by_sealed = sealed.create(token(), &record("data")).await.unwrap();
    let by_signed = signed.create(token(), &record("data")).await.unwrap();
    is_absent(&signed, &by_sealed).await;
    is_absent(&sealed, &by_signed).await;
    for (store, token) in [(&signed, &by_sealed), (&sealed, &by_signed)] {
        for format in 0..=255 {
            let mut bytes = token.expose().to_vec();
            bytes[0] = format;
            assert_eq!(store.load(&with_bytes(token, bytes)).await.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn only_the_signed_token_shows_its_contents() {
    let clock = clock();
    let [(_, sealed), (_, signed)] = both(&keyring(), &clock);
    let shows = |token: &Token| token.expose().windows(6).any(|part| part == b"canary");
    let record = record("canary");
    assert!(!shows(&sealed.create(token(), &record).await.unwrap()));
    assert!(shows(&signed.create(token(), &record).await.unwrap()));
}

#[tokio::test]
async fn a_token_is_worth_nothing_in_another_cookie() {
    let clock = clock();
    for (_, store) in both(&keyring(), &clock) {
        let token = store.create(token(), &record("data")).await.unwrap();
        for name in ["__Host-id2", "__Host-i", "__host-id", "prefs"] {
            let moved = Token::from_bytes(token.expose().to_vec(), &cookie(name));
            is_absent(&store, &moved).await;
        }
        assert!(store.load(&token).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_token_is_worth_nothing_in_another_scope() {
    let clock = clock();
    let key = Key::generate().unwrap();
    let scopes = ["", "shop", "shop2", "Shop"];
    let keyrings = scopes.map(|scope| Keyring::scoped(scope, [key.clone()]).unwrap());
    for (from, keyring) in keyrings.iter().enumerate() {
        for kind in 0..2 {
            let (_, store) = &both(keyring, &clock)[kind];
            let token = store.create(token(), &record("data")).await.unwrap();
            for (to, keyring) in keyrings.iter().enumerate() {
                let (_, store) = &both(keyring, &clock)[kind];
                if from == to {
                    assert!(store.load(&token).await.unwrap().is_some());
                } else {
                    is_absent(store, &token).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn all_bad_tokens_have_one_outcome() {
    let clock = clock();
    let keyring = keyring();
    for (_, store) in both(&keyring, &clock) {
        let good = store.create(token(), &record("data")).await.unwrap();
        let mut expired = record("data");
        expired.expires_at = START;
        let mut flipped = good.expose().to_vec();
        flipped[30] ^= 1;
        let elsewhere = CookieStore::new(crate::support::keyring());
        for bad in [
            store.create(token(), &expired).await.unwrap(),
            with_bytes(&good, flipped),
            elsewhere.create(token(), &record("data")).await.unwrap(),
            Token::from_bytes(good.expose().to_vec(), &cookie("other")),
            token(),
        ] {
            is_absent(&store, &bad).await;
        }
    }
}

#[test]
fn weak_keys_are_refused_before_there_is_a_store() {
    for weak in [&[][..], &[7; 16], &[0; 32], b"secret", &[b'a'; 64]] {
        let error = Key::from_bytes(weak).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
    assert_eq!(
        Keyring::new([]).unwrap_err().kind(),
        ErrorKind::InvalidConfig
    );
}
