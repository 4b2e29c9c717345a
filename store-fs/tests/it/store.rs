//! What is special to this store, one call at a time.

use std::{
    fmt, fs,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::Context,
    time::Duration,
};

use crate::support::{Fixture, MINUTE, NOW, kind, record, record_of, snapshot, token, token_of};
use sessionkit::{
    Clock, Durability, ErrorKind, ManualClock, Record, SessionStore, Subject, SubjectIndex,
    Timestamp,
};
use sessionkit_fs::{FsOptions, FsStore, Quota, SyncPolicy};
use tokio::runtime::Handle;

const FULL: Option<ErrorKind> = Some(ErrorKind::Full);

fn index(store: &FsStore) -> &dyn SubjectIndex {
    store.subjects().unwrap()
}

#[tokio::test]
async fn sessions_are_found_after_the_store_was_closed() {
    let fixture = Fixture::new();
    let (token, record) = (token(), record_of("alice", "kept"));
    let store = fixture.open().await;
    store.create(token.clone(), &record).await.unwrap();
    drop(store);
    let store = fixture.open().await;
    assert_eq!(store.load(&token).await.unwrap(), Some(record));
}

#[tokio::test]
async fn every_policy_keeps_the_contract_and_declares_what_survives() {
    for (sync, durability) in [
        (SyncPolicy::Full, Durability::Disk),
        (SyncPolicy::Data, Durability::System),
        (SyncPolicy::None, Durability::System),
    ] {
        let fixture = Fixture::new();
        let store = fixture
            .options()
            .sync(sync)
            .open(fixture.root())
            .await
            .unwrap();
        assert_eq!(store.capabilities().durability, durability);
        let token = token();
        let (first, second) = (record("first"), record("second"));
        store.create(token.clone(), &first).await.unwrap();
        store.update(&token, first.revision, &second).await.unwrap();
        assert_eq!(store.load(&token).await.unwrap().as_ref(), Some(&second));
        assert!(store.delete(&token, Some(second.revision)).await.unwrap());
        assert_eq!(store.load(&token).await.unwrap(), None);
        store.ping().await.unwrap();
    }
    assert_eq!(
        Fixture::new().open().await.sync_policy(),
        SyncPolicy::Full,
        "the default"
    );
}

#[tokio::test]
async fn a_quota_of_sessions_counts_every_handle() {
    let fixture = Fixture::new();
    let options = || fixture.options().quota(Quota::Sessions(10));
    let one = options().open(fixture.root()).await.unwrap();
    let other = options().open(fixture.root()).await.unwrap();
    for number in 0..10 {
        let store = if number % 2 == 0 { &one } else { &other };
        store.create(token_of(number), &record("")).await.unwrap();
    }
    for store in [&one, &other] {
        assert_eq!(kind(store.create(token_of(10), &record("")).await), FULL);
        assert_eq!(store.load(&token_of(10)).await.unwrap(), None);
    }
    // What is there goes on: writes, moves and logouts.
    let old = one.load(&token_of(0)).await.unwrap().unwrap();
    other
        .update(&token_of(0), old.revision, &record("longer"))
        .await
        .unwrap();
    assert_eq!(kind(other.create(token_of(10), &record("")).await), FULL);
    assert!(other.delete(&token_of(1), None).await.unwrap());
    assert!(!other.delete(&token_of(1), None).await.unwrap());
    one.create(token_of(10), &record("")).await.unwrap();
    assert_eq!(kind(other.create(token_of(11), &record("")).await), FULL);
}

#[tokio::test]
async fn expired_sessions_count_until_they_are_swept() {
    let fixture = Fixture::new();
    let options = fixture.options().quota(Quota::Sessions(3));
    let store = options.open(fixture.root()).await.unwrap();
    for number in 0..3 {
        store.create(token_of(number), &record("")).await.unwrap();
    }
    fixture.clock.advance(MINUTE);
    assert_eq!(kind(store.create(token_of(3), &record("")).await), FULL);
    // A place that is taken already is no new one.
    let later = Record {
        expires_at: NOW + MINUTE * 9,
        ..record("")
    };
    store.create(token_of(0), &later).await.unwrap();
    assert_eq!(store.sweep(100).await.unwrap(), 2);
    store.create(token_of(4), &later).await.unwrap();
    store.create(token_of(5), &later).await.unwrap();
    assert_eq!(kind(store.create(token_of(6), &later).await), FULL);
}

