//! Changes of privilege: a new secret, and what becomes of requests that came with the old one.

use std::time::Duration;

use sessionkit::{Failure, Origin, Persistence, Saved, Session, SessionConfig, Subject};

use crate::support::{Browser, DAY, Fault, HOUR, MINUTE, World};

fn alice() -> Subject {
    Subject::new("alice").unwrap()
}

fn bob() -> Subject {
    Subject::new("bob").unwrap()
}

fn is_gone(finished: Result<(), sessionkit::SaveErrors>) -> bool {
    let errors = finished.expect_err("changes were dropped");
    matches!(errors.failure(), Failure::Gone(_))
}

#[tokio::test]
async fn a_session_keeps_its_key_when_it_is_renewed() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let before = browser.visit(Session::store_key).await;
    browser
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    assert_eq!(browser.visit(Session::store_key).await, before);
    assert_eq!(world.store.inner.len(), 1);
}

#[tokio::test]
async fn a_renewal_is_one_update_after_the_load() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    browser.visit(Session::renew).await;
    assert_eq!(world.store.calls(), ["load", "update"]);
}

#[tokio::test]
async fn a_change_of_subject_renews_the_session() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut planted = browser.clone();
    let set_subject = |session: &Session| session.set_subject(Some(alice()));
    browser.visit(set_subject).await.unwrap();
    assert_ne!(browser.jar, planted.jar);
    assert_eq!(planted.visit(Session::origin).await, Origin::Renewed);
}

#[tokio::test]
async fn a_late_request_with_the_old_secret_changes_nothing_and_gets_no_cookie() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut late = browser.clone();
    browser.visit(Session::renew).await;

    assert_eq!(late.visit(Session::origin).await, Origin::Renewed);
    let sessions = late.begin();
    let session = sessions.session().await.unwrap();
    session.insert("late", &1).unwrap();
    assert!(is_gone(late.finish(&sessions).await));
    assert!(late.set_cookies().is_empty());

    // After half a minute it is a stranger, who may begin anew.
    world.clock.advance(MINUTE);
    assert_eq!(late.visit(Session::origin).await, Origin::Ended);
    late.visit(|session| session.insert("late", &1))
        .await
        .unwrap();
    assert_eq!(late.set_cookies().len(), 1);
    assert_eq!(browser.visit(|session| session.keys()).await, ["user"]);
}

#[tokio::test]
async fn whoever_planted_a_token_cannot_end_the_session_that_was_made_of_it() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut planted = browser.clone();
    browser
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    let sessions = planted.begin();
    sessions.session().await.unwrap().destroy();
    assert!(is_gone(planted.finish(&sessions).await));
    assert!(planted.set_cookies().is_empty());
    assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
}

#[tokio::test]
async fn a_change_beside_a_renewal_is_refused_and_reported() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut beside = browser.clone();
    let sessions = beside.begin();
    let session = sessions.session().await.unwrap();
    session.insert("beside", &1).unwrap();
    browser.visit(Session::renew).await;
    assert!(is_gone(beside.finish(&sessions).await));
    assert!(beside.set_cookies().is_empty());
    assert_eq!(browser.visit(|session| session.keys()).await, ["user"]);
}

#[tokio::test]
async fn a_handler_that_saves_itself_is_told_and_answers_for_itself() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut beside = browser.clone();
    let sessions = beside.begin();
    let session = sessions.session().await.unwrap();
    session.insert("beside", &1).unwrap();
    browser.visit(Session::renew).await;
    assert_eq!(session.save().await.unwrap(), Saved::Gone);
    beside.finish(&sessions).await.unwrap();
}

#[tokio::test]
async fn a_sign_out_beside_a_renewal_ends_the_session_under_every_secret() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut leaving = browser.clone();
    let sessions = leaving.begin();
    sessions.session().await.unwrap().destroy();
    browser.visit(Session::renew).await;
    leaving.finish(&sessions).await.unwrap();
    assert!(world.store.inner.is_empty());
    assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn a_double_click_on_the_login_leaves_one_session_that_works() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let first = browser.begin();
    let second = browser.begin();
    for sessions in [&first, &second] {
        let session = sessions.session().await.unwrap();
        session.sign_in(alice()).unwrap();
    }
    browser.finish(&first).await.unwrap();
    browser.finish(&second).await.unwrap();
    assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
    assert_eq!(
        browser.visit(|session| session.subject()).await,
        Some(alice())
    );
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
    assert_eq!(world.store.inner.len(), 1);
}

