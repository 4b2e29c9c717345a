//! Cases that every database has to pass, on two handles of one table that stand for two
//! processes. What the conformance kit does not know of: the sweep's own column, group commits,
//! expired rows in the way.

use std::{future::Future, sync::Arc, time::Duration};

use sessionkit::{
    Clock, ErrorKind, Label, ManualClock, Record, Revision, SessionStore, Timestamp, Token,
};
use tokio::sync::watch;

mod records;

pub(crate) use records::{START, kind, record, subject, token};

/// Two handles and the clock of both.
pub(crate) struct Opened {
    pub(crate) a: Arc<dyn SessionStore>,
    pub(crate) b: Arc<dyn SessionStore>,
    pub(crate) clock: Arc<ManualClock>,
    /// What has to live as long as the handles.
    pub(crate) _keep: Option<Box<dyn std::any::Any + Send>>,
}

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(START))
}

/// A clock that counts how often it is asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) time: ManualClock,
    times: watch::Sender<usize>,
}

impl Asked {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            time: ManualClock::new(START),
            times: watch::Sender::new(0),
        })
    }
}

impl Clock for Asked {
    fn now(&self) -> Timestamp {
        let now = self.time.now();
        self.times.send_modify(|times| *times += 1);
        now
    }
}

pub(crate) fn random_name() -> String {
    format!("t{}", &token().key().to_hex()[..20])
}

/// Runs all of them at a time and collects what they return.
pub(crate) async fn all<T: Send + 'static>(
    calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    let mut outputs = Vec::new();
    for task in tasks {
        outputs.push(task.await.unwrap());
    }
    outputs
}

pub(crate) async fn a_record_comes_back_as_it_was(o: Opened) {
    let every_byte: Vec<u8> = (0..=255).collect();
    for size in [0, 1, 255, 4096, 65_535, 65_536, 1 << 20, 4 << 20] {
        let mut stored = record(&every_byte.repeat(size / 256 + 1)[..size]);
        stored.subject = subject("söme\0 one'\"`;--");
        stored.label = Label::from_stored(" trailing \0 ").unwrap();
        stored.revision = Revision::from_bits(u64::MAX - size as u64);
        stored.expires_at = Timestamp::MAX;
        stored.created_at = Timestamp::MIN;
        let token = o.a.create(token(), &stored).await.unwrap();
        assert_eq!(o.b.load(&token).await.unwrap(), Some(stored), "{size}");
    }
    let too_large = record(&vec![0; (4 << 20) + 1]);
    assert_eq!(
        kind(o.a.create(token(), &too_large).await),
        Some(ErrorKind::TooLarge)
    );
}

pub(crate) async fn one_of_many_creates_succeeds(o: Opened) {
    for _ in 0..4 {
        let token = token();
        let calls = (0..32_u8).map(|i| {
            let store = Arc::clone(if i % 2 == 0 { &o.a } else { &o.b });
            let token = token.clone();
            async move { store.create(token, &record(&[i])).await.map(|_| i) }
        });
        let results = all(calls).await;
        let won: Vec<_> = results.iter().filter_map(|r| r.as_ref().ok()).collect();
        let lost = results.iter().filter_map(|r| r.as_ref().err());
        assert_eq!(won.len(), 1);
        assert!(
            lost.into_iter()
                .all(|error| error.kind() == ErrorKind::Exists)
        );
        let stored = o.a.load(&token).await.unwrap().unwrap();
        assert_eq!(stored.data[..], [*won[0]]);
    }
}

/// Also for those who told the time before: when they get to the row, the session has ended.
pub(crate) async fn an_expiry_that_is_over_ends_a_session_at_once(o: Opened) {
    let before = o.clock.now();
    let over = before + Duration::from_secs(1);
    let now = over + Duration::from_secs(1);
    for end in ["create", "update", "touch"] {
        o.clock.set(now);
        let first = record(b"first");
        let mut last = record(b"last");
        last.expires_at = over;
        let ended = if end == "create" {
            o.a.create(token(), &last).await.unwrap()
        } else {
            let token = o.a.create(token(), &first).await.unwrap();
            match end {
                "update" => o.a.update(&token, first.revision, &last).await.unwrap(),
                _ => o.a.touch(&token, over).await.unwrap(),
            }
        };
        o.clock.set(before);
        let prolonged = o.b.touch(&ended, Timestamp::MAX).await;
        assert_eq!(kind(prolonged), Some(ErrorKind::Missing), "{end}");
        assert_eq!(o.b.load(&ended).await.unwrap(), None, "{end}");
    }
}

