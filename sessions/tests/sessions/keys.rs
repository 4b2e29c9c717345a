use std::fs;

use sessionkit::{ErrorKind, Key, Keyring, Origin, Session};

use crate::support::{HOUR, World, key};

#[tokio::test]
async fn a_rotation_logs_nobody_out_and_reissues_cookies_at_the_next_write() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let before = browser.jar.clone();
    world.keyring.rotate(key()).unwrap();

    assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
    assert_eq!(browser.jar, before, "reading alone reissues nothing");
    browser
        .visit(|session| session.insert("key", &1))
        .await
        .unwrap();
    assert_ne!(browser.jar, before);

    let old = world.keyring.ids()[1];
    world.keyring.remove(old).unwrap();
    assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
}

#[tokio::test]
async fn a_touch_reissues_the_cookie_too() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let before = browser.jar.clone();
    world.keyring.rotate(key()).unwrap();
    world.clock.advance(12 * HOUR);
    browser.visit(|_| ()).await;
    assert_ne!(browser.jar, before);
    assert_eq!(world.store.calls(), ["load", "update"]);
}

#[tokio::test]
async fn what_a_removed_key_signed_is_dead() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    world.keyring.rotate(key()).unwrap();
    world.keyring.remove(world.keyring.ids()[1]).unwrap();
    assert_eq!(browser.visit(Session::origin).await, Origin::Rejected);
    assert!(world.store.calls().is_empty());
}

#[test]
fn of_three_keys_the_newest_writes_and_all_read() {
    let keys = [key(), key(), key()];
    let alone: Vec<_> = keys
        .iter()
        .map(|key| Keyring::new([key.clone()]).unwrap())
        .collect();
    let keyring = Keyring::new(keys.clone()).unwrap();
    let entropy = sessionkit::OsEntropy;
    for (position, single) in alone.iter().enumerate() {
        let signed = single.sign("purpose", "context", b"text");
        let sealed = single
            .seal(&entropy, "purpose", "context", b"text")
            .unwrap();
        for opened in [
            keyring.verify("purpose", "context", &signed),
            keyring.open("purpose", "context", &sealed),
        ] {
            let opened = opened.unwrap();
            assert_eq!(opened.payload, b"text");
            assert_eq!(opened.current, position == 0);
        }
    }
    let signed = keyring.sign("purpose", "context", b"text");
    let readers: Vec<_> = alone
        .iter()
        .map(|one| one.verify("purpose", "context", &signed).is_some())
        .collect();
    assert_eq!(readers, [true, false, false]);
}

#[test]
fn signed_and_sealed_values_are_bound_to_purpose_context_scope_and_kind() {
    let key = key();
    let keyring = Keyring::new([key.clone()]).unwrap();
    let signed = keyring.sign("purpose", "context", b"text");
    let sealed = keyring
        .seal(&sessionkit::OsEntropy, "purpose", "context", b"text")
        .unwrap();
    for (purpose, context) in [
        ("other", "context"),
        ("purpose", "other"),
        ("purposec", "ontext"),
        ("", ""),
    ] {
        assert!(keyring.verify(purpose, context, &signed).is_none());
        assert!(keyring.open(purpose, context, &sealed).is_none());
    }
    let tenant = Keyring::scoped("tenant", [key]).unwrap();
    assert!(tenant.verify("purpose", "context", &signed).is_none());
    assert!(tenant.open("purpose", "context", &sealed).is_none());
    assert!(keyring.verify("purpose", "context", &sealed).is_none());
    assert!(keyring.open("purpose", "context", &signed).is_none());
    for length in 0..signed.len() {
        assert!(
            keyring
                .verify("purpose", "context", &signed[..length])
                .is_none()
        );
        assert!(
            keyring
                .open(
                    "purpose",
                    "context",
                    &sealed[..length.min(sealed.len() - 1)]
                )
                .is_none()
        );
    }
}

