use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sessionkit::{CookieOptions, Origin, Session};

use crate::{
    support::{Browser, HOUR, MINUTE, World, keyring, set_cookies},
    with_client::{Client, client},
};

fn with_cookie(world: &World, value: &str) -> Browser {
    let mut browser = world.browser();
    browser.jar.insert("__Host-id".to_owned(), value.to_owned());
    browser
}

#[tokio::test]
async fn a_request_without_a_cookie_never_calls_the_store() {
    let world = World::new();
    let mut browser = world.browser();
    assert_eq!(browser.visit(Session::origin).await, Origin::NoCookie);
    assert!(world.store.calls().is_empty());
    assert!(browser.set_cookies().is_empty());
}

#[tokio::test]
async fn a_request_that_does_not_ask_for_the_session_never_calls_the_store() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    browser.finish(&sessions).await.unwrap();
    assert!(world.store.calls().is_empty());
    assert!(browser.response.is_empty());
}

#[tokio::test]
async fn an_unchanged_session_is_loaded_once_and_never_written() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    for _ in 0..3 {
        let session = sessions.session().await.unwrap();
        assert_eq!(
            session.get::<String>("user").unwrap().as_deref(),
            Some("alice")
        );
        session.remove("nothing");
    }
    browser.finish(&sessions).await.unwrap();
    assert_eq!(world.store.calls(), ["load"]);
    assert!(browser.set_cookies().is_empty());
}

#[tokio::test]
async fn a_changed_session_is_loaded_once_and_updated_once() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    browser
        .visit(|session| {
            session.insert("a", &1)?;
            session.insert("b", &2)?;
            session.flash("saved")
        })
        .await
        .unwrap();
    assert_eq!(world.store.calls(), ["load", "update"]);
    assert!(
        browser.set_cookies().is_empty(),
        "the browser has the cookie already"
    );
}

#[tokio::test]
async fn a_session_that_stays_empty_is_not_stored() {
    let world = World::new();
    let mut browser = world.browser();
    browser
        .visit(|session| {
            session.insert("key", &1).unwrap();
            session.remove("key");
            session.renew();
            session.set_label(sessionkit::Label::new("label").unwrap());
        })
        .await;
    browser.visit(|session| session.destroy()).await;
    assert!(world.store.calls().is_empty());
    assert!(browser.set_cookies().is_empty());
}

#[tokio::test]
async fn a_session_that_is_emptied_stays_a_session() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    browser.visit(|session| session.clear()).await;
    assert_eq!(world.store.calls(), ["load", "update"]);
    assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
}

#[tokio::test]
async fn every_changed_character_of_a_cookie_is_a_forgery_that_no_store_sees() {
    let world = World::new();
    let browser = world.signed_in().await;
    let good = URL_SAFE_NO_PAD.decode(&browser.jar["__Host-id"]).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let mut browser = with_cookie(&world, &URL_SAFE_NO_PAD.encode(&bad));
        assert_eq!(
            browser.visit(Session::origin).await,
            Origin::Rejected,
            "bit {bit}"
        );
        assert!(browser.set_cookies().is_empty());
    }
    assert!(world.store.calls().is_empty());
}

#[tokio::test]
async fn malformed_cookies_are_no_sessions() {
    let world = World::new();
    let browser = world.signed_in().await;
    let good = &browser.jar["__Host-id"];
    let standard = base64::engine::general_purpose::STANDARD.encode("user=alice");
    for value in [
        "",
        "||",
        "\"\"",
        "%00",
        "AAAA",
        &standard,
        &"A".repeat(92),
        &"A".repeat(5_000),
        &good[1..],
        &good[..good.len() - 1],
        &format!("{good}="),
        &format!("{good}A"),
        &format!("{good}{good}"),
        &good.to_uppercase(),
        &good.to_lowercase(),
    ] {
        let mut browser = with_cookie(&world, value);
        assert_eq!(
            browser.visit(Session::origin).await,
            Origin::Rejected,
            "{value:?}"
        );
    }
    assert!(world.store.calls().is_empty());
}

/// Base64 has two alphabets, padding, and bits that decode to nothing. Cookies use one alphabet, no
/// padding, and zeros.
#[tokio::test]
async fn a_cookie_is_written_in_one_way_only() {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let world = World::new();
    let mut good = world.signed_in().await;
    while !good.jar["__Host-id"].contains(['-', '_']) {
        good = world.signed_in().await;
    }
    let Client { mut browser, .. } = client(CookieOptions::default());
    let mut text = "alice".to_owned();
    // Until the last digit has bits to spare.
    while browser.jar.values().all(|value| value.len() % 4 == 0) {
        text.push('!');
        browser
            .visit(|session| session.insert("user", &text))
            .await
            .unwrap();
    }
    for browser in [good, browser] {
        let (name, value) = browser.jar.first_key_value().unwrap();
        let other_alphabet = value.replace('-', "+").replace('_', "/");
        let (start, last) = value.split_at(value.len() - 1);
        let next = DIGITS
            .chars()
            .nth(DIGITS.find(last).unwrap() + 1)
            .unwrap_or('A');
        let mut written = vec![
            format!("{value}{}", "=".repeat((4 - value.len() % 4) % 4)),
            format!("{value}="),
            format!("{start}{next}"),
            other_alphabet,
            format!("%{:02X}{}", value.as_bytes()[0], &value[1..]),
        ];
        written.retain(|other| other != value);
        for other in written {
            let mut variant = browser.clone();
            variant.jar.insert(name.clone(), other.clone());
            let origin = variant.visit(Session::origin).await;
            assert_eq!(origin, Origin::Rejected, "{value} as {other}");
        }
        assert_eq!(browser.clone().visit(Session::origin).await, Origin::Stored);
    }
}