#[tokio::test]
async fn a_quota_of_bytes_refuses_what_is_new_and_what_grows() {
    let fixture = Fixture::new();
    let options = fixture.options().quota(Quota::Bytes(10_000));
    let store = options.open(fixture.root()).await.unwrap();
    let (small, large) = (record(&"x".repeat(3000)), record(&"x".repeat(7000)));
    for number in 0..3 {
        store.create(token_of(number), &small).await.unwrap();
    }
    assert_eq!(kind(store.create(token_of(3), &small).await), FULL);
    assert_eq!(
        kind(store.update(&token_of(0), small.revision, &large).await),
        FULL
    );
    assert_eq!(
        store.load(&token_of(0)).await.unwrap().as_ref(),
        Some(&small)
    );
    let smaller = record("x");
    store
        .update(&token_of(0), small.revision, &smaller)
        .await
        .unwrap();
    store.create(token_of(3), &small).await.unwrap();
    store.touch(&token_of(3), NOW + MINUTE).await.unwrap();
}

#[tokio::test]
async fn counts_are_taken_when_a_quota_is_set_and_corrected_by_a_sweep() {
    let fixture = Fixture::new();
    let unlimited = fixture.open().await;
    for number in 0..5 {
        unlimited
            .create(token_of(number), &record(""))
            .await
            .unwrap();
    }
    let options = fixture.options().quota(Quota::Sessions(6));
    let store = options.open(fixture.root()).await.unwrap();
    store.create(token_of(5), &record("")).await.unwrap();
    assert_eq!(kind(store.create(token_of(6), &record("")).await), FULL);
    // This handle does not count.
    unlimited.delete(&token_of(0), None).await.unwrap();
    assert_eq!(kind(store.create(token_of(6), &record("")).await), FULL);
    store.sweep(100).await.unwrap();
    store.create(token_of(6), &record("")).await.unwrap();
    assert_eq!(kind(store.create(token_of(7), &record("")).await), FULL);
    // Damaged counts are taken anew.
    fs::write(fixture.root().join("usage"), "?").unwrap();
    let options = fixture.options().quota(Quota::Sessions(6));
    let store = options.open(fixture.root()).await.unwrap();
    assert_eq!(kind(store.create(token_of(7), &record("")).await), FULL);
}

#[tokio::test]
async fn a_sweep_goes_on_where_the_last_one_stopped() {
    let fixture = Fixture::new();
    let store = fixture
        .options()
        .sync(SyncPolicy::None)
        .open(fixture.root())
        .await
        .unwrap();
    for number in 0..100 {
        let lifetime = if number % 2 == 0 { MINUTE } else { MINUTE * 9 };
        let record = Record {
            expires_at: NOW + lifetime,
            ..record_of("alice", "")
        };
        store.create(token_of(number), &record).await.unwrap();
    }
    fixture.clock.advance(MINUTE);
    let mut swept = Vec::new();
    loop {
        swept.push(store.sweep(7).await.unwrap());
        if swept.last() != Some(&7) {
            break;
        }
    }
    assert_eq!(swept, [7, 7, 7, 7, 7, 7, 7, 1]);
    assert_eq!(store.sweep(7).await.unwrap(), 0);
    let files = snapshot(&fixture.root());
    assert_eq!(
        files.iter().filter(|(path, ..)| path.is_file()).count(),
        100
    );
    fixture.clock.advance(MINUTE * 9);
    assert_eq!(store.sweep(0).await.unwrap(), 0);
    assert_eq!(store.sweep(usize::MAX).await.unwrap(), 50);
    // Directories go when they are empty: those of the index with the next sweep.
    store.sweep(1).await.unwrap();
    assert!(
        snapshot(&fixture.root()).len() <= 1,
        "{:?}",
        snapshot(&fixture.root())
    );
}