#[tokio::test]
async fn a_late_login_begins_anew_and_leaves_the_session_of_another_subject_alone() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut late = browser.clone();
    browser
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    late.visit(|session| session.sign_in(bob())).await.unwrap();
    assert_eq!(late.visit(|session| session.subject()).await, Some(bob()));
    assert_eq!(
        browser.visit(|session| session.subject()).await,
        Some(alice())
    );
    assert_eq!(world.store.inner.len(), 2);

    let mut again = world.signed_in().await;
    let mut twice = again.clone();
    again
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    twice
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    assert_eq!(
        twice.visit(|session| session.subject()).await,
        Some(alice())
    );
    assert_eq!(again.visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn what_was_seen_of_one_subject_never_enters_the_session_of_another() {
    let world = World::new();
    let mut browser = world.browser();
    browser
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    let mut late = browser.clone();
    let sessions = late.begin();
    let session = sessions.session().await.unwrap();
    session.insert("address", "of alice").unwrap();
    browser
        .visit(|session| {
            session.clear();
            session.set_subject(Some(bob()))
        })
        .await
        .unwrap();
    assert!(is_gone(late.finish(&sessions).await));
    assert!(browser.visit(|session| session.is_empty()).await);
}

#[tokio::test]
async fn a_subject_changed_behind_the_core_takes_no_changes_of_the_one_before() {
    // An older version, or another application, writes without a renewal: the record is readable.
    let world = World::configured(SessionConfig::insecure_readable_at_rest);
    let mut browser = world.browser();
    browser
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("address", "of alice").unwrap();

    let mut record = world.store.last_written();
    let expected = record.revision;
    record.subject = Some(bob());
    record.revision = sessionkit::Revision::from_bits(7);
    world.store.overwrite(expected, &record).await;
    assert!(is_gone(browser.finish(&sessions).await));
    assert_eq!(world.store.stored().await.unwrap().data, record.data);
}

#[tokio::test]
async fn signing_in_drops_what_another_subject_left() {
    let world = World::new();
    let mut browser = world.browser();
    browser
        .visit(|session| session.insert("cart", "book"))
        .await
        .unwrap();
    browser
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    assert_eq!(browser.visit(|session| session.keys()).await, ["cart"]);
    browser
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    assert_eq!(browser.visit(|session| session.keys()).await, ["cart"]);
    browser
        .visit(|session| session.sign_in(bob()))
        .await
        .unwrap();
    assert!(browser.visit(|session| session.is_empty()).await);
    assert_eq!(
        browser.visit(|session| session.subject()).await,
        Some(bob())
    );
}

#[tokio::test]
async fn the_absolute_lifetime_begins_with_the_sign_in() {
    let world =
        World::configured(|config| config.idle_timeout(10 * DAY).absolute_lifetime(10 * DAY));
    let mut browser = world.browser();
    browser
        .visit(|session| session.insert("cart", "book"))
        .await
        .unwrap();
    world.clock.advance(9 * DAY);
    browser
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    world.clock.advance(9 * DAY);
    assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
    world.clock.advance(DAY);
    assert_eq!(browser.visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn a_reload_keeps_the_renewal_that_was_asked_for() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut planted = browser.clone();
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.renew();
    session.reload().await.unwrap();
    browser.finish(&sessions).await.unwrap();
    assert_eq!(planted.visit(Session::origin).await, Origin::Renewed);
}

#[tokio::test]
async fn a_write_that_was_done_is_never_reported_as_dropped() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut other = browser.clone();
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("mine", &1).unwrap();
    world.store.next("update", Fault::LoseAnswer);
    // Before this request looks what came of its write, another one renews the session.
    let renew = async move { other.visit(Session::renew).await };
    world.store.next("load", Fault::After(Box::pin(renew)));
    let errors = browser.finish(&sessions).await.unwrap_err();
    let (_, error) = errors.iter().next().unwrap();
    assert_eq!(error.kind(), sessionkit::ErrorKind::Ambiguous);
}

#[tokio::test]
async fn a_token_is_given_to_one_creation_only() {
    let world = World::new();
    let mut browser = world.browser();
    world.store.next("create", Fault::LoseRequest);
    world.store.next("create", Fault::LoseRequest);
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("user", "alice").unwrap();
    browser.finish(&sessions).await.unwrap();
    let tokens = world.store.created();
    assert_eq!(tokens.len(), 3);
    assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2] && tokens[0] != tokens[2]);
}

