use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sessionkit::{Origin, Session};

use crate::support::{Browser, MINUTE, World, keyring};

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
    let other =
        World::configured(|config| config.cookie(sessionkit::CookieOptions::new("other").unwrap()));
    let keys = || world.keyring.clone();
    // The same keys, another cookie name.
    let manager = sessionkit::SessionManager::builder(keys())
        .session(
            "session",
            sessionkit::SessionConfig::new(std::sync::Arc::clone(&world.store))
                .cookie(sessionkit::CookieOptions::new("other").unwrap()),
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
    assert!(revenant.set_cookies().is_empty());
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
        assert!(browser.set_cookies().is_empty());
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

#[tokio::test]
async fn all_bad_cookies_look_alike_from_outside() {
    let world = World::new();
    let mut gone = world.signed_in().await;
    let stale = gone.clone();
    gone.visit(|session| session.destroy()).await;
    let mut responses = Vec::new();
    for mut browser in [
        stale,
        with_cookie(&world, "garbage"),
        World::new().signed_in().await,
    ] {
        browser.manager = world.manager.clone();
        browser.visit(|_| ()).await;
        responses.push(browser.response);
    }
    assert!(responses.windows(2).all(|pair| pair[0] == pair[1]));
}