/// Though they are signed, by us and for this purpose, or are the bytes of a token.
#[tokio::test]
async fn values_that_are_no_signed_tokens_never_reach_the_store() {
    let world = World::new();
    let sign = |token: &[u8]| world.keyring.sign("session token 2", "__Host-id", token);
    let values = [
        sign(&[7; 31]),
        sign(&[7; 33]),
        sign(b""),
        sign(&[7; 5_000]),
        vec![7; 32],
    ];
    for value in values {
        let mut browser = with_cookie(&world, &URL_SAFE_NO_PAD.encode(value));
        assert_eq!(browser.visit(Session::origin).await, Origin::Rejected);
    }
    assert!(world.store.calls().is_empty());
}

#[tokio::test]
async fn a_value_that_the_cookie_header_pads_with_spaces_or_quotes_is_still_one_session() {
    let world = World::new();
    let browser = world.signed_in().await;
    let mut padded = with_cookie(&world, &format!(" {} ", browser.jar["__Host-id"]));
    assert_eq!(padded.visit(Session::origin).await, Origin::Stored);
}

#[tokio::test]
async fn a_cookie_signed_for_another_name_is_a_forgery() {
    let world = World::new();
    let other = World::configured(|config| config.cookie(CookieOptions::new("other").unwrap()));
    let keys = || world.keyring.clone();
    // The same keys, another cookie name.
    let manager = sessionkit::SessionManager::builder(keys())
        .session(
            "session",
            sessionkit::SessionConfig::new(std::sync::Arc::clone(&world.store))
                .cookie(CookieOptions::new("other").unwrap()),
        )
        .build()
        .unwrap();
    let mut browser = other.browser();
    browser.manager = manager;
    let good = world.signed_in().await;
    browser
        .jar
        .insert("other".to_owned(), good.jar["__Host-id"].clone());
    assert_eq!(browser.visit(Session::origin).await, Origin::Rejected);
    assert!(world.store.calls().is_empty());
}

#[tokio::test]
async fn a_cookie_signed_with_other_keys_is_a_forgery() {
    let (world, other) = (World::new(), World::new());
    let mut browser = other.signed_in().await;
    browser.manager = world.manager.clone();
    assert_eq!(browser.visit(Session::origin).await, Origin::Rejected);
    assert!(world.store.calls().is_empty());
    // A payload that we signed for another purpose is none of a session either.
    let signed = world.keyring.sign("newsletter", "__Host-id", &[7; 32]);
    let mut browser = with_cookie(&world, &URL_SAFE_NO_PAD.encode(signed));
    assert_eq!(browser.visit(Session::origin).await, Origin::Rejected);
    drop(keyring());
}

