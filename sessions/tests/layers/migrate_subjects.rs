use std::sync::Arc;

use futures_util::FutureExt;
use sessionkit::{
    Label, MemoryStore, Revision, SessionStore, StoreKey, SubjectSession, Token, layers::Migrate,
};

use crate::support::{Stepped, alice, clock, memory, record, token};

type Layer = Migrate<Arc<MemoryStore>, Arc<MemoryStore>>;

fn layer() -> (Arc<MemoryStore>, Arc<MemoryStore>, Layer) {
    let clock = clock();
    let (old, new) = (memory(&clock), memory(&clock));
    let store = Migrate::new(old.clone(), new.clone()).unwrap();
    (old, new, store)
}

/// Begins to move a session and stops after so many steps.
fn interrupt(old: &Arc<MemoryStore>, new: &Arc<MemoryStore>, token: &Token, steps: usize) {
    let store = Migrate::new(Stepped::new(old.clone()), Stepped::new(new.clone())).unwrap();
    let record = record("never stored");
    let mut update = store.update(token, Revision::from_bits(0), &record);
    for _ in 0..steps {
        if (&mut update).now_or_never().is_some() {
            break;
        }
    }
}

async fn list(store: &dyn SessionStore, limit: usize) -> Vec<SubjectSession> {
    let index = store.subjects().unwrap();
    let mut sessions: Vec<SubjectSession> = Vec::new();
    loop {
        let after = sessions.last().map(|session| session.key);
        let page = index.list(&alice(), after.as_ref(), limit).await.unwrap();
        assert!(page.len() <= limit);
        if page.is_empty() {
            return sessions;
        }
        sessions.extend(page);
    }
}

#[tokio::test]
async fn list_merges_both_in_pages_of_any_size_wherever_a_move_was_interrupted() {
    let (old, new, store) = layer();
    let mut keys: Vec<StoreKey> = Vec::new();
    for at in 0..30 {
        let place: &dyn SessionStore = if at % 3 == 0 { &new } else { &old };
        let token = place.create(token(), &record("data")).await.unwrap();
        if at % 3 == 1 {
            interrupt(&old, &new, &token, at / 2);
        }
        keys.push(token.key());
    }
    keys.sort();
    for limit in 1..=31 {
        let listed = list(&store, limit).await;
        let listed_keys: Vec<_> = listed.iter().map(|session| session.key).collect();
        assert_eq!(listed_keys, keys, "{limit}");
        for session in listed {
            assert_eq!(session.label, Label::new("Firefox").unwrap());
        }
    }
}

#[tokio::test]
async fn revoke_ends_a_session_wherever_its_move_was_interrupted() {
    for steps in 0..12 {
        let (old, new, store) = layer();
        let token = old.create(token(), &record("data")).await.unwrap();
        interrupt(&old, &new, &token, steps);
        let index = store.subjects().unwrap();
        assert!(index.revoke(&alice(), &token.key()).await.unwrap());
        assert!(!index.revoke(&alice(), &token.key()).await.unwrap());
        assert_eq!(store.load(&token).await.unwrap(), None);
        assert_eq!(list(&store, 10).await, []);
    }
}

#[tokio::test]
async fn revoke_all_ends_every_session_but_the_one_to_spare() {
    for steps in 0..12 {
        let (old, new, store) = layer();
        let mut tokens = Vec::new();
        for _ in 0..3 {
            let token = old.create(token(), &record("data")).await.unwrap();
            interrupt(&old, &new, &token, steps);
            tokens.push(token);
        }
        tokens.push(new.create(token(), &record("data")).await.unwrap());
        let spared = tokens[1].key();
        let index = store.subjects().unwrap();
        index.revoke_all(&alice(), Some(&spared)).await.unwrap();
        for token in &tokens {
            let live = store.load(token).await.unwrap().is_some();
            assert_eq!(live, token.key() == spared, "{steps}");
        }
        assert_eq!(list(&store, 10).await.len(), 1);
        assert!(index.revoke_all(&alice(), None).await.unwrap() >= 1);
        assert_eq!(store.load(&tokens[1]).await.unwrap(), None);
    }
}

#[tokio::test]
async fn another_subject_revokes_nothing() {
    let (old, _, store) = layer();
    let token = old.create(token(), &record("data")).await.unwrap();
    let bob = sessionkit::Subject::new("bob").unwrap();
    let index = store.subjects().unwrap();
    assert!(!index.revoke(&bob, &token.key()).await.unwrap());
    assert_eq!(index.revoke_all(&bob, None).await.unwrap(), 0);
    assert!(store.load(&token).await.unwrap().is_some());
}
