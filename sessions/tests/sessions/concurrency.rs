use std::sync::Arc;

use futures_util::FutureExt;
use sessionkit::{Failure, Origin, Saved};

use crate::support::{Browser, Fault, World};

fn increment(count: Option<u32>) -> u32 {
    count.unwrap_or(0) + 1
}

/// Runs `handler` in this many tasks at once, each a request of its own that has loaded the session
/// before any of them saves it.
async fn in_parallel(
    browser: &Browser,
    requests: usize,
    handler: impl Fn(usize, &sessionkit::Session) + Send + Sync + 'static,
) {
    let handler = Arc::new(handler);
    let barrier = Arc::new(tokio::sync::Barrier::new(requests));
    let tasks: Vec<_> = (0..requests)
        .map(|number| {
            let (sessions, handler) = (browser.begin(), handler.clone());
            let barrier = barrier.clone();
            tokio::spawn(async move {
                handler(number, &sessions.session().await.unwrap());
                barrier.wait().await;
                sessions.finish(&mut http::HeaderMap::new()).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_parallel_requests_keep_two_hundred_keys() {
    let mut browser = World::new().signed_in().await;
    let set = |number, session: &sessionkit::Session| {
        session.insert(&format!("key {number}"), &number).unwrap();
    };
    in_parallel(&browser, 200, set).await;
    assert_eq!(browser.visit(|session| session.keys().len()).await, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_parallel_increments_give_two_hundred() {
    let mut browser = World::new().signed_in().await;
    let count = |_, session: &sessionkit::Session| {
        session.update("count", increment).unwrap();
    };
    in_parallel(&browser, 200, count).await;
    assert_eq!(browser.get::<u32>("count").await, Some(200));
}

#[tokio::test]
async fn a_conflict_costs_one_load_and_one_more_update() {
    let world = World::new();
    let browser = world.signed_in().await;
    let (mut one, mut two) = (browser.clone(), browser.clone());
    let (first, second) = (one.begin(), two.begin());
    first
        .session()
        .await
        .unwrap()
        .update("count", increment)
        .unwrap();
    second
        .session()
        .await
        .unwrap()
        .update("count", increment)
        .unwrap();
    one.finish(&first).await.unwrap();
    world.store.forget_calls();
    two.finish(&second).await.unwrap();
    assert_eq!(world.store.calls(), ["update", "load", "update"]);
    assert_eq!(one.get::<u32>("count").await, Some(2));
}

#[tokio::test]
async fn of_two_values_for_one_key_the_later_one_stays() {
    let browser = World::new().signed_in().await;
    let (mut one, mut two) = (browser.clone(), browser);
    let (first, second) = (one.begin(), two.begin());
    first
        .session()
        .await
        .unwrap()
        .insert("user", "bob")
        .unwrap();
    second.session().await.unwrap().remove("user");
    second.session().await.unwrap().insert("other", &1).unwrap();
    one.finish(&first).await.unwrap();
    two.finish(&second).await.unwrap();
    assert_eq!(one.get::<String>("user").await, None);
    assert_eq!(one.get::<u8>("other").await, Some(1));
}

#[tokio::test]
async fn clear_removes_what_another_request_has_added_meanwhile() {
    let mut browser = World::new().signed_in().await;
    let clearing = browser.begin();
    clearing.session().await.unwrap().clear();
    clearing
        .session()
        .await
        .unwrap()
        .insert("after", &1)
        .unwrap();
    browser
        .visit(|session| session.insert("added", &1))
        .await
        .unwrap();
    browser.finish(&clearing).await.unwrap();
    assert_eq!(browser.visit(|session| session.keys()).await, ["after"]);
}

#[tokio::test]
async fn an_update_of_a_value_that_became_another_type_is_an_error_naming_the_key() {
    let mut browser = World::new().signed_in().await;
    let counting = browser.begin();
    counting
        .session()
        .await
        .unwrap()
        .update("count", increment)
        .unwrap();
    browser
        .visit(|session| session.insert("count", "text"))
        .await
        .unwrap();
    let errors = browser.finish(&counting).await.unwrap_err();
    assert!(errors.to_string().contains("\"count\""), "{errors}");
    assert_eq!(
        browser.get::<String>("count").await.as_deref(),
        Some("text")
    );
}

#[tokio::test]
async fn no_request_waits_for_the_handler_of_another() {
    let world = World::new();
    let browser = world.signed_in().await;
    // Its handler has the session, has changed it, and is nowhere near its end.
    let (mut slow, in_flight) = (browser.clone(), browser.begin());
    in_flight
        .session()
        .await
        .unwrap()
        .insert("slow", &1)
        .unwrap();
    for number in 0..200 {
        let mut quick = browser.clone();
        let visit = quick.visit(|session| session.insert("quick", &number));
        // The memory store waits for nothing, and neither does anything above it. That tokio lets
        // other tasks run after so many locks is no wait for one of them.
        let visit = tokio::task::unconstrained(visit).now_or_never();
        assert!(visit.is_some(), "request {number} waits");
    }
    slow.finish(&in_flight).await.unwrap();
    let keys = slow.visit(|session| session.keys()).await;
    assert_eq!(keys, ["quick", "slow", "user"]);
}

#[tokio::test]
async fn a_request_in_flight_does_not_undo_a_logout() {
    let world = World::new();
    let browser = world.signed_in().await;
    let (mut slow, mut quick) = (browser.clone(), browser.clone());
    let in_flight = slow.begin();
    in_flight
        .session()
        .await
        .unwrap()
        .insert("late", &1)
        .unwrap();
    quick.visit(|session| session.destroy()).await;

    let errors = slow.finish(&in_flight).await.unwrap_err();
    assert!(matches!(errors.failure(), Failure::Gone(_)));
    assert!(slow.set_cookies().is_empty());
    assert!(world.store.inner.is_empty());
    let origin = slow.visit(|session| session.origin()).await;
    assert_eq!(origin, Origin::Ended);
}

#[tokio::test]
async fn a_renewal_in_flight_does_not_undo_a_logout() {
    let world = World::new();
    let browser = world.signed_in().await;
    let (mut slow, mut quick) = (browser.clone(), browser.clone());
    let in_flight = slow.begin();
    in_flight.session().await.unwrap().renew();
    quick.visit(|session| session.destroy()).await;
    assert!(slow.finish(&in_flight).await.is_err());
    assert!(slow.set_cookies().is_empty());
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn a_touch_in_flight_does_not_undo_a_logout() {
    let world = World::new();
    let browser = world.signed_in().await;
    world.clock.advance(crate::support::HOUR * 12);
    let (mut slow, mut quick) = (browser.clone(), browser);
    let in_flight = slow.begin();
    in_flight.session().await.unwrap();
    quick.visit(|session| session.destroy()).await;
    slow.finish(&in_flight).await.unwrap();
    assert!(slow.set_cookies().is_empty());
    assert!(world.store.calls().contains(&"touch"));
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn what_is_written_after_the_session_is_gone_does_not_begin_another() {
    let world = World::new();
    let browser = world.signed_in().await;
    let (slow, mut quick) = (browser.clone(), browser);
    let session = slow.begin().session().await.unwrap();
    session.insert("late", &1).unwrap();
    quick.visit(|session| session.destroy()).await;
    assert_eq!(session.save().await.unwrap(), Saved::Gone);
    session.insert("later", &2).unwrap();
    assert_eq!(session.save().await.unwrap(), Saved::Gone);
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn of_two_parallel_renewals_one_successor_lives() {
    let world = World::new();
    let browser = world.signed_in().await;
    let (mut one, mut two) = (browser.clone(), browser.clone());
    let (first, second) = (one.begin(), two.begin());
    first.session().await.unwrap().renew();
    second.session().await.unwrap().renew();
    one.finish(&first).await.unwrap();
    let errors = two.finish(&second).await.unwrap_err();
    assert!(matches!(errors.failure(), Failure::Gone(_)));
    assert_eq!(world.store.inner.len(), 1);
    assert_eq!(one.set_cookies().len() + two.set_cookies().len(), 1);
    assert_eq!(one.get::<String>("user").await.as_deref(), Some("alice"));
}

#[tokio::test]
async fn an_update_beside_a_renewal_is_kept_or_dropped_whole() {
    let world = World::new();
    let browser = world.signed_in().await;
    let (mut renewing, mut writing) = (browser.clone(), browser);
    let (first, second) = (renewing.begin(), writing.begin());
    first.session().await.unwrap().renew();
    second.session().await.unwrap().insert("key", &1).unwrap();
    writing.finish(&second).await.unwrap();
    renewing.finish(&first).await.unwrap();
    assert_eq!(
        renewing.get::<u8>("key").await,
        Some(1),
        "the renewal carries it over"
    );
    assert_eq!(world.store.inner.len(), 1);
}

#[tokio::test]
async fn a_save_that_was_dropped_is_settled_by_the_next_one() {
    let world = World::new();
    let browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.update("count", increment).unwrap();
    // The update takes effect, and then the answer never comes.
    world.store.next("update", Fault::LoseAnswer);
    let pending = std::future::pending().boxed();
    world.store.next("load", Fault::After(pending));
    assert!(
        session.save().now_or_never().is_none(),
        "the save hangs and is dropped"
    );

    assert_eq!(session.save().await.unwrap(), Saved::Unchanged);
    assert_eq!(browser.clone().get::<u32>("count").await, Some(1));
}

#[tokio::test]
async fn a_creation_that_was_dropped_leaves_one_session() {
    let world = World::new();
    let mut browser = world.browser();
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("user", "alice").unwrap();
    world.store.next("create", Fault::LoseAnswer);
    world
        .store
        .next("load", Fault::After(std::future::pending().boxed()));
    assert!(session.save().now_or_never().is_none());

    browser.finish(&sessions).await.unwrap();
    assert_eq!(world.store.inner.len(), 1);
    assert_eq!(
        browser.get::<String>("user").await.as_deref(),
        Some("alice")
    );
}

#[tokio::test]
async fn changes_made_during_a_save_are_kept_for_the_next() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("a", &1).unwrap();
    let other = session.clone();
    let change = async move { other.insert("a", &2).unwrap() };
    world.store.next("update", Fault::After(change.boxed()));
    session.save().await.unwrap();
    assert_eq!(session.get::<u8>("a").unwrap(), Some(2));
    browser.finish(&sessions).await.unwrap();
    assert_eq!(browser.get::<u8>("a").await, Some(2));
}

#[tokio::test]
async fn a_session_destroyed_during_its_creation_does_not_survive() {
    let world = World::new();
    let mut browser = world.browser();
    let sessions = browser.begin();
    let session = sessions.session().await.unwrap();
    session.insert("user", "alice").unwrap();
    let other = session.clone();
    let destroy = async move { other.destroy() };
    world.store.next("create", Fault::After(destroy.boxed()));
    browser.finish(&sessions).await.unwrap();
    assert!(world.store.inner.is_empty());
    assert!(browser.jar.is_empty());
}

#[tokio::test]
async fn reload_shows_what_others_have_written_and_drops_own_changes() {
    let world = World::new();
    let browser = world.signed_in().await;
    let session = browser.begin().session().await.unwrap();
    session.insert("mine", &1).unwrap();
    browser
        .clone()
        .visit(|session| session.insert("theirs", &2))
        .await
        .unwrap();
    session.reload().await.unwrap();
    assert_eq!(session.keys(), ["theirs", "user"]);
    assert_eq!(session.save().await.unwrap(), Saved::Unchanged);
}
