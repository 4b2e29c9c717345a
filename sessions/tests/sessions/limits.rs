//! How much a session, and the cookies of all sessions, may take.

use std::sync::Arc;

use sessionkit::{
    CookieOptions, Error, ErrorKind, Keyring, Session, SessionConfig, SessionManager,
};
use sessionkit_cookie::CookieStore;

use crate::support::{Browser, World, key};

fn too_large(error: &Error, names: &str) {
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    let text = format!("{error} {error:?}");
    assert!(text.contains(names), "{text}");
    assert!(!text.contains("aaa"), "the value is not quoted: {text}");
}

#[tokio::test]
async fn a_value_that_has_no_room_alone_is_refused_by_name_at_once() {
    let mut browser = World::configured(|config| config.max_data(1_000)).browser();
    let large = "a".repeat(1_000);
    let refuse = |session: &Session| {
        session.insert("small", &1).unwrap();
        too_large(&session.insert("large", &large).unwrap_err(), "\"large\"");
        too_large(&session.flash_to("page", &large).unwrap_err(), "\"page\"");
        let value = large.clone();
        let update = session.update("large", move |_: Option<String>| value.clone());
        too_large(&update.unwrap_err(), "\"large\"");
        let named = session.insert(&"k".repeat(1_000), &1).unwrap_err();
        assert_eq!(named.kind(), ErrorKind::TooLarge);
    };
    browser.visit(refuse).await;
    let keys = browser.visit(|session| session.keys()).await;
    assert_eq!(keys, ["small"]);
}

#[tokio::test]
async fn a_session_that_grows_too_large_is_not_stored_and_the_largest_keys_are_named() {
    let world = World::configured(|config| config.max_data(1_000));
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    for key in ["one", "two", "three"] {
        session.insert(key, &"a".repeat(400)).unwrap();
    }
    let errors = browser.finish(&sessions).await.unwrap_err();
    too_large(errors.iter().next().unwrap().1, "\"one\" 403 bytes");
    assert!(world.store.calls().iter().all(|&call| call == "load"));
    assert_eq!(browser.visit(|session| session.keys()).await, ["user"]);
}

#[tokio::test]
async fn the_store_bounds_the_data_whatever_is_configured() {
    let world = World::built(|builder, store| {
        store.limit(500);
        builder.session(
            "session",
            SessionConfig::new(Arc::clone(store)).max_data(1_000),
        )
    });
    let session = world.browser().begin().session().await.unwrap();
    let error = session.insert("key", &"a".repeat(600)).unwrap_err();
    too_large(&error, "\"key\"");
}

#[tokio::test]
async fn another_key_than_there_may_be_is_refused_by_name() {
    let mut browser = World::configured(|config| config.max_keys(3)).browser();
    browser
        .visit(|session| {
            for key in ["a", "b", "c"] {
                session.insert(key, &1_u8).unwrap();
            }
            too_large(&session.insert("d", &1).unwrap_err(), "\"d\"");
            too_large(
                &session.update("d", |_: Option<u8>| 1).unwrap_err(),
                "\"d\"",
            );
            // Those that are there can change, and make room.
            session.insert("a", &2_u8).unwrap();
            session.update("b", |_: Option<u8>| 2).unwrap();
            session.remove("c");
            session.insert("d", &2_u8).unwrap();
        })
        .await;
    assert_eq!(
        browser.visit(|session| session.keys()).await,
        ["a", "b", "d"]
    );
}

#[tokio::test]
async fn a_session_has_256_keys_by_default() {
    let session = World::new().browser().begin().session().await.unwrap();
    for number in 0..256 {
        session.insert(&number.to_string(), &number).unwrap();
    }
    too_large(&session.insert("another", &1).unwrap_err(), "\"another\"");
}

#[tokio::test]
async fn more_messages_than_may_wait_are_refused_by_name() {
    let mut browser = World::configured(|config| config.max_flashes(2)).browser();
    browser
        .visit(|session| {
            session.flash("one").unwrap();
            session.flash_to("page", "two").unwrap();
            too_large(&session.flash_to("page", "three").unwrap_err(), "\"page\"");
        })
        .await;
    let read = |session: &Session| session.flashes_from::<String>("page").unwrap();
    assert_eq!(browser.visit(read).await, ["two"]);
    assert!(
        browser
            .visit(|session| session.flash("three"))
            .await
            .is_ok()
    );
}

/// Three sessions that the client keeps, and one that the server keeps.
fn four_sessions(budget: Option<usize>) -> (World, Browser) {
    let world = World::new();
    let mut browser = world.browser();
    browser.manager = manager(&world, &Keyring::new([key()]).unwrap(), budget);
    (world, browser)
}

