//! What the server sees: how many commands, as whom, encrypted or not, and through whose pool.

#[path = "support/mod.rs"]
mod support;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::{
    HeaderMap,
    header::{COOKIE, SET_COOKIE},
};
use sessionkit::{ErrorKind, Key, Keyring, Session, SessionManager, SessionStore, Subject};
use sessionkit_conformance::{
    containers::{RedisCluster, RedisSentinel, Server},
    proxy::{Direction, Proxy, Traffic},
};
use sessionkit_redis::{RedisOptions, RedisStore, deadpool_redis};
use support::{Admin, CA, CERTIFICATE, KEY, record, tls_server, tls_setup, token};

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
        let loaded = store.load(&token).await.expect("load").expect("a record");
        assert_eq!(
            (loaded.revision, loaded.expires_at),
            (second.revision, later)
        );
        let conflict = store.delete(&token, Some(first.revision)).await;
        assert_eq!(
            conflict.expect_err("it is another").kind(),
            ErrorKind::Conflict
        );
        let deleted = store.delete(&token, Some(second.revision)).await;
        assert!(deleted.expect("delete"));
        assert!(!store.delete(&token, None).await.expect("delete"));
        if let Some(subject) = subject {
            let index = store.subjects().expect("an index");
            let token = store
                .create(support::token(), &first)
                .await
                .expect("create");
            let other = store
                .create(support::token(), &first)
                .await
                .expect("create");
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
        let records: Vec<_> = (0..2).map(|_| record(subject.clone())).collect();
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
        for expected in [Some(records[1].revision), None] {
            store.delete(&token, expected).await.unwrap();
            assert_eq!(admin.since(&mut trips).await, 1, "delete");
        }
    }
}

/// One request whose handler uses the session, with the cookie that the browser then has.
async fn request(
    manager: &SessionManager,
    cookie: &mut HeaderMap,
    handler: impl FnOnce(&Session) -> sessionkit::Result<()>,
) {
    let sessions = manager.begin(cookie);
    let session = sessions.session().await.expect("the session loads");
    handler(&session).expect("the handler has done its work");
    let mut head = HeaderMap::new();
    sessions
        .finish(&mut head)
        .await
        .expect("the session is saved");
    if let Some(set) = head.get(SET_COOKIE) {
        let pair = set.to_str().expect("ASCII").split(';').next();
        let pair = pair.expect("a cookie has a first part");
        cookie.insert(COOKIE, pair.parse().expect("it was a header"));
    }
}

#[tokio::test]
async fn a_request_is_one_round_trip_to_read_and_two_to_change_or_renew() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = RedisStore::open(container.url()).await.unwrap();
    use_everything(&store).await;
    let keyring = Keyring::new([Key::generate().unwrap()]).unwrap();
    let manager = SessionManager::new(store, keyring).unwrap();
    let mut admin = Admin::connect(container.url()).await.unwrap();
    let mut trips = admin.reads().await.unwrap();
    let mut cookie = HeaderMap::new();
    request(&manager, &mut cookie, |session| {
        session.get::<u8>("a").map(drop)
    })
    .await;
    assert_eq!(admin.since(&mut trips).await, 0, "no cookie");
    let alice = Subject::new("alice").unwrap();
    request(&manager, &mut cookie, |session| session.sign_in(alice)).await;
    assert_eq!(admin.since(&mut trips).await, 1, "begin");
    request(&manager, &mut cookie, |session| {
        session.get::<u8>("a").map(drop)
    })
    .await;
    assert_eq!(admin.since(&mut trips).await, 1, "read");
    request(&manager, &mut cookie, |session| session.insert("a", &1)).await;
    assert_eq!(admin.since(&mut trips).await, 2, "change");
    request(&manager, &mut cookie, |session| {
        session.renew();
        Ok(())
    })
    .await;
    assert_eq!(admin.since(&mut trips).await, 2, "renewal");
    request(&manager, &mut cookie, |session| {
        session.destroy();
        Ok(())
    })
    .await;
    assert_eq!(admin.since(&mut trips).await, 2, "sign-out");
}

#[tokio::test]
async fn what_delete_leaves_in_an_index_goes_when_it_is_read() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = RedisStore::open(container.url()).await.unwrap();
    let mut admin = Admin::connect(container.url()).await.unwrap();
    let alice = Subject::new("alice").unwrap();
    let index = store.subjects().unwrap();
    let kept = store.create(token(), &record(Some(alice.clone()))).await;
    let kept = kept.unwrap().key();
    for read in ["list", "revoke_all"] {
        let token = store.create(token(), &record(Some(alice.clone()))).await;
        let token = token.unwrap();
        store.delete(&token, None).await.unwrap();
        let dead = token.key().as_bytes().to_vec();
        assert!(members(&mut admin, "alice").await.contains(&dead), "{read}");
        match read {
            "list" => {
                let listed = index.list(&alice, None, 10).await.unwrap();
                let listed: Vec<_> = listed.iter().map(|session| session.key).collect();
                assert_eq!(listed, [kept]);
            }
            _ => assert_eq!(index.revoke_all(&alice, Some(&kept)).await.unwrap(), 0),
        }
        assert_eq!(members(&mut admin, "alice").await, [kept.as_bytes()]);
    }
}