#[tokio::test]
async fn a_directory_whose_lock_is_kept_does_not_keep_the_others_from_being_swept() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    for number in 0..30 {
        store.create(token_of(number), &record("")).await.unwrap();
    }
    let paths: Vec<_> = (0..30).map(|n| fixture.path_of(&token_of(n))).collect();
    let busy = paths.iter().min().unwrap();
    let dir = fs::File::open(busy.parent().unwrap()).unwrap();
    dir.lock().unwrap();
    fixture.clock.advance(MINUTE);
    let hasty = fixture.options().deadline(Duration::from_millis(100));
    let hasty = hasty.open(fixture.root()).await.unwrap();
    // As often as it takes on a slow disk; some are in the directory that is kept.
    for _ in 0..50 {
        let swept = hasty.sweep(1_000_000).await;
        assert_eq!(kind(swept), Some(ErrorKind::Unavailable));
    }
    let left: Vec<_> = paths.iter().filter(|path| path.exists()).collect();
    assert!(
        left.iter().all(|path| path.parent() == busy.parent()),
        "{left:?}"
    );
    dir.unlock().unwrap();
    assert_eq!(store.sweep(1_000_000).await.unwrap(), left.len() as u64);
}

#[tokio::test]
async fn a_sweep_believes_the_record_not_the_date_of_the_file() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    store.create(token_of(0), &record("")).await.unwrap();
    let file = fs::File::open(fixture.path_of(&token_of(0))).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(store.sweep(10).await.unwrap(), 0);
    assert!(store.load(&token_of(0)).await.unwrap().is_some());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_load_writes_no_time_of_access() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    store.create(token_of(0), &record("")).await.unwrap();
    let path = fixture.path_of(&token_of(0));
    let never = fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH);
    fs::File::open(&path).unwrap().set_times(never).unwrap();
    assert!(store.load(&token_of(0)).await.unwrap().is_some());
    let accessed = fs::metadata(&path).unwrap().accessed().unwrap();
    assert_eq!(accessed, std::time::UNIX_EPOCH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn creating_and_sweeping_at_once_loses_nothing() {
    let fixture = Fixture::new();
    let store = Arc::new(
        fixture
            .options()
            .sync(SyncPolicy::None)
            .open(fixture.root())
            .await
            .unwrap(),
    );
    let sweeper = Arc::new(
        fixture
            .options()
            .sync(SyncPolicy::None)
            .open(fixture.root())
            .await
            .unwrap(),
    );
    let sweeping = tokio::spawn(async move {
        loop {
            sweeper.sweep(1000).await.unwrap();
        }
    });
    // Each removes its session, so that directories keep becoming empty under the others.
    let tasks = (0..8_u32).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..50 {
                let token = token_of(task * 1000 + round);
                let record = record_of("alice", "x");
                store.create(token.clone(), &record).await.unwrap();
                assert_eq!(store.load(&token).await.unwrap().as_ref(), Some(&record));
                store
                    .update(&token, record.revision, &record)
                    .await
                    .unwrap();
                let listed = store
                    .subjects()
                    .unwrap()
                    .list(&Subject::new("alice").unwrap(), None, 100)
                    .await
                    .unwrap();
                assert!(listed.iter().any(|session| session.key == token.key()));
                store.delete(&token, None).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    sweeping.abort();
}

#[tokio::test]
async fn subjects_are_listed_in_order_page_by_page_and_revoked() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let alice = Subject::new("alice").unwrap();
    let mut keys = Vec::new();
    for number in 0..10 {
        store
            .create(token_of(number), &record_of("alice", ""))
            .await
            .unwrap();
        keys.push(token_of(number).key());
    }
    for hostile in ["alic", "alice ", "../alice", "bob", "a/b", "*", "ALICE"] {
        store
            .create(token(), &record_of(hostile, ""))
            .await
            .unwrap();
        let subject = Subject::new(hostile).unwrap();
        assert_eq!(
            index(&store).list(&subject, None, 10).await.unwrap().len(),
            1
        );
    }
    keys.sort();
    let mut listed = Vec::new();
    while let page = index(&store).list(&alice, listed.last(), 3).await.unwrap()
        && !page.is_empty()
    {
        assert!(page.len() <= 3);
        listed.extend(page.iter().map(|session| session.key));
    }
    assert_eq!(listed, keys);
    assert!(index(&store).revoke(&alice, &keys[0]).await.unwrap());
    assert!(!index(&store).revoke(&alice, &keys[0]).await.unwrap());
    assert!(
        !index(&store)
            .revoke(&Subject::new("bob").unwrap(), &keys[1])
            .await
            .unwrap()
    );
    assert_eq!(
        index(&store)
            .revoke_all(&alice, Some(&keys[5]))
            .await
            .unwrap(),
        8
    );
    assert_eq!(index(&store).list(&alice, None, 10).await.unwrap().len(), 1);
    assert_eq!(index(&store).revoke_all(&alice, None).await.unwrap(), 1);
    assert_eq!(index(&store).revoke_all(&alice, None).await.unwrap(), 0);
}

#[tokio::test]
async fn a_removed_directory_is_an_error_and_not_a_store_without_sessions() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    store
        .create(token_of(0), &record_of("alice", ""))
        .await
        .unwrap();
    fs::remove_dir_all(fixture.root()).unwrap();
    let unavailable = Some(ErrorKind::Unavailable);
    assert_eq!(kind(store.load(&token_of(0)).await), unavailable);
    assert_eq!(
        kind(store.create(token_of(1), &record("")).await),
        unavailable
    );
    assert_eq!(kind(store.delete(&token_of(0), None).await), unavailable);
    assert_eq!(kind(store.sweep(10).await), unavailable);
    assert_eq!(kind(store.ping().await), unavailable);
    let alice = Subject::new("alice").unwrap();
    assert_eq!(kind(index(&store).list(&alice, None, 9).await), unavailable);
}

