//! What is written today has to be read by every later version: a change that breaks these tests
//! ends every live session.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use sessionkit::{
    Key, Keyring, ManualClock, Persistence, SessionConfig, SessionManager, SessionStore, Token,
};

use crate::support::{START, SpyStore, TestEntropy, World, set_cookies};

const KEY: &str = "687449ff54dbd66dccee5569f0dfbedfbdbfb297c284998846a9f248af8ae210";

const COOKIE: &str =
    "ASCoxrwAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eH_U5VH2pTRvsBeHIA99qnjE8cjfRKo64_3otia8KdCJN";
const SEALED: &str = "A3H9xcAXU7VlW0BGVwzGDfMAAAAoKSorLC0uLzAxMjOumhwHL44NVWosVuzgabWP9PpxuOLUxXRohC7SLdiJxbGst0hSFSslA82EGC9YYbvrEVBzTVNdOcn5OPk=";
const READABLE: &str =
    "BHH9xcAXU7VlW0BGVwzGDfMAAAABgKMFAQIFY291bnQBBwR1c2VyBqVhbGljZQEHbm90aWNlcwEABqVzYXZlZA==";

fn manager(store: &Arc<SpyStore>, sealed: bool) -> SessionManager {
    let config = SessionConfig::new(Arc::clone(store));
    let config = if sealed {
        config
    } else {
        config.insecure_readable_at_rest()
    };
    let keyring = Keyring::new([Key::parse(KEY).unwrap()]).unwrap();
    SessionManager::builder(keyring)
        .clock(Arc::new(ManualClock::new(START)))
        .entropy(Arc::new(TestEntropy::default()))
        .session("session", config)
        .build()
        .unwrap()
}

/// The cookie and the data of one session with something of everything.
async fn written(sealed: bool) -> (String, String) {
    let world = World::new();
    let sessions = manager(&world.store, sealed).begin(&http::HeaderMap::new());
    let session = sessions.session().await.unwrap();
    session.insert("user", "alice").unwrap();
    session.insert("count", &7).unwrap();
    session.flash_to("notices", "saved").unwrap();
    session
        .set_persistence(Persistence::For(Duration::from_secs(86_400)))
        .unwrap();
    let mut headers = http::HeaderMap::new();
    sessions.finish(&mut headers).await.unwrap();
    let cookie = set_cookies(&headers).remove(0);
    let value = cookie.split(['=', ';']).nth(1).unwrap().to_owned();
    (value, STANDARD.encode(&world.store.last_written().data))
}

#[tokio::test]
async fn the_formats_of_cookie_and_data_stay_as_they_are() {
    assert_eq!(written(true).await, (COOKIE.to_owned(), SEALED.to_owned()));
    assert_eq!(
        written(false).await,
        (COOKIE.to_owned(), READABLE.to_owned())
    );
}

#[tokio::test]
async fn golden_cookies_and_data_are_read() {
    for (sealed, golden) in [(true, SEALED), (false, READABLE)] {
        let world = World::new();
        let manager = manager(&world.store, sealed);
        // What the store holds is as golden as the cookie: only the data are replaced.
        written_into(&manager).await;
        let data = STANDARD.decode(golden).unwrap();
        world
            .store
            .tamper(move |record| record.data = data.clone().into());
        let mut headers = http::HeaderMap::new();
        headers.insert("cookie", format!("__Host-id={COOKIE}").parse().unwrap());
        let session = manager.begin(&headers).session().await.unwrap();
        assert_eq!(
            session.get::<String>("user").unwrap().as_deref(),
            Some("alice")
        );
        assert_eq!(session.get::<u8>("count").unwrap(), Some(7));
        assert_eq!(
            session.flashes_from::<String>("notices").unwrap(),
            ["saved"]
        );
        assert_eq!(
            session.persistence(),
            Persistence::For(Duration::from_secs(86_400))
        );
    }
}

/// Stores a record with the golden token and revision.
async fn written_into(manager: &SessionManager) {
    let sessions = manager.begin(&http::HeaderMap::new());
    let session = sessions.session().await.unwrap();
    session.insert("any", &1).unwrap();
    session.save().await.unwrap();
}

#[tokio::test]
async fn a_record_in_the_other_way_of_storing_is_corrupt() {
    for sealed in [true, false] {
        let world = World::new();
        written_into(&manager(&world.store, sealed)).await;
        let mut headers = http::HeaderMap::new();
        headers.insert("cookie", format!("__Host-id={COOKIE}").parse().unwrap());
        let error = manager(&world.store, !sealed)
            .begin(&headers)
            .session()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), sessionkit::ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn sealed_data_copied_to_another_token_are_corrupt() {
    let world = World::new();
    let (mut alice, mallory) = (world.signed_in().await, world.signed_in().await);
    let stolen = world.store.written()[0].clone();
    let own = world.store.written()[1].clone();
    let whole = stolen.clone();
    world.store.tamper(move |record| *record = whole.clone());
    assert_eq!(alice.get::<String>("user").await.as_deref(), Some("alice"));
    let session = mallory.begin().session().await.unwrap();
    assert_eq!(
        session.origin(),
        sessionkit::Origin::Ended,
        "not her secret"
    );

    // The contents alone, behind the header that knows her secret.
    let header = 20;
    world.store.tamper(move |record| {
        *record = stolen.clone();
        record.data = [&own.data[..header], &stolen.data[header..]]
            .concat()
            .into();
    });
    let error = mallory.begin().session().await.unwrap_err();
    assert_eq!(error.kind(), sessionkit::ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_subject_changed_in_the_store_makes_the_record_corrupt() {
    let world = World::new();
    let browser = world.signed_in().await;
    world
        .store
        .tamper(|record| record.subject = Some(sessionkit::Subject::new("admin").unwrap()));
    let error = browser.begin().session().await.unwrap_err();
    assert_eq!(error.kind(), sessionkit::ErrorKind::Corrupt);
}

#[tokio::test]
async fn the_key_in_the_store_opens_no_session() {
    let world = World::new();
    let browser = world.signed_in().await;
    let key = browser
        .begin()
        .session()
        .await
        .unwrap()
        .store_key()
        .unwrap();
    let name = sessionkit::CookieName::new("__Host-id").unwrap();
    let guess = Token::from_bytes(key.as_bytes().to_vec(), &name);
    assert_eq!(world.store.inner.load(&guess).await.unwrap(), None);
}