#[tokio::test]
async fn a_session_that_begins_again_under_its_token_is_listed() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = RedisStore::open(container.url()).await.unwrap();
    let alice = Subject::new("alice").unwrap();
    let token = token();
    // The second finds the entry of the first, which has no record, and is about to have one again.
    for _ in 0..2 {
        let record = record(Some(alice.clone()));
        store.create(token.clone(), &record).await.unwrap();
        let index = store.subjects().unwrap();
        assert_eq!(index.list(&alice, None, 10).await.unwrap().len(), 1);
        store.delete(&token, None).await.unwrap();
    }
}

#[tokio::test]
async fn another_type_of_value_is_corrupt_and_can_be_deleted() {
    for url in [Server::Redis.shared().await, RedisCluster::shared().await] {
        let url = url.unwrap();
        let options = RedisOptions::from_url(&url).unwrap();
        let store = options.prefix("types").open().await.unwrap();
        let token = token();
        let mut push = ::redis::cmd("RPUSH");
        push.arg([b"types#", &token.key().as_bytes()[..20]].concat())
            .arg("value");
        let mut admin = Admin::connect(&url).await.unwrap();
        admin.take(&push).await.unwrap();
        let error = store.load(&token).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        store.delete(&token, None).await.unwrap();
        assert_eq!(store.load(&token).await.unwrap(), None);
    }
}

#[tokio::test]
async fn the_index_of_a_subject_who_comes_and_goes_stays_small() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = RedisStore::open(container.url()).await.unwrap();
    let mut admin = Admin::connect(container.url()).await.unwrap();
    let alice = Subject::new("alice").unwrap();
    let of_alice = record(Some(alice.clone()));
    let mut living = BTreeSet::new();
    for _ in 0..10 {
        living.insert(store.create(token(), &of_alice).await.unwrap().key());
    }
    let mut most = 0;
    for _ in 0..1000 {
        let token = store.create(token(), &of_alice).await.unwrap();
        store.delete(&token, None).await.unwrap();
        most = most.max(members(&mut admin, "alice").await.len());
    }
    // About as many dead as living; that there are forty once has a probability of 2e-21.
    assert!(most < 50, "{most} members");
    let listed = store.subjects().unwrap().list(&alice, None, 100).await;
    let listed: BTreeSet<_> = listed.unwrap().iter().map(|session| session.key).collect();
    assert_eq!(listed, living);
    assert_eq!(members(&mut admin, "alice").await.len(), 10);
}

#[tokio::test]
async fn a_session_that_was_changed_is_never_pruned() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = RedisStore::open(container.url()).await.unwrap();
    let mut admin = Admin::connect(container.url()).await.unwrap();
    let alice = Subject::new("alice").unwrap();
    let (first, of_alice) = (record(None), record(Some(alice.clone())));
    let token = store.create(token(), &first).await.unwrap();
    let changed = store.update(&token, first.revision, &of_alice).await;
    changed.unwrap();
    let later = of_alice.expires_at + Duration::from_secs(60 * 60 * 24 * 90);
    store.touch(&token, later).await.unwrap();
    for _ in 0..100 {
        let other = store.create(support::token(), &of_alice).await.unwrap();
        store.delete(&other, None).await.unwrap();
    }
    let listed = store.subjects().unwrap().list(&alice, None, 10).await;
    let listed: Vec<_> = listed.unwrap().iter().map(|session| session.key).collect();
    assert_eq!(listed, [token.key()]);
    assert_eq!(members(&mut admin, "alice").await, [token.key().as_bytes()]);
}