pub(crate) async fn an_expired_row_is_replaced_by_a_create(o: Opened) {
    let token = token();
    let mut old = record(b"old");
    old.subject = subject("someone");
    o.a.create(token.clone(), &old).await.unwrap();
    o.clock.set(old.expires_at);
    assert_eq!(o.a.load(&token).await.unwrap(), None);
    assert_eq!(
        kind(o.a.touch(&token, Timestamp::MAX).await),
        Some(ErrorKind::Missing)
    );
    let update = o.a.update(&token, old.revision, &record(b"no")).await;
    assert_eq!(kind(update), Some(ErrorKind::Missing));
    let mut new = record(b"new");
    new.expires_at = old.expires_at + Duration::from_secs(1);
    let calls = (0..8).map(|_| {
        let (store, token, new) = (Arc::clone(&o.b), token.clone(), new.clone());
        async move { kind(store.create(token, &new).await) }
    });
    let mut kinds = all(calls).await;
    kinds.sort_by_key(Option::is_some);
    assert_eq!(kinds[0], None);
    assert!(
        kinds[1..]
            .iter()
            .all(|kind| *kind == Some(ErrorKind::Exists))
    );
    assert_eq!(o.a.load(&token).await.unwrap(), Some(new));
    let subjects = o.a.subjects().unwrap();
    let listed = subjects.list(&old.subject.unwrap(), None, 10).await;
    assert!(listed.unwrap().is_empty());
    assert_eq!(o.a.sweep(100).await.unwrap(), 0);
}

pub(crate) async fn of_many_updates_of_one_revision_one_succeeds(o: Opened) {
    let token = o.a.create(token(), &record(b"0")).await.unwrap();
    let mut expected = o.a.load(&token).await.unwrap().unwrap().revision;
    for _ in 0..5 {
        let calls = (0..16_u8).map(|i| {
            let store = Arc::clone(if i % 2 == 0 { &o.a } else { &o.b });
            let token = token.clone();
            async move {
                let new = record(&[i]);
                store.update(&token, expected, &new).await.map(|_| new)
            }
        });
        let results = all(calls).await;
        let won: Vec<_> = results.iter().filter_map(|r| r.as_ref().ok()).collect();
        assert_eq!(won.len(), 1);
        let mut lost = results.iter().filter_map(|r| r.as_ref().err());
        assert!(lost.all(|error| error.kind() == ErrorKind::Conflict));
        assert_eq!(o.b.load(&token).await.unwrap().as_ref(), Some(won[0]));
        expected = won[0].revision;
    }
    assert!(o.b.delete(&token, None).await.unwrap());
    assert!(!o.b.delete(&token, None).await.unwrap());
    let late = o.a.update(&token, expected, &record(b"late")).await;
    assert_eq!(kind(late), Some(ErrorKind::Missing));
    assert_eq!(
        kind(o.a.touch(&token, Timestamp::MAX).await),
        Some(ErrorKind::Missing)
    );
    assert_eq!(o.a.load(&token).await.unwrap(), None);
}

pub(crate) async fn many_writes_at_a_time_each_get_their_own_answer(o: Opened) {
    let calls = (0..200_usize).map(|i| {
        let (a, b) = (Arc::clone(&o.a), Arc::clone(&o.b));
        async move {
            let first = record(&i.to_le_bytes());
            let token = a.create(token(), &first).await.unwrap();
            let again = a.create(token.clone(), &first).await;
            assert_eq!(kind(again), Some(ErrorKind::Exists));
            let stale = b.update(&token, Revision::from_bits(1), &first).await;
            assert_eq!(kind(stale), Some(ErrorKind::Conflict));
            let second = record(&(i + 1000).to_le_bytes());
            b.update(&token, first.revision, &second).await.unwrap();
            b.touch(&token, START + Duration::from_secs(90))
                .await
                .unwrap();
            let stale = a.delete(&token, Some(first.revision)).await;
            assert_eq!(kind(stale), Some(ErrorKind::Conflict));
            assert_eq!(
                b.load(&token).await.unwrap().map(|r| r.data),
                Some(second.data)
            );
            let expected = (i % 4 == 0).then_some(second.revision);
            if i % 2 == 0 {
                assert!(a.delete(&token, expected).await.unwrap());
                assert!(!b.delete(&token, expected).await.unwrap());
            }
            assert_eq!(b.load(&token).await.unwrap().is_some(), i % 2 == 1);
        }
    });
    all(calls).await;
}

