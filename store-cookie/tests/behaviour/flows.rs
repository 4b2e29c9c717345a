//! Requests of one browser that meet, through a session manager.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use sessionkit::{MemoryStore, Origin, SaveErrors, SessionManager, Sessions};
use sessionkit_cookie::CookieStore;

use crate::support::{HOUR, clock, keyring};

struct Browser {
    manager: SessionManager,
}

impl Browser {
    fn new() -> Self {
        let (keyring, clock) = (keyring(), clock());
        let list = Arc::new(MemoryStore::new().with_clock(clock.clone()));
        let store = CookieStore::new(keyring.clone())
            .with_clock(clock.clone())
            .with_revocations(list, 24 * 30 * HOUR)
            .unwrap();
        let config = sessionkit::SessionConfig::new(store);
        let manager = SessionManager::builder(keyring)
            .clock(clock)
            .session("id", config)
            .build()
            .unwrap();
        Self { manager }
    }

    fn request(&self, cookie: Option<&str>) -> Sessions {
        let mut headers = HeaderMap::new();
        headers.extend(cookie.map(|cookie| (COOKIE, HeaderValue::from_str(cookie).unwrap())));
        self.manager.begin(&headers)
    }

    /// The cookie of somebody who is signed in.
    async fn signed_in(&self) -> String {
        let sessions = self.request(None);
        let session = sessions.session().await.unwrap();
        session.insert("user", "alice").unwrap();
        answer(&sessions).await.unwrap().unwrap()
    }

    async fn origin(&self, cookie: &str) -> Origin {
        self.request(Some(cookie)).session().await.unwrap().origin()
    }
}

/// The cookie in the answer, if it sets one.
async fn answer(sessions: &Sessions) -> Result<Option<String>, SaveErrors> {
    let mut headers = HeaderMap::new();
    sessions.finish(&mut headers).await?;
    Ok(headers.get(SET_COOKIE).map(|cookie| {
        let pair = cookie.to_str().unwrap().split(';').next();
        pair.unwrap().to_owned()
    }))
}

#[tokio::test]
async fn a_request_that_comes_late_after_a_renewal_gets_no_cookie() {
    let browser = Browser::new();
    let old = browser.signed_in().await;
    let sessions = browser.request(Some(&old));
    sessions.session().await.unwrap().renew();
    let new = answer(&sessions).await.unwrap().unwrap();

    let late = browser.request(Some(&old));
    let session = late.session().await.unwrap();
    assert_eq!(session.origin(), Origin::Renewed);
    session.insert("late", &1).unwrap();
    assert!(matches!(answer(&late).await, Err(_) | Ok(None)));
    assert_eq!(browser.origin(&new).await, Origin::Stored);
}

#[tokio::test]
async fn a_sign_out_beside_a_renewal_ends_both_copies() {
    let browser = Browser::new();
    let old = browser.signed_in().await;
    let (signs_out, renews) = (browser.request(Some(&old)), browser.request(Some(&old)));
    let session = signs_out.session().await.unwrap();
    renews.session().await.unwrap().renew();
    let new = answer(&renews).await.unwrap().unwrap();
    session.destroy();
    answer(&signs_out).await.unwrap();
    for cookie in [&old, &new] {
        assert_ne!(browser.origin(cookie).await, Origin::Stored);
    }
}

#[tokio::test]
async fn a_write_beside_a_sign_out_brings_nothing_back() {
    let browser = Browser::new();
    let old = browser.signed_in().await;
    let (signs_out, writes) = (browser.request(Some(&old)), browser.request(Some(&old)));
    let session = writes.session().await.unwrap();
    signs_out.session().await.unwrap().destroy();
    answer(&signs_out).await.unwrap();
    session.insert("late", &1).unwrap();
    if let Ok(Some(cookie)) = answer(&writes).await {
        assert_ne!(browser.origin(&cookie).await, Origin::Stored);
    }
    assert_ne!(browser.origin(&old).await, Origin::Stored);
}
