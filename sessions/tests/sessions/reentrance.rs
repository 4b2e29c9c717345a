//! Closures that use the session which runs them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::FutureExt;
use serde::{Deserialize, Deserializer};
use sessionkit::{CookieOptions, ErrorKind, Label, Persistence, Session, SessionConfig, Subject};

use crate::support::{Browser, World};

/// Updates a counter with a closure that makes another call.
fn with_a_call_inside<R: Send + 'static>(
    session: &Session,
    call: impl Fn(&Session) -> R + Send + 'static,
) -> (sessionkit::Result<u32>, Vec<R>) {
    let (inner, answers) = (session.clone(), Arc::<std::sync::Mutex<Vec<R>>>::default());
    let keep = Arc::clone(&answers);
    let updated = session.update("count", move |count: Option<u32>| {
        keep.lock().unwrap().push(call(&inner));
        count.unwrap_or(0) + 1
    });
    let answers = std::mem::take(&mut *answers.lock().unwrap());
    (updated, answers)
}

fn refused<T>(result: sessionkit::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::Reentrant)
}

#[tokio::test]
async fn a_call_from_within_an_update_fails_at_once_and_the_update_counts() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let alice = Subject::new("alice").unwrap();
    let calls: [fn(&Session) -> bool; 14] = [
        |session| refused(session.get::<u32>("count")),
        |session| refused(session.insert("count", &7)),
        |session| refused(session.update("count", |_: Option<u32>| 7)),
        |session| refused(session.update("other", |_: Option<u32>| 7)),
        |session| refused(session.take::<u32>("count")),
        |session| refused(session.flash("text")),
        |session| refused(session.flashes::<String>()),
        |session| refused(session.set_persistence(Persistence::Browser)),
        |session| refused(session.set_subject(None)),
        |session| refused(session.set_cookie_options(CookieOptions::default())),
        |session| refused(session.save().now_or_never().unwrap()),
        |session| refused(session.reload().now_or_never().unwrap()),
        |session| refused(session.claim::<u32>("count").now_or_never().unwrap()),
        |session| refused(session.revoke_others().now_or_never().unwrap()),
    ];
    let expected = u32::try_from(calls.len()).unwrap() + 1;
    browser
        .visit(|session| {
            session.insert("before", &1).unwrap();
            for call in calls {
                let (updated, answers) = with_a_call_inside(session, call);
                assert!(updated.is_ok());
                assert_eq!(answers, [true]);
            }
            let signs_in = move |session: &Session| refused(session.sign_in(alice.clone()));
            let (updated, answers) = with_a_call_inside(session, signs_in);
            assert_eq!((updated.unwrap(), answers), (expected, vec![true]));
            session.insert("after", &2).unwrap();
        })
        .await;
    assert_eq!(browser.get::<u32>("count").await, Some(expected));
    let keys = browser.visit(|session| session.keys()).await;
    assert_eq!(keys, ["after", "before", "count", "user"]);
}

#[tokio::test]
async fn a_call_that_returns_no_error_does_nothing_and_the_update_fails_in_its_place() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let calls: [fn(&Session); 16] = [
        |session| assert!(!session.remove("user")),
        |session| session.clear(),
        |session| assert!(!session.contains("user")),
        |session| assert!(session.keys().is_empty()),
        |session| assert!(session.is_empty()),
        |session| session.renew(),
        |session| session.destroy(),
        |session| session.set_label(Label::new("label").unwrap()),
        |session| assert_eq!(session.cookie_options(), CookieOptions::default()),
        |session| assert!(session.is_new()),
        |session| assert_eq!(session.persistence(), Persistence::Browser),
        |session| assert_eq!(session.subject(), None),
        |session| assert_eq!(session.label(), Label::default()),
        |session| assert_eq!(session.created_at(), None),
        |session| assert_eq!(session.expires_at(), None),
        |session| assert_eq!(session.store_key(), None),
    ];
    browser
        .visit(|session| {
            session.insert("before", &1).unwrap();
            for call in calls {
                let (updated, answers) = with_a_call_inside(session, call);
                assert!(refused(updated));
                assert_eq!(answers.len(), 1);
            }
            assert!(!session.contains("count"), "nothing has changed");
            // What was refused there says nothing about the next one.
            assert!(session.update("count", |_: Option<u32>| 1).is_ok());
        })
        .await;
    let keys = browser.visit(|session| session.keys()).await;
    assert_eq!(keys, ["before", "count", "user"]);
    assert_eq!(world.store.inner.len(), 1, "it was not ended");
}

#[tokio::test]
async fn the_rest_of_a_request_cannot_be_reached_from_within_an_update_either() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    let inside = sessions.clone();
    let updated = session.update("count", move |_: Option<u32>| {
        let mut headers = http::HeaderMap::new();
        let errors = inside.finish(&mut headers).now_or_never().unwrap();
        let errors = errors.unwrap_err();
        let (_, error) = errors.iter().next().unwrap();
        assert_eq!(error.kind(), ErrorKind::Reentrant);
        1
    });
    // The headers could not be told.
    assert!(refused(updated));
    browser.finish(&sessions).await.unwrap();
}