pub(crate) async fn a_deletion_answers_as_the_contract_says(o: Opened) {
    let first = record(b"first");
    let wrong = Revision::from_bits(7);
    for expected in [None, Some(first.revision), Some(wrong)] {
        assert!(!o.a.delete(&token(), expected).await.unwrap());
    }
    let live = o.a.create(token(), &first).await.unwrap();
    let deleted = o.a.delete(&live, Some(wrong)).await;
    assert_eq!(kind(deleted), Some(ErrorKind::Conflict));
    assert_eq!(o.b.load(&live).await.unwrap(), Some(first.clone()));

    // Of many one says that it was the one.
    for expected in [None, Some(first.revision)] {
        let token = o.a.create(token(), &first).await.unwrap();
        let calls = (0..8_u8).map(|i| {
            let store = Arc::clone(if i % 2 == 0 { &o.a } else { &o.b });
            let token = token.clone();
            async move { store.delete(&token, expected).await.unwrap() }
        });
        let ended = all(calls).await;
        assert_eq!(ended.iter().filter(|ended| **ended).count(), 1);
        assert_eq!(o.b.load(&token).await.unwrap(), None);
    }

    // What has expired is not ended by anybody.
    for expected in [Some(wrong), Some(first.revision), None] {
        o.clock.set(START);
        let token = o.a.create(token(), &first).await.unwrap();
        o.clock.set(first.expires_at);
        assert!(!o.a.delete(&token, expected).await.unwrap());
        assert_eq!(o.b.load(&token).await.unwrap(), None);
    }
}

pub(crate) async fn a_sweep_removes_what_has_expired_and_nothing_else(o: Opened) {
    let mut live = Vec::new();
    for i in 0..600_u64 {
        let mut record = record(b"x");
        record.expires_at = START + Duration::from_millis(1 + i % 200);
        let token = o.a.create(token(), &record).await.unwrap();
        match i % 3 {
            // Extended by a touch, extended by an update, and left alone.
            0 => {
                o.a.touch(&token, Timestamp::MAX).await.unwrap();
                live.push(token);
            }
            1 => {
                let new = self::record(b"y");
                o.b.update(&token, record.revision, &new).await.unwrap();
                live.push(token);
            }
            _ => {}
        }
    }
    o.clock.set(START + Duration::from_secs(1));
    assert_eq!(o.a.sweep(0).await.unwrap(), 0);
    assert_eq!(o.a.sweep(7).await.unwrap(), 7);
    assert_eq!(o.b.sweep(1000).await.unwrap(), 193);
    assert_eq!(o.b.sweep(1000).await.unwrap(), 0);
    for token in &live {
        assert!(o.a.load(token).await.unwrap().is_some());
    }
    // Shortened: found again although it was put off.
    for token in &live[..50] {
        o.a.touch(token, START).await.unwrap();
        assert_eq!(o.a.load(token).await.unwrap(), None);
    }
    assert_eq!(o.a.sweep(1000).await.unwrap(), 50);
    o.clock.set(Timestamp::MAX);
    assert_eq!(o.a.sweep(1000).await.unwrap(), 350);
}

pub(crate) async fn two_sweeps_at_a_time_share_the_work(o: Opened) {
    let calls = (0..400).map(|_| {
        let store = Arc::clone(&o.a);
        async move { store.create(token(), &record(b"x")).await.unwrap() }
    });
    all(calls).await;
    o.clock.advance(Duration::from_secs(60));
    let calls = [Arc::clone(&o.a), Arc::clone(&o.b)]
        .map(|store| async move { store.sweep(10_000).await.unwrap() });
    let mut removed: u64 = all(calls).await.iter().sum();
    removed += o.a.sweep(10_000).await.unwrap();
    assert_eq!(removed, 400);
}

