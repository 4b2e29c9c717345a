//! Requests that end after another one has renewed or ended their session, handlers that change
//! their mind after a save, and what a browser must not be sent then.

use std::{sync::Arc, time::Duration};

use sessionkit::{
    Clock, CookieOptions, ErrorKind, Failure, ManualClock, Origin, Persistence, Saved, Session,
    SessionConfig, SessionManager, Subject, Timestamp,
};

use crate::support::{Browser, DAY, Fault, HOUR, MINUTE, START, World, key};

fn alice() -> Subject {
    Subject::new("alice").unwrap()
}

fn sign_in(session: &Session) {
    session.sign_in(alice()).unwrap();
}

async fn works(browser: &Browser) -> bool {
    browser.clone().visit(Session::origin).await == Origin::Stored
}

#[tokio::test]
async fn a_late_touch_does_not_take_the_cookie_of_a_renewal_away() {
    let lasting = Persistence::For(10 * DAY);
    let world = World::configured(|config| config.persistence(lasting));
    let mut browser = world.signed_in().await;
    world.clock.advance(2 * DAY);
    let slow = browser.begin();
    slow.session().await.unwrap();
    browser.visit(sign_in).await;
    browser.finish(&slow).await.unwrap();
    assert!(browser.set_cookies().is_empty());
    assert!(works(&browser).await);
}

#[tokio::test]
async fn a_late_request_under_an_old_key_does_not_take_the_cookie_of_a_renewal_away() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    world.keyring.rotate(key()).unwrap();
    world.clock.advance(12 * HOUR);
    let slow = browser.begin();
    slow.session().await.unwrap();
    browser.visit(sign_in).await;
    browser.finish(&slow).await.unwrap();
    assert!(browser.set_cookies().is_empty());
    assert!(works(&browser).await);
}

#[tokio::test]
async fn a_late_request_with_a_rotated_secret_does_not_take_the_cookie_of_a_renewal_away() {
    let world = World::configured(|config| config.rotate_every(HOUR));
    let mut browser = world.signed_in().await;
    let old = browser.clone();
    world.clock.advance(HOUR);
    browser.visit(Session::origin).await;
    let slow = old.begin();
    slow.session().await.unwrap();
    browser.visit(sign_in).await;
    browser.finish(&slow).await.unwrap();
    assert!(browser.set_cookies().is_empty());
    assert!(works(&browser).await);
}

#[tokio::test]
async fn cookie_options_of_a_late_request_send_no_dead_cookie() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let slow = browser.begin();
    let session = slow.session().await.unwrap();
    session
        .set_cookie_options(CookieOptions::default())
        .unwrap();
    browser.visit(sign_in).await;
    browser.finish(&slow).await.unwrap();
    assert!(browser.set_cookies().is_empty());
    let options = |session: &Session| session.set_cookie_options(CookieOptions::default());
    browser.visit(options).await.unwrap();
    assert_eq!(browser.set_cookies().len(), 1, "nobody else was there");
    assert!(works(&browser).await);
}

/// Goes on with every look.
#[derive(Debug)]
struct Ticking(ManualClock);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        self.0.advance(Duration::from_millis(20));
        self.0.now()
    }
}

#[tokio::test]
async fn a_request_touches_its_session_once_however_long_that_takes() {
    let world = World::built(|builder, store| {
        let config = SessionConfig::new(Arc::clone(store)).touch_after_percent(0);
        builder
            .clock(Arc::new(Ticking(ManualClock::new(START))))
            .session("session", config)
    });
    let mut browser = world.signed_in().await;
    browser.visit(Session::origin).await;
    assert_eq!(world.store.calls(), ["load", "touch"]);
    browser
        .visit(|session| session.insert("key", &1))
        .await
        .unwrap();
    assert_eq!(world.store.calls(), ["load", "update"]);
}

#[tokio::test]
async fn a_sign_out_after_a_save_that_failed_is_carried_out() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("key", &1).unwrap();
    world
        .store
        .next("update", Fault::Fail(ErrorKind::Unavailable));
    assert!(session.save().await.is_err());
    session.destroy();
    browser.finish(&sessions).await.unwrap();
    assert!(world.store.inner.is_empty());
    assert!(browser.jar.is_empty());
}