#[tokio::test]
async fn a_closure_that_runs_again_at_the_save_is_refused_there_too() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let (one, other) = (browser.begin(), browser.begin());
    let (session, faster) = (one.session().await.unwrap(), other.session().await.unwrap());
    let (updated, _) = with_a_call_inside(&session, |session| {
        assert!(refused(session.get::<u32>("count")));
        assert!(refused(session.save().now_or_never().unwrap()));
    });
    assert_eq!(updated.unwrap(), 1);
    faster.insert("count", &41_u32).unwrap();
    browser.finish(&other).await.unwrap();
    browser.finish(&one).await.unwrap();
    assert_eq!(browser.get::<u32>("count").await, Some(42));
}

#[tokio::test]
async fn a_closure_that_panics_leaves_the_session_as_it_was() {
    let mut browser = World::new().signed_in().await;
    browser
        .visit(|session| {
            session.insert("before", &1).unwrap();
            let panics = |_: Option<u32>| -> u32 { panic!("a test of panics") };
            let update = || session.update("count", panics);
            assert!(catch_unwind(AssertUnwindSafe(update)).is_err());
            assert!(!session.contains("count"));
            session.update("count", |_: Option<u32>| 1).unwrap();
        })
        .await;
    let keys = browser.visit(|session| session.keys()).await;
    assert_eq!(keys, ["before", "count", "user"]);
}

fn two_sessions() -> Browser {
    let world = World::built(|builder, store| {
        let prefs = SessionConfig::new(Arc::clone(store))
            .cookie(CookieOptions::new("__Host-prefs").unwrap());
        builder
            .session("main", SessionConfig::new(Arc::clone(store)))
            .session("prefs", prefs)
    });
    world.browser()
}

#[tokio::test]
async fn a_closure_may_use_the_session_of_another_name() {
    let mut browser = two_sessions();
    let sessions = browser.begin();
    let main = sessions.get("main").await.unwrap();
    let prefs = sessions.get("prefs").await.unwrap();
    prefs.insert("step", &5_u32).unwrap();
    let (within, nested) = (prefs.clone(), main.clone());
    let count = main.update("count", move |count: Option<u32>| {
        let step = within.get::<u32>("step").unwrap().unwrap_or(1);
        within.insert("used", &true).unwrap();
        // Through the other one it is the same session still.
        let main = nested.clone();
        let through = within.update("through", move |_: Option<bool>| {
            refused(main.get::<u32>("count"))
        });
        assert!(through.unwrap());
        count.unwrap_or(0) + step
    });
    assert_eq!(count.unwrap(), 5);
    browser.finish(&sessions).await.unwrap();
    assert_eq!(browser.jar.len(), 2);
}

#[tokio::test]
async fn another_thread_waits_for_the_closure_and_is_not_refused() {
    let mut browser = World::new().signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    let (inside, begun) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
    let other = {
        let (session, inside, begun) = (session.clone(), Arc::clone(&inside), Arc::clone(&begun));
        std::thread::spawn(move || {
            inside.wait();
            begun.store(true, Ordering::SeqCst);
            let keys = session.keys();
            session.insert("other", &1).map(|()| keys)
        })
    };
    let waits = std::sync::Mutex::new(Some((inside, begun)));
    session
        .update("count", move |count: Option<u32>| {
            if let Some((inside, begun)) = waits.lock().unwrap().take() {
                inside.wait();
                while !begun.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            }
            count.unwrap_or(0) + 1
        })
        .unwrap();
    assert_eq!(other.join().unwrap().unwrap(), ["count", "user"]);
    browser.finish(&sessions).await.unwrap();
    let keys = browser.visit(|session| session.keys()).await;
    assert_eq!(keys, ["count", "other", "user"]);
}

#[tokio::test]
async fn a_value_that_uses_the_session_while_it_is_read_is_refused() {
    thread_local!(static SESSION: std::cell::RefCell<Option<Session>> = const { std::cell::RefCell::new(None) });
    struct Curious(bool);
    impl<'de> Deserialize<'de> for Curious {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            let session = SESSION.with_borrow(|session| session.clone().unwrap());
            Ok(Self(text == "text" && refused(session.get::<u32>("count"))))
        }
    }
    let mut browser = World::new().signed_in().await;
    browser
        .visit(|session| {
            SESSION.set(Some(session.clone()));
            session.flash("text").unwrap();
            let read = session.flashes::<Curious>().unwrap();
            assert!(read.iter().all(|curious| curious.0) && read.len() == 1);
            SESSION.set(None);
        })
        .await;
}
