use sessionkit::{
    ErrorKind, MemoryStore, Origin, Persistence, Session, SessionConfig, SessionManager,
    SessionStore,
};

use crate::support::{DAY, HOUR, MINUTE, START, World, keyring};

#[tokio::test]
async fn an_idle_session_ends_on_the_server() {
    let world = World::configured(|config| config.idle_timeout(HOUR));
    let mut browser = world.signed_in().await;
    world
        .clock
        .set(START + HOUR - std::time::Duration::from_millis(1));
    assert_eq!(
        browser.clone().begin().session().await.unwrap().origin(),
        Origin::Stored
    );
    world.clock.set(START + HOUR);
    assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
    assert!(browser.jar.is_empty(), "and the cookie is removed");
}

#[tokio::test]
async fn use_keeps_a_session_alive_until_its_absolute_lifetime() {
    let world = World::configured(|config| config.idle_timeout(HOUR).absolute_lifetime(DAY));
    let mut browser = world.signed_in().await;
    for minute in 1..24 * 60 {
        world.clock.set(START + minute * MINUTE);
        assert_eq!(
            browser.visit(Session::origin).await,
            Origin::Stored,
            "minute {minute}"
        );
    }
    let expires_at = browser.visit(Session::expires_at).await.unwrap();
    assert_eq!(expires_at, START + DAY);
    world.clock.set(START + DAY);
    assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn renewal_does_not_extend_the_absolute_lifetime() {
    let world = World::configured(|config| config.idle_timeout(HOUR).absolute_lifetime(DAY));
    let mut browser = world.signed_in().await;
    for minute in (1..24 * 60).step_by(30) {
        world.clock.set(START + minute * MINUTE);
        browser.visit(|session| session.renew()).await;
    }
    assert_eq!(browser.visit(Session::created_at).await, Some(START));
    world.clock.set(START + DAY);
    assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn a_shorter_absolute_lifetime_holds_for_sessions_that_exist() {
    let world = World::configured(|config| config.idle_timeout(DAY));
    let mut browser = world.signed_in().await;
    browser.manager = SessionManager::builder(world.keyring.clone())
        .clock(world.clock.clone())
        .session(
            "session",
            SessionConfig::new(std::sync::Arc::clone(&world.store))
                .idle_timeout(HOUR)
                .absolute_lifetime(HOUR),
        )
        .build()
        .unwrap();
    world.clock.advance(HOUR);
    assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn a_session_is_touched_only_when_a_part_of_its_idle_time_has_passed() {
    let world =
        World::configured(|config| config.idle_timeout(100 * MINUTE).touch_after_percent(25));
    let mut browser = world.signed_in().await;
    for (minute, calls) in [
        (1, &["load"][..]),
        (24, &["load"]),
        (25, &["load", "touch"]),
        (26, &["load"]),
        (49, &["load"]),
        (51, &["load", "touch"]),
    ] {
        world.clock.set(START + minute * MINUTE);
        browser.visit(|_| ()).await;
        assert_eq!(world.store.calls(), calls, "minute {minute}");
        assert!(
            browser.set_cookies().is_empty(),
            "the browser has nothing new to see"
        );
    }
}

#[tokio::test]
async fn a_write_moves_the_expiry_like_a_touch() {
    let world = World::configured(|config| config.idle_timeout(100 * MINUTE));
    let mut browser = world.signed_in().await;
    for (minute, expected) in [(5, 100), (10, 110), (19, 110), (40, 140)] {
        world.clock.set(START + minute * MINUTE);
        browser
            .visit(|session| session.insert("minute", &minute))
            .await
            .unwrap();
        assert_eq!(
            world.store.last_written().expires_at,
            START + expected * MINUTE
        );
    }
}

#[tokio::test]
async fn remember_me_stays_over_later_requests() {
    let world = World::configured(|config| config.idle_timeout(HOUR));
    let mut browser = world.signed_in().await;
    browser
        .visit(|session| session.set_persistence(Persistence::For(14 * DAY)))
        .await
        .unwrap();
    assert!(browser.set_cookies()[0].contains("Max-Age=1209600"));

    world.clock.advance(13 * DAY);
    browser
        .visit(|session| session.insert("key", &1))
        .await
        .unwrap();
    assert!(browser.set_cookies()[0].contains("Max-Age=1209600"));
    assert_eq!(world.store.last_written().expires_at, START + 27 * DAY);
    assert_eq!(
        browser.visit(Session::persistence).await,
        Persistence::For(14 * DAY)
    );

    world.clock.advance(2 * DAY);
    browser.visit(|_| ()).await;
    assert!(
        browser.set_cookies()[0].contains("Max-Age=1209600"),
        "a touch renews the cookie"
    );
    world.clock.advance(14 * DAY);
    assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn max_age_ends_with_the_absolute_lifetime() {
    let world = World::configured(|config| config.absolute_lifetime(30 * DAY));
    let mut browser = world.signed_in().await;
    browser
        .visit(|session| session.set_persistence(Persistence::For(20 * DAY)))
        .await
        .unwrap();
    world.clock.advance(19 * DAY);
    browser.visit(|_| ()).await;
    assert!(
        browser.set_cookies()[0].contains("Max-Age=950400"),
        "{:?}",
        browser.set_cookies()
    );
}

#[tokio::test]
async fn max_age_does_not_shrink_between_save_and_response() {
    let world = World::new();
    let mut browser = world.browser();
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("key", &1).unwrap();
    session.set_persistence(Persistence::For(DAY)).unwrap();
    session.save().await.unwrap();
    world.clock.advance(std::time::Duration::from_millis(1));
    browser.finish(&sessions).await.unwrap();
    assert!(browser.set_cookies()[0].contains("Max-Age=86400"));
}

#[tokio::test]
async fn forgetting_me_shortens_the_session_at_once() {
    let world = World::configured(|config| config.idle_timeout(HOUR));
    let mut browser = world.signed_in().await;
    browser
        .visit(|session| session.set_persistence(Persistence::For(14 * DAY)))
        .await
        .unwrap();
    browser
        .visit(|session| session.set_persistence(Persistence::Browser))
        .await
        .unwrap();
    assert_eq!(world.store.last_written().expires_at, START + HOUR);
    assert!(!browser.set_cookies()[0].contains("Max-Age"));
}

#[tokio::test]
async fn a_browser_session_ends_on_the_server_even_if_the_browser_is_never_closed() {
    let world = World::configured(|config| config.idle_timeout(HOUR));
    let mut browser = world.signed_in().await;
    world.clock.advance(2 * HOUR);
    assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn lifetimes_out_of_range_are_refused() {
    let build = |config: SessionConfig| {
        SessionManager::builder(keyring())
            .session("session", config)
            .build()
    };
    let config = || SessionConfig::new(MemoryStore::new());
    let second = std::time::Duration::from_secs(1);
    for bad in [
        config().idle_timeout(second / 2),
        config().idle_timeout(HOUR).absolute_lifetime(MINUTE),
        config().persistence(Persistence::For(second / 2)),
        config().persistence(Persistence::For(31 * DAY)),
        config()
            .absolute_lifetime(std::time::Duration::MAX)
            .persistence(Persistence::For(400 * DAY + second)),
        config().touch_after_percent(91),
    ] {
        assert_eq!(build(bad).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
    assert!(
        build(
            config()
                .idle_timeout(second)
                .absolute_lifetime(std::time::Duration::MAX)
        )
        .is_ok()
    );

    let mut browser = World::new().signed_in().await;
    for bad in [
        std::time::Duration::ZERO,
        31 * DAY,
        std::time::Duration::MAX,
    ] {
        let set = |session: &Session| session.set_persistence(Persistence::For(bad));
        assert_eq!(
            browser.visit(set).await.unwrap_err().kind(),
            ErrorKind::InvalidConfig
        );
    }
}

#[tokio::test]
async fn a_clock_that_steps_back_ends_and_revives_nothing() {
    let world = World::configured(|config| config.idle_timeout(HOUR));
    let mut browser = world.signed_in().await;
    world.clock.set(START - DAY);
    assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
    world.clock.set(START + 2 * HOUR);
    world.store.inner.sweep(usize::MAX).await.unwrap();
    world.clock.set(START);
    assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn hosts_with_different_clocks_do_not_write_in_turn() {
    let world = World::configured(|config| config.idle_timeout(HOUR));
    let mut browser = world.signed_in().await;
    for seconds in [5, 0, 10, 3, 60, 0] {
        world
            .clock
            .set(START + std::time::Duration::from_secs(seconds));
        browser.visit(|_| ()).await;
    }
    assert!(!world.store.calls().contains(&"touch"));
}
