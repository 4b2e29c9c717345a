use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header::COOKIE};
use sessionkit::{
    CookieOptions, ErrorKind, MemoryStore, Origin, Persistence, SameSite, SessionConfig,
    SessionManager,
};

use crate::support::{Browser, DAY, World, keyring};

/// The attributes of the only cookie that the last response set.
fn attributes(browser: &Browser) -> String {
    let cookies = browser.set_cookies();
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    cookies[0]
        .split_once("; ")
        .expect("a cookie has attributes")
        .1
        .to_owned()
}

fn name(cookie: &str) -> &str {
    cookie.split_once('=').expect("a cookie has a value").0
}

#[tokio::test]
async fn the_default_cookie_has_the_strictest_attributes_that_work() {
    let mut browser = World::new().browser();
    browser
        .visit(|session| session.insert("key", &1))
        .await
        .unwrap();
    assert_eq!(name(&browser.set_cookies()[0]), "__Host-id");
    assert_eq!(
        attributes(&browser),
        "HttpOnly; SameSite=Lax; Secure; Path=/"
    );
}

#[tokio::test]
async fn every_attribute_is_written_as_configured() {
    let base = || CookieOptions::new("id").unwrap();
    let table = [
        (base(), "HttpOnly; SameSite=Lax; Secure; Path=/"),
        (
            base().path("/app"),
            "HttpOnly; SameSite=Lax; Secure; Path=/app",
        ),
        (
            base().domain("example.com"),
            "HttpOnly; SameSite=Lax; Secure; Path=/; Domain=example.com",
        ),
        (
            base().same_site(SameSite::Strict),
            "HttpOnly; SameSite=Strict; Secure; Path=/",
        ),
        (
            base().same_site(SameSite::None),
            "HttpOnly; SameSite=None; Secure; Path=/",
        ),
        (
            base().partitioned(true),
            "HttpOnly; SameSite=Lax; Partitioned; Secure; Path=/",
        ),
        (
            base().insecure_readable_by_scripts(),
            "SameSite=Lax; Secure; Path=/",
        ),
        (
            base().insecure_allow_plain_http(),
            "HttpOnly; SameSite=Lax; Path=/",
        ),
    ];
    for (options, expected) in table {
        let world = World::configured(|config| config.cookie(options));
        let mut browser = world.browser();
        browser
            .visit(|session| session.insert("key", &1))
            .await
            .unwrap();
        assert_eq!(attributes(&browser), expected);
        browser.visit(|session| session.destroy()).await;
        let removal = format!("{expected}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT");
        let mut parts: Vec<_> = removal.split("; ").collect();
        let removed = attributes(&browser);
        let mut actual: Vec<_> = removed.split("; ").collect();
        parts.sort_unstable();
        actual.sort_unstable();
        assert_eq!(actual, parts);
        assert!(
            browser.set_cookies()[0].starts_with("id=;"),
            "the removal has no value"
        );
    }
}

