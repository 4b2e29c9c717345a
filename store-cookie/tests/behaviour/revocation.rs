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
    Capabilities, Durability, Error, ErrorKind, Keyring, ManualClock, MemoryStore, Persistence,
    Record, Result, Revision, SessionConfig, SessionManager, SessionStore, SubjectIndex, Timestamp,
    Token,
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

/// No call takes the token for a session, though it might be said to have come late.
async fn assert_dead(store: &CookieStore, token: &Token, record: &Record) {
    for result in [
        store.update(token, record.revision, record).await,
        store.touch(token, record.expires_at).await,
        store.renew(token, record.revision, record).await,
    ] {
        assert_eq!(kind(result), ErrorKind::Missing);
    }
}

async fn assert_ended(store: &CookieStore, token: &Token, record: &Record) {
    assert_eq!(store.load(token).await.unwrap(), None);
    assert_dead(store, token, record).await;
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

    assert!(store.delete(&updated, None).await.unwrap());
    assert_ended(&store, &created, &old).await;
    assert_ended(&store, &updated, &new).await;
    assert_ended(&store, &touched, &new).await;
    assert_eq!(store.load(&bystander).await.unwrap(), Some(other));
}

#[tokio::test]
async fn one_delete_says_that_it_ended_the_session_and_what_is_not_ours_is_ignored() {
    let Setup { store, list, .. } = setup();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    assert!(store.delete(&held, Some(record.revision)).await.unwrap());
    for expected in [None, Some(record.revision)] {
        assert!(!store.delete(&held, expected).await.unwrap());
    }
    assert_eq!(list.len(), 1);
    assert!(!store.delete(&token(), None).await.unwrap());
    assert_eq!(list.len(), 1);
}

#[tokio::test]
async fn a_delete_of_another_revision_than_the_tokens_own_is_a_conflict() {
    let Setup { store, list, .. } = setup();
    let (old, new) = (record("old"), record("new"));
    let held = store.create(token(), &old).await.unwrap();
    let updated = store.update(&held, old.revision, &new).await.unwrap();
    for (token, other) in [(&held, &new), (&updated, &old)] {
        let deleted = store.delete(token, Some(other.revision)).await;
        assert_eq!(kind(deleted), ErrorKind::Conflict);
    }
    assert_eq!(list.len(), 0);
    assert_eq!(store.load(&held).await.unwrap(), Some(old));
}

#[tokio::test]
async fn a_renewal_ends_every_copy_from_before_it() {
    let Setup {
        store, clock, list, ..
    } = setup();
    let (old, new) = (record("old"), record("new"));
    let created = store.create(token(), &old).await.unwrap();
    let touched = store.touch(&created, old.expires_at).await.unwrap();
    let renewed = store.renew(&touched, old.revision, &new).await.unwrap();
    assert_eq!(store.load(&renewed).await.unwrap(), Some(new.clone()));
    let newest = record("newest");
    let again = store.renew(&renewed, new.revision, &newest).await.unwrap();
    for (token, record) in [(&created, &old), (&touched, &old), (&renewed, &new)] {
        assert_dead(&store, token, record).await;
    }
    assert_eq!(store.load(&again).await.unwrap(), Some(newest.clone()));
    let updated = store.update(&again, newest.revision, &new).await.unwrap();
    assert_eq!(store.load(&updated).await.unwrap(), Some(new));
    assert_eq!(list.len(), 1, "one entry for the family");
    // By then nobody is late any more.
    clock.advance(Duration::from_secs(30));
    assert_ended(&store, &created, &old).await;
}

#[tokio::test]
async fn a_request_that_comes_late_after_a_renewal_is_told_for_thirty_seconds() {
    let Setup { store, clock, .. } = setup();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    store.renew(&held, record.revision, &record).await.unwrap();
    clock.advance(Duration::from_millis(29_999));
    assert_eq!(kind(store.load(&held).await), ErrorKind::Conflict);
    clock.advance(Duration::from_millis(1));
    assert_eq!(store.load(&held).await.unwrap(), None);
    // A host whose clock is behind by hours does not tell it for hours.
    clock.set(START - HOUR);
    assert_eq!(store.load(&held).await.unwrap(), None);
}

