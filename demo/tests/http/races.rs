use std::{collections::BTreeSet, sync::Arc};

use sessionkit::SessionStore;
use sessionkit_demo::{App, open_store};
use tokio::task::JoinSet;

use crate::{
    client::Client,
    server::{STORES, keyring, open, start},
    watched::Watched,
};

const PARALLEL: usize = 200;

/// The stores that compare before they write.
const ON_THE_SERVER: [&str; 2] = ["memory:", "sqlite::memory:"];

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_set_their_own_keys_lose_none() {
    for store in ON_THE_SERVER {
        let client = open(store).await;
        client.get("/set?name=Ada").await;
        let mut requests = JoinSet::new();
        for number in 0..PARALLEL {
            let client = client.clone();
            requests.spawn(async move {
                let path = format!("/api/keys/key{number:03}");
                client.put(&path, &format!("value{number}")).await.status
            });
        }
        assert!(
            requests
                .join_all()
                .await
                .iter()
                .all(|status| *status == 200)
        );
        let expected: String = (0..PARALLEL)
            .map(|number| format!("key{number:03}=value{number}\n"))
            .collect();
        assert_eq!(client.get("/api/keys").await.text, expected);
        assert_eq!(client.get("/").await.text, "name: Ada");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_counts_all_count_and_each_is_told_its_own_number() {
    for store in ON_THE_SERVER {
        let client = open(store).await;
        client.get("/set?name=Ada").await;
        let mut requests = JoinSet::new();
        for _ in 0..PARALLEL {
            let client = client.clone();
            requests.spawn(async move { client.post("/api/counter", "").await.text });
        }
        let told: BTreeSet<_> = requests.join_all().await.into_iter().collect();
        let expected: BTreeSet<_> = (1..=PARALLEL)
            .map(|count| format!("count: {count}"))
            .collect();
        assert_eq!(told, expected);
        assert_eq!(
            client.get("/api/counter").await.text,
            format!("count: {PARALLEL}")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_parallel_requests_are_all_kept() {
    let client = open("memory:").await;
    client.get("/set?name=Ada").await;
    let mut requests = JoinSet::new();
    for number in 0..50 {
        let client = client.clone();
        requests.spawn(async move {
            client
                .post("/api/flash", &format!("{number:02}"))
                .await
                .status
        });
    }
    assert!(
        requests
            .join_all()
            .await
            .iter()
            .all(|status| *status == 200)
    );
    let text = client.get("/api/flash").await.text;
    let messages: BTreeSet<_> = text.lines().collect();
    assert_eq!((text.lines().count(), messages.len()), (50, 50));
}

/// The slow request has loaded the session and is about to write when the user signs out.
#[tokio::test]
async fn a_slow_request_does_not_bring_back_a_session_that_has_ended() {
    for url in STORES {
        let keyring = keyring();
        let clock = Arc::new(sessionkit::SystemClock) as _;
        let inner = open_store(url, &keyring, &clock).await.unwrap();
        let store = Arc::new(Watched::new(inner));
        let app = App::new(store.clone() as Arc<dyn SessionStore>, keyring);
        let client = Client::new(start(app).await);
        client.post("/api/login?user=ada", "").await;

        let stolen = client.copy();
        store.hold_updates();
        let slow = tokio::spawn({
            let client = client.copy();
            async move { client.put("/api/slow/late?ms=1", "x").await }
        });
        store.update_arrived().await;
        assert_eq!(client.post("/api/logout", "").await.status, 200, "{url}");
        store.release_updates();

        let answer = slow.await.unwrap();
        assert_eq!(answer.status, 409, "{url}");
        assert!(answer.cookies().is_empty(), "{url}: {answer:?}");
        assert_eq!(stolen.get("/api/whoami").await.text, "anonymous", "{url}");
        assert_eq!(stolen.get("/api/keys").await.text, "", "{url}");
        assert_eq!(client.get("/api/whoami").await.text, "anonymous", "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interleaved_visitors_only_ever_see_their_own_session() {
    let first = open("memory:").await;
    let mut visitors = JoinSet::new();
    for number in 0..20 {
        let client = first.stranger();
        visitors.spawn(async move {
            for round in 0..25 {
                let value = format!("{number}-{round}");
                client.put("/api/keys/own", &value).await;
                assert_eq!(client.get("/api/keys").await.text, format!("own={value}\n"));
            }
        });
    }
    visitors.join_all().await;
}