#[tokio::test]
async fn what_is_asked_for_after_a_save_that_failed_is_not_lost_silently() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("key", &1).unwrap();
    world
        .store
        .next("update", Fault::Fail(ErrorKind::Unavailable));
    assert!(session.save().await.is_err());
    session.flash("could not save").unwrap();
    let errors = browser.finish(&sessions).await.unwrap_err();
    assert_eq!(
        errors.iter().next().unwrap().1.kind(),
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn a_reload_drops_the_changes_of_a_new_session_too() {
    let world = World::new();
    let mut browser = world.browser();
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    sign_in(&session);
    world
        .store
        .next("create", Fault::Fail(ErrorKind::Unavailable));
    assert!(session.save().await.is_err());
    session.reload().await.unwrap();
    browser.finish(&sessions).await.unwrap();
    assert!(browser.set_cookies().is_empty());
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn a_reload_takes_a_sign_in_back_also_when_another_request_has_renewed() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    sign_in(&session);
    browser.visit(Session::renew).await;
    session.reload().await.unwrap();
    let mut late = browser.clone();
    late.finish(&sessions).await.unwrap();
    assert!(late.set_cookies().is_empty());
    assert!(
        world
            .manager
            .subject_sessions(&alice())
            .await
            .unwrap()
            .is_empty()
    );
    assert!(works(&browser).await);
}

#[tokio::test]
async fn a_reload_finds_the_renewal_whose_answer_was_lost() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.renew();
    world.store.next("update", Fault::LoseAnswer);
    world
        .store
        .next("load", Fault::Fail(ErrorKind::Unavailable));
    assert_eq!(
        session.save().await.unwrap_err().kind(),
        ErrorKind::Ambiguous
    );
    session.reload().await.unwrap();
    assert_eq!(
        session.get::<String>("user").unwrap().as_deref(),
        Some("alice")
    );
    browser.finish(&sessions).await.unwrap();
    assert!(works(&browser).await);
}

#[tokio::test]
async fn a_reload_of_a_session_that_has_ended_reports_no_change_that_it_dropped() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("key", &1).unwrap();
    browser.clone().visit(Session::destroy).await;
    session.reload().await.unwrap();
    browser.finish(&sessions).await.unwrap();
}

#[tokio::test]
async fn a_dead_secret_ends_nothing_however_old_it_is() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut planted = browser.clone();
    browser.visit(sign_in).await;
    world.clock.advance(HOUR);
    let sessions = planted.begin();
    let session = sessions.session().await.unwrap();
    assert_eq!(session.origin(), Origin::Ended);
    session.destroy();
    let errors = planted.finish(&sessions).await.unwrap_err();
    assert!(matches!(errors.failure(), Failure::Gone(_)));
    assert!(planted.jar.is_empty(), "the cookie is worth nothing");
    assert!(works(&browser).await);
}

#[tokio::test]
async fn a_session_that_is_full_goes_on_without_a_rotation() {
    const ROOM: usize = 1_000;
    let world = World::built(|builder, store| {
        store.limit(ROOM);
        let config = SessionConfig::new(Arc::clone(store)).rotate_every(HOUR);
        builder.session("session", config)
    });
    let mut browser = world.browser();
    // A header, a nonce, a tag and the envelope around one value take less than a hundred bytes.
    let fits = async |browser: &mut Browser, len: usize| {
        let sessions = browser.begin();
        let session = sessions.session().await.unwrap();
        session.insert("v", &"x".repeat(len)).unwrap();
        browser.finish(&sessions).await.is_ok()
    };
    let mut len = ROOM - 100;
    while fits(&mut browser, len).await {
        len += 1;
    }
    world.clock.advance(HOUR + MINUTE);
    assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
    world.clock.advance(12 * HOUR);
    world.store.forget_calls();
    assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
    assert_eq!(world.store.calls(), ["load", "touch"]);
}

#[tokio::test]
async fn a_rotation_whose_answer_was_lost_does_not_stand_for_a_renewal() {
    let world = World::configured(|config| config.rotate_every(HOUR));
    let mut browser = world.signed_in().await;
    let mut planted = browser.clone();
    world.clock.advance(HOUR);
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    world.store.next("update", Fault::LoseAnswer);
    session.save().await.unwrap();
    session.renew();
    browser.finish(&sessions).await.unwrap();
    assert!(works(&browser).await);
    assert_eq!(planted.visit(Session::origin).await, Origin::Renewed);
}

#[tokio::test]
async fn a_renewal_asked_for_during_a_save_is_not_forgotten() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut planted = browser.clone();
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("key", &1).unwrap();
    let clone = session.clone();
    let renew = Box::pin(async move { clone.renew() });
    world.store.next("update", Fault::After(renew));
    browser.finish(&sessions).await.unwrap();
    assert!(works(&browser).await);
    assert_eq!(planted.visit(Session::origin).await, Origin::Renewed);
}

