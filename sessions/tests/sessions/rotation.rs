//! Routine rotation: a new secret from time to time, and no request that is under way loses by it.

use std::time::Duration;

use sessionkit::{ErrorKind, Origin, Session, SessionConfig};

use crate::support::{Browser, Fault, HOUR, MINUTE, World};

fn rotating() -> World {
    World::configured(|config| config.rotate_every(HOUR))
}

/// A session whose next request rotates.
async fn due(world: &World) -> Browser {
    let browser = world.signed_in().await;
    world.clock.advance(HOUR);
    browser
}

#[tokio::test]
async fn a_session_gets_a_new_secret_when_its_own_is_old_enough() {
    let world = rotating();
    let mut browser = world.signed_in().await;
    let first = browser.jar.clone();
    world.clock.advance(HOUR - Duration::from_millis(1));
    browser.visit(Session::origin).await;
    assert_eq!(browser.jar, first);
    world.clock.advance(Duration::from_millis(1));
    browser.visit(Session::origin).await;
    assert_ne!(browser.jar, first);
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
    assert_eq!(world.store.inner.len(), 1);
}

#[tokio::test]
async fn a_rotation_is_part_of_the_write_that_is_made_anyway() {
    let world = rotating();
    let mut browser = due(&world).await;
    browser
        .visit(|session| session.insert("a", &1))
        .await
        .unwrap();
    assert_eq!(world.store.calls(), ["load", "update"]);
    assert_eq!(browser.set_cookies().len(), 1);
    // The first request with the new secret tells the record so, once.
    browser.visit(Session::origin).await;
    assert_eq!(world.store.calls(), ["load", "update"]);
    browser.visit(Session::origin).await;
    assert_eq!(world.store.calls(), ["load"]);
}

#[tokio::test]
async fn a_change_beside_a_rotation_is_kept_and_its_browser_gets_the_new_cookie() {
    let world = rotating();
    let mut browser = due(&world).await;
    let mut beside = browser.clone();
    let sessions = beside.begin();
    sessions
        .session()
        .await
        .unwrap()
        .insert("beside", &1)
        .unwrap();
    browser.visit(Session::origin).await;
    beside.finish(&sessions).await.unwrap();
    assert_eq!(beside.jar, browser.jar, "both have the new secret");
    assert_eq!(browser.get::<u8>("beside").await, Some(1));
}

#[tokio::test]
async fn the_old_secret_works_until_the_new_one_was_presented_for_half_a_minute() {
    let world = rotating();
    let mut browser = due(&world).await;
    let old = browser.clone();
    browser.visit(Session::origin).await;

    // The response was lost: the browser comes with the old one, hours later too, and is served.
    for _ in 0..3 {
        world.clock.advance(2 * HOUR);
        let mut late = old.clone();
        assert_eq!(late.get::<String>("user").await.as_deref(), Some("alice"));
        assert_eq!(late.jar, browser.jar);
    }
    browser.visit(Session::origin).await;
    world.clock.advance(Duration::from_secs(29));
    let mut late = old.clone();
    late.visit(|session| session.insert("late", &1))
        .await
        .unwrap();
    assert_eq!(late.jar, browser.jar);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(old.clone().visit(Session::origin).await, Origin::Ended);
    assert_eq!(browser.get::<u8>("late").await, Some(1));
}

#[tokio::test]
async fn parallel_requests_that_find_a_rotation_due_end_with_one_secret() {
    let world = rotating();
    let browser = due(&world).await;
    let mut requests: Vec<_> = (0..8).map(|_| (browser.clone(), browser.begin())).collect();
    for (number, (_, sessions)) in requests.iter().enumerate() {
        let session = sessions.session().await.unwrap();
        session.insert(&format!("key {number}"), &number).unwrap();
    }
    for (browser, sessions) in &mut requests {
        browser.finish(sessions).await.unwrap();
    }
    for (other, _) in &requests {
        assert_eq!(other.jar, requests[0].0.jar);
    }
    let keys = requests[0].0.visit(|session| session.keys().len()).await;
    assert_eq!(keys, 9);
}

#[tokio::test]
async fn a_rotation_whose_answer_was_lost_leaves_a_cookie_that_works() {
    let world = rotating();
    for fault in [Fault::LoseAnswer, Fault::LoseRequest] {
        let mut browser = due(&world).await;
        world.store.next("update", fault);
        browser.visit(Session::origin).await;
        assert_eq!(
            browser.get::<String>("user").await.as_deref(),
            Some("alice")
        );
        assert_eq!(
            browser.get::<String>("user").await.as_deref(),
            Some("alice")
        );
    }
}

#[tokio::test]
async fn a_change_of_privilege_ends_the_grace() {
    let world = rotating();
    let mut browser = due(&world).await;
    let mut old = browser.clone();
    browser.visit(Session::origin).await;
    browser.visit(Session::renew).await;
    assert_eq!(old.visit(Session::origin).await, Origin::Renewed);
}

#[tokio::test]
async fn a_secret_used_after_its_grace_ends_the_session_where_that_is_asked_for() {
    for ends in [false, true] {
        let world = World::configured(|config| {
            let config = config.rotate_every(HOUR);
            if ends { config.end_on_reuse() } else { config }
        });
        let mut browser = due(&world).await;
        let mut stolen = browser.clone();
        browser.visit(Session::origin).await;
        browser.visit(Session::origin).await;
        // Shortly after the grace it may be another host's clock.
        world.clock.advance(MINUTE);
        assert_eq!(stolen.visit(Session::origin).await, Origin::Ended);
        assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
        world.clock.advance(5 * MINUTE);
        assert_eq!(stolen.visit(Session::origin).await, Origin::Ended);
        let origin = browser.visit(Session::origin).await;
        assert_eq!(origin, if ends { Origin::Ended } else { Origin::Stored });
    }
}

#[tokio::test]
async fn the_sealed_secret_is_dropped_by_the_first_write_after_the_grace() {
    let world = rotating();
    let mut browser = due(&world).await;
    let plain = world.store.last_written().data.len();
    browser.visit(Session::origin).await;
    browser.visit(Session::origin).await;
    let in_grace = world.store.last_written().data.len();
    world.clock.advance(6 * MINUTE);
    browser
        .visit(|session| session.insert("user", "alice"))
        .await
        .unwrap();
    let after = world.store.last_written().data.len();
    assert!(
        plain < after && after + 44 <= in_grace,
        "{plain} {after} {in_grace}"
    );
}

#[tokio::test]
async fn a_rotation_needs_a_server_and_a_sensible_age() {
    let world = World::new();
    let too_often = SessionConfig::new(std::sync::Arc::clone(&world.store))
        .rotate_every(Duration::from_secs(59));
    let built = sessionkit::SessionManager::builder(world.keyring)
        .session("session", too_often)
        .build();
    assert_eq!(built.unwrap_err().kind(), ErrorKind::InvalidConfig);
}
