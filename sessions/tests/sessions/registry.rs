use std::sync::Arc;

use sessionkit::{CookieOptions, ErrorKind, MemoryStore, SessionConfig};

use crate::support::{SpyStore, World};

fn two_sessions() -> World {
    World::built(|builder, store: &Arc<SpyStore>| {
        let prefs = CookieOptions::new("__Host-prefs").unwrap();
        builder
            .session("main", SessionConfig::new(Arc::clone(store)))
            .session(
                "prefs",
                SessionConfig::new(MemoryStore::new()).cookie(prefs),
            )
    })
}

#[tokio::test]
async fn sessions_of_different_stores_are_saved_together() {
    let world = two_sessions();
    let mut browser = world.browser();
    let sessions = browser.begin();
    sessions
        .get("main")
        .await
        .unwrap()
        .insert("key", "main")
        .unwrap();
    sessions
        .get("prefs")
        .await
        .unwrap()
        .insert("key", "prefs")
        .unwrap();
    browser.finish(&sessions).await.unwrap();
    assert_eq!(
        browser.jar.keys().collect::<Vec<_>>(),
        ["__Host-id", "__Host-prefs"]
    );

    let sessions = browser.begin();
    for name in ["main", "prefs"] {
        let session = sessions.get(name).await.unwrap();
        assert_eq!(session.get::<String>("key").unwrap().as_deref(), Some(name));
    }
}

#[tokio::test]
async fn a_session_is_given_once_per_request() {
    let world = two_sessions();
    let mut browser = world.browser();
    let sessions = browser.begin();
    sessions.session().await.unwrap().insert("key", &1).unwrap();
    let again = sessions.clone().get("main").await.unwrap();
    assert_eq!(again.get::<u8>("key").unwrap(), Some(1));
    browser.finish(&sessions).await.unwrap();
    assert_eq!(world.store.calls(), ["create"]);
}

#[tokio::test]
async fn a_session_that_was_not_asked_for_is_not_loaded() {
    let world = two_sessions();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    sessions
        .get("prefs")
        .await
        .unwrap()
        .insert("key", &1)
        .unwrap();
    browser.finish(&sessions).await.unwrap();
    assert!(world.store.calls().is_empty());
    assert_eq!(browser.set_cookies().len(), 1);
}

#[tokio::test]
async fn a_name_that_was_not_configured_is_an_error() {
    let sessions = two_sessions().browser().begin();
    let error = sessions.get("other").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert_eq!(error.to_string(), "there is no session \"other\"");
    assert!(sessions.restart("other").await.is_err());
}

#[tokio::test]
async fn two_sessions_of_one_store_are_two_sessions() {
    let world = World::built(|builder, store: &Arc<SpyStore>| {
        let cookie = |name: &str| CookieOptions::new(name).unwrap();
        builder
            .session(
                "a",
                SessionConfig::new(Arc::clone(store)).cookie(cookie("a")),
            )
            .session(
                "b",
                SessionConfig::new(Arc::clone(store)).cookie(cookie("b")),
            )
    });
    let mut browser = world.browser();
    let sessions = browser.begin();
    for name in ["a", "b"] {
        sessions
            .get(name)
            .await
            .unwrap()
            .insert("name", name)
            .unwrap();
    }
    browser.finish(&sessions).await.unwrap();
    assert_eq!(world.store.inner.len(), 2);
    // The cookie of one is not accepted as the other's.
    let (a, b) = (browser.jar["a"].clone(), browser.jar["b"].clone());
    browser.jar = [("a".to_owned(), b), ("b".to_owned(), a)].into();
    let sessions = browser.begin();
    for name in ["a", "b"] {
        assert!(sessions.get(name).await.unwrap().is_new());
    }
}

#[tokio::test]
async fn restarting_a_session_that_was_given_ends_it() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    sessions.session().await.unwrap();
    sessions
        .restart("session")
        .await
        .unwrap()
        .insert("fresh", &1)
        .unwrap();
    browser.finish(&sessions).await.unwrap();
    assert_eq!(browser.visit(|session| session.keys()).await, ["fresh"]);
    assert_eq!(world.store.inner.len(), 1);
}

#[tokio::test]
async fn the_next_request_sees_nothing_of_one_that_was_dropped() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    sessions.session().await.unwrap().insert("key", &1).unwrap();
    drop(sessions);
    assert_eq!(browser.visit(|session| session.keys()).await, ["user"]);
}