#[tokio::test]
async fn a_sign_out_beside_a_renewal_ends_both_copies() {
    let Setup { store, .. } = setup();
    let (old, new) = (record("old"), record("new"));
    let held = store.create(token(), &old).await.unwrap();
    let renewed = store.renew(&held, old.revision, &new).await.unwrap();
    assert!(store.delete(&held, Some(old.revision)).await.unwrap());
    assert_ended(&store, &held, &old).await;
    assert_ended(&store, &renewed, &new).await;
    assert!(!store.delete(&renewed, None).await.unwrap());
}

#[tokio::test]
async fn a_write_after_a_sign_out_brings_nothing_back() {
    let Setup { store, .. } = setup();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    let late = store.touch(&held, record.expires_at).await.unwrap();
    store.delete(&held, None).await.unwrap();
    assert_ended(&store, &late, &record).await;
}

#[tokio::test]
async fn a_renewal_that_is_repeated_knows_its_own_entry() {
    let Setup { store, list, .. } = setup();
    let (old, new) = (record("old"), record("new"));
    let held = store.create(token(), &old).await.unwrap();
    for _ in 0..3 {
        let renewed = store.renew(&held, old.revision, &new).await.unwrap();
        assert_eq!(store.load(&renewed).await.unwrap(), Some(new.clone()));
    }
    let other = store.renew(&held, old.revision, &record("other")).await;
    assert_eq!(kind(other), ErrorKind::Missing);
    assert_eq!(list.len(), 1);
}

#[tokio::test]
async fn the_end_of_an_expired_copy_ends_the_others_and_no_live_session() {
    let Setup { store, clock, .. } = setup();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    let touched = store.touch(&held, START + LONGEST).await.unwrap();
    clock.set(record.expires_at);
    assert!(!store.delete(&held, Some(record.revision)).await.unwrap());
    assert_ended(&store, &touched, &record).await;
}

/// A generation that has ended does not come back when its entry leaves the list, however often the
/// family is renewed and prolonged meanwhile.
#[tokio::test]
async fn entries_of_renewals_outlive_the_generations_that_they_end() {
    let Setup {
        store, list, clock, ..
    } = setup();
    let mut tokens = Vec::new();
    let mut record = record("data");
    let mut held = store.create(token(), &record).await.unwrap();
    let mut now = START;
    for round in 0..40 {
        now = now + HOUR / 4;
        clock.set(now);
        list.sweep(100).await.unwrap();
        let ends = now + LONGEST;
        held = store.touch(&held, ends).await.unwrap();
        for (age, old) in tokens.iter().enumerate() {
            let loaded = store.load(old).await.unwrap();
            assert_eq!(loaded, None, "round {round}, generation {age}");
        }
        if round % 7 == 0 {
            tokens.push(held.clone());
            let new = support::record("data");
            let new = Record {
                expires_at: ends,
                ..new
            };
            held = store.renew(&held, record.revision, &new).await.unwrap();
            record = new;
        }
    }
    assert_eq!(tokens.len(), 6);
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
    store.delete(&first, None).await.unwrap();
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
    store.delete(&held, None).await.unwrap();
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
        store.renew(&held, record.revision, &long).await,
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
    writes_fail: AtomicBool,
    writes_conflict: AtomicBool,
    writes_lose_their_answer: AtomicBool,
    entries_are_damaged: AtomicBool,
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

    fn before(&self) -> Result<()> {
        Self::check(&self.writes_fail, ErrorKind::Unavailable)?;
        Self::check(&self.writes_conflict, ErrorKind::Conflict)
    }

    fn after(&self) -> Result<()> {
        Self::check(&self.writes_lose_their_answer, ErrorKind::Ambiguous)
    }
}