#[test]
fn impossible_combinations_are_refused_when_the_manager_is_built() {
    let host = || CookieOptions::new("__Host-id").unwrap();
    let lower = || CookieOptions::new("__host-id").unwrap();
    let named = |name: &str| CookieOptions::new(name).unwrap();
    let secure = named("__Secure-id");
    let plain = || {
        CookieOptions::new("id")
            .unwrap()
            .insecure_allow_plain_http()
    };
    assert!(secure.validate().is_ok());
    for accepted in [
        host().insecure_readable_by_scripts(),
        named("__Http-id").path("/app").domain("example.com"),
        named("__Host-Http-id"),
        named("__Secure-Http-id").insecure_readable_by_scripts(),
    ] {
        assert!(accepted.validate().is_ok(), "{accepted:?}");
    }
    for options in [
        host().domain("example.com"),
        host().path("/app"),
        lower().path("/app"),
        lower().domain("example.com"),
        named("__Host-Http-id").domain("example.com"),
        named("__Host-Http-id").path("/app"),
        named("__host-http-id").insecure_readable_by_scripts(),
        named("__Http-id").insecure_readable_by_scripts(),
        named("__HTTP-id").insecure_readable_by_scripts(),
        plain().same_site(SameSite::None),
        plain().partitioned(true),
        CookieOptions::new("id").unwrap().path("app"),
        CookieOptions::new("id").unwrap().path("/a;b"),
        // A browser reads it without the blank (rfc6265bis, section 5.6).
        CookieOptions::new("id").unwrap().path("/a "),
        CookieOptions::new("id").unwrap().path("/a\r\nb"),
        CookieOptions::new("id").unwrap().path("/\u{e9}"),
        CookieOptions::new("id")
            .unwrap()
            .path(format!("/{}", "a".repeat(1024))),
        CookieOptions::new("id").unwrap().domain(""),
        CookieOptions::new("id").unwrap().domain("exa mple.com"),
        CookieOptions::new("id")
            .unwrap()
            .domain("example.com; Secure"),
        CookieOptions::new("id").unwrap().domain("bücher.example"),
        CookieOptions::new("id").unwrap().max_chunks(0),
        CookieOptions::new("id").unwrap().max_chunks(17),
    ] {
        let config = SessionConfig::new(MemoryStore::new()).cookie(options.clone());
        let error = SessionManager::builder(keyring())
            .session("session", config)
            .build();
        assert_eq!(
            error.unwrap_err().kind(),
            ErrorKind::InvalidConfig,
            "{options:?}"
        );
    }
}

#[test]
fn plain_http_drops_the_prefix_that_demands_secure() {
    for name in [
        "__Host-id",
        "__Secure-id",
        "__HOST-id",
        "__Http-id",
        "__Host-Http-id",
        "__Host-__Secure-id",
        "id",
    ] {
        let options = CookieOptions::new(name)
            .unwrap()
            .insecure_allow_plain_http();
        assert_eq!(options.name().as_str(), "id");
        assert!(options.validate().is_ok());
    }
}

#[test]
fn names_outside_the_grammar_are_refused() {
    let long = "a".repeat(129);
    for name in [
        "", " id", "i d", "id;", "id,", "id=", "i\r\nd", "i\0d", "id\u{e9}", "\"id\"", &long,
    ] {
        let error = CookieOptions::new(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name:?}");
    }
}

#[tokio::test]
async fn attributes_can_be_set_for_one_session() {
    let world = World::configured(|config| config.cookie(CookieOptions::new("id").unwrap()));
    let mut browser = world.signed_in().await;
    let strict = CookieOptions::new("id")
        .unwrap()
        .path("/admin")
        .same_site(SameSite::Strict);
    browser
        .visit(|session| session.set_cookie_options(strict.clone()))
        .await
        .unwrap();
    assert_eq!(
        attributes(&browser),
        "HttpOnly; SameSite=Strict; Secure; Path=/admin"
    );
    // The configured attributes are as they were.
    assert_eq!(
        browser.visit(|session| session.cookie_options()).await,
        CookieOptions::new("id").unwrap()
    );
    let renamed = CookieOptions::new("other").unwrap();
    let error = browser
        .visit(|session| session.set_cookie_options(renamed))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let impossible = CookieOptions::new("id").unwrap().path("");
    let error = browser
        .visit(|session| session.set_cookie_options(impossible))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn a_browser_session_has_no_max_age_and_a_lasting_one_has_its_own() {
    let world = World::new();
    let mut browser = world.browser();
    browser
        .visit(|session| session.insert("key", &1))
        .await
        .unwrap();
    assert!(!attributes(&browser).contains("Max-Age"));
    let week = Persistence::For(7 * DAY);
    browser
        .visit(|session| session.set_persistence(week))
        .await
        .unwrap();
    assert!(attributes(&browser).contains("Max-Age=604800"));
    browser
        .visit(|session| session.set_persistence(Persistence::Browser))
        .await
        .unwrap();
    assert!(!attributes(&browser).contains("Max-Age"));
}

#[tokio::test]
async fn max_age_is_at_most_what_browsers_grant() {
    let long = Duration::from_secs(400 * 86_400);
    let world = World::configured(|config| {
        config
            .absolute_lifetime(Duration::MAX)
            .persistence(Persistence::For(long))
    });
    let mut browser = world.browser();
    browser
        .visit(|session| session.insert("key", &1))
        .await
        .unwrap();
    assert!(attributes(&browser).contains("Max-Age=34560000"));
}

#[tokio::test]
async fn a_response_sets_each_cookie_once_whatever_the_handler_did() {
    let mut browser = World::new().signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("a", &1).unwrap();
    session.save().await.unwrap();
    session.renew();
    session.save().await.unwrap();
    session.destroy();
    session.save().await.unwrap();
    session.insert("b", &1).unwrap();
    session.set_persistence(Persistence::For(DAY)).unwrap();
    browser.finish(&sessions).await.unwrap();
    assert_eq!(browser.set_cookies().len(), 1);
    assert_eq!(browser.visit(|session| session.keys()).await, ["b"]);
}

#[tokio::test]
async fn the_first_cookie_that_verifies_wins() {
    let world = World::new();
    let browser = world.signed_in().await;
    let good = &browser.jar["__Host-id"];
    let headers = |lines: &[String]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, line.parse().unwrap());
        }
        headers
    };
    for lines in [
        vec![format!("__Host-id=tossed; __Host-id={good}")],
        vec![format!("__Host-id={good}; __Host-id=tossed")],
        vec![
            "__Host-id=tossed".to_owned(),
            format!("a=b; __Host-id={good}; c"),
        ],
        vec![
            "__Host-id=".to_owned(),
            "__Host-id=%%%;;;==".to_owned(),
            format!("__Host-id={good}"),
        ],
    ] {
        let session = world
            .manager
            .begin(&headers(&lines))
            .session()
            .await
            .unwrap();
        assert_eq!(session.origin(), Origin::Stored, "{lines:?}");
    }
}

