use std::{collections::BTreeMap, fs, sync::Arc};

use sessionkit::{
    CookieOptions, Entropy, ErrorKind, Key, Keyring, MemoryStore, Origin, Session, SessionConfig,
    SessionManager,
};

use crate::support::{Browser, HOUR, World, key};

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

/// Two instances of an application: each has a keyring of its own, and they share a store.
struct Instances {
    managers: [SessionManager; 2],
    keyrings: [Keyring; 2],
}

impl Instances {
    fn new(key: &Key) -> Self {
        let keyrings = [(); 2].map(|()| Keyring::new([key.clone()]).unwrap());
        let store = Arc::new(MemoryStore::new());
        let managers = keyrings.each_ref().map(|keyring| {
            let config = SessionConfig::new(Arc::clone(&store));
            let prefs = SessionConfig::new(sessionkit_cookie::CookieStore::new(keyring.clone()))
                .cookie(CookieOptions::new("__Host-prefs").unwrap());
            SessionManager::builder(keyring.clone())
                .session("session", config)
                .session("prefs", prefs)
                .build()
                .unwrap()
        });
        Self { managers, keyrings }
    }

    /// What becomes of `browser`, whose sessions have changed at one instance, at the other one.
    async fn seen_elsewhere(&self, browser: &mut Browser, writer: usize) -> [Origin; 2] {
        browser.manager = self.managers[writer].clone();
        let sessions = browser.begin();
        for name in ["session", "prefs"] {
            let session = sessions.get(name).await.unwrap();
            let count = |count: Option<u32>| count.unwrap_or(0) + 1;
            session.update("count", count).unwrap();
        }
        browser.finish(&sessions).await.unwrap();
        browser.manager = self.managers[1 - writer].clone();
        let sessions = browser.begin();
        [
            sessions.get("session").await.unwrap().origin(),
            sessions.get("prefs").await.unwrap().origin(),
        ]
    }

    /// No instance refuses what the other one writes, to a new browser or to one with a session.
    async fn assert_agree(&self, old: &mut Browser, step: &str) {
        for writer in [0, 1] {
            let mut new = Browser {
                jar: BTreeMap::new(),
                ..old.clone()
            };
            for browser in [&mut *old, &mut new] {
                let seen = self.seen_elsewhere(browser, writer).await;
                assert_eq!(seen, [Origin::Stored; 2], "{step}, written by {writer}");
            }
        }
    }

    fn browser(&self) -> Browser {
        Browser {
            manager: self.managers[0].clone(),
            jar: BTreeMap::new(),
            response: http::HeaderMap::new(),
        }
    }
}

#[tokio::test]
async fn over_two_instances_a_key_that_is_accepted_first_and_written_later_is_never_refused() {
    let (old, new) = (key(), key());
    let instances = Instances::new(&old);
    let [one, two] = &instances.keyrings;
    let mut browser = instances.browser();
    let browser = &mut browser;
    instances.assert_agree(browser, "before").await;
    one.accept(new.clone()).unwrap();
    instances.assert_agree(browser, "accepted by one").await;
    two.accept(new.clone()).unwrap();
    instances.assert_agree(browser, "accepted by both").await;
    one.promote(new.id()).unwrap();
    assert_eq!(one.ids(), [new.id(), old.id()]);
    assert_eq!(two.ids(), [old.id(), new.id()]);
    instances.assert_agree(browser, "written by one").await;
    // The way back, before the second instance has followed.
    one.promote(old.id()).unwrap();
    instances.assert_agree(browser, "rolled back").await;
    one.promote(new.id()).unwrap();
    two.promote(new.id()).unwrap();
    instances.assert_agree(browser, "written by both").await;
    one.remove(old.id()).unwrap();
    instances.assert_agree(browser, "removed by one").await;
    two.remove(old.id()).unwrap();
    instances.assert_agree(browser, "removed by both").await;
    let session = browser.begin().get("session").await.unwrap();
    let count = session.get::<u32>("count").unwrap();
    assert_eq!(count, Some(16), "it is one session all the time");
}

