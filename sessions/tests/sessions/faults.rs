use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use sessionkit::{CookieOptions, Entropy, ErrorKind, Failure, Origin, Saved, SessionConfig};

use crate::support::{Fault, TestEntropy, World};

fn increment(count: Option<u32>) -> u32 {
    count.unwrap_or(0) + 1
}

#[tokio::test]
async fn a_store_that_fails_on_load_is_an_error_and_not_an_empty_session() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    world
        .store
        .next("load", Fault::Fail(ErrorKind::Unavailable));
    let sessions = browser.begin();
    let error = sessions.session().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    browser.finish(&sessions).await.unwrap();
    assert!(
        browser.set_cookies().is_empty(),
        "the browser keeps its cookie"
    );
    assert_eq!(world.store.calls(), ["load"]);
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
}

#[tokio::test]
async fn a_load_that_failed_is_tried_again_when_asked() {
    let world = World::new();
    let browser = world.signed_in().await;
    world
        .store
        .next("load", Fault::Fail(ErrorKind::Unavailable));
    let sessions = browser.begin();
    assert!(sessions.session().await.is_err());
    let session = sessions.session().await.unwrap();
    assert_eq!(session.origin(), Origin::Stored);
}

#[tokio::test]
async fn a_save_that_fails_is_reported_and_sets_no_cookie() {
    let world = World::new();
    let mut browser = world.browser();
    let sessions = browser.begin();
    sessions
        .session()
        .await
        .unwrap()
        .insert("user", "alice")
        .unwrap();
    world
        .store
        .next("create", Fault::Fail(ErrorKind::Unavailable));
    let errors = browser.finish(&sessions).await.unwrap_err();
    let (name, error) = errors.iter().next().unwrap();
    assert_eq!((name, error.kind()), ("session", ErrorKind::Unavailable));
    assert!(browser.set_cookies().is_empty());
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn changes_that_could_not_be_saved_are_saved_by_the_next_try() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.update("count", increment).unwrap();
    world
        .store
        .next("update", Fault::Fail(ErrorKind::Unavailable));
    assert_eq!(
        session.save().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(session.save().await.unwrap(), Saved::Stored);
    browser.finish(&sessions).await.unwrap();
    assert_eq!(browser.get::<u32>("count").await, Some(1));
}

#[tokio::test]
async fn an_update_whose_answer_was_lost_is_not_made_twice() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    world.store.next("update", Fault::LoseAnswer);
    browser
        .visit(|session| session.update("count", increment))
        .await
        .unwrap();
    assert_eq!(world.store.calls(), ["load", "update", "load"]);
    assert_eq!(browser.get::<u32>("count").await, Some(1));
}

#[tokio::test]
async fn an_update_whose_request_was_lost_is_made_again() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    world.store.next("update", Fault::LoseRequest);
    browser
        .visit(|session| session.update("count", increment))
        .await
        .unwrap();
    assert_eq!(world.store.calls(), ["load", "update", "load", "update"]);
    assert_eq!(browser.get::<u32>("count").await, Some(1));
}

#[tokio::test]
async fn an_update_that_may_have_been_overwritten_is_not_made_again() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut other = browser.clone();
    let sessions = browser.begin();
    sessions
        .session()
        .await
        .unwrap()
        .update("count", increment)
        .unwrap();
    world.store.next("update", Fault::LoseAnswer);
    let overwrite = async move {
        other
            .visit(|session| session.insert("other", &1))
            .await
            .unwrap();
    };
    world.store.next("load", Fault::After(Box::pin(overwrite)));
    let errors = browser.finish(&sessions).await.unwrap_err();
    assert_eq!(errors.iter().next().unwrap().1.kind(), ErrorKind::Ambiguous);
    assert_eq!(
        browser.get::<u32>("count").await,
        Some(1),
        "counted once, and said to be unsure"
    );
}

#[tokio::test]
async fn a_value_that_may_have_been_overwritten_is_set_again() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut other = browser.clone();
    let sessions = browser.begin();
    sessions
        .session()
        .await
        .unwrap()
        .insert("mine", &1)
        .unwrap();
    world.store.next("update", Fault::LoseAnswer);
    let overwrite = async move {
        other
            .visit(|session| session.insert("theirs", &2))
            .await
            .unwrap();
    };
    world.store.next("load", Fault::After(Box::pin(overwrite)));
    browser.finish(&sessions).await.unwrap();
    assert_eq!(
        browser.visit(|session| session.keys()).await,
        ["mine", "theirs", "user"]
    );
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_sets_the_cookie() {
    let world = World::new();
    let mut browser = world.browser();
    world.store.next("create", Fault::LoseAnswer);
    browser
        .visit(|session| session.insert("user", "alice"))
        .await
        .unwrap();
    assert_eq!(world.store.inner.len(), 1);
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
}

