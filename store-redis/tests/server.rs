//! What the server sees: how many commands, as whom, encrypted or not, and through whose pool.

#[path = "support/mod.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use sessionkit::{
    Clock, CookieName, ErrorKind, OsEntropy, Record, Revision, SessionStore, Subject, SystemClock,
    Token,
};
use sessionkit_conformance::{
    containers::Server,
    proxy::{Direction, Proxy, Traffic},
};
use sessionkit_redis::{RedisOptions, RedisStore, deadpool_redis};
use support::{Admin, CA, tls_server};

/// Every operation once or twice, with and without a subject.
async fn use_everything(store: &RedisStore) {
    store.ping().await.expect("ping");
    for subject in [None, Some(Subject::new("alice").expect("a subject"))] {
        let first = record(subject.clone());
        let second = record(subject.clone());
        let later = first.expires_at + Duration::from_secs(60 * 60 * 24 * 90);
        let token = store.create(token(), &first).await.expect("create");
        store
            .update(&token, first.revision, &second)
            .await
            .expect("update");
        store.touch(&token, later).await.expect("touch");
        let third = record(subject.clone());
        let token = store
            .rotate(&token, self::token(), second.revision, &third)
            .await
            .expect("rotate");
        assert_eq!(store.load(&token).await.expect("load"), Some(third));
        store.delete(&token).await.expect("delete");
        if let Some(subject) = subject {
            let index = store.subjects().expect("an index");
            let token = store.create(self::token(), &first).await.expect("create");
            let other = store.create(self::token(), &first).await.expect("create");
            let listed = index.list(&subject, None, 10).await.expect("list");
            assert_eq!(listed.len(), 2);
            assert!(index.revoke(&subject, &token.key()).await.expect("revoke"));
            assert_eq!(
                index.revoke_all(&subject, None).await.expect("revoke_all"),
                1
            );
            assert_eq!(store.load(&other).await.expect("load"), None);
        }
    }
}

#[tokio::test]
async fn every_operation_is_one_round_trip() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = RedisStore::open(container.url()).await.unwrap();
    // Afterwards the server knows the scripts.
    use_everything(&store).await;
    let mut admin = Admin::connect(container.url()).await.unwrap();
    let mut trips = admin.reads().await.unwrap();
    for subject in [None, Some(Subject::new("bob").unwrap())] {
        let records: Vec<_> = (0..3).map(|_| record(subject.clone())).collect();
        let token = store.create(token(), &records[0]).await.unwrap();
        assert_eq!(admin.since(&mut trips).await, 1, "create");
        store.load(&token).await.unwrap();
        assert_eq!(admin.since(&mut trips).await, 1, "load");
        store
            .update(&token, records[0].revision, &records[1])
            .await
            .unwrap();
        assert_eq!(admin.since(&mut trips).await, 1, "update");
        store.touch(&token, records[1].expires_at).await.unwrap();
        assert_eq!(admin.since(&mut trips).await, 1, "touch");
        let token = store
            .rotate(&token, self::token(), records[1].revision, &records[2])
            .await
            .unwrap();
        assert_eq!(admin.since(&mut trips).await, 1, "rotate");
        store.delete(&token).await.unwrap();
        // With a subject, the index is tidied up in a second one.
        let expected = 1 + usize::from(subject.is_some());
        assert_eq!(admin.since(&mut trips).await, expected, "delete");
    }
}

/// On one worker, where each task would otherwise be followed at once by that of the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn commands_of_tasks_that_are_ready_go_out_together() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = Arc::new(RedisStore::open(container.url()).await.unwrap());
    let mut admin = Admin::connect(container.url()).await.unwrap();
    let mut trips = admin.reads().await.unwrap();
    let all = tokio::spawn(async move {
        let mut loads = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let (store, token) = (Arc::clone(&store), token());
            loads.spawn(async move { store.load(&token).await });
        }
        loads.join_all().await
    });
    for loaded in all.await.unwrap() {
        assert_eq!(loaded.unwrap(), None);
    }
    let reads = admin.since(&mut trips).await;
    assert!(reads <= 16, "the server has read {reads} times");
}

