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
async fn the_applications_cache_control_stays_unless_a_cache_would_share_the_response() {
    let mut browser = World::new().browser();
    for kept in [
        "no-store",
        "private",
        "max-age=60, Private",
        "private, max-age=60, must-revalidate, no-transform",
        "PRIVATE , immutable",
    ] {
        for write in [false, true] {
            let preset = [("cache-control", kept)];
            assert_eq!(caching(&mut browser, &preset, write).await.1, kept);
        }
    }
    for replaced in [
        "public, max-age=60",
        "max-age=60",
        "max-age=60, immutable",
        "s-maxage=60",
        "S-MaxAge = 60",
        "no-cache",
        "must-revalidate",
        "",
        "public, private",
        "private, s-maxage=60",
        "private=\"set-cookie\", max-age=60",
        "max-age=60, extension=\"a, private, b\"",
        "no-store, must-understand",
        "x-private",
        "private-ish",
    ] {
        for write in [false, true] {
            let preset = [("cache-control", replaced)];
            let (vary, cache_control) = caching(&mut browser, &preset, write).await;
            assert_eq!(cache_control, "no-store", "in place of {replaced:?}");
            assert_eq!(vary, "cookie");
        }
    }
    let two = [("cache-control", "private"), ("cache-control", "public")];
    assert_eq!(caching(&mut browser, &two, false).await.1, "no-store");
}

#[tokio::test]
async fn headers_for_some_caches_alone_do_not_share_the_response_either() {
    let mut browser = World::new().browser();
    for (name, value, stays) in [
        ("cdn-cache-control", "max-age=600", false),
        ("cloudflare-cdn-cache-control", "public", false),
        ("surrogate-control", "max-age=600", false),
        ("edge-control", "max-age=600", false),
        ("x-accel-expires", "600", false),
        ("expires", "Thu, 01 Jan 2099 00:00:00 GMT", false),
        ("cdn-cache-control", "no-store", true),
        ("x-cache-controller", "something else", true),
    ] {
        let sessions = browser.begin();
        sessions.session().await.unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers.insert("cache-control", "public".parse().unwrap());
        sessions.finish(&mut headers).await.unwrap();
        assert_eq!(headers.contains_key(name), stays, "{name}: {value}");
        assert_eq!(headers["cache-control"], "no-store");
        browser.receive(headers);
    }
}

#[tokio::test]
async fn a_response_for_everybody_keeps_its_headers_unless_it_sets_a_cookie() {
    let world = World::new();
    let mut browser = world.browser();
    for (write, expected) in [
        (false, pair("", "public, max-age=60")),
        (true, pair("cookie", "no-store")),
        (false, pair("", "public, max-age=60")),
    ] {
        let sessions = browser.begin();
        let session = sessions.session().await.unwrap();
        if write {
            session.insert("key", &1).unwrap();
            session.insecure_response_for_everybody();
        } else {
            sessions.insecure_response_for_everybody();
        }
        let mut headers = HeaderMap::new();
        headers.insert("cache-control", "public, max-age=60".parse().unwrap());
        sessions.finish(&mut headers).await.unwrap();
        let text = |name| {
            headers
                .get(name)
                .map_or("", |value| value.to_str().unwrap())
        };
        assert_eq!(pair(text("vary"), text("cache-control")), expected);
        browser.receive(headers);
    }
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