#[tokio::test]
async fn a_creation_whose_request_was_lost_is_made_again() {
    let world = World::new();
    let mut browser = world.browser();
    world.store.next("create", Fault::LoseRequest);
    browser
        .visit(|session| session.insert("user", "alice"))
        .await
        .unwrap();
    assert_eq!(world.store.inner.len(), 1);
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_hands_out_the_new_token() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let old = browser.clone();
    world.store.next("update", Fault::LoseAnswer);
    browser.visit(|session| session.renew()).await;
    assert_ne!(browser.jar, old.jar);
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
    assert_eq!(old.clone().get::<String>("user").await, None);
    assert_eq!(world.store.inner.len(), 1);
}

#[tokio::test]
async fn a_renewal_whose_request_was_lost_is_made_again() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let mut old = browser.clone();
    world.store.next("update", Fault::LoseRequest);
    browser.visit(|session| session.renew()).await;
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
    assert_eq!(old.get::<String>("user").await, None);
    assert_eq!(world.store.inner.len(), 1);
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_is_repeated() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    world.store.next("delete", Fault::LoseRequest);
    world.store.next("delete", Fault::LoseAnswer);
    browser.visit(|session| session.destroy()).await;
    assert!(world.store.inner.is_empty());
    assert!(browser.jar.is_empty());
}

#[tokio::test]
async fn answers_that_keep_getting_lost_end_in_an_error() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    for _ in 0..10 {
        world.store.next("delete", Fault::LoseRequest);
    }
    let sessions = browser.begin();
    sessions.session().await.unwrap().destroy();
    let errors = browser.finish(&sessions).await.unwrap_err();
    assert_eq!(errors.iter().next().unwrap().1.kind(), ErrorKind::Ambiguous);
    assert!(world.store.calls().len() < 8);
}

#[tokio::test]
async fn a_logout_that_fails_is_an_error_and_leaves_the_cookie() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    world
        .store
        .next("delete", Fault::Fail(ErrorKind::Unavailable));
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.destroy();
    session.flash("signed out").unwrap();
    assert!(browser.finish(&sessions).await.is_err());
    assert!(browser.set_cookies().is_empty());
    assert_eq!(
        world.store.calls(),
        ["load", "delete"],
        "no other session is begun"
    );
}

#[tokio::test]
async fn an_update_that_never_finds_its_revision_ends_in_an_error() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    for _ in 0..1_000 {
        world.store.next("update", Fault::Fail(ErrorKind::Conflict));
    }
    let sessions = browser.begin();
    sessions.session().await.unwrap().insert("key", &1).unwrap();
    let errors = browser.finish(&sessions).await.unwrap_err();
    assert_eq!(errors.iter().next().unwrap().1.kind(), ErrorKind::Conflict);
    assert!(world.store.calls().len() < 200);
}

#[tokio::test]
async fn a_token_that_is_taken_is_replaced_by_another() {
    let world = World::new();
    let mut browser = world.browser();
    world.store.next("create", Fault::Fail(ErrorKind::Exists));
    browser
        .visit(|session| session.insert("user", "alice"))
        .await
        .unwrap();
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
}

#[tokio::test]
async fn an_unreadable_record_is_corrupt_and_can_be_replaced() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    world
        .store
        .tamper(|record| record.data = Bytes::from_static(b"\x09future"));
    let sessions = browser.begin();
    assert_eq!(
        sessions.session().await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    let session = sessions.restart("session").await.unwrap();
    assert_eq!(session.origin(), Origin::Restarted);
    session.insert("user", "bob").unwrap();
    let before = browser.jar.clone();
    browser.finish(&sessions).await.unwrap();
    assert_ne!(browser.jar, before);
    world.store.tamper(|_| ());
    assert_eq!(browser.get::<String>("user").await.as_deref(), Some("bob"));
}

#[tokio::test]
async fn every_flipped_bit_of_the_data_is_corrupt() {
    let world = World::new();
    let browser = world.signed_in().await;
    let bits = world.store.last_written().data.len() * 8;
    for bit in 0..bits {
        world.store.tamper(move |record| {
            let mut data = record.data.to_vec();
            data[bit / 8] ^= 1 << (bit % 8);
            record.data = data.into();
        });
        let loaded = browser.begin().session().await;
        // The format stands before what the secret is recognised by; the rest is sealed or bound.
        if (1..17).contains(&(bit / 8)) {
            assert_eq!(loaded.unwrap().origin(), Origin::Ended, "bit {bit}");
        } else {
            assert_eq!(loaded.unwrap_err().kind(), ErrorKind::Corrupt, "bit {bit}");
        }
    }
    for length in 0..bits / 8 {
        world
            .store
            .tamper(move |record| record.data.truncate(length));
        let error = browser.begin().session().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{length} bytes");
    }
}

/// Fails once, after so many fills that succeeded.
#[derive(Debug)]
struct FailsAfter(std::sync::atomic::AtomicUsize);

impl Entropy for FailsAfter {
    fn fill(&self, bytes: &mut [u8]) -> sessionkit::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        if self.0.fetch_sub(1, SeqCst) == 0 {
            return Err(ErrorKind::Unavailable.into());
        }
        sessionkit::OsEntropy.fill(bytes)
    }
}