#[tokio::test]
async fn every_call_ends_by_its_deadline_when_another_process_keeps_the_lock() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let old = record_of("alice", "old");
    let alice = old.subject.clone().unwrap();
    store.create(token_of(0), &old).await.unwrap();
    let path = fixture.path_of(&token_of(0));
    // An open file description of its own is another process to the kernel.
    let dir = fs::File::open(path.parent().unwrap()).unwrap();
    dir.lock().unwrap();
    let hasty = || fixture.options().deadline(Duration::from_millis(200));
    let store = hasty().open(fixture.root()).await.unwrap();
    let unavailable = Some(ErrorKind::Unavailable);
    let new = record_of("alice", "new");
    let (token, key) = (token_of(0), token_of(0).key());
    assert_eq!(
        kind(store.update(&token, old.revision, &new).await),
        unavailable
    );
    assert_eq!(kind(store.touch(&token, new.expires_at).await), unavailable);
    assert_eq!(kind(store.create(token.clone(), &new).await), unavailable);
    assert_eq!(kind(store.delete(&token, None).await), unavailable);
    assert_eq!(kind(index(&store).revoke(&alice, &key).await), unavailable);
    assert_eq!(
        kind(index(&store).revoke_all(&alice, None).await),
        unavailable
    );
    let counting = hasty().quota(Quota::Sessions(9)).open(fixture.root());
    assert_eq!(kind(counting.await), unavailable);
    // Readers take no lock, unless what they find has expired.
    assert_eq!(store.load(&token).await.unwrap().as_ref(), Some(&old));
    assert_eq!(index(&store).list(&alice, None, 9).await.unwrap().len(), 1);
    fixture.clock.advance(MINUTE);
    assert_eq!(kind(store.load(&token).await), unavailable);
    assert_eq!(kind(index(&store).list(&alice, None, 9).await), unavailable);
    assert_eq!(kind(store.sweep(1_000_000).await), unavailable);
    fixture.clock.set(NOW);
    dir.unlock().unwrap();
    // What was refused does not happen later.
    store.update(&token, old.revision, &new).await.unwrap();
    assert_eq!(store.load(&token).await.unwrap(), Some(new));
}

