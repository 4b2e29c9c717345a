//! What many calls that have to wait do to everybody else's.

use std::{fs::File, sync::Arc, time::Duration};

use sessionkit::{ErrorKind, SessionStore};
use tokio::{runtime::Builder, task::JoinSet};

use crate::support::{Fixture, MINUTE, kind, record, record_of, token_of};

/// More than the runtime has threads that may block.
const CALLERS: u32 = 40;

/// Callers that wait for one lock, which another process keeps, leave the threads to the others.
#[test]
fn callers_that_wait_for_one_lock_keep_nobody_else_waiting() {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(8)
        .build()
        .unwrap();
    for what in ["update", "touch", "create", "delete", "load", "index"] {
        runtime.block_on(with_waiting_callers(what));
    }
}

async fn with_waiting_callers(what: &'static str) {
    let fixture = Fixture::new();
    let options = fixture.options().deadline(Duration::from_secs(5));
    let store = Arc::new(options.open(fixture.root()).await.unwrap());
    let busy = record_of("alice", "busy");
    store.create(token_of(0), &busy).await.unwrap();
    let far = sessionkit::Record {
        expires_at: sessionkit::Timestamp::MAX,
        ..record("of somebody else")
    };
    let other = (1..)
        .map(token_of)
        .find(|other| other.key().as_bytes()[0] != token_of(0).key().as_bytes()[0])
        .unwrap();
    store.create(other.clone(), &far).await.unwrap();
    let path = fixture.path_of(&token_of(0));
    let dir = File::open(path.parent().unwrap()).unwrap();
    dir.lock().unwrap();
    if ["load", "index"].contains(&what) {
        // To be sure that it has expired they look again under the lock.
        fixture.clock.advance(MINUTE);
    }

    let mut waiting = JoinSet::new();
    for number in 0..CALLERS {
        let (store, busy) = (Arc::clone(&store), busy.clone());
        waiting.spawn(async move {
            let (token, alice) = (token_of(0), busy.subject.clone().unwrap());
            let index = store.subjects().unwrap();
            match (what, number % 3) {
                ("update", _) => store.update(&token, busy.revision, &busy).await.map(drop),
                ("touch", _) => store.touch(&token, busy.expires_at).await.map(drop),
                ("create", _) => store.create(token, &busy).await.map(drop),
                ("delete", _) => store.delete(&token, None).await.map(drop),
                ("load", _) => store.load(&token).await.map(drop),
                (_, 0) => index.list(&alice, None, 9).await.map(drop),
                (_, 1) => index.revoke(&alice, &token.key()).await.map(drop),
                (_, _) => index.revoke_all(&alice, None).await.map(drop),
            }
        });
    }
    // Each of them comes to wait for a thread, or for its turn.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        let loaded = store.load(&other).await;
        assert_eq!(loaded.unwrap().as_ref(), Some(&far), "beside {what}");
    }
    assert!(waiting.try_join_next().is_none(), "{what}: nobody waited");
    dir.unlock().unwrap();
    for answer in waiting.join_all().await {
        assert_ne!(kind(answer), Some(ErrorKind::Unavailable), "{what}");
    }
}
