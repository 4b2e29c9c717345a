//! Sessions kept by the client.

use std::sync::Arc;

use sessionkit::{
    CookieOptions, ErrorKind, Keyring, ManualClock, Origin, Session, SessionConfig, SessionManager,
};
use sessionkit_cookie::CookieStore;

use crate::support::{Browser, HOUR, START, World, key};

pub(crate) struct Client {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) keyring: Keyring,
    pub(crate) browser: Browser,
}

pub(crate) fn client(options: CookieOptions) -> Client {
    let clock = Arc::new(ManualClock::new(START));
    let keyring = Keyring::new([key()]).unwrap();
    let store = CookieStore::new(keyring.clone()).with_clock(clock.clone());
    let mut browser = World::new().browser();
    browser.manager = SessionManager::builder(keyring.clone())
        .clock(clock.clone())
        .cookie_budget(16 << 10)
        .session("session", SessionConfig::new(store).cookie(options))
        .build()
        .unwrap();
    Client {
        clock,
        keyring,
        browser,
    }
}

#[tokio::test]
async fn the_cookie_holds_the_session() {
    let Client { mut browser, .. } = client(CookieOptions::default());
    browser
        .visit(|session| session.insert("user", "alice"))
        .await
        .unwrap();
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
    assert!(browser.set_cookies().is_empty(), "reading sends nothing");
    browser
        .visit(|session| session.flash("hello"))
        .await
        .unwrap();
    assert_eq!(browser.set_cookies().len(), 1);
    browser.visit(|session| session.renew()).await;
    assert_eq!(
        browser
            .visit(|session| session.flashes::<String>())
            .await
            .unwrap(),
        ["hello"]
    );
    browser.visit(|session| session.destroy()).await;
    assert!(browser.jar.is_empty());
}