/// A host whose clock is wrong sees a session expired that the others do not; what it does about it
/// must not end the session for them.
#[tokio::test]
async fn a_host_whose_clock_is_ahead_ends_nothing_by_reading() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let old = record_of("alice", "old");
    let alice = old.subject.clone().unwrap();
    store.create(token_of(0), &old).await.unwrap();
    let before = snapshot(&fixture.root());
    let modified = |path| fs::metadata(path).unwrap().modified().unwrap();
    let date = modified(fixture.path_of(&token_of(0)));

    let ahead = Arc::new(ManualClock::new(NOW + MINUTE * 60));
    let ahead = fixture.options().clock(ahead).open(fixture.root()).await;
    let ahead = ahead.unwrap();
    assert_eq!(ahead.load(&token_of(0)).await.unwrap(), None);
    assert_eq!(index(&ahead).list(&alice, None, 9).await.unwrap(), []);
    let missing = Some(ErrorKind::Missing);
    let touched = ahead.touch(&token_of(0), Timestamp::MAX).await;
    assert_eq!(kind(touched), missing);
    let new = record_of("bob", "new");
    let updated = ahead.update(&token_of(0), old.revision, &new).await;
    assert_eq!(kind(updated), missing);
    assert!(
        !index(&ahead)
            .revoke(&alice, &token_of(0).key())
            .await
            .unwrap()
    );
    assert_eq!(index(&ahead).revoke_all(&alice, None).await.unwrap(), 0);

    assert_eq!(snapshot(&fixture.root()), before);
    assert_eq!(modified(fixture.path_of(&token_of(0))), date);
    assert_eq!(store.load(&token_of(0)).await.unwrap(), Some(old));
    assert_eq!(index(&store).list(&alice, None, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_dropped_call_does_not_take_effect_later() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    store.create(token_of(0), &record("")).await.unwrap();
    let path = fixture.path_of(&token_of(0));
    let dir = fs::File::open(path.parent().unwrap()).unwrap();
    dir.lock().unwrap();
    {
        let token = token_of(0);
        let mut delete = pin!(store.delete(&token, None));
        let waker = std::task::Waker::noop();
        assert!(
            delete
                .as_mut()
                .poll(&mut Context::from_waker(waker))
                .is_pending()
        );
    }
    dir.unlock().unwrap();
    // The next call waits for the lock behind the dropped one, if that were still in line.
    store.touch(&token_of(0), NOW + MINUTE).await.unwrap();
    assert!(store.load(&token_of(0)).await.unwrap().is_some());
}

#[tokio::test]
async fn dropping_ten_thousand_calls_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let waker = std::task::Waker::noop();
    for number in 0..10_000 {
        let record = record_of("alice", "");
        let mut create = pin!(store.create(token_of(number), &record));
        let _ = create.as_mut().poll(&mut Context::from_waker(waker));
    }
    let is_temp = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(".tmp")
    };
    let temporaries = || {
        snapshot(&fixture.root())
            .iter()
            .filter(|file| is_temp(&file.0))
            .count()
    };
    // The threads that are still busy with one come to its end.
    for _ in 0..500 {
        if temporaries() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(temporaries(), 0);
    store.create(token(), &record("")).await.unwrap();
}

#[tokio::test]
async fn distant_expiries_are_kept_exactly() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    for (number, millis) in [
        (0, 2_147_483_648_000),
        (1, 4_291_747_200_000),
        (2, i64::MAX),
    ] {
        let expires_at = Timestamp::from_millis(millis);
        let record = Record {
            expires_at,
            ..record("")
        };
        store.create(token_of(number), &record).await.unwrap();
        assert_eq!(store.load(&token_of(number)).await.unwrap(), Some(record));
        fixture.clock.set(expires_at - Duration::from_millis(1));
        assert_eq!(store.sweep(10).await.unwrap(), 0, "{millis}");
        fixture.clock.set(expires_at);
        assert_eq!(store.load(&token_of(number)).await.unwrap(), None);
        assert_eq!(store.sweep(10).await.unwrap(), 1, "{millis}");
        fixture.clock.set(NOW);
    }
}