#[tokio::test]
async fn white_space_that_is_not_ascii_is_part_of_a_name() {
    let world = World::new();
    let browser = world.signed_in().await;
    let good = &browser.jar["__Host-id"];
    let origin = async |name: &str| {
        let mut headers = HeaderMap::new();
        let line = format!("{name}={good}");
        let value = http::HeaderValue::from_bytes(line.as_bytes()).unwrap();
        headers.append(COOKIE, value);
        let session = world.manager.begin(&headers).session().await.unwrap();
        session.origin()
    };
    for space in [
        "\u{2000}", "\u{a0}", "\u{85}", "\u{1680}", "\u{3000}", "\u{feff}",
    ] {
        for name in [format!("{space}__Host-id"), format!("__Host-id{space}")] {
            assert_eq!(origin(&name).await, Origin::NoCookie, "{name:?}");
        }
    }
    assert_eq!(origin(" \t__Host-id\t ").await, Origin::Stored);
}

#[tokio::test]
async fn a_dead_cookie_does_not_hide_a_live_one() {
    let world = World::new();
    let live = world.signed_in().await;
    let mut dead = Vec::new();
    for _ in 0..4 {
        let mut browser = world.signed_in().await;
        dead.push(browser.jar["__Host-id"].clone());
        browser.visit(|session| session.destroy()).await;
    }
    let origin = async |dead: &[String]| {
        let good = &live.jar["__Host-id"];
        let pairs = dead.iter().chain([good]);
        let pairs: Vec<_> = pairs.map(|value| format!("__Host-id={value}")).collect();
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, pairs.join("; ").parse().unwrap());
        let session = world.manager.begin(&headers).session().await.unwrap();
        session.origin()
    };
    assert_eq!(origin(&dead[..1]).await, Origin::Stored);
    assert_eq!(origin(&dead[..2]).await, Origin::Stored);
    let copies = vec![dead[0].clone(); 500];
    world.store.forget_calls();
    assert_eq!(origin(&copies).await, Origin::Stored);
    assert_eq!(world.store.calls(), ["load", "load"]);
    assert_eq!(
        origin(&dead).await,
        Origin::Ended,
        "the look-ups are bounded"
    );
    assert_eq!(world.store.calls(), ["load", "load", "load"]);
}