#[tokio::test]
async fn what_an_explicit_save_failed_to_store_is_not_stored_behind_the_handlers_back() {
    let world = World::new();
    let mut browser = world.browser();
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.sign_in(alice()).unwrap();
    world
        .store
        .next("create", Fault::Fail(sessionkit::ErrorKind::Unavailable));
    assert!(session.save().await.is_err());
    browser.finish(&sessions).await.unwrap();
    assert!(browser.set_cookies().is_empty());
    assert!(world.store.inner.is_empty());
    assert_eq!(
        session.save().await.unwrap(),
        Saved::Stored,
        "an explicit call saves"
    );
}

#[tokio::test]
async fn a_touch_that_fails_does_not_spoil_the_answer_and_is_made_by_the_next_request() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    world.clock.advance(12 * HOUR);
    for kind in [
        sessionkit::ErrorKind::Unavailable,
        sessionkit::ErrorKind::Full,
        sessionkit::ErrorKind::Ambiguous,
    ] {
        world.store.next("touch", Fault::Fail(kind));
        assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
    }
    world.store.forget_calls();
    browser.visit(Session::origin).await;
    assert_eq!(world.store.calls(), ["load", "touch"]);
    world.clock.advance(13 * HOUR);
    assert_eq!(browser.visit(Session::origin).await, Origin::Stored);
}

#[tokio::test]
async fn of_many_requests_one_claims_a_value() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    browser
        .visit(|session| session.insert("state", "secret"))
        .await
        .unwrap();
    let sessions: Vec<_> = (0..8).map(|_| browser.begin()).collect();
    let mut loaded = Vec::new();
    for sessions in &sessions {
        loaded.push(sessions.session().await.unwrap());
    }
    let mut claimed = 0;
    for session in &loaded {
        claimed += usize::from(session.claim::<String>("state").await.unwrap().is_some());
    }
    assert_eq!(claimed, 1);
    let session = browser.begin().session().await.unwrap();
    assert_eq!(session.claim::<String>("state").await.unwrap(), None);
    assert!(session.claim::<u64>("user").await.is_err());
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
}