#[test]
fn a_sealed_value_is_never_the_same_twice() {
    let keyring = Keyring::new([key()]).unwrap();
    let seal = || {
        keyring
            .seal(&sessionkit::OsEntropy, "purpose", "context", b"text")
            .unwrap()
    };
    assert_ne!(seal(), seal());
}

#[test]
fn weak_keys_are_refused() {
    let counter: Vec<u8> = (0..32).collect();
    let weak: [(&str, &[u8]); 8] = [
        ("empty", b""),
        ("31 bytes", &[0x9e; 31]),
        ("zeros", &[0; 32]),
        ("one byte repeated", &[0xa5; 64]),
        ("a short pattern repeated", &[1, 200, 77, 9].repeat(8)),
        ("a counter", &counter),
        ("a sentence", b"this is a very long and secret pass phrase"),
        (
            "hexadecimal text",
            b"f1e2d3c4b5a697887766554433221100ffeeddccbbaa99881029384756afbecd",
        ),
    ];
    for (what, bytes) in weak {
        let error = Key::from_bytes(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{what}");
        assert!(!error.to_string().contains("secret pass"), "{error}");
    }
}

#[test]
fn keys_are_read_from_hexadecimal_and_every_base64() {
    let key = key();
    let bytes = {
        use base64::{Engine, engine::general_purpose::STANDARD};
        STANDARD.decode(&*key.expose_base64()).unwrap()
    };
    use base64::{Engine, engine::general_purpose as engines};
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    for text in [
        hex.clone(),
        hex.to_uppercase(),
        engines::STANDARD.encode(&bytes),
        engines::STANDARD_NO_PAD.encode(&bytes),
        engines::URL_SAFE.encode(&bytes),
        engines::URL_SAFE_NO_PAD.encode(&bytes),
    ] {
        assert_eq!(Key::parse(&text).unwrap().id(), key.id(), "{text}");
    }
    for text in ["", "secret", "äöü", &hex[..62], &format!("{hex}!")] {
        let error = Key::parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(
            text.is_empty() || !error.to_string().contains(text),
            "{error}"
        );
    }
}

#[test]
fn a_keyring_is_read_from_a_file_newest_first() {
    let (new, old) = (key(), key());
    let path = std::env::temp_dir().join(format!("sessionkit-keys-{}", new.id()));
    fs::write(
        &path,
        format!("{}\n{}\n", &*new.expose_base64(), &*old.expose_base64()),
    )
    .unwrap();
    let keyring = Keyring::from_file(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(keyring.ids(), [new.id(), old.id()]);
    assert_eq!(
        Keyring::from_file(&path).unwrap_err().kind(),
        ErrorKind::InvalidConfig
    );
    let error = Keyring::from_env("SESSIONKIT_TEST_NO_SUCH_VARIABLE").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(
        error
            .to_string()
            .contains("SESSIONKIT_TEST_NO_SUCH_VARIABLE")
    );
}

#[test]
fn a_keyring_has_a_key_and_none_twice() {
    let (one, two) = (key(), key());
    assert!(Keyring::new([]).is_err());
    assert!(Keyring::new([one.clone(), one.clone()]).is_err());
    let keyring = Keyring::new([one.clone()]).unwrap();
    assert!(keyring.rotate(one.clone()).is_err());
    assert!(keyring.remove(one.id()).is_err(), "the last key stays");
    assert!(keyring.remove(two.id()).is_err(), "there is no such key");
    assert!(keyring.replace([two.clone(), two.clone()]).is_err());
    assert_eq!(
        keyring.ids(),
        [one.id()],
        "what was refused has changed nothing"
    );
    keyring.replace([two.clone(), one.clone()]).unwrap();
    assert_eq!(keyring.clone().ids(), [two.id(), one.id()]);
}

#[test]
fn keys_do_not_show_themselves() {
    let key = key();
    let shown = format!("{key:?} {:?}", Keyring::new([key.clone()]).unwrap());
    assert!(!shown.contains(&*key.expose_base64()));
    assert!(shown.contains(&key.id().to_string()));
}