#[tokio::test]
async fn names_are_compared_exactly_and_never_decoded() {
    let world = World::new();
    let browser = world.signed_in().await;
    let good = &browser.jar["__Host-id"];
    for line in [
        format!("__host-id={good}"),
        format!("%5f%5fHost-id={good}"),
        format!("=__Host-id={good}"),
        format!("__Host-id ={good}x"),
        format!("x__Host-id={good}"),
        format!("__Host-id.0={good}"),
        format!("$Version=1; __Host-idx={good}"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, line.parse().unwrap());
        world.store.forget_calls();
        let session = world.manager.begin(&headers).session().await.unwrap();
        assert!(session.is_new(), "{line}");
        assert!(world.store.calls().is_empty(), "{line}");
    }
}

#[tokio::test]
async fn cookies_of_others_that_are_not_text_are_no_obstacle() {
    let world = World::new();
    let browser = world.signed_in().await;
    let mut line = b"other=\xff\xfe; __Host-id=".to_vec();
    line.extend_from_slice(browser.jar["__Host-id"].as_bytes());
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, http::HeaderValue::from_bytes(&line).unwrap());
    let session = world.manager.begin(&headers).session().await.unwrap();
    assert_eq!(session.origin(), Origin::Stored);
}

#[tokio::test]
async fn destroying_what_the_browser_has_removes_it_even_if_it_is_not_valid() {
    let world = World::new();
    let mut browser = world.browser();
    browser.visit(|session| session.destroy()).await;
    assert!(
        browser.set_cookies().is_empty(),
        "there is nothing to remove"
    );
    browser
        .jar
        .insert("__Host-id".to_owned(), "nonsense".to_owned());
    browser.visit(|_| ()).await;
    assert!(
        browser.set_cookies().is_empty(),
        "a response that does not touch it does not clear it"
    );
    browser.visit(|session| session.destroy()).await;
    assert!(browser.jar.is_empty());
    assert!(world.store.calls().is_empty());
}

#[test]
fn two_sessions_cannot_share_a_name_or_a_cookie() {
    let config = |cookie: &str| {
        SessionConfig::new(MemoryStore::new()).cookie(CookieOptions::new(cookie).unwrap())
    };
    for (first, second) in [
        (("a", "x"), ("a", "y")),
        (("a", "x"), ("b", "x")),
        (("a", "x"), ("b", "x.0")),
    ] {
        let built = SessionManager::builder(keyring())
            .session(first.0, config(first.1))
            .session(second.0, config(second.1))
            .build();
        assert_eq!(built.unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
    assert!(SessionManager::builder(keyring()).build().is_err());
}

#[tokio::test]
async fn a_huge_cookie_header_is_read_in_one_pass() {
    let world = World::new();
    let mut headers = HeaderMap::new();
    headers.append(COOKIE, "a=b; ".repeat(10_000).parse().unwrap());
    headers.append(COOKIE, ";".repeat(100_000).parse().unwrap());
    headers.append(COOKIE, "__Host-id=AAAA; ".repeat(5_000).parse().unwrap());
    // As long as ours, and not signed by us.
    let forged: Vec<_> = (0..2_000)
        .map(|number| format!("__Host-id={number:0>92}"))
        .collect();
    headers.append(COOKIE, forged.join("; ").parse().unwrap());
    let session = world.manager.begin(&headers).session().await.unwrap();
    assert_eq!(session.origin(), Origin::Rejected);
    assert!(world.store.calls().is_empty());
    // Signed by us, and names of no session.
    let signed = (0..2_000_u32).map(|number| {
        let mut token = [0; 32];
        token[..4].copy_from_slice(&number.to_le_bytes());
        let signed = world.keyring.sign("session token 2", "__Host-id", &token);
        format!("__Host-id={}", URL_SAFE_NO_PAD.encode(signed))
    });
    let signed: Vec<_> = signed.collect();
    headers.append(COOKIE, signed.join("; ").parse().unwrap());
    let session = world.manager.begin(&headers).session().await.unwrap();
    assert_eq!(session.origin(), Origin::Ended);
    assert_eq!(world.store.calls(), ["load", "load", "load"]);
}