#[tokio::test]
async fn a_script_that_the_server_has_forgotten_is_sent_again() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = RedisStore::open(container.url()).await.unwrap();
    let mut admin = Admin::connect(container.url()).await.unwrap();
    for _ in 0..2 {
        use_everything(&store).await;
        ::redis::cmd("SCRIPT")
            .arg("FLUSH")
            .exec_async(admin.connection())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_permissions_of_the_documentation_suffice() {
    let container = Server::Redis.setup().start().await.unwrap();
    let mut admin = Admin::connect(container.url()).await.unwrap();
    let readme = include_str!("../README.md")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let rules = readme
        .split_once("**Permissions.** `")
        .unwrap()
        .1
        .split('`')
        .next()
        .unwrap();
    let mut cmd = ::redis::cmd("ACL");
    cmd.arg("SETUSER")
        .arg("sessions")
        .arg("on")
        .arg(">pass word")
        .arg(&["~app#*", "~app@*"]);
    cmd.arg(rules.split(' ').collect::<Vec<_>>())
        .exec_async(admin.connection())
        .await
        .unwrap();
    let url = |login: &str| container.url().replace("://", &format!("://{login}@"));
    let options = RedisOptions::from_url(&url("sessions:pass%20word")).unwrap();
    use_everything(&options.clone().prefix("app").open().await.unwrap()).await;
    let other = options.prefix("other").open().await.unwrap();
    let error = other.load(&token()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let error = RedisStore::open(&url("sessions:wrong")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(!format!("{error:?}").contains("wrong"));
}

#[tokio::test]
async fn an_encrypted_server_is_trusted_only_with_its_authority() {
    let url = tls_server().await.unwrap();
    let trusted = RedisOptions::from_url(&url)
        .unwrap()
        .root_certificates(CA)
        .require_tls();
    use_everything(&trusted.prefix("tls").open().await.unwrap()).await;
    let error = RedisStore::open(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let plain = url.replace("rediss", "redis");
    let error = RedisStore::open(&plain).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let encrypted = Server::Redis
        .shared()
        .await
        .unwrap()
        .replace("redis", "rediss");
    let error = RedisStore::open(&encrypted).await.unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::InvalidConfig | ErrorKind::Unavailable
    ));
}

#[tokio::test]
async fn a_pool_of_the_application_is_used() {
    let url = Server::Redis.shared().await.unwrap();
    let pool = deadpool_redis::Config::from_url(url)
        .create_pool(Some(deadpool_redis::Runtime::Tokio1))
        .unwrap();
    let store = RedisOptions::from_pool(pool)
        .prefix("pooled")
        .open()
        .await
        .unwrap();
    use_everything(&store).await;
}

#[tokio::test]
async fn callers_without_patience_do_not_keep_the_store_from_connecting() {
    let url = Server::Redis.shared().await.unwrap();
    let (_, address) = url.split_once("://").unwrap();
    let proxy = Proxy::start(address).await.unwrap();
    let slow = Traffic::Delay {
        latency: Duration::from_millis(200),
        jitter: Duration::ZERO,
    };
    proxy.set(slow).await.unwrap();
    let options = RedisOptions::from_url(&format!("redis://{}", proxy.address())).unwrap();
    let store = options.open_lazily().unwrap();
    let token = token();
    while proxy.accepted() == 0 {
        let impatient = tokio::time::timeout(Duration::from_millis(5), store.load(&token));
        impatient.await.unwrap_err();
    }
    // Others, as impatient, meet the connection that is being made.
    for _ in 0..10 {
        let impatient = tokio::time::timeout(Duration::from_millis(5), store.load(&token));
        impatient.await.unwrap_err();
    }
    proxy.set(Traffic::Normal).await.unwrap();
    assert_eq!(store.load(&token).await.unwrap(), None);
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_is_cut_within_a_request_or_an_answer_is_never_misread() {
    let url = Server::Redis.shared().await.unwrap();
    let (_, address) = url.split_once("://").unwrap();
    let proxy = Proxy::start(address).await.unwrap();
    let store = RedisStore::open(&format!("redis://{}", proxy.address()))
        .await
        .unwrap();
    let first = record(None);
    let token = store.create(token(), &first).await.unwrap();
    // Afterwards the server knows the script.
    store
        .update(&token, first.revision, &record(None))
        .await
        .unwrap();
    let mut cuts = 0;
    for direction in [Direction::ToServer, Direction::ToClient] {
        for bytes in [1, 2, 3, 50, 100, 150, 200] {
            let before = store.load(&token).await.unwrap().unwrap();
            let next = record(None);
            proxy
                .once(Traffic::CutAfter { direction, bytes })
                .await
                .unwrap();
            let updated = store.update(&token, before.revision, &next).await;
            proxy.set(Traffic::Normal).await.unwrap();
            let stored = store.load(&token).await.unwrap().unwrap();
            let case = format!("{bytes} bytes {direction:?}: {updated:?}");
            match updated.map_err(|error| error.kind()) {
                Ok(_) => assert_eq!(stored, next, "{case}"),
                Err(ErrorKind::Ambiguous) => {
                    // A part of a request has no effect, and an answer comes after it.
                    let expected = match direction {
                        Direction::ToServer => &before,
                        Direction::ToClient => &next,
                    };
                    assert_eq!(stored, *expected, "{case}");
                    cuts += 1;
                }
                Err(kind) => panic!("{kind:?}: {case}"),
            }
            proxy
                .once(Traffic::CutAfter { direction, bytes })
                .await
                .unwrap();
            assert_eq!(store.load(&token).await.unwrap(), Some(stored), "{case}");
            proxy.set(Traffic::Normal).await.unwrap();
        }
    }
    assert!(cuts > 7, "only {cuts} updates were cut");
}

#[tokio::test]
async fn a_new_connection_is_for_the_same_user_and_database() {
    let container = Server::Redis.setup().start().await.unwrap();
    let mut admin = Admin::connect(container.url()).await.unwrap();
    ::redis::cmd("ACL")
        .arg("SETUSER")
        .arg(&["sessions", "on", ">secret", "~*", "+@all"])
        .exec_async(admin.connection())
        .await
        .unwrap();
    let url = container.url().replace("://", "://sessions:secret@");
    let store = RedisStore::open(&format!("{url}/2")).await.unwrap();
    let first = record(None);
    let token = store.create(token(), &first).await.unwrap();
    let kill = |admin: &mut Admin| {
        let mut cmd = ::redis::cmd("CLIENT");
        cmd.arg(&["KILL", "USER", "sessions"]);
        let mut connection = admin.connection().clone();
        async move { cmd.query_async::<usize>(&mut connection).await.unwrap() }
    };
    assert_eq!(kill(&mut admin).await, 1);
    assert_eq!(store.load(&token).await.unwrap(), Some(first));
    assert_eq!(kill(&mut admin).await, 1);
}

#[tokio::test]
async fn databases_are_separate() {
    let url = Server::Redis.shared().await.unwrap();
    let first = RedisStore::open(&format!("{url}/1")).await.unwrap();
    let second = RedisStore::open(&format!("{url}/2")).await.unwrap();
    let token = first.create(token(), &record(None)).await.unwrap();
    assert_eq!(second.load(&token).await.unwrap(), None);
    first.delete(&token).await.unwrap();
}

#[tokio::test]
async fn no_key_is_immortal() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = RedisStore::open(container.url()).await.unwrap();
    let subject = Some(Subject::new("carol").unwrap());
    let records = [
        record(subject.clone()),
        record(subject.clone()),
        record(subject),
    ];
    let token = store.create(token(), &records[0]).await.unwrap();
    store.create(self::token(), &record(None)).await.unwrap();
    store
        .update(&token, records[0].revision, &records[1])
        .await
        .unwrap();
    store.touch(&token, records[1].expires_at).await.unwrap();
    store
        .rotate(&token, self::token(), records[1].revision, &records[2])
        .await
        .unwrap();
    let mut admin = Admin::connect(container.url()).await.unwrap();
    let keys: Vec<Vec<u8>> = ::redis::cmd("KEYS")
        .arg("*")
        .query_async(admin.connection())
        .await
        .unwrap();
    assert_eq!(keys.len(), 3);
    for key in keys {
        let ttl: i64 = ::redis::cmd("PTTL")
            .arg(&key)
            .query_async(admin.connection())
            .await
            .unwrap();
        assert!(ttl > 0, "{}", key.escape_ascii());
    }
}

fn token() -> Token {
    let name = CookieName::new("id").expect("a cookie name");
    Token::random(&OsEntropy, &name).expect("randomness")
}

fn record(subject: Option<Subject>) -> Record {
    Record {
        data: "hello".into(),
        revision: Revision::random(&OsEntropy).expect("randomness"),
        created_at: SystemClock.now(),
        expires_at: SystemClock.now() + Duration::from_secs(600),
        subject,
        label: Default::default(),
    }
}