#[async_trait]
impl SessionStore for Failing {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        self.before()?;
        let result = self.inner.create(token, record).await;
        self.after()?;
        result
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        Self::check(&self.loads_fail, ErrorKind::Unavailable)?;
        let mut found = self.inner.load(token).await?;
        if let Some(found) = &mut found
            && self.entries_are_damaged.load(Ordering::SeqCst)
        {
            found.data = found.data.slice(1..);
        }
        Ok(found)
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        self.before()?;
        let result = self.inner.update(token, expected, record).await;
        self.after()?;
        result
    }

    async fn touch(&self, _: &Token, _: Timestamp) -> Result<Token> {
        unreachable!("entries are replaced as a whole")
    }

    async fn delete(&self, _: &Token, _: Option<Revision>) -> Result<bool> {
        unreachable!("entries are never deleted")
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.inner.sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.before()
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
    store.ping().await.unwrap();
    Failing::set(&list.writes_fail);
    assert_eq!(kind(store.ping().await), ErrorKind::Unavailable);
    assert_eq!(
        kind(store.delete(&held, None).await),
        ErrorKind::Unavailable
    );
    let result = store.renew(&held, record.revision, &record).await;
    assert_eq!(kind(result), ErrorKind::Unavailable);
    assert_eq!(store.load(&held).await.unwrap(), Some(record));
}

#[tokio::test]
async fn an_entry_that_keeps_changing_ends_in_an_error() {
    let (list, store) = failing();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    Failing::set(&list.writes_conflict);
    assert_eq!(
        kind(store.delete(&held, None).await),
        ErrorKind::Unavailable
    );
    assert_eq!(store.load(&held).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_lost_answer_of_the_list_is_read_back() {
    let (list, store) = failing();
    let (old, new, newer) = (record("old"), record("new"), record("newer"));
    let held = store.create(token(), &old).await.unwrap();
    Failing::set(&list.writes_lose_their_answer);
    // The first write creates the entry, the others replace it.
    let renewed = store.renew(&held, old.revision, &new).await.unwrap();
    assert_dead(&store, &held, &old).await;
    let again = store.renew(&renewed, new.revision, &newer).await.unwrap();
    assert_dead(&store, &renewed, &new).await;
    assert!(store.delete(&again, None).await.unwrap());
    assert_ended(&store, &again, &newer).await;
}

#[tokio::test]
async fn a_lost_answer_that_cannot_be_read_back_is_ambiguous() {
    let (list, store) = failing();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    Failing::set(&list.writes_lose_their_answer);
    Failing::set(&list.loads_fail);
    assert_eq!(kind(store.delete(&held, None).await), ErrorKind::Ambiguous);
    let renewed = store.renew(&held, record.revision, &record).await;
    assert_eq!(kind(renewed), ErrorKind::Ambiguous);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_an_error_and_not_a_session() {
    let (list, store) = failing();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    store.delete(&held, None).await.unwrap();
    Failing::set(&list.entries_are_damaged);
    assert_eq!(kind(store.load(&held).await), ErrorKind::Corrupt);
    assert_eq!(kind(store.delete(&held, None).await), ErrorKind::Corrupt);
}

#[tokio::test]
async fn entries_do_not_meet_the_sessions_of_the_same_store() {
    let Setup { store, list, .. } = setup();
    let record = record("data");
    let held = store.create(token(), &record).await.unwrap();
    let beside = list.create(token(), &record).await.unwrap();
    store.delete(&held, None).await.unwrap();
    assert_eq!(list.load(&beside).await.unwrap(), Some(record));
    assert_eq!(list.load(&held).await.unwrap(), None);
}

#[test]
fn a_manager_whose_sessions_would_outlive_the_list_is_not_built() {
    let Setup { store, keyring, .. } = setup();
    assert_eq!(store.capabilities().max_lifetime, Some(LONGEST));
    let without_list = CookieStore::new(keyring.clone()).capabilities();
    assert_eq!(without_list.max_lifetime, None);
    let built = |idle, persistence| {
        let config = SessionConfig::new(store.clone())
            .idle_timeout(idle)
            .persistence(persistence);
        SessionManager::builder(keyring.clone())
            .session("id", config)
            .build()
            .map(drop)
    };
    let more = LONGEST + Duration::from_secs(1);
    built(LONGEST, Persistence::Browser).unwrap();
    built(HOUR, Persistence::For(LONGEST)).unwrap();
    for refused in [
        built(more, Persistence::Browser),
        built(HOUR, Persistence::For(more)),
        built(more, Persistence::For(HOUR)),
    ] {
        assert_eq!(kind(refused), ErrorKind::InvalidConfig);
    }
}
