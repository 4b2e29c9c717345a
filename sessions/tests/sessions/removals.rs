//! What a response removes that the browser need not keep.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use sessionkit::{
    CookieOptions, ErrorKind, Keyring, ManualClock, Origin, Session, SessionConfig, SessionManager,
};
use sessionkit_cookie::CookieStore;

use crate::support::{Browser, DAY, Fault, HOUR, MINUTE, START, World, key, set_cookies};

const SECOND: Duration = Duration::from_secs(1);

fn is_removal(browser: &Browser) -> bool {
    let cookies = browser.set_cookies();
    let removed = cookies.iter().all(|cookie| cookie.contains("Max-Age=0"));
    removed && !cookies.is_empty()
}

#[tokio::test]
async fn the_cookie_of_an_ended_session_is_removed_by_the_next_response_that_looked_at_it() {
    let world = World::new();
    let ended = world.signed_in().await;
    ended.clone().visit(Session::destroy).await;
    let mut untouched = ended.clone();
    let sessions = untouched.begin();
    untouched.finish(&sessions).await.unwrap();
    assert!(untouched.response.is_empty(), "nobody has looked");

    let mut browser = ended.clone();
    assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
    assert!(is_removal(&browser));
    assert!(browser.jar.is_empty());
    assert_eq!(browser.visit(Session::origin).await, Origin::NoCookie);
    assert!(browser.set_cookies().is_empty());
}

#[tokio::test]
async fn the_cookie_of_an_expired_session_is_removed() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    world.clock.advance(2 * DAY);
    assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
    assert!(is_removal(&browser));
    assert_eq!(
        browser.set_cookies()[0],
        "__Host-id=; HttpOnly; SameSite=Lax; Secure; Path=/; \
         Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    );
}

#[tokio::test]
async fn a_response_that_removes_a_cookie_is_private() {
    let world = World::new();
    let browser = world.signed_in().await;
    browser.clone().visit(Session::destroy).await;
    let sessions = browser.begin();
    sessions.session().await.unwrap();
    let mut headers = HeaderMap::new();
    let public = "public, max-age=60".parse().unwrap();
    headers.insert("cache-control", public);
    sessions.finish(&mut headers).await.unwrap();
    assert_eq!(set_cookies(&headers).len(), 1);
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["vary"], "cookie");
}

#[tokio::test]
async fn a_cookie_that_is_not_ours_is_left_alone() {
    let world = World::new();
    let mut browser = world.browser();
    let name = "__Host-id".to_owned();
    for value in ["nonsense", "", &"A".repeat(120)] {
        browser.jar.insert(name.clone(), value.to_owned());
        assert_eq!(browser.visit(Session::origin).await, Origin::Rejected);
        assert!(browser.set_cookies().is_empty());
    }
}

/// The browser has got the new cookie already when the late response arrives.
#[tokio::test]
async fn a_response_that_is_late_for_a_renewal_does_not_remove_the_new_cookie() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let late = browser.clone();
    browser.visit(|session| session.renew()).await;
    // To 30 seconds after, and as long as the clocks of two hosts may differ.
    for wait in [SECOND, 40 * SECOND, 4 * MINUTE] {
        world.clock.advance(wait);
        let mut late = late.clone();
        let origin = late.visit(Session::origin).await;
        assert!(matches!(origin, Origin::Renewed | Origin::Ended));
        assert!(late.set_cookies().is_empty(), "{wait:?}");
    }
    world.clock.advance(2 * MINUTE);
    let mut late = late.clone();
    assert_eq!(late.visit(Session::origin).await, Origin::Ended);
    assert!(is_removal(&late), "the browser would have had it long ago");
    assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
}

#[tokio::test]
async fn a_response_that_has_loaded_before_a_renewal_does_not_remove_the_new_cookie() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut late = browser.clone();
    let sessions = late.begin();
    let session = sessions.session().await.unwrap();
    browser.visit(|session| session.renew()).await;
    session.insert("key", &1).unwrap();
    let errors = late.finish(&sessions).await.unwrap_err();
    assert_eq!(errors.iter().next().unwrap().1.kind(), ErrorKind::Gone);
    assert!(late.set_cookies().is_empty());
}

#[tokio::test]
async fn a_slow_response_removes_nothing() {
    let world = World::new();
    let ended = world.signed_in().await;
    ended.clone().visit(Session::destroy).await;
    for (wait, removes) in [(4 * SECOND, true), (5 * SECOND, false)] {
        let mut browser = ended.clone();
        let sessions = browser.begin();
        sessions.session().await.unwrap();
        // Meanwhile the browser may have signed in, and have another cookie of this name.
        world.clock.advance(wait);
        browser.finish(&sessions).await.unwrap();
        assert_eq!(is_removal(&browser), removes, "{wait:?}");
    }
}

