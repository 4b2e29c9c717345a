//! A list of ended sessions: the second half of Y08 of the catalogue, and its edges.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::{self, HOUR, START, clock, keyring, record, token};
use async_trait::async_trait;
use sessionkit::{
    Capabilities, Durability, Error, ErrorKind, Keyring, ManualClock, MemoryStore, Record, Result,
    Revision, SessionStore, SubjectIndex, Timestamp, Token,
};
use sessionkit_cookie::CookieStore;

const LONGEST: Duration = Duration::from_secs(2 * 3600);

struct Setup {
    clock: Arc<ManualClock>,
    list: Arc<MemoryStore>,
    keyring: Keyring,
    store: CookieStore,
}

fn setup() -> Setup {
    let (clock, keyring) = (clock(), keyring());
    let list = Arc::new(MemoryStore::new().with_clock(clock.clone()));
    let store = CookieStore::new(keyring.clone())
        .with_clock(clock.clone())
        .with_revocations(list.clone(), LONGEST)
        .unwrap();
    Setup {
        clock,
        list,
        keyring,
        store,
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn assert_ended(store: &CookieStore, token: &Token, record: &Record) {
    assert_eq!(store.load(token).await.unwrap(), None);
    for result in [
        store.update(token, record.revision, record).await,
        store.touch(token, record.expires_at).await,
        store
            .rotate(token, support::token(), record.revision, record)
            .await,
    ] {
        assert_eq!(kind(result), ErrorKind::Missing);
    }
}

#[tokio::test]
async fn after_delete_no_copy_of_the_session_is_taken() {
    let Setup { store, .. } = setup();
    let (old, new, other) = (record("old"), record("new"), record("other"));
    let created = store.create(token(), &old).await.unwrap();
    let bystander = store.create(token(), &other).await.unwrap();
    let updated = store.update(&created, old.revision, &new).await.unwrap();
    let touched = store.touch(&updated, START + LONGEST).await.unwrap();
    assert_eq!(store.load(&created).await.unwrap(), Some(old.clone()));

    store.delete(&updated).await.unwrap();
    assert_ended(&store, &created, &old).await;
    assert_ended(&store, &updated, &new).await;
    assert_ended(&store, &touched, &new).await;
    assert_eq!(store.load(&bystander).await.unwrap(), Some(other));
}

#[tokio::test]
async fn delete_may_be_repeated_and_ignores_what_is_not_ours() {
    let Setup { store, list, .. } = setup();
    let held = store.create(token(), &record("data")).await.unwrap();
    for _ in 0..3 {
        store.delete(&held).await.unwrap();
    }
    assert_eq!(list.len(), 1);
    store.delete(&token()).await.unwrap();
    assert_eq!(list.len(), 1);
}

#[tokio::test]
async fn rotate_ends_every_copy_of_the_old_token() {
    let Setup { store, .. } = setup();
    let (old, new) = (record("old"), record("new"));
    let created = store.create(token(), &old).await.unwrap();
    let touched = store.touch(&created, old.expires_at).await.unwrap();
    let rotated = store
        .rotate(&touched, token(), old.revision, &new)
        .await
        .unwrap();
    assert_ended(&store, &created, &old).await;
    assert_ended(&store, &touched, &old).await;
    assert_eq!(store.load(&rotated).await.unwrap(), Some(new));
}

#[tokio::test]
async fn an_entry_outlives_every_token_that_it_revokes() {
    let Setup {
        store, list, clock, ..
    } = setup();
    let record = record("data");
    let first = store.create(token(), &record).await.unwrap();
    let last = store.touch(&first, START + LONGEST).await.unwrap();
    // The copy that is deleted expires long before the one that was kept.
    store.delete(&first).await.unwrap();
    let mut now = START;
    while now < START + LONGEST {
        clock.set(now);
        assert_eq!(store.load(&last).await.unwrap(), None, "{now:?}");
        now = now + HOUR / 4;
    }
    clock.set(START + LONGEST + HOUR);
    assert_eq!(list.sweep(10).await.unwrap(), 1, "entries do not stay");
}

#[tokio::test]
async fn a_clock_that_is_set_back_revives_nothing() {
    let Setup { store, clock, .. } = setup();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    clock.set(record.expires_at + HOUR);
    store.delete(&held).await.unwrap();
    clock.set(START);
    assert_eq!(store.load(&held).await.unwrap(), None);
}

#[tokio::test]
async fn a_session_that_would_outlive_its_entry_is_refused() {
    let Setup { store, .. } = setup();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    let mut long = record.clone();
    long.expires_at = START + LONGEST + Duration::from_millis(1);
    for result in [
        store.create(token(), &long).await,
        store.update(&held, record.revision, &long).await,
        store.touch(&held, long.expires_at).await,
        store.rotate(&held, token(), record.revision, &long).await,
    ] {
        assert_eq!(kind(result), ErrorKind::InvalidConfig);
    }
    assert_eq!(store.load(&held).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_token_from_before_the_list_ends_in_time_to_be_revocable() {
    let Setup {
        store,
        clock,
        keyring,
        ..
    } = setup();
    let without_list = CookieStore::new(keyring).with_clock(clock.clone());
    let mut record = record("data");
    record.expires_at = Timestamp::MAX;
    let held = without_list.create(token(), &record).await.unwrap();
    clock.set(START + LONGEST - Duration::from_millis(1));
    assert!(store.load(&held).await.unwrap().is_some());
    clock.set(START + LONGEST);
    assert_eq!(store.load(&held).await.unwrap(), None);
}

#[tokio::test]
async fn a_list_has_to_keep_its_records_on_a_server() {
    let keyring = keyring();
    let list = Arc::new(CookieStore::new(keyring.clone()));
    let result = CookieStore::new(keyring.clone()).with_revocations(list, LONGEST);
    assert_eq!(kind(result), ErrorKind::InvalidConfig);
    let list = Arc::new(MemoryStore::new());
    let result = CookieStore::new(keyring).with_revocations(list, Duration::ZERO);
    assert_eq!(kind(result), ErrorKind::InvalidConfig);
}

#[test]
fn the_store_is_as_durable_as_its_list() {
    let Setup { store, keyring, .. } = setup();
    assert_eq!(store.capabilities().durability, Durability::Process);
    let without_list = CookieStore::new(keyring).capabilities();
    assert_eq!(without_list.durability, Durability::Disk);
}

/// A memory store whose answers can be made to fail, before or after they took effect.
#[derive(Debug, Default)]
struct Failing {
    inner: MemoryStore,
    loads_fail: AtomicBool,
    creates_fail: AtomicBool,
    creates_lose_their_answer: AtomicBool,
}

impl Failing {
    fn set(flag: &AtomicBool) {
        flag.store(true, Ordering::SeqCst);
    }

    fn check(flag: &AtomicBool, kind: ErrorKind) -> Result<()> {
        match flag.load(Ordering::SeqCst) {
            true => Err(Error::from(kind)),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl SessionStore for Failing {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        Self::check(&self.creates_fail, ErrorKind::Unavailable)?;
        let result = self.inner.create(token, record).await;
        Self::check(&self.creates_lose_their_answer, ErrorKind::Ambiguous)?;
        result
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        Self::check(&self.loads_fail, ErrorKind::Unavailable)?;
        self.inner.load(token).await
    }

    async fn update(&self, _: &Token, _: Revision, _: &Record) -> Result<Token> {
        unreachable!("entries never change")
    }

    async fn touch(&self, _: &Token, _: Timestamp) -> Result<Token> {
        unreachable!("entries never change")
    }

    async fn rotate(&self, _: &Token, _: Token, _: Revision, _: &Record) -> Result<Token> {
        unreachable!("entries never move")
    }

    async fn delete(&self, _: &Token) -> Result<()> {
        unreachable!("entries are never deleted")
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.inner.sweep(limit).await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        None
    }
}

fn failing() -> (Arc<Failing>, CookieStore) {
    let clock = clock();
    let list = Arc::new(Failing {
        inner: MemoryStore::new().with_clock(clock.clone()),
        ..Failing::default()
    });
    let store = CookieStore::new(keyring())
        .with_clock(clock)
        .with_revocations(list.clone(), LONGEST)
        .unwrap();
    (list, store)
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_an_error_and_not_a_session() {
    let (list, store) = failing();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    Failing::set(&list.loads_fail);
    assert_eq!(kind(store.load(&held).await), ErrorKind::Unavailable);
    for result in [
        store.update(&held, record.revision, &record).await,
        store.touch(&held, record.expires_at).await,
        store.rotate(&held, token(), record.revision, &record).await,
    ] {
        assert_eq!(kind(result), ErrorKind::Unavailable);
    }
    assert_eq!(
        store.load(&token()).await.unwrap(),
        None,
        "forged: no lookup"
    );
}

#[tokio::test]
async fn a_list_that_cannot_be_written_leaves_the_session_alive() {
    let (list, store) = failing();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    Failing::set(&list.creates_fail);
    assert_eq!(kind(store.delete(&held).await), ErrorKind::Unavailable);
    let result = store.rotate(&held, token(), record.revision, &record).await;
    assert_eq!(kind(result), ErrorKind::Unavailable);
    assert_eq!(store.load(&held).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_lost_answer_of_the_list_is_read_back() {
    let (list, store) = failing();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    Failing::set(&list.creates_lose_their_answer);
    let rotated = store
        .rotate(&held, token(), record.revision, &record)
        .await
        .unwrap();
    assert_ended(&store, &held, &record).await;
    store.delete(&rotated).await.unwrap();
    assert_ended(&store, &rotated, &record).await;
}

#[tokio::test]
async fn a_lost_answer_that_cannot_be_read_back_is_ambiguous() {
    let (list, store) = failing();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    Failing::set(&list.creates_lose_their_answer);
    Failing::set(&list.loads_fail);
    assert_eq!(kind(store.delete(&held).await), ErrorKind::Ambiguous);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_parallel_rotations_one_succeeds() {
    let Setup { store, list, .. } = setup();
    for _ in 0..50 {
        let record = record("data");
        let held = store.create(token(), &record).await.unwrap();
        let barrier = Arc::new(tokio::sync::Barrier::new(8));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (store, held, record) = (store.clone(), held.clone(), record.clone());
                let barrier = Arc::clone(&barrier);
                tokio::spawn(async move {
                    barrier.wait().await;
                    store.rotate(&held, token(), record.revision, &record).await
                })
            })
            .collect();
        let mut winners = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(token) => {
                    winners += 1;
                    assert!(store.load(&token).await.unwrap().is_some());
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Missing),
            }
        }
        assert_eq!(winners, 1);
    }
    assert_eq!(list.len(), 50);
}

#[tokio::test]
async fn entries_do_not_meet_the_sessions_of_the_same_store() {
    let Setup { store, list, .. } = setup();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    let beside = list.create(token(), &record).await.unwrap();
    store.delete(&held).await.unwrap();
    assert_eq!(list.load(&beside).await.unwrap(), Some(record));
    assert_eq!(list.load(&held).await.unwrap(), None);
}
