//! What URLs open, and what they do not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use sessionkit::{
    Clock, CookieName, Error, ErrorKind, Key, Keyring, Label, ManualClock, OsEntropy, Record,
    Revision, SessionStore, Subject, Sweeper, Timestamp, Token,
};
use sessionkit_any::{Opener, open};

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn token() -> Token {
    Token::random(&OsEntropy, &CookieName::new("id").unwrap()).unwrap()
}

fn record() -> Record {
    Record {
        data: "data".into(),
        revision: Revision::random(&OsEntropy).unwrap(),
        created_at: START,
        expires_at: Timestamp::MAX,
        subject: None,
        label: Label::default(),
    }
}

async fn refused(opener: &Opener, url: &str) -> Error {
    let error = opener.open(url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
    error
}

fn with_keys() -> Opener {
    Opener::new().keyring(Keyring::new([Key::generate().unwrap()]).unwrap())
}

#[tokio::test]
async fn memory_without_a_namespace_is_a_store_of_its_own() {
    let (one, other) = (
        open("memory:").await.unwrap(),
        open("memory:").await.unwrap(),
    );
    let token = one.create(token(), &record()).await.unwrap();
    assert!(one.load(&token).await.unwrap().is_some());
    assert_eq!(other.load(&token).await.unwrap(), None);
}

#[tokio::test]
async fn memory_with_a_namespace_is_shared_while_a_handle_lives() {
    let url = "memory:?namespace=shared_while_a_handle_lives";
    let one = open(url).await.unwrap();
    let token = one.create(token(), &record()).await.unwrap();
    let other = Opener::new().namespace("shared_while_a_handle_lives");
    let other = other.open("memory:").await.unwrap();
    drop(one);
    assert!(other.load(&token).await.unwrap().is_some());
    let elsewhere = open("memory:?namespace=elsewhere").await.unwrap();
    assert_eq!(elsewhere.load(&token).await.unwrap(), None);
    drop(other);
    let reopened = open(url).await.unwrap();
    assert_eq!(reopened.load(&token).await.unwrap(), None);
}

#[tokio::test]
async fn a_shared_memory_store_has_one_size_and_one_clock() {
    let url = "memory:?namespace=one_size_and_one_clock&max_sessions=3";
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(START));
    let opener = Opener::new().clock(clock);
    let _store = opener.open(url).await.unwrap();
    opener.open(url).await.unwrap();
    refused(&opener, "memory:?namespace=one_size_and_one_clock").await;
    refused(&Opener::new(), url).await;
    let clock = Arc::new(ManualClock::new(START));
    refused(&Opener::new().clock(clock), url).await;
}