#[tokio::test]
async fn a_session_that_begins_in_place_of_an_ended_one_keeps_its_cookie() {
    let world = World::new();
    let ended = world.signed_in().await;
    ended.clone().visit(Session::destroy).await;
    let mut browser = ended.clone();
    let insert = |session: &Session| session.insert("key", &1);
    browser.visit(insert).await.unwrap();
    assert_eq!(browser.set_cookies().len(), 1);
    assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
    // One that could not begin leaves the browser as it was.
    let mut browser = ended.clone();
    let sessions = browser.begin();
    insert(&sessions.session().await.unwrap()).unwrap();
    world
        .store
        .next("create", Fault::Fail(ErrorKind::Unavailable));
    browser.finish(&sessions).await.unwrap_err();
    assert!(browser.set_cookies().is_empty());
}

#[tokio::test]
async fn a_store_that_fails_removes_nothing() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    world.clock.advance(2 * DAY);
    let sessions = browser.begin();
    world
        .store
        .next("load", Fault::Fail(ErrorKind::Unavailable));
    sessions.session().await.unwrap_err();
    browser.finish(&sessions).await.unwrap();
    assert!(browser.set_cookies().is_empty());
}

/// Sessions in cookies under one keyring.
struct Client {
    clock: Arc<ManualClock>,
    keyring: Keyring,
}

impl Client {
    fn new() -> Self {
        Self {
            clock: Arc::new(ManualClock::new(START)),
            keyring: Keyring::new([key()]).unwrap(),
        }
    }

    fn store(&self) -> CookieStore {
        CookieStore::new(self.keyring.clone()).with_clock(self.clock.clone())
    }

    /// With room for four full cookies.
    fn manager(&self, store: CookieStore, cookie: CookieOptions) -> SessionManager {
        SessionManager::builder(self.keyring.clone())
            .clock(self.clock.clone())
            .cookie_budget(4 * 4096)
            .session("session", SessionConfig::new(store).cookie(cookie))
            .build()
            .unwrap()
    }

    /// A browser with a session of this many bytes, in up to four cookies.
    async fn browser(&self, size: usize) -> Browser {
        let mut browser = World::new().browser();
        browser.manager = self.manager(self.store(), CookieOptions::default().max_chunks(4));
        let text = "a".repeat(size);
        let insert = |session: &Session| session.insert("text", &text);
        browser.visit(insert).await.unwrap();
        browser
    }
}

#[tokio::test]
async fn the_cookie_of_a_session_that_the_client_keeps_is_removed_when_it_has_expired() {
    let client = Client::new();
    for size in [10, 5_000] {
        let mut browser = client.browser(size).await;
        client.clock.advance(2 * DAY);
        assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
        assert!(is_removal(&browser));
        assert!(browser.jar.is_empty());
    }
    let mut browser = client.browser(10).await;
    let cookie = browser.jar.get_mut("__Host-id").unwrap();
    cookie.replace_range(..4, "AAAA");
    client.clock.advance(2 * DAY);
    assert_eq!(browser.visit(Session::origin).await, Origin::Rejected);
    assert!(browser.set_cookies().is_empty(), "it is not one of ours");
}

#[tokio::test]
async fn a_client_that_is_late_for_a_renewal_keeps_the_new_cookie() {
    let client = Client::new();
    let list = World::new().store;
    let store = client.store().with_revocations(list, DAY).unwrap();
    let mut browser = World::new().browser();
    browser.manager = client.manager(store, CookieOptions::default());
    let insert = |session: &Session| session.insert("key", &1);
    browser.visit(insert).await.unwrap();
    let late = browser.clone();
    browser.visit(|session| session.renew()).await;
    client.clock.advance(20 * SECOND);
    let mut beside = late.clone();
    assert_eq!(beside.visit(Session::origin).await, Origin::Renewed);
    assert!(beside.set_cookies().is_empty());
    client.clock.advance(HOUR);
    let mut late = late.clone();
    assert_eq!(late.visit(Session::origin).await, Origin::Ended);
    assert!(is_removal(&late));
}

#[tokio::test]
async fn chunks_that_the_configuration_does_not_allow_any_more_are_removed() {
    let client = Client::new();
    for max_chunks in [1, 2] {
        let options = CookieOptions::default().max_chunks(max_chunks);
        let fewer = client.manager(client.store(), options);
        let mut browser = client.browser(7_500).await;
        assert_eq!(browser.jar.len(), 3);
        browser.manager = fewer.clone();
        browser.visit(|_| ()).await;
        assert!(browser.jar.is_empty(), "{:?}", browser.jar.keys());
        assert_eq!(browser.response["cache-control"], "no-store");

        // Beside a session that lives only what is of no use goes.
        let mut browser = client.browser(10).await;
        for index in [0, 1, 2, 3, 15] {
            let name = format!("__Host-id.{index}");
            browser.jar.insert(name, "AAAA".to_owned());
        }
        for other in ["__Host-id.16", "__Host-id.01", "__Host-idx"] {
            browser.jar.insert(other.to_owned(), "AAAA".to_owned());
        }
        browser.manager = fewer;
        assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
        let mut expected = vec!["__Host-id"];
        expected.extend(
            ["__Host-id.0", "__Host-id.1"]
                .iter()
                .filter(|_| max_chunks == 2),
        );
        expected.extend(["__Host-id.01", "__Host-id.16", "__Host-idx"]);
        let mut left: Vec<_> = browser.jar.keys().map(String::as_str).collect();
        left.sort_unstable();
        expected.sort_unstable();
        assert_eq!(left, expected);
    }
}