pub(crate) async fn a_touch_at_the_deadline_is_safe_from_the_sweep(o: Opened) {
    for _ in 0..10 {
        let mut tokens = Vec::new();
        for _ in 0..20 {
            let mut record = record(b"x");
            record.expires_at = o.clock_now() + Duration::from_millis(1);
            tokens.push(o.a.create(token(), &record).await.unwrap());
        }
        let touches = tokens.iter().cloned().map(|token| {
            let store = Arc::clone(&o.a);
            let later = o.clock_now() + Duration::from_secs(3600);
            async move { store.touch(&token, later).await.is_ok() }
        });
        let touches = touches.collect::<Vec<_>>();
        let sweeper = Arc::clone(&o.b);
        let sweep = tokio::spawn(async move { sweeper.sweep(1000).await.unwrap() });
        let clock = Arc::clone(&o.clock);
        let tick = tokio::spawn(async move { clock.advance(Duration::from_millis(1)) });
        let touched = all(touches).await;
        sweep.await.unwrap();
        tick.await.unwrap();
        for (token, touched) in tokens.iter().zip(touched) {
            assert_eq!(o.a.load(token).await.unwrap().is_some(), touched);
        }
    }
}

pub(crate) async fn the_sessions_of_a_subject_are_listed_and_revoked(o: Opened) {
    let index = o.a.subjects().unwrap();
    let alice = subject("alice").unwrap();
    let mut keys = Vec::new();
    for (i, name) in ["alice", "Alice", "alice ", "alicf"]
        .iter()
        .cycle()
        .take(40)
        .enumerate()
    {
        let mut record = record(&[]);
        record.subject = subject(name);
        record.label = Label::new(&format!("browser {i}")).unwrap();
        if i == 4 {
            record.expires_at = START;
        }
        let token = o.a.create(token(), &record).await.unwrap();
        if i % 4 == 0 && i != 4 {
            keys.push(token.key());
        }
    }
    keys.sort();
    let mut listed = Vec::new();
    loop {
        let page = index.list(&alice, listed.last(), 4).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.iter().all(|session| session.created_at == START));
        listed.extend(page.iter().map(|session| session.key));
    }
    assert_eq!(listed, keys);
    assert!(
        !index
            .revoke(&subject("Alice").unwrap(), &keys[0])
            .await
            .unwrap()
    );
    assert!(index.revoke(&alice, &keys[0]).await.unwrap());
    assert!(!index.revoke(&alice, &keys[0]).await.unwrap());
    let index = o.b.subjects().unwrap();
    assert_eq!(index.revoke_all(&alice, Some(&keys[3])).await.unwrap(), 7);
    let left = index.list(&alice, None, 100).await.unwrap();
    assert_eq!(left.iter().map(|s| s.key).collect::<Vec<_>>(), [keys[3]]);
    assert_eq!(index.revoke_all(&alice, None).await.unwrap(), 1);
    let others = index.list(&subject("Alice").unwrap(), None, 100).await;
    assert_eq!(others.unwrap().len(), 10);
}

/// How a call finds that a session has expired.
#[derive(Clone, Copy, Debug)]
enum Finds {
    Load,
    Touch,
    Update,
    Delete,
    Revoke,
}

/// A touch on one handle has told the time and waits for a lock of the database; a call on another
/// finds the record expired meanwhile. Whatever the order in which the database takes them, what
/// was found expired stays so. `lock` takes the lock and `unlock` returns it.
pub(crate) async fn what_was_found_expired_is_not_prolonged<L>(
    [a, b]: [Arc<dyn SessionStore>; 2],
    clock: Arc<Asked>,
    lock: impl AsyncFn() -> L,
    unlock: impl AsyncFn(L),
) {
    for finds in [
        Finds::Load,
        Finds::Touch,
        Finds::Update,
        Finds::Delete,
        Finds::Revoke,
    ] {
        clock.time.set(START);
        let mut stored = record(b"x");
        stored.subject = subject("alice");
        let token = a.create(token(), &stored).await.unwrap();
        let held = lock().await;

        let mut asked = clock.times.subscribe();
        let touch = {
            let (a, token) = (Arc::clone(&a), token.clone());
            tokio::spawn(async move { a.touch(&token, START + Duration::from_secs(3600)).await })
        };
        asked.changed().await.unwrap();
        clock.time.set(stored.expires_at);

        let find = found_expired(finds, Arc::clone(&b), token.clone(), stored);
        let mut find = tokio::spawn(find);
        // It answers at once, or it waits for the lock as well.
        let early = tokio::time::timeout(Duration::from_millis(200), &mut find).await;
        unlock(held).await;
        let expired = match early {
            Ok(expired) => expired.unwrap(),
            Err(_) => find.await.unwrap(),
        };
        let touched = touch.await.unwrap();
        assert!(
            !(expired && touched.is_ok()),
            "{finds:?} found the session expired, and it was prolonged afterwards"
        );
        if expired {
            assert_eq!(b.load(&token).await.unwrap(), None, "{finds:?}");
        }
    }
}

