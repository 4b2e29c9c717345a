use http::{HeaderMap, header};
use sessionkit::{CacheControl, SessionConfig};

use crate::support::{Browser, World};

/// The `Vary` and `Cache-Control` that a response gets which had some already.
async fn caching(
    browser: &mut Browser,
    preset: &[(&'static str, &'static str)],
    write: bool,
) -> (String, String) {
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    if write {
        session.renew();
        session.insert("key", &1).unwrap();
    }
    let mut headers = HeaderMap::new();
    for &(name, value) in preset {
        headers.append(name, value.parse().unwrap());
    }
    sessions.finish(&mut headers).await.unwrap();
    let join = |name| {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        values.join(" + ")
    };
    let result = (join(header::VARY), join(header::CACHE_CONTROL));
    browser.receive(headers);
    result
}

fn pair(vary: &str, cache_control: &str) -> (String, String) {
    (vary.to_owned(), cache_control.to_owned())
}

#[tokio::test]
async fn a_response_that_depends_on_a_session_is_kept_by_no_cache() {
    let mut browser = World::new().browser();
    assert_eq!(
        caching(&mut browser, &[], false).await,
        pair("cookie", "no-store")
    );
    assert_eq!(
        caching(&mut browser, &[], true).await,
        pair("cookie", "no-store")
    );
    assert_eq!(
        caching(&mut browser, &[], false).await,
        pair("cookie", "no-store")
    );
}

#[tokio::test]
async fn vary_is_added_once() {
    let mut browser = World::new().browser();
    for (preset, expected) in [
        ("accept", "accept + cookie"),
        ("accept, Cookie", "accept, Cookie"),
        ("*", "*"),
    ] {
        let (vary, _) = caching(&mut browser, &[("vary", preset)], false).await;
        assert_eq!(vary, expected);
    }
}

#[tokio::test]
async fn the_applications_cache_control_stays_unless_a_cookie_would_be_shared() {
    let mut browser = World::new().browser();
    let public = [("cache-control", "public, max-age=60")];
    let private = [("cache-control", "max-age=60, Private")];
    assert_eq!(
        caching(&mut browser, &public, false).await.1,
        "public, max-age=60"
    );
    assert_eq!(
        caching(&mut browser, &private, true).await.1,
        "max-age=60, Private"
    );
    assert_eq!(caching(&mut browser, &public, true).await.1, "no-store");
}

#[tokio::test]
async fn caching_is_configurable() {
    for (choice, expected) in [
        (CacheControl::NoStore, pair("cookie", "no-store")),
        (CacheControl::Private, pair("cookie", "private, no-cache")),
        (CacheControl::Unchanged, pair("", "")),
    ] {
        let world = World::built(|builder, store| {
            builder
                .cache_control(choice)
                .session("session", SessionConfig::new(std::sync::Arc::clone(store)))
        });
        assert_eq!(caching(&mut world.browser(), &[], true).await, expected);
    }
}

#[tokio::test]
async fn a_response_that_does_not_depend_on_a_session_keeps_its_headers() {
    let mut browser = World::new().signed_in().await;
    let sessions = browser.begin();
    browser.finish(&sessions).await.unwrap();
    assert!(browser.response.is_empty());
}