#[tokio::test]
async fn the_sessions_of_a_subject_are_listed_once_when_two_configurations_share_a_store() {
    let world = World::built(|builder, store| {
        let config = |name: &str| {
            SessionConfig::new(std::sync::Arc::clone(store))
                .cookie(sessionkit::CookieOptions::new(name).unwrap())
        };
        builder
            .session("one", config("one"))
            .session("two", config("two"))
    });
    let mut browser = world.browser();
    browser
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    let listed = world.manager.subject_sessions(&alice()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(world.manager.revoke_all(&alice()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_session_does_not_ask_for_a_cookie_that_browsers_drop_before_it_ends() {
    let world = World::configured(|config| config.absolute_lifetime(1_000 * DAY));
    let session = world.browser().begin().session().await.unwrap();
    let longest = 400 * DAY;
    session.set_persistence(Persistence::For(longest)).unwrap();
    let longer = Persistence::For(longest + MINUTE);
    let error = session.set_persistence(longer).unwrap_err();
    assert_eq!(error.kind(), sessionkit::ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn a_lasting_cookie_is_sent_again_before_the_browser_drops_it() {
    let world = World::configured(|config| {
        config
            .absolute_lifetime(10_000 * DAY)
            .persistence(Persistence::For(400 * DAY))
    });
    let mut browser = world.signed_in().await;
    let mut silent = Duration::ZERO;
    for _ in 0..60 {
        world.clock.advance(20 * DAY);
        silent += 20 * DAY;
        browser.visit(Session::origin).await;
        if !browser.set_cookies().is_empty() {
            silent = Duration::ZERO;
        }
        assert!(silent < 100 * DAY);
    }
}

#[tokio::test]
async fn a_session_first_opened_in_a_streamed_body_is_refused_and_leaves_no_orphan() {
    let world = World::new();
    let browser = world.browser();
    let sessions = browser.begin();
    sessions.head_sent();
    let session = sessions.session().await.unwrap();
    session.insert("late", &1).unwrap();
    let error = session.save().await.unwrap_err();
    assert_eq!(error.kind(), sessionkit::ErrorKind::Unsupported);
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn an_unreadable_record_may_begin_anew_and_can_be_removed() {
    let world = World::new();
    let browser = world.signed_in().await;
    world
        .store
        .tamper(|record| record.data = "\x09future".into());
    let sessions = browser.begin();
    assert!(sessions.session().await.is_err());
    let session = sessions.restart("session").await.unwrap();
    session.destroy();
    session.save().await.unwrap();
    assert!(world.store.inner.is_empty());

    let world =
        World::configured(|config| config.on_unreadable(sessionkit::OnUnreadable::BeginAnew));
    let mut browser = world.signed_in().await;
    let before = browser.jar.clone();
    world
        .store
        .tamper(|record| record.data = "\x09future".into());
    assert_eq!(browser.visit(Session::origin).await, Origin::Restarted);
    assert!(browser.set_cookies().is_empty());
    browser
        .visit(|session| session.insert("user", "bob"))
        .await
        .unwrap();
    assert_ne!(browser.jar, before);
}

#[tokio::test]
async fn a_save_of_another_session_does_not_wait_for_a_contended_one() {
    let world = World::new();
    let contended = world.signed_in().await;
    let mut others = Vec::new();
    for _ in 0..300 {
        others.push(world.signed_in().await);
    }
    // One request holds the queue of its session: its update meets a conflict, and the next hangs.
    let held = contended.begin();
    held.session().await.unwrap().insert("a", &1).unwrap();
    contended
        .clone()
        .visit(|session| session.insert("b", &1))
        .await
        .unwrap();
    let hang = Box::pin(std::future::pending());
    world.store.next("load", Fault::After(hang));
    let mut headers = http::HeaderMap::new();
    let mut hanging = Box::pin(held.finish(&mut headers));
    assert!(futures_util::FutureExt::now_or_never(&mut hanging).is_none());
    for browser in &mut others {
        let sessions = browser.begin();
        sessions.session().await.unwrap().insert("a", &1).unwrap();
        browser
            .clone()
            .visit(|session| session.insert("b", &1))
            .await
            .unwrap();
        let watchdog = Duration::from_secs(60);
        let finished = tokio::time::timeout(watchdog, browser.finish(&sessions)).await;
        finished.expect("nobody waits for another session").unwrap();
    }
}

#[tokio::test]
async fn a_sign_in_that_was_lost_can_be_made_again() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let lost: Browser = browser.clone();
    // The renewal is done, and the response never arrives.
    lost.clone()
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    browser
        .visit(|session| session.sign_in(alice()))
        .await
        .unwrap();
    assert_eq!(
        browser.visit(|session| session.subject()).await,
        Some(alice())
    );
    let listed = world.manager.subject_sessions(&alice()).await.unwrap();
    assert_eq!(listed.len(), 1);
}

/// Found by the exploration of interleavings: the handler had been told that its change was gone,
/// and the sign-out was answered with Ok.
#[tokio::test]
async fn a_sign_out_that_is_refused_is_reported_although_a_save_was_refused_before() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut late = browser.clone();
    browser.visit(Session::renew).await;
    let sessions = late.begin();
    let session = sessions.session().await.unwrap();
    session.insert("a", &1).unwrap();
    assert_eq!(session.save().await.unwrap(), Saved::Gone);
    session.destroy();
    assert!(is_gone(late.finish(&sessions).await));
}
