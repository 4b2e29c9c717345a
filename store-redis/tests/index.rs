//! The index of a subject's sessions beside the sessions themselves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sessionkit::{Clock, ErrorKind, Record, SessionStore, Subject, SystemClock};
use sessionkit_conformance::{
    containers::{RedisCluster, Server},
    proxy::{Proxy, Traffic},
};
use sessionkit_redis::{RedisOptions, RedisStore};
use support::{Admin, WATCHDOG, record, token};

fn alice() -> Subject {
    Subject::new("alice").unwrap()
}

/// A store on one server and one on a cluster, with their URLs.
async fn stores(prefix: &str) -> [(String, RedisStore); 2] {
    let urls = [
        Server::Redis.shared().await.unwrap(),
        RedisCluster::shared().await.unwrap(),
    ];
    let stores = join_all(urls.map(|url| async {
        let options = RedisOptions::from_url(&url).unwrap().prefix(prefix);
        let store = options.open().await.unwrap();
        (url, store)
    }));
    stores.await.try_into().unwrap()
}

#[tokio::test]
async fn an_index_that_has_lost_a_session_is_told_again_by_its_use() {
    for (url, store) in stores("healed").await {
        let index = store.subjects().unwrap();
        for way in ["touch", "update"] {
            let lifetime = Duration::from_secs(3);
            let mut present = Record {
                expires_at: SystemClock.now() + lifetime,
                ..record(Some(alice()))
            };
            let token = store.create(token(), &present).await.unwrap();
            let mut lose = ::redis::cmd("DEL");
            lose.arg("healed@alice");
            let mut admin = Admin::connect(&url).await.unwrap();
            admin.take(&lose).await.unwrap();
            assert!(index.list(&alice(), None, 10).await.unwrap().is_empty());
            let begun = Instant::now();
            while index.list(&alice(), None, 10).await.unwrap().is_empty() {
                assert!(begun.elapsed() < WATCHDOG, "{way} tells nobody: {url}");
                let expires_at = SystemClock.now() + lifetime;
                if way == "touch" {
                    store.touch(&token, expires_at).await.unwrap();
                    continue;
                }
                let next = Record {
                    created_at: present.created_at,
                    expires_at,
                    ..record(Some(alice()))
                };
                store.update(&token, present.revision, &next).await.unwrap();
                present = next;
            }
            assert_eq!(index.revoke_all(&alice(), None).await.unwrap(), 1);
            assert_eq!(store.load(&token).await.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn a_full_server_lets_sessions_be_prolonged() {
    for server in [Server::Redis, Server::Valkey] {
        let container = server.setup().start().await.unwrap();
        let store = RedisStore::open(container.url()).await.unwrap();
        let records = [record(None), record(Some(alice()))];
        let mut tokens = Vec::new();
        for record in &records {
            tokens.push(store.create(token(), record).await.unwrap());
        }
        let command = ["redis-cli", "config", "set", "maxmemory", "1"];
        let command = match server {
            Server::Valkey => ["valkey-cli", command[1], command[2], command[3], command[4]],
            _ => command,
        };
        container.exec(&command).await.unwrap();
        for (token, record) in tokens.iter().zip(&records) {
            let refused = store.update(token, record.revision, record).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Full);
            // Soon, and so late that the index has to hear of it.
            for later in [60, 60 * 60 * 24 * 90].map(Duration::from_secs) {
                let expires_at = record.expires_at + later;
                store.touch(token, expires_at).await.unwrap();
                let stored = store.load(token).await.unwrap().unwrap();
                assert_eq!(stored.expires_at, expires_at);
            }
        }
        let index = store.subjects().unwrap();
        assert_eq!(index.revoke_all(&alice(), None).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn of_two_ends_of_all_sessions_the_first_to_end_lets_nobody_slip_past_the_other() {
    let container = Server::Redis.setup().start().await.unwrap();
    let (_, address) = container.url().split_once("://").unwrap();
    let proxy = Proxy::start(address).await.unwrap();
    let slow = RedisStore::open(&format!("redis://{}", proxy.address()))
        .await
        .unwrap();
    let store = RedisStore::open(container.url()).await.unwrap();
    let index = store.subjects().unwrap();
    let mut sessions = Vec::new();
    for _ in 0..300 {
        let record = record(Some(alice()));
        sessions.push((store.create(token(), &record).await.unwrap(), record));
    }
    // The last that either of them comes to.
    let (last, present) = sessions
        .iter()
        .max_by_key(|(token, _)| token.key())
        .unwrap();

    let latency = Duration::from_millis(150);
    proxy
        .set(Traffic::Delay {
            latency,
            jitter: Duration::ZERO,
        })
        .await
        .unwrap();
    let all =
        tokio::spawn(async move { slow.subjects().unwrap().revoke_all(&alice(), None).await });
    while index.list(&alice(), None, 1000).await.unwrap().len() == 300 {
        assert!(!all.is_finished());
    }
    index.revoke_all(&alice(), Some(&last.key())).await.unwrap();
    // Between the two, the session that one of them spares is renewed.
    let next = record(Some(alice()));
    let renewed = store.update(last, present.revision, &next).await.unwrap();
    all.await.unwrap().unwrap();
    assert_eq!(store.load(&renewed).await.unwrap(), None);
    assert!(index.list(&alice(), None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_session_that_begins_again_while_it_is_ended_is_listed() {
    for (url, store) in stores("again").await {
        let index = store.subjects().unwrap();
        for round in 0..200 {
            let (token, record) = (token(), record(Some(alice())));
            store.create(token.clone(), &record).await.unwrap();
            let key = token.key();
            let again = async { while store.create(token.clone(), &record).await.is_err() {} };
            let alice = alice();
            let (ended, ()) = tokio::join!(index.revoke(&alice, &key), again);
            assert!(ended.unwrap());
            let listed = index.list(&alice, None, 10).await.unwrap();
            assert_eq!(listed.len(), 1, "{url}, round {round}");
            assert_eq!(index.revoke_all(&alice, None).await.unwrap(), 1);
        }
    }
}

#[tokio::test]
async fn renewals_and_sign_ins_race_with_two_ends_of_all_sessions_and_none_survives() {
    for (url, store) in stores("races").await {
        let index = store.subjects().unwrap();
        for round in 0..20 {
            let first = record(Some(alice()));
            let creates = (0..32).map(|_| store.create(token(), &first));
            let tokens = join_all(creates).await.into_iter().map(Result::unwrap);
            let tokens: Vec<_> = tokens.collect();
            let second = record(Some(alice()));
            let renewals = join_all(
                tokens
                    .iter()
                    .map(|token| store.update(token, first.revision, &second)),
            );
            let (alice, spared) = (alice(), tokens[0].key());
            let (one, other, _) = tokio::join!(
                index.revoke_all(&alice, Some(&spared)),
                index.revoke_all(&alice, None),
                renewals
            );
            let ended = one.unwrap() + other.unwrap();
            assert_eq!(ended, 32, "{url}, round {round}");
            for token in &tokens {
                let loaded = store.load(token).await.unwrap();
                assert_eq!(loaded, None, "{url}, round {round}");
            }
        }
    }
}

/// As a process leaves it that ends between the two steps.
#[tokio::test]
async fn a_session_that_may_still_be_stored_keeps_the_end_of_all_from_saying_ok() {
    let url = RedisCluster::shared().await.unwrap();
    let options = RedisOptions::from_url(&url).unwrap().prefix("beginning");
    let store = options
        .deadline(Duration::from_secs(1))
        .open()
        .await
        .unwrap();
    let mut admin = Admin::connect(&url).await.unwrap();
    let (token, record) = (token(), record(Some(alice())));
    let ends = record.expires_at.as_millis();
    let mark = [b"?", &token.key().as_bytes()[..], b"1234"].concat();
    let soon = SystemClock.now() + Duration::from_secs(20);
    let mut begin = ::redis::cmd("ZADD");
    begin.arg("beginning@alice");
    begin.arg(ends).arg(token.key().as_bytes());
    begin.arg(soon.as_millis()).arg(mark);
    admin.take(&begin).await.unwrap();
    let index = store.subjects().unwrap();
    let error = index.revoke_all(&alice(), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // The entry is still there when the record comes.
    let mut set = ::redis::cmd("ZSCORE");
    set.arg("beginning@alice").arg(token.key().as_bytes());
    admin.take(&set).await.unwrap();
    store.create(token.clone(), &record).await.unwrap();
    assert_eq!(index.revoke_all(&alice(), None).await.unwrap(), 1);
}

/// A session that was ended a moment after it began is not taken for one that is about to come,
/// whatever ended it and whoever owned it then.
#[tokio::test]
async fn what_has_ended_holds_nobody_up() {
    for (url, store) in stores("ended").await {
        let (index, alice) = (store.subjects().unwrap(), alice());
        let mut admin = Admin::connect(&url).await.unwrap();
        for way in [
            "delete",
            "delete the revision",
            "revoke",
            "revoke_all",
            "touch into the past",
            "touch to an expiry that comes",
            "update into the past",
            "update to another subject, and delete",
            "update to no subject, and delete",
            "damage, and delete",
        ] {
            let first = record(Some(alice.clone()));
            let token = store.create(token(), &first).await.unwrap();
            let now = SystemClock.now();
            let next = |subject, expires_at| Record {
                created_at: first.created_at,
                expires_at,
                ..record(subject)
            };
            match way {
                "delete the revision" => {
                    let ended = store.delete(&token, Some(first.revision)).await;
                    assert!(ended.unwrap(), "{url}");
                }
                "revoke" => {
                    let ended = index.revoke(&alice, &token.key()).await;
                    assert!(ended.unwrap(), "{url}");
                }
                "revoke_all" => {
                    let ended = index.revoke_all(&alice, None).await;
                    assert_eq!(ended.unwrap(), 1, "{url}");
                }
                "touch into the past" => {
                    let past = now - Duration::from_secs(1);
                    store.touch(&token, past).await.unwrap();
                }
                "touch to an expiry that comes" => {
                    let soon = now + Duration::from_millis(20);
                    store.touch(&token, soon).await.unwrap();
                }
                "update into the past" => {
                    let next = next(Some(alice.clone()), now - Duration::from_secs(1));
                    store.update(&token, first.revision, &next).await.unwrap();
                }
                "update to another subject, and delete" => {
                    let next = next(Some(Subject::new("bob").unwrap()), first.expires_at);
                    store.update(&token, first.revision, &next).await.unwrap();
                }
                "update to no subject, and delete" => {
                    let next = next(None, first.expires_at);
                    store.update(&token, first.revision, &next).await.unwrap();
                }
                "damage, and delete" => {
                    let key = [b"ended#", &token.key().as_bytes()[..20]].concat();
                    let mut damage = ::redis::cmd("SET");
                    damage.arg(key).arg("?");
                    admin.take(&damage).await.unwrap();
                }
                _ => {}
            }
            if way.ends_with("delete") {
                assert!(store.delete(&token, None).await.unwrap(), "{way}: {url}");
            }
            let begun = Instant::now();
            while !index.list(&alice, None, 10).await.unwrap().is_empty() {
                assert!(begun.elapsed() < WATCHDOG, "{way}: {url}");
            }
            let left = index.revoke_all(&alice, None).await;
            assert_eq!(left.unwrap(), 0, "{way}: {url}");
        }
    }
}