#[tokio::test]
async fn nothing_secret_is_shown_or_named() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let (token, record) = (token(), record_of("alice-canary", "data-canary"));
    store.create(token.clone(), &record).await.unwrap();
    let hex: String = token
        .expose()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let shown = format!(
        "{store:?} {:?}",
        snapshot(&fixture.root()).iter().map(|s| &s.0)
    );
    assert!(
        !shown.contains(&hex) && !shown.contains("canary"),
        "{shown}"
    );
    let file = fs::read(fixture.path_of(&token)).unwrap();
    assert!(!file.windows(32).any(|window| window == token.expose()));
}

#[tokio::test]
async fn a_deadline_of_zero_is_refused() {
    let fixture = Fixture::new();
    let options = FsOptions::new().deadline(Duration::ZERO);
    assert_eq!(
        kind(options.open(fixture.root()).await),
        Some(ErrorKind::InvalidConfig)
    );
    let options = FsOptions::new().deadline(Duration::MAX);
    let store = options.open(fixture.root()).await.unwrap();
    store.create(token_of(0), &record("")).await.unwrap();
}

#[test]
fn quotas_and_policies_are_read_from_text() {
    for bad in [
        "",
        "MiB",
        "-1",
        "1MB",
        "1 MiB",
        "99999999999999999999",
        "99999999999TiB",
    ] {
        assert!(bad.parse::<Quota>().is_err(), "{bad}");
    }
    assert_eq!("3KiB".parse::<Quota>().unwrap(), Quota::Bytes(3072));
    assert_eq!("full".parse::<SyncPolicy>().unwrap(), SyncPolicy::Full);
    assert_eq!("none".parse::<SyncPolicy>().unwrap(), SyncPolicy::None);
    assert!("Full".parse::<SyncPolicy>().is_err());
}

#[tokio::test]
async fn a_deleted_session_leaves_nothing_in_the_index() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let (anonymous, known) = (record(""), record_of("alice", ""));
    store.create(token_of(0), &known).await.unwrap();
    store.create(token_of(1), &anonymous).await.unwrap();
    // At login.
    store
        .update(&token_of(1), anonymous.revision, &known)
        .await
        .unwrap();
    store.touch(&token_of(1), NOW + MINUTE * 2).await.unwrap();
    for number in 0..3 {
        store.delete(&token_of(number), None).await.unwrap();
    }
    let files = snapshot(&fixture.root());
    assert!(!files.iter().any(|(path, ..)| path.is_file()), "{files:?}");
}

/// A clock that does something when it is asked for the first time.
struct Interrupted {
    clock: Arc<ManualClock>,
    first: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.clock.fmt(f)
    }
}

impl Clock for Interrupted {
    fn now(&self) -> Timestamp {
        let first = self.first.lock().unwrap().take();
        if let Some(first) = first {
            first();
        }
        self.clock.now()
    }
}

/// Its expiry was taken from a file that had been replaced, and the time from a clock that had moved.
#[tokio::test]
async fn a_session_that_is_prolonged_during_an_update_is_not_missing() {
    let fixture = Fixture::new();
    let other = fixture.open().await;
    let old = record("old");
    other.create(token_of(1), &old).await.unwrap();
    let clock = fixture.clock.clone();
    let first = move || {
        let token = token_of(1);
        let touch = other.touch(&token, old.expires_at + 2 * MINUTE);
        Handle::current().block_on(touch).unwrap();
        clock.set(old.expires_at + MINUTE);
    };
    let clock = Interrupted {
        clock: fixture.clock.clone(),
        first: Mutex::new(Some(Box::new(first))),
    };
    let options = fixture.options().clock(Arc::new(clock));
    let store = options.open(fixture.root()).await.unwrap();
    let new = Record {
        expires_at: Timestamp::MAX,
        ..record("new")
    };
    let updated = store.update(&token_of(1), old.revision, &new).await;
    updated.unwrap();
}