#[tokio::test]
async fn max_sessions_limits_a_memory_store() {
    let store = open("memory:?max_sessions=1").await.unwrap();
    store.create(token(), &record()).await.unwrap();
    let error = store.create(token(), &record()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
}

#[tokio::test]
async fn bytes_and_what_is_reserved_limit_a_memory_store() {
    let store = open("memory:?max_bytes=400").await.unwrap();
    store.create(token(), &record()).await.unwrap();
    let mut large = record();
    large.data = vec![0; 400].into();
    let error = store.create(token(), &large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);

    let store = open("memory:?reserved_for_subjects=100").await.unwrap();
    let error = store.create(token(), &record()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    let mut somebodys = record();
    somebodys.subject = Some(Subject::new("alice").unwrap());
    store.create(token(), &somebodys).await.unwrap();
}

#[tokio::test]
async fn a_sweeper_and_a_health_check_work_on_whatever_is_open() {
    let clock = Arc::new(ManualClock::new(START));
    let opener = with_keys().clock(clock.clone());
    let url = "memory:?namespace=sweeper_on_whatever_is_open";
    for url in [url, "cookie:"] {
        let store = opener.open(url).await.unwrap();
        store.ping().await.unwrap();
        let mut record = record();
        record.expires_at = START + Duration::from_secs(1);
        let token = store.create(token(), &record).await.unwrap();
        let sweeper = Sweeper::spawn(store.clone(), Duration::from_millis(1)).unwrap();
        // What has expired and was not removed is back when the clock is set back.
        while url != "cookie:" && store.load(&token).await.unwrap().is_some() {
            clock.set(record.expires_at);
            tokio::task::yield_now().await;
            clock.set(START);
        }
        sweeper.shutdown().await;
    }
}

#[tokio::test]
async fn the_clock_reaches_every_store() {
    let clock = Arc::new(ManualClock::new(START));
    let opener = with_keys().clock(clock.clone());
    for url in ["memory:", "cookie:", "cookie:?signed_only=true"] {
        clock.set(START);
        let store = opener.open(url).await.unwrap();
        let mut record = record();
        record.expires_at = START + Duration::from_secs(1);
        let token = store.create(token(), &record).await.unwrap();
        assert!(store.load(&token).await.unwrap().is_some(), "{url}");
        clock.set(record.expires_at);
        assert_eq!(store.load(&token).await.unwrap(), None, "{url}");
    }
}

#[tokio::test]
async fn the_cookie_store_seals_unless_told_to_sign_only() {
    let opener = with_keys();
    for (url, readable) in [
        ("cookie:", false),
        ("cookie:?signed_only=false", false),
        ("COOKIE:?signed_only=true", true),
    ] {
        let store = opener.open(url).await.unwrap();
        let token = store.create(token(), &record()).await.unwrap();
        let shown = token.expose().windows(4).any(|part| part == b"data");
        assert_eq!(shown, readable, "{url}");
    }
}

#[tokio::test]
async fn the_cookie_store_needs_keys_and_has_no_namespace() {
    let error = refused(&Opener::new(), "cookie:").await;
    assert!(error.to_string().contains("Opener::keyring"));
    refused(&with_keys().namespace("a"), "cookie:").await;
    refused(&with_keys(), "cookie:?namespace=a").await;
}

#[tokio::test]
async fn what_is_not_a_url_of_a_store_is_refused() {
    for url in [
        "",
        "memory",
        ":",
        "//host",
        "1:2",
        "ftp://host",
        "memory:x",
        "memory://",
        "memory:#x",
        "memory:?x#y",
        "memory:?",
        "cookie:x",
        "cookie://host",
    ] {
        if url != "memory:?" {
            refused(&with_keys(), url).await;
        }
    }
    assert!(open("memory:?").await.is_ok());
}

#[tokio::test]
async fn bad_options_are_refused() {
    for url in [
        "memory:?unknown=1",
        "memory:?Namespace=a",
        "memory:?max_sessions=",
        "memory:?max_sessions=-1",
        "memory:?max_sessions=many",
        "memory:?max_sessions=99999999999999999999999",
        "memory:?max_sessions=1&max_sessions=1",
        "memory:?max_bytes=1GiB",
        "memory:?reserved_for_subjects=101",
        "memory:?reserved_for_subjects=half",
        "memory:?namespace=a&namespace=b",
        "memory:?namespace=",
        "memory:?max_sessions",
        "cookie:?signed_only=yes",
        "cookie:?signed_only",
        "cookie:?signed_only=true&signed_only=true",
        "cookie:?max_sessions=1",
    ] {
        refused(&with_keys(), url).await;
    }
    refused(&Opener::new().namespace("a"), "memory:?namespace=a").await;
    refused(&Opener::new().namespace(""), "memory:").await;
}

#[tokio::test]
async fn an_unknown_scheme_is_answered_with_those_that_exist() {
    let error = refused(&Opener::new(), "gopher://host").await.to_string();
    assert!(
        error.contains("`memory:`") && error.contains("`cookie:`"),
        "{error}"
    );
}

#[tokio::test]
async fn nothing_of_a_url_is_shown() {
    let opener = with_keys().namespace("hunter2");
    let mut shown = format!("{:?}", with_keys());
    for url in [
        "hunter2:x",
        "hunter2",
        "hunter2://hunter2:hunter2@hunter2/hunter2?hunter2=hunter2#hunter2",
        "memory:hunter2",
        "memory:?hunter2=1",
        "memory:?hunter2",
        "memory:?hunter2&hunter2",
        "memory:?max_sessions=hunter2",
        "cookie:?signed_only=hunter2",
        "cookie:hunter2",
    ] {
        let error = refused(&with_keys(), url).await;
        shown += &format!("{error} {error:?}\n");
        let error = refused(&opener, url).await;
        shown += &format!("{error} {error:?}\n");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    let store = open("memory:?namespace=hunter2").await.unwrap();
    assert!(!format!("{store:?}").contains("hunter2"));
}