fn manager(world: &World, keyring: &Keyring, budget: Option<usize>) -> SessionManager {
    let mut builder = SessionManager::builder(keyring.clone()).clock(world.clock.clone());
    if let Some(budget) = budget {
        builder = builder.cookie_budget(budget);
    }
    for name in ["a", "b", "c"] {
        let store = CookieStore::new(keyring.clone()).with_clock(world.clock.clone());
        let cookie = CookieOptions::new(name).unwrap().max_chunks(2);
        builder = builder.session(name, SessionConfig::new(store).cookie(cookie));
    }
    let server = SessionConfig::new(Arc::clone(&world.store));
    builder.session("server", server).build().unwrap()
}

/// Puts a value of this size into each of the sessions, in one request.
async fn fill(browser: &mut Browser, sizes: &[(&str, usize)]) -> Vec<(String, ErrorKind)> {
    let sessions = browser.begin();
    for &(name, size) in sizes {
        let session = sessions.get(name).await.unwrap();
        session.insert("text", &"a".repeat(size)).unwrap();
    }
    let Err(errors) = browser.finish(&sessions).await else {
        return Vec::new();
    };
    let errors = errors.iter().map(|(name, error)| {
        too_large(error, name);
        (name.to_owned(), error.kind())
    });
    errors.collect()
}

async fn sizes(browser: &Browser) -> Vec<usize> {
    let sessions = browser.begin();
    let mut sizes = Vec::new();
    for name in ["a", "b", "c", "server"] {
        let session = sessions.get(name).await.unwrap();
        let text = session.get::<String>("text").unwrap();
        sizes.push(text.unwrap_or_default().len());
    }
    sizes
}

fn cookie_header(browser: &Browser) -> usize {
    let request = browser.request();
    request.get("cookie").map_or(0, http::HeaderValue::len)
}

#[tokio::test]
async fn the_cookies_of_all_sessions_have_one_budget() {
    let (world, mut browser) = four_sessions(None);
    // Two thirds of it in one response: the third session has no room, and nothing of it is sent.
    let errors = fill(&mut browser, &[("a", 2_500), ("b", 2_500), ("c", 2_500)]).await;
    assert_eq!(errors, [("c".to_owned(), ErrorKind::TooLarge)]);
    assert_eq!(sizes(&browser).await, [2_500, 2_500, 0, 0]);
    assert!(cookie_header(&browser) <= 8_192);
    // In a later request the cookies count that the browser has.
    let errors = fill(&mut browser, &[("c", 1_500)]).await;
    assert_eq!(errors.len(), 1);
    assert_eq!(sizes(&browser).await, [2_500, 2_500, 0, 0]);
    assert!(
        fill(&mut browser, &[("c", 100), ("server", 10_000)])
            .await
            .is_empty()
    );
    assert_eq!(sizes(&browser).await, [2_500, 2_500, 100, 10_000]);
    assert!(cookie_header(&browser) <= 8_192);
    // What shrinks makes room for what comes behind it.
    assert!(
        fill(&mut browser, &[("a", 10), ("c", 2_000)])
            .await
            .is_empty()
    );
    assert_eq!(sizes(&browser).await, [10, 2_500, 2_000, 10_000]);
    assert_eq!(world.store.inner.len(), 1);
}

#[tokio::test]
async fn what_one_session_alone_takes_has_the_budget_too() {
    let (_, mut browser) = four_sessions(None);
    let errors = fill(&mut browser, &[("a", 6_080)]).await;
    assert_eq!(errors.len(), 1, "two full cookies and what separates them");
    assert!(browser.jar.is_empty());
    assert!(fill(&mut browser, &[("a", 6_000)]).await.is_empty());
    assert_eq!(browser.jar.len(), 2);
    assert!(cookie_header(&browser) <= 8_192);
}

#[tokio::test]
async fn a_session_on_the_server_is_not_stored_when_its_cookie_has_no_room() {
    let (world, mut browser) = four_sessions(Some(1_000));
    assert!(fill(&mut browser, &[("a", 600)]).await.is_empty());
    let errors = fill(&mut browser, &[("server", 10)]).await;
    assert_eq!(errors.len(), 1);
    assert!(world.store.calls().is_empty(), "nothing was stored");
    // A session that has ended gives its room back in the same response.
    let sessions = browser.begin();
    sessions.get("a").await.unwrap().destroy();
    let session = sessions.get("server").await.unwrap();
    session.insert("text", "a").unwrap();
    browser.finish(&sessions).await.unwrap();
    assert_eq!(sizes(&browser).await, [0, 0, 0, 1]);
}

#[tokio::test]
async fn cookies_beyond_the_budget_that_are_there_may_stay_and_shrink() {
    let (world, keyring) = (World::new(), Keyring::new([key()]).unwrap());
    let mut browser = world.browser();
    browser.manager = manager(&world, &keyring, Some(20_000));
    assert!(
        fill(&mut browser, &[("a", 5_000), ("b", 5_000)])
            .await
            .is_empty()
    );
    browser.manager = manager(&world, &keyring, None);
    assert!(fill(&mut browser, &[("a", 4_000)]).await.is_empty());
    assert_eq!(fill(&mut browser, &[("a", 4_500)]).await.len(), 1);
    assert_eq!(sizes(&browser).await, [4_000, 5_000, 0, 0]);
}