#[tokio::test]
async fn a_full_server_refuses_the_sessions_of_a_subject_and_ends_those_it_has() {
    for server in [Server::Redis, Server::Valkey] {
        let container = server.setup().start().await.unwrap();
        let store = RedisStore::open(container.url()).await.unwrap();
        let mut admin = Admin::connect(container.url()).await.unwrap();
        let alice = Subject::new("alice").unwrap();
        let of_alice = record(Some(alice.clone()));
        let mut tokens = Vec::new();
        for _ in 0..4 {
            tokens.push(store.create(token(), &of_alice).await.unwrap());
        }
        let nobodys = record(None);
        let other = store.create(token(), &nobodys).await.unwrap();
        ::redis::cmd("CONFIG")
            .arg(&["SET", "maxmemory", "1"])
            .exec_async(admin.connection())
            .await
            .unwrap();
        let fresh = token();
        for refused in [
            store.create(fresh.clone(), &of_alice).await,
            store.update(&other, nobodys.revision, &of_alice).await,
            store
                .update(&tokens[0], of_alice.revision, &record(Some(alice.clone())))
                .await,
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Full);
        }
        assert_eq!(store.load(&fresh).await.unwrap(), None);
        assert_eq!(store.load(&other).await.unwrap(), Some(nobodys));
        assert_eq!(store.load(&tokens[0]).await.unwrap(), Some(of_alice));
        assert_eq!(members(&mut admin, "alice").await.len(), 4);
        let index = store.subjects().unwrap();
        store.delete(&tokens[0], None).await.unwrap();
        assert!(index.revoke(&alice, &tokens[1].key()).await.unwrap());
        assert_eq!(index.list(&alice, None, 10).await.unwrap().len(), 2);
        assert_eq!(index.revoke_all(&alice, None).await.unwrap(), 2);
        assert!(members(&mut admin, "alice").await.is_empty());
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
    let error = options.prefix("other").open().await.unwrap_err();
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
async fn a_client_is_known_by_its_certificate() {
    let container = tls_setup().start().await.unwrap();
    let setting = ["config", "set", "tls-auth-clients", "yes"];
    let tls = ["redis-cli", "--tls", "--cacert", "/tls/ca.pem"];
    container
        .exec(&[&tls[..], &setting].concat())
        .await
        .unwrap();
    let options = RedisOptions::from_url(container.url()).unwrap();
    let options = options.root_certificates(CA);
    options.clone().open().await.unwrap_err();
    let options = options.client_certificate(CERTIFICATE, KEY);
    use_everything(&options.open().await.unwrap()).await;
}

#[tokio::test]
async fn a_write_waits_for_the_replicas_that_have_to_confirm_it() {
    let set = RedisSentinel::start().await.unwrap();
    let master = set.master().await.unwrap();
    let options = RedisOptions::from_url(&format!("redis://127.0.0.1:{master}")).unwrap();
    let store = options.replicas(1).open().await.unwrap();
    use_everything(&store).await;
    let servers = set.servers().iter();
    let replica = servers.copied().find(|port| *port != master).unwrap();
    set.kill(replica).await.unwrap();
    let (token, record) = (token(), record(None));
    let created = store.create(token.clone(), &record).await;
    assert_eq!(created.unwrap_err().kind(), ErrorKind::Ambiguous);
    assert_eq!(store.load(&token).await.unwrap(), Some(record));
}

#[tokio::test]
async fn connections_have_the_name_that_they_are_given() {
    let container = Server::Redis.setup().start().await.unwrap();
    let options = RedisOptions::from_url(container.url()).unwrap();
    let store = options.client_name("shop").open().await.unwrap();
    use_everything(&store).await;
    let clients = container.exec(&["redis-cli", "client", "list"]).await;
    assert!(clients.unwrap().contains("name=shop"));
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
    let store = options.connections(1).open_lazily().unwrap();
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
    let options = RedisOptions::from_url(&format!("redis://{}", proxy.address())).unwrap();
    let store = options.connections(1).open().await.unwrap();
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
    let options = RedisOptions::from_url(&format!("{url}/2")).unwrap();
    let store = options.connections(1).open().await.unwrap();
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
    first.delete(&token, None).await.unwrap();
}

#[tokio::test]
async fn no_key_is_immortal() {
    let container = Server::Redis.setup().start().await.unwrap();
    let store = RedisStore::open(container.url()).await.unwrap();
    let subject = Some(Subject::new("carol").unwrap());
    let records = [record(subject.clone()), record(subject.clone())];
    let token = store.create(token(), &records[0]).await.unwrap();
    let other = store.create(support::token(), &record(None)).await.unwrap();
    store
        .update(&token, records[0].revision, &records[1])
        .await
        .unwrap();
    let later = records[1].expires_at + Duration::from_secs(60 * 60 * 24 * 90);
    store.touch(&token, later).await.unwrap();
    store.touch(&other, later).await.unwrap();
    // What has ended leaves nothing.
    for subject in [None, subject] {
        let (first, mut past) = (record(subject.clone()), record(subject));
        past.expires_at = past.created_at - Duration::from_secs(1);
        let touched = store.create(support::token(), &first).await.unwrap();
        store.touch(&touched, past.expires_at).await.unwrap();
        let updated = store.create(support::token(), &first).await.unwrap();
        store.update(&updated, first.revision, &past).await.unwrap();
        store.create(support::token(), &past).await.unwrap();
    }
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

/// What is in the index of a subject.
async fn members(admin: &mut Admin, subject: &str) -> Vec<Vec<u8>> {
    let mut range = ::redis::cmd("ZRANGE");
    range.arg(format!("session@{subject}")).arg(0).arg(-1);
    let members = range.query_async(admin.connection()).await;
    members.expect("the server answers")
}