#[tokio::test]
async fn the_expiry_is_inside_the_seal() {
    let Client {
        mut browser, clock, ..
    } = client(CookieOptions::default());
    browser
        .visit(|session| session.insert("user", "alice"))
        .await
        .unwrap();
    clock.advance(12 * HOUR);
    browser.visit(|_| ()).await;
    assert_eq!(browser.set_cookies().len(), 1, "a touch seals anew");
    clock.advance(23 * HOUR);
    assert_eq!(browser.clone().visit(Session::origin).await, Origin::Stored);
    clock.advance(2 * HOUR);
    assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn an_old_key_reads_and_the_newest_seals() {
    let Client {
        mut browser,
        keyring,
        ..
    } = client(CookieOptions::default());
    browser
        .visit(|session| session.insert("user", "alice"))
        .await
        .unwrap();
    keyring.rotate(key()).unwrap();
    browser
        .visit(|session| session.insert("more", &1))
        .await
        .unwrap();
    keyring.remove(keyring.ids()[1]).unwrap();
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
}

#[tokio::test]
async fn too_large_for_a_cookie_is_an_error_naming_the_largest_keys_and_sends_nothing() {
    let Client { mut browser, .. } = client(CookieOptions::default());
    browser
        .visit(|session| session.insert("user", "alice"))
        .await
        .unwrap();
    let before = browser.jar.clone();
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("cart", &vec![7_u8; 5_000]).unwrap();
    let errors = browser.finish(&sessions).await.unwrap_err();
    let (_, error) = errors.iter().next().unwrap();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(
        error
            .to_string()
            .contains("of at most 4096; the largest are \"cart\""),
        "{error}"
    );
    assert!(browser.set_cookies().is_empty());
    assert_eq!(browser.jar, before);
}

#[tokio::test]
async fn name_and_value_fill_a_cookie_to_the_last_byte() {
    let Client { mut browser, .. } = client(CookieOptions::default());
    let mut longest = 0;
    for length in 2_800..3_100 {
        let sessions = browser.begin();
        sessions
            .session()
            .await
            .unwrap()
            .insert("text", &"a".repeat(length))
            .unwrap();
        if browser.finish(&sessions).await.is_err() {
            break;
        }
        let (name, value) = browser.jar.iter().next().unwrap();
        longest = longest.max(name.len() + value.len());
    }
    assert!((4093..=4096).contains(&longest), "{longest}");
}

#[tokio::test]
async fn a_long_value_takes_several_cookies_and_stale_ones_are_removed() {
    let options = CookieOptions::default().max_chunks(4);
    let Client { mut browser, .. } = client(options);
    let names = |browser: &Browser| browser.jar.keys().cloned().collect::<Vec<_>>();
    for (size, expected) in [
        (10, &["__Host-id"][..]),
        (5_000, &["__Host-id.0", "__Host-id.1"]),
        (7_500, &["__Host-id.0", "__Host-id.1", "__Host-id.2"]),
        (5_000, &["__Host-id.0", "__Host-id.1"]),
        (10, &["__Host-id"]),
    ] {
        let text = "a".repeat(size);
        browser
            .visit(|session| session.insert("text", &text))
            .await
            .unwrap();
        assert_eq!(names(&browser), expected);
        assert!(
            browser
                .jar
                .iter()
                .all(|(name, value)| name.len() + value.len() <= 4096)
        );
        assert_eq!(browser.get::<String>("text").await, Some(text));
        let mut set: Vec<_> = browser.set_cookies();
        set.sort();
        set.dedup_by_key(|cookie| cookie.split('=').next().unwrap().to_owned());
        assert_eq!(
            set.len(),
            browser.set_cookies().len(),
            "one header for each name"
        );
    }
    browser
        .visit(|session| session.insert("text", &"a".repeat(5_000)))
        .await
        .unwrap();
    browser.visit(|session| session.destroy()).await;
    assert!(browser.jar.is_empty());
}

#[tokio::test]
async fn more_than_the_chunks_hold_is_an_error() {
    let Client { mut browser, .. } = client(CookieOptions::default().max_chunks(2));
    let sessions = browser.begin();
    sessions
        .session()
        .await
        .unwrap()
        .insert("text", &"a".repeat(8_000))
        .unwrap();
    let errors = browser.finish(&sessions).await.unwrap_err();
    assert_eq!(errors.iter().next().unwrap().1.kind(), ErrorKind::TooLarge);
    assert!(browser.jar.is_empty());
}

#[tokio::test]
async fn a_missing_or_foreign_chunk_is_no_session() {
    let Client { mut browser, .. } = client(CookieOptions::default().max_chunks(3));
    browser
        .visit(|session| session.insert("text", &"a".repeat(5_000)))
        .await
        .unwrap();
    for spoil in [
        |browser: &mut Browser| browser.jar.remove("__Host-id.1").map(drop),
        |browser: &mut Browser| browser.jar.remove("__Host-id.0").map(drop),
        |browser: &mut Browser| {
            let chunk = browser.jar["__Host-id.0"].clone();
            browser
                .jar
                .insert("__Host-id.1".to_owned(), chunk)
                .map(drop)
        },
        |browser: &mut Browser| {
            browser
                .jar
                .insert("__Host-id.2".to_owned(), "AAAA".to_owned())
                .map_or(Some(()), |_| None)
        },
    ] {
        let mut spoiled = browser.clone();
        spoil(&mut spoiled).unwrap();
        assert_eq!(spoiled.visit(Session::origin).await, Origin::Rejected);
    }
}

#[tokio::test]
async fn a_cookie_of_another_name_or_application_is_refused() {
    let Client {
        mut browser,
        keyring,
        ..
    } = client(CookieOptions::new("one").unwrap());
    browser
        .visit(|session| session.insert("user", "alice"))
        .await
        .unwrap();
    let value = browser.jar["one"].clone();
    let config = SessionConfig::new(CookieStore::new(keyring.clone()))
        .cookie(CookieOptions::new("two").unwrap());
    browser.manager = SessionManager::builder(keyring)
        .session("session", config)
        .build()
        .unwrap();
    browser.jar.insert("two".to_owned(), value);
    assert_eq!(browser.visit(Session::origin).await, Origin::Rejected);
}

#[tokio::test]
async fn what_a_client_side_store_cannot_do_is_unsupported() {
    let Client { mut browser, .. } = client(CookieOptions::default());
    let subject = sessionkit::Subject::new("alice").unwrap();
    let error = browser
        .visit(|session| session.set_subject(Some(subject.clone())))
        .await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);
    let error = browser.manager.revoke_all(&subject).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
