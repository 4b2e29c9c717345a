use http::Method;
use serde::{Deserialize, Serialize};
use sessionkit::{ErrorKind, Session};

use crate::support::World;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Notice {
    level: u8,
    text: String,
}

#[tokio::test]
async fn messages_last_until_they_are_read_once() {
    let mut browser = World::new().browser();
    let none: Vec<String> = browser.visit(|session| session.flashes()).await.unwrap();
    assert!(none.is_empty());
    browser
        .visit(|session| {
            session.flash("foo")?;
            session.flash("bar")?;
            session.flash_to("custom", "baz")
        })
        .await
        .unwrap();
    // A request that reads nothing takes nothing.
    browser.visit(|_| ()).await;
    let read = |session: &Session| session.flashes::<String>();
    assert_eq!(browser.visit(read).await.unwrap(), ["foo", "bar"]);
    assert!(browser.visit(read).await.unwrap().is_empty());
    let read = |session: &Session| session.flashes_from::<String>("custom");
    assert_eq!(browser.visit(read).await.unwrap(), ["baz"]);
    assert!(browser.visit(read).await.unwrap().is_empty());
}

#[tokio::test]
async fn messages_may_have_any_type() {
    let mut browser = World::new().browser();
    let notice = Notice {
        level: 3,
        text: "saved".to_owned(),
    };
    browser
        .visit(|session| session.flash(&notice))
        .await
        .unwrap();
    assert_eq!(
        browser
            .visit(|session| session.flashes::<Notice>())
            .await
            .unwrap(),
        [notice]
    );
}

#[tokio::test]
async fn messages_of_another_type_are_an_error_and_stay() {
    let mut browser = World::new().browser();
    browser
        .visit(|session| session.flash_to("queue", "text"))
        .await
        .unwrap();
    let error = browser
        .visit(|session| session.flashes_from::<u32>("queue"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
    assert!(error.to_string().contains("\"queue\""));
    let texts = browser
        .visit(|session| session.flashes_from::<String>("queue"))
        .await
        .unwrap();
    assert_eq!(texts, ["text"]);
}

#[tokio::test]
async fn a_message_may_be_read_in_the_request_that_added_it() {
    let world = World::new();
    let mut browser = world.browser();
    let read = browser
        .visit(|session| {
            session.flash("now")?;
            session.flashes::<String>()
        })
        .await
        .unwrap();
    assert_eq!(read, ["now"]);
    assert!(world.store.calls().is_empty(), "nothing is left to store");
}

#[tokio::test]
async fn messages_added_by_parallel_requests_are_all_kept() {
    let mut browser = World::new().signed_in().await;
    let (first, second) = (browser.begin(), browser.begin());
    let (one, two) = (
        first.session().await.unwrap(),
        second.session().await.unwrap(),
    );
    one.flash("one a").unwrap();
    two.flash("two a").unwrap();
    two.flash("two b").unwrap();
    one.flash("one b").unwrap();
    browser.finish(&first).await.unwrap();
    browser.finish(&second).await.unwrap();
    let read = browser
        .visit(|session| session.flashes::<String>())
        .await
        .unwrap();
    assert_eq!(read, ["one a", "one b", "two a", "two b"]);
}

#[tokio::test]
async fn a_message_added_while_others_are_read_is_kept() {
    let mut browser = World::new().signed_in().await;
    browser.visit(|session| session.flash("old")).await.unwrap();
    let (reader, writer) = (browser.begin(), browser.begin());
    let reading = reader.session().await.unwrap();
    writer.session().await.unwrap().flash("new").unwrap();
    assert_eq!(reading.flashes::<String>().unwrap(), ["old"]);
    browser.finish(&writer).await.unwrap();
    browser.finish(&reader).await.unwrap();
    let read = browser
        .visit(|session| session.flashes::<String>())
        .await
        .unwrap();
    assert_eq!(read, ["new"]);
}

#[tokio::test]
async fn a_late_reader_does_not_take_a_message_it_has_not_seen() {
    let mut browser = World::new().signed_in().await;
    browser.visit(|session| session.flash("old")).await.unwrap();
    let late = browser.begin();
    assert_eq!(
        late.session().await.unwrap().flashes::<String>().unwrap(),
        ["old"]
    );
    // The queue is emptied and filled again before the late reader is saved.
    browser
        .visit(|session| session.flashes::<String>())
        .await
        .unwrap();
    browser.visit(|session| session.flash("new")).await.unwrap();
    browser.finish(&late).await.unwrap();
    let read = browser
        .visit(|session| session.flashes::<String>())
        .await
        .unwrap();
    assert_eq!(read, ["new"]);
}

#[tokio::test]
async fn messages_that_nobody_reads_have_a_limit() {
    let session = World::new().browser().begin().session().await.unwrap();
    for number in 0..100 {
        session
            .flash_to(&format!("queue {}", number % 3), &number)
            .unwrap();
    }
    let error = session.flash_to("notices", &1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("\"notices\""), "{error}");
    assert_eq!(session.flashes_from::<u32>("queue 0").unwrap().len(), 34);
    session.flash_to("notices", &1).unwrap();
}

#[tokio::test]
async fn a_head_request_consumes_no_messages() {
    let world = World::new();
    let mut browser = world.signed_in().await;
    browser
        .visit(|session| session.flash("hello"))
        .await
        .unwrap();
    world.store.forget_calls();
    for method in [Method::HEAD, Method::HEAD, Method::GET] {
        let sessions = browser.manager.begin_for(&method, &browser.request());
        let session = sessions.session().await.unwrap();
        // The head of its response is that of the page.
        assert_eq!(session.flashes::<String>().unwrap(), ["hello"], "{method}");
        browser.finish(&sessions).await.unwrap();
    }
    assert_eq!(world.store.calls(), ["load", "load", "load", "update"]);
    let left = browser.visit(|session| session.flashes::<String>()).await;
    assert!(left.unwrap().is_empty());
}

#[tokio::test]
async fn a_head_request_that_changes_something_else_leaves_the_messages() {
    let mut browser = World::new().signed_in().await;
    browser
        .visit(|session| session.flash("hello"))
        .await
        .unwrap();
    let sessions = browser.manager.begin_for(&Method::HEAD, &browser.request());
    let session = sessions.session().await.unwrap();
    session.flashes::<String>().unwrap();
    session.insert("seen", &true).unwrap();
    session.flash("again").unwrap();
    browser.finish(&sessions).await.unwrap();
    let left = browser.visit(|session| session.flashes::<String>()).await;
    assert_eq!(left.unwrap(), ["hello", "again"]);
}