/// Why there are two steps, and why the old key goes last.
#[tokio::test]
async fn over_two_instances_a_rotation_in_one_step_is_refused_by_the_other_one() {
    let (old, new) = (key(), key());
    let instances = Instances::new(&old);
    let [one, two] = &instances.keyrings;
    let mut browser = instances.browser();
    instances.seen_elsewhere(&mut browser, 0).await;
    one.rotate(new.clone()).unwrap();
    let seen = instances.seen_elsewhere(&mut browser, 0).await;
    assert_eq!(seen, [Origin::Rejected; 2]);

    two.accept(new.clone()).unwrap();
    one.remove(old.id()).unwrap();
    let seen = instances.seen_elsewhere(&mut instances.browser(), 1).await;
    assert_eq!(seen, [Origin::Rejected; 2], "the other one still writes it");
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

/// Texts that decode to 32 bytes or more, which look random.
const WEAK_TEXTS: [&str; 35] = [
    // Placeholders.
    "CHANGE_ME_TO_A_RANDOM_STRING_BEFORE_DEPLOYMENT_1",
    "change-me-to-a-random-string-before-deployment-1",
    "ChangeMeToARandomStringBeforeDeploymentPlease",
    "REPLACE+THIS+WITH+THE+OUTPUT+OF+OPENSSL+RAND",
    "your-secret-key-goes-here-your-secret-key-goes-here",
    "insertYourSessionSecretHereAndKeepItVerySafe2024",
    "development/only/never/use/this/in/production",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    // Pass phrases.
    "correcthorsebatterystapleisnotakeyforsessions",
    "ThisIsMySuperSecretKeyPleaseDoNotTellAnyone1",
    "TobeornottobethatisthequestionWhethertisnobler",
    "th1s-1s-my-s3cr3t-k3y-pl34s3-d0-n0t-sh4r3-1t-w1th-th3m",
    "DiesIstMeinGeheimesPasswortBitteNichtWeitersagen",
    "EstaEsMiClaveSecretaPorFavorNoLaCompartasConNadie",
    "CestMonMotDePasseSecretNeLeDonneAPersonneMerci",
    "eto-moj-sekretnyj-parol-nikomu-ego-ne-govori-pozhalujsta",
    "watashi_no_himitsu_no_kagi_desu_dareni_mo_iwanaide_kudasai",
    // Words again and again.
    "passwordpasswordpasswordpasswordpasswordpassword",
    "s3cr3tK9s3cr3tK9s3cr3tK9s3cr3tK9s3cr3tK9s3cr3tK9",
    "Zq7xZq7xZq7xZq7xZq7xZq7xZq7xZq7xZq7xZq7xZq7x",
    // Walks over a keyboard, and the alphabet.
    "qwertyuiopasdfghjklzxcvbnmqwertyuiopasdfghjk",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ikQAZWSXEDCRFVT",
    "qazwsxedcrfvtgbyhnujmikolpQAZWSXEDCRFVTGBYHN",
    "asdfghjklasdfghjklqwertzuiopyxcvbnmasdfghjkl",
    "zaq12wsxcde34rfvbgt56yhnmju78iklo90pZAQ12WSX",
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUV",
    "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8s9t0u1v2",
    // Dates and numbers.
    "2024-01-15_2024-02-29_2025-11-30_2026-12-31_2027-03",
    "2024010120240102202401032024010420240105202401062024010720240108",
    "01Jan2024-02Feb2024-03Mar2024-04Apr2024-05May2024",
    // Hexadecimal digits.
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    "f1e2d3c4b5a697887766554433221100ffeeddccbbaa99881029384756afbecd",
    "deadbeefcafebabedeadbeefcafebabedeadbeefcafebabedeadbeefcafebabe",
    "DEADBEEF0BADF00DDEADBEEF0BADF00DDEADBEEF0BADF00DDEADBEEF0BADF00D",
];

#[test]
fn texts_that_are_no_random_bytes_are_refused() {
    for text in WEAK_TEXTS {
        let len = text.len() / 4 * 4;
        let text = &text[..len];
        let error = Key::parse(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
        let shown = error.to_string();
        assert!(!shown.contains(&text[..8]), "{shown}");
        let why = ["words", "pattern"].iter().any(|why| shown.contains(why));
        assert!(why, "{text}: {shown}");
    }
}

/// Pass phrases of 32 bytes or more in scripts and encodings of all kinds.
#[test]
fn pass_phrases_in_any_script_are_refused() {
    let phrases = [
        "this is a very long and secret pass phrase",
        "Schlüssel für die Sitzungen, bitte ändern!",
        "очень длинная секретная парольная фраза",
        "ένα πολύ μεγάλο μυστικό συνθηματικό",
        "סיסמה ארוכה וסודית מאוד לאתר שלי",
        "عبارة مرور طويلة وسرية جدا للموقع",
        "बहुत लंबा गुप्त पासवर्ड वाक्यांश",
        "这是一个非常长而且秘密的密码短语请不要告诉别人",
        "これはとても長い秘密のパスフレーズです",
        "이것은 아주 길고 비밀스러운 암호 구문이니 아무에게도 말하지 마세요 제발",
        "นี่คือรหัสผ่านที่ยาวและเป็นความลับมาก",
        "🔑🔒🗝🔐🛡🔏🔓🧿🪬🎲",
    ];
    for phrase in phrases {
        let utf_16: Vec<u16> = phrase.encode_utf16().collect();
        let encodings = [
            ("UTF-8", phrase.as_bytes().to_vec()),
            (
                "UTF-16LE",
                utf_16.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
            ),
            (
                "UTF-16BE",
                utf_16.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
            ),
        ];
        for (encoding, bytes) in encodings {
            // A third of all pairs of bytes are a Chinese character: 22 of them are too few.
            if encoding != "UTF-8" && phrase.starts_with('这') {
                continue;
            }
            let error = Key::from_bytes(&bytes).expect_err(phrase);
            let shown = error.to_string();
            assert!(shown.contains("is text"), "{phrase} in {encoding}: {shown}");
            // Encoded by somebody who was told that a key is base64.
            use base64::{Engine, engine::general_purpose::STANDARD};
            Key::parse(&STANDARD.encode(&bytes)).expect_err(phrase);
        }
    }
    // Windows-1251, KOI8-R and EUC-JP.
    let others: [&[u8]; 3] = [
        b"\xee\xf7\xe5\xed\xfc\x20\xe4\xeb\xe8\xed\xed\xfb\xe9\x20\xf1\xe5\xea\xf0\xe5\xf2\xed\xfb\xe9\x20\xef\xe0\xf0\xee\xeb\xfc\x20\xf1\xe0\xe9\xf2\xe0",
        b"\xcf\xde\xc5\xce\xd8\x20\xc4\xcc\xc9\xce\xce\xd9\xca\x20\xd3\xc5\xcb\xd2\xc5\xd4\xce\xd9\xca\x20\xd0\xc1\xd2\xcf\xcc\xd8\x20\xd3\xc1\xca\xd4\xc1",
        b"\xa4\xb3\xa4\xec\xa4\xcf\xa4\xc8\xa4\xc6\xa4\xe2\xc4\xb9\xa4\xa4\xc8\xeb\xcc\xa9\xa4\xce\xa5\xd1\xa5\xb9\xa5\xd5\xa5\xec\xa1\xbc\xa5\xba",
    ];
    for bytes in others {
        Key::from_bytes(bytes).expect_err("it is text");
    }
}

#[test]
fn weak_keys_are_refused() {
    let counter: Vec<u8> = (0..32).collect();
    let counter_by_seven: Vec<u8> = (0..32).map(|n| 3 + 7 * n).collect();
    let counter_of_two_bytes: Vec<u8> = (0..16).flat_map(|n: u16| n.to_be_bytes()).collect();
    let weak: [(&str, &[u8]); 12] = [
        ("empty", b""),
        ("31 bytes", &[0x9e; 31]),
        ("zeros", &[0; 32]),
        ("one byte repeated", &[0xa5; 64]),
        ("a short pattern repeated", &[1, 200, 77, 9].repeat(8)),
        ("a counter", &counter),
        ("a counter by seven", &counter_by_seven),
        ("a counter of two bytes", &counter_of_two_bytes),
        ("printable bytes", b"k#9;Rv~2!xQ@7^Lm&bZ(4+tY)0=Hs{1}"),
        ("a sentence", b"this is a very long and secret pass phrase"),
        (
            "half a key twice",
            &b"\x8a\x13\xe7\x40\x9b\xd2\x5c\x06\xff\x31\xa8\x77\xc4\x1e\x62\xb9".repeat(2),
        ),
        (
            "hexadecimal text",
            b"8f1de0c59a43b7726015ee98d4c2a3f7b6508c9be1347d2af05c16e8937b4ad2",
        ),
    ];
    for (what, bytes) in weak {
        let error = Key::from_bytes(bytes).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{what}");
        assert!(!error.to_string().contains("secret pass"), "{error}");
    }
}

/// That all are is proved by what the unit tests of the estimate show: the descriptions are a
/// probability distribution. This test sees that the proof is about keys as they are written.
#[test]
fn random_keys_are_accepted_however_they_are_written() {
    use base64::{Engine, engine::general_purpose as engines};
    for len in [32, 33, 48, 64, 1024] {
        for _ in 0..if len == 32 { 300 } else { 5 } {
            let mut bytes = vec![0; len];
            sessionkit::OsEntropy.fill(&mut bytes).unwrap();
            let id = Key::from_bytes(&bytes).unwrap().id();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            for text in [
                engines::STANDARD.encode(&bytes),
                engines::URL_SAFE_NO_PAD.encode(&bytes),
                hex,
            ] {
                assert_eq!(Key::parse(&text).unwrap().id(), id, "{text}");
            }
        }
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
    assert!(keyring.accept(one.clone()).is_err());
    assert!(keyring.promote(two.id()).is_err());
    keyring.promote(one.id()).unwrap();
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