/// Whether the call says that the session has expired.
async fn found_expired(
    finds: Finds,
    store: Arc<dyn SessionStore>,
    token: Token,
    stored: Record,
) -> bool {
    let mut next = record(b"y");
    next.expires_at = START + Duration::from_secs(3600);
    let answer = match finds {
        Finds::Load => return store.load(&token).await.unwrap().is_none(),
        Finds::Revoke => {
            let (index, alice) = (store.subjects().unwrap(), subject("alice").unwrap());
            return !index.revoke(&alice, &token.key()).await.unwrap();
        }
        Finds::Touch => store.touch(&token, next.expires_at).await,
        Finds::Update => store.update(&token, stored.revision, &next).await,
        Finds::Delete => {
            let expected = Some(stored.revision);
            return !store.delete(&token, expected).await.unwrap();
        }
    };
    kind(answer) == Some(ErrorKind::Missing)
}

/// Everything that can be done to a token, each dropped after it was polled some times. What was
/// under way when it was dropped may still take effect: then the state is read again.
pub(crate) async fn a_dropped_call_leaves_the_state_before_or_after(o: Opened) {
    for polls in 0..12 {
        let first = record(b"first");
        let created = token();
        drop_after(polls, o.a.create(created.clone(), &first)).await;
        let found = o.b.load(&created).await.unwrap();
        assert!(found.is_none_or(|found| found == first));

        let from = o.a.create(token(), &first).await.unwrap();
        let second = record(b"second");
        drop_after(polls, o.a.update(&from, first.revision, &second)).await;
        let updated = o.a.load(&from).await.unwrap().unwrap();
        assert!(updated == first || updated == second);

        drop_after(polls, o.a.load(&from)).await;
        drop_after(polls, o.a.delete(&from, Some(updated.revision))).await;
        if let Some(found) = o.a.load(&from).await.unwrap() {
            assert!(found == first || found == second);
        }
        drop_after(polls, o.a.delete(&from, None)).await;
        let other = o.a.create(token(), &record(b"other")).await.unwrap();
        assert_eq!(&o.a.load(&other).await.unwrap().unwrap().data[..], b"other");
    }
}

/// Polls a future some times, with time for others in between, and drops it.
pub(crate) async fn drop_after<F: Future>(polls: usize, future: F) {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context)));
        if polled.await.is_ready() {
            return;
        }
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
}

impl Opened {
    fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// One test for each case; `$open` makes an [`Opened`].
macro_rules! cases {
    ($open:expr) => {
        $crate::common::cases!($open;
            a_record_comes_back_as_it_was
            one_of_many_creates_succeeds
            an_expired_row_is_replaced_by_a_create
            an_expiry_that_is_over_ends_a_session_at_once
            of_many_updates_of_one_revision_one_succeeds
            many_writes_at_a_time_each_get_their_own_answer
            a_deletion_answers_as_the_contract_says
            a_sweep_removes_what_has_expired_and_nothing_else
            two_sweeps_at_a_time_share_the_work
            a_touch_at_the_deadline_is_safe_from_the_sweep
            the_sessions_of_a_subject_are_listed_and_revoked
            a_dropped_call_leaves_the_state_before_or_after
        );
    };
    ($open:expr; $($case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::common::$case($open.await).await;
        }
    )*};
}
pub(crate) use cases;