#[tokio::test]
async fn the_record_that_is_removed_in_place_of_an_unreadable_one_is_that_one() {
    let world = World::new();
    let mut live = world.signed_in().await;
    let dead = live.jar["__Host-id"].clone();
    live.visit(Session::renew).await;
    let mut both = world.signed_in().await;
    let unreadable = world.store.last_written().revision;
    let value = format!("{dead}; __Host-id={}", both.jar["__Host-id"]);
    both.jar.insert("__Host-id".to_owned(), value);
    world.store.tamper(move |record| {
        if record.revision == unreadable {
            record.data = "\x09future".into();
        }
    });
    let sessions = both.begin();
    assert_eq!(
        sessions.session().await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    let session = sessions.restart("session").await.unwrap();
    session.destroy();
    session.save().await.unwrap();
    assert!(works(&live).await);
    assert_eq!(world.store.inner.len(), 1);
}

#[tokio::test]
async fn a_browser_with_both_secrets_of_a_rotation_is_no_thief() {
    let world = World::configured(|config| config.rotate_every(HOUR).end_on_reuse());
    let mut browser = world.signed_in().await;
    let old = browser.jar["__Host-id"].clone();
    world.clock.advance(HOUR);
    browser.visit(Session::origin).await;
    browser.visit(Session::origin).await;
    world.clock.advance(10 * MINUTE);
    let new = browser.jar["__Host-id"].clone();
    let mut both = browser.clone();
    both.jar
        .insert("__Host-id".to_owned(), format!("{old}; __Host-id={new}"));
    assert!(works(&both).await);
    assert!(works(&browser).await);
}

#[tokio::test]
async fn a_sign_in_that_was_taken_back_hands_out_no_cookie() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    sign_in(&session);
    session.save().await.unwrap();
    session.destroy();
    world
        .store
        .next("delete", Fault::Fail(ErrorKind::Unavailable));
    assert!(session.save().await.is_err());
    browser.finish(&sessions).await.unwrap();
    assert!(browser.set_cookies().is_empty());
}

#[tokio::test]
async fn a_late_sign_in_that_was_taken_back_leaves_browser_and_successor_alone() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut late = browser.clone();
    browser.visit(sign_in).await;
    let sessions = late.begin();
    let session = sessions.session().await.unwrap();
    sign_in(&session);
    session.destroy();
    assert!(late.finish(&sessions).await.is_err());
    assert!(late.set_cookies().is_empty());
    assert!(works(&browser).await);
}

#[tokio::test]
async fn a_late_sign_in_in_a_streamed_body_does_not_end_the_successor() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let late = browser.clone();
    browser.visit(sign_in).await;
    let sessions = late.begin();
    let session = sessions.session().await.unwrap();
    sign_in(&session);
    sessions.head_sent();
    assert_eq!(
        session.save().await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert!(works(&browser).await);
}

#[tokio::test]
async fn a_double_click_claims_a_value_once() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    browser
        .visit(|session| session.insert("state", "secret"))
        .await
        .unwrap();
    let (one, two) = (browser.begin(), browser.begin());
    let mut claimed = 0;
    let sessions = [one.session().await.unwrap(), two.session().await.unwrap()];
    for session in sessions {
        sign_in(&session);
        let value = session.claim::<String>("state").await.unwrap();
        claimed += usize::from(value.is_some());
    }
    assert_eq!(claimed, 1);
}

#[tokio::test]
async fn an_error_after_a_write_that_may_have_happened_says_so() {
    let world = World::new();
    let browser = world.signed_in().await;
    let session = browser.begin().session().await.unwrap();
    session.insert("key", &1).unwrap();
    world.store.next("update", Fault::LoseRequest);
    world
        .store
        .next("update", Fault::Fail(ErrorKind::Unavailable));
    assert_eq!(
        session.save().await.unwrap_err().kind(),
        ErrorKind::Ambiguous
    );
    assert_eq!(session.save().await.unwrap(), Saved::Stored);
}

#[tokio::test]
async fn a_host_whose_clock_is_ahead_forgets_nothing_that_the_others_need() {
    let world = World::configured(|config| config.rotate_every(HOUR));
    let ahead = Arc::new(ManualClock::new(START));
    let config = SessionConfig::new(Arc::clone(&world.store))
        .rotate_every(HOUR)
        .end_on_reuse();
    let other_host = SessionManager::builder(world.keyring.clone())
        .clock(ahead.clone())
        .session("session", config)
        .build()
        .unwrap();
    let mut browser = world.signed_in().await;
    let mut old = browser.clone();
    world.clock.advance(HOUR);
    browser.visit(Session::origin).await;
    browser.visit(Session::origin).await;

    ahead.set(world.clock.now() + 2 * MINUTE);
    let mut elsewhere = browser.clone();
    elsewhere.manager = other_host.clone();
    elsewhere
        .visit(|session| session.insert("key", &1))
        .await
        .unwrap();
    let mut late = old.clone();
    late.manager = other_host;
    assert_eq!(late.visit(Session::origin).await, Origin::Ended);
    assert!(works(&browser).await, "that was no theft");
    assert_eq!(old.visit(Session::origin).await, Origin::Stored);
}