/// Whatever they are for: the token, the revision, or the nonce of the seal.
#[tokio::test]
async fn a_session_is_created_with_all_of_its_random_bytes_or_not_at_all() {
    for succeed in 0..3 {
        let world = World::built(|builder, store| {
            builder
                .entropy(Arc::new(FailsAfter(succeed.into())))
                .session("session", SessionConfig::new(Arc::clone(store)))
        });
        let mut browser = world.browser();
        let sessions = browser.begin();
        let session = sessions.session().await.unwrap();
        session.insert("user", "alice").unwrap();
        let failed = browser.finish(&sessions).await;
        assert!(failed.is_err(), "after {succeed}");
        assert!(world.store.calls().is_empty(), "after {succeed}");
        assert!(browser.jar.is_empty(), "after {succeed}");
    }
}

#[tokio::test]
async fn without_random_bytes_no_session_is_created() {
    let entropy = Arc::new(TestEntropy::default());
    let broken = Arc::clone(&entropy);
    let world = World::built(|builder, store| {
        builder
            .entropy(entropy)
            .session("session", SessionConfig::new(Arc::clone(store)))
    });
    broken
        .broken
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let mut browser = world.browser();
    let sessions = browser.begin();
    sessions
        .session()
        .await
        .unwrap()
        .insert("user", "alice")
        .unwrap();
    let errors = browser.finish(&sessions).await.unwrap_err();
    assert_eq!(
        errors.iter().next().unwrap().1.kind(),
        ErrorKind::Unavailable
    );
    assert!(browser.set_cookies().is_empty());
    assert!(world.store.calls().is_empty());
}

#[tokio::test]
async fn a_session_too_large_for_the_store_names_its_largest_keys() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    // Each has room alone.
    session.insert("large", &vec![7_u8; 3 << 20]).unwrap();
    session.insert("medium", &vec![7_u8; 2 << 20]).unwrap();
    session.insert("small", "secret").unwrap();
    let errors = browser.finish(&sessions).await.unwrap_err();
    let (_, error) = errors.iter().next().unwrap();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(
        error
            .to_string()
            .contains("\"large\" 3145733 bytes, \"medium\" 2097157 bytes"),
        "{error}"
    );
    assert!(!error.to_string().contains("secret"));
    assert_eq!(world.store.calls(), ["load"]);
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
}

#[tokio::test]
async fn a_failing_session_does_not_stop_the_others_and_all_are_reported() {
    let cookie = |name: &str| CookieOptions::new(name).unwrap();
    let world = World::built(|builder, store| {
        ["a", "b", "c"].into_iter().fold(builder, |builder, name| {
            let config = SessionConfig::new(Arc::clone(store)).cookie(cookie(name));
            builder.session(name, config)
        })
    });
    let mut browser = world.browser();
    let sessions = browser.begin();
    for name in ["a", "b", "c"] {
        sessions
            .get(name)
            .await
            .unwrap()
            .insert("key", name)
            .unwrap();
    }
    world
        .store
        .next("create", Fault::Fail(ErrorKind::Unavailable));
    world.store.next("create", Fault::Fail(ErrorKind::Full));
    let errors = browser.finish(&sessions).await.unwrap_err();
    let reported: Vec<_> = errors
        .iter()
        .map(|(name, error)| (name, error.kind()))
        .collect();
    assert_eq!(
        reported,
        [("a", ErrorKind::Unavailable), ("b", ErrorKind::Full)]
    );
    let message = "sessions could not be saved: \"a\": the session store is not available; \
                   \"b\": the session store is full";
    assert_eq!(errors.to_string(), message);
    assert_eq!(
        browser.jar.keys().collect::<Vec<_>>(),
        ["c"],
        "the one that was saved"
    );
}

#[tokio::test]
async fn the_application_chooses_the_response_to_a_failure() {
    let world = World::built(|builder, store| {
        builder
            .session("session", SessionConfig::new(Arc::clone(store)))
            .on_failure(|failure| match failure {
                Failure::Load(error) => {
                    let mut response = Response::new(Bytes::from(error.to_string()));
                    *response.status_mut() = StatusCode::BAD_GATEWAY;
                    Some(response)
                }
                _ => None,
            })
    });
    assert!(format!("{:?}", world.manager).contains("session"));
    let sessions = world.manager.begin(&HeaderMap::new());
    assert!(sessions.session().await.is_ok());
}

#[tokio::test]
async fn a_store_that_hangs_costs_one_write_and_one_look() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("key", &1).unwrap();
    world.store.next("update", Fault::LoseRequest);
    let clock = Arc::clone(&world.clock);
    let hang = async move { clock.advance(std::time::Duration::from_secs(5)) };
    world.store.next("load", Fault::After(Box::pin(hang)));
    let errors = browser.finish(&sessions).await.unwrap_err();
    assert_eq!(errors.iter().next().unwrap().1.kind(), ErrorKind::Ambiguous);
    assert_eq!(world.store.calls(), ["load", "update", "load"]);
}