#[tokio::test]
async fn the_token_of_an_ended_session_is_not_adopted() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let stale = browser.clone();
    browser.visit(|session| session.destroy()).await;

    let mut revenant = stale.clone();
    assert_eq!(revenant.visit(Session::origin).await, Origin::Ended);
    assert!(revenant.jar.is_empty(), "its cookie is removed");
    revenant.jar.clone_from(&stale.jar);
    revenant
        .visit(|session| session.insert("key", &1))
        .await
        .unwrap();
    assert_ne!(revenant.jar["__Host-id"], stale.jar["__Host-id"]);
    assert_eq!(stale.clone().visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn ten_thousand_unknown_cookies_store_nothing() {
    let world = World::new();
    let manager = &world.manager;
    for number in 0..10_000_u32 {
        let mut token = [0; 32];
        token[..4].copy_from_slice(&number.to_le_bytes());
        let signed = world.keyring.sign("session token 2", "__Host-id", &token);
        let mut browser = with_cookie(&world, &URL_SAFE_NO_PAD.encode(signed));
        browser.manager = manager.clone();
        browser
            .visit(|session| assert_eq!(session.origin(), Origin::Ended))
            .await;
        assert!(browser.jar.is_empty());
    }
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn signing_in_gives_a_new_token_and_ends_the_old_one() {
    let world = World::new();
    let mut browser = world.browser();
    browser
        .visit(|session| session.insert("cart", "book"))
        .await
        .unwrap();
    let planted = browser.clone();
    browser
        .visit(|session| {
            session.renew();
            session.insert("user", "alice")
        })
        .await
        .unwrap();
    assert_ne!(browser.jar["__Host-id"], planted.jar["__Host-id"]);
    assert_eq!(
        browser.visit(|session| session.keys()).await,
        ["cart", "user"]
    );
    assert_eq!(
        planted.clone().visit(Session::origin).await,
        Origin::Renewed
    );
    world.clock.advance(MINUTE);
    assert_eq!(planted.clone().visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn a_copy_of_the_cookie_is_worth_nothing_after_a_logout() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut copy = browser.clone();
    browser.visit(|session| session.destroy()).await;
    // The record first: a response that is lost leaves a cookie that opens nothing.
    assert_eq!(world.store.calls(), ["load", "delete"]);
    assert!(world.store.inner.is_empty());
    assert!(browser.jar.is_empty());
    assert_eq!(copy.visit(Session::origin).await, Origin::Ended);
    assert_eq!(copy.get::<String>("user").await, None);
}

#[tokio::test]
async fn what_is_written_after_a_logout_begins_another_session() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let before = browser.clone();
    browser
        .visit(|session| {
            session.destroy();
            session.flash("signed out")
        })
        .await
        .unwrap();
    assert_eq!(world.store.calls(), ["load", "delete", "create"]);
    assert_eq!(browser.get::<String>("user").await, None);
    assert_eq!(
        browser
            .visit(|session| session.flashes::<String>())
            .await
            .unwrap(),
        ["signed out"]
    );
    assert_eq!(before.clone().visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn neither_token_nor_data_is_found_in_what_the_store_is_given() {
    let world = World::new();
    let mut browser = world.browser();
    browser
        .visit(|session| session.insert("canary", "tweet tweet"))
        .await
        .unwrap();
    let record = world.store.last_written();
    let contains = |needle: &[u8]| {
        record
            .data
            .windows(needle.len())
            .any(|window| window == needle)
    };
    assert!(!contains(b"tweet") && !contains(b"canary"));
    let cookie = URL_SAFE_NO_PAD.decode(&browser.jar["__Host-id"]).unwrap();
    for part in cookie.windows(12) {
        assert!(!contains(part));
    }
}

#[tokio::test]
async fn nothing_shown_by_debug_is_a_secret() {
    let world = World::new();
    let mut browser = world.browser();
    browser
        .visit(|session| session.insert("canary", "tweet"))
        .await
        .unwrap();
    let cookie = browser.jar["__Host-id"].clone();
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    let record = world.store.last_written();
    let key = session.store_key().unwrap();
    let shown = format!(
        "{sessions:?} {session:?} {record:?} {key:?} {:?} {:?} {:?}",
        world.manager, world.keyring, browser.manager
    );
    assert!(
        !shown.contains("tweet") && !shown.contains(&cookie[8..40]),
        "{shown}"
    );
    assert!(!shown.contains(&key.to_hex()), "{shown}");
}

/// What is forged is ignored, and what has ended is removed, whatever the reason.
#[tokio::test]
async fn all_bad_cookies_look_alike_from_outside() {
    let world = World::new();
    let mut victim = world.signed_in().await;
    let planted = victim.clone();
    victim.visit(|session| session.renew()).await;
    let expired = world.signed_in().await;
    world.clock.advance(12 * HOUR);
    victim
        .visit(|session| session.insert("key", &1))
        .await
        .unwrap();
    world.clock.advance(18 * HOUR);
    let mut gone = world.signed_in().await;
    let destroyed = gone.clone();
    gone.visit(|session| session.destroy()).await;
    let unknown = world.keyring.sign("session token 2", "__Host-id", &[7; 32]);
    let short = world.keyring.sign("session token 2", "__Host-id", &[7; 31]);
    let other_purpose = world.keyring.sign("newsletter", "__Host-id", &[7; 32]);
    let other_name = world.keyring.sign("session token 2", "id", &[7; 32]);
    let mut tampered = unknown.clone();
    tampered[20] ^= 1;
    let encoded = |bytes: &[u8]| with_cookie(&world, &URL_SAFE_NO_PAD.encode(bytes));
    let good = &victim.jar["__Host-id"];
    let forged = [
        with_cookie(&world, ""),
        with_cookie(&world, "garbage"),
        with_cookie(&world, &"A".repeat(4_000)),
        with_cookie(&world, &good[1..]),
        with_cookie(&world, &format!("{good}=")),
        World::new().signed_in().await,
        encoded(&short),
        encoded(&other_purpose),
        encoded(&other_name),
        encoded(&tampered),
    ];
    let ended = [expired, destroyed, planted, encoded(&unknown)];
    for (browsers, cookies) in [(forged.to_vec(), 0), (ended.to_vec(), 1)] {
        let mut responses = Vec::new();
        for mut browser in browsers {
            browser.manager = world.manager.clone();
            let seen = browser.visit(|session| (session.is_new(), session.keys()));
            assert_eq!(seen.await, (true, Vec::new()));
            responses.push(browser.response);
        }
        assert!(responses.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(set_cookies(&responses[0]).len(), cookies);
    }
    assert_eq!(victim.visit(Session::origin).await, Origin::Stored);
}
