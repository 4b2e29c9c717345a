use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use sessionkit::{
    ErrorKind, ManualClock, MemoryStore, Record, Revision, SessionStore, Token, layers::NearCache,
};

use crate::{
    explore::{Chooser, Judge, alone, exhaustively, randomly, together},
    support::{HOUR, Op, START, Stepped, alice, clock, kind, memory, now, record, renewed, token},
};

const STALENESS: Duration = Duration::from_secs(600);

struct Setup {
    clock: Arc<ManualClock>,
    inner: Arc<MemoryStore>,
    cache: NearCache<Arc<MemoryStore>>,
    token: Token,
    record: Record,
}

async fn setup() -> Setup {
    let clock = clock();
    let inner = memory(&clock);
    let cache = NearCache::new(inner.clone(), STALENESS).with_clock(clock.clone());
    let record = record("first");
    let token = cache.create(token(), &record).await.unwrap();
    Setup {
        clock,
        inner,
        cache,
        token,
        record,
    }
}

/// Removes the session behind the back of the cache: what is still found comes from the cache.
async fn is_cached(setup: &Setup) -> bool {
    setup.inner.delete(&setup.token, None).await.unwrap();
    setup.cache.load(&setup.token).await.unwrap().is_some()
}

#[tokio::test]
async fn the_second_load_does_not_ask_the_store() {
    let setup = setup().await;
    let first = setup.cache.load(&setup.token).await.unwrap();
    assert_eq!(first, Some(setup.record.clone()));
    setup.inner.delete(&setup.token, None).await.unwrap();
    let clone = setup.cache.clone();
    assert_eq!(clone.load(&setup.token).await.unwrap(), first);
}

#[tokio::test]
async fn an_entry_is_used_for_no_longer_than_declared() {
    let setup = setup().await;
    assert_eq!(setup.cache.capabilities().staleness, STALENESS);
    setup.cache.load(&setup.token).await.unwrap();
    setup.inner.delete(&setup.token, None).await.unwrap();
    setup
        .clock
        .set(START + STALENESS - Duration::from_millis(1));
    assert!(setup.cache.load(&setup.token).await.unwrap().is_some());
    setup.clock.set(START + STALENESS);
    assert_eq!(setup.cache.load(&setup.token).await.unwrap(), None);
}

#[tokio::test]
async fn an_entry_ends_with_its_session() {
    let setup = setup().await;
    let soon = START + Duration::from_secs(5);
    setup.cache.touch(&setup.token, soon).await.unwrap();
    setup.cache.load(&setup.token).await.unwrap();
    setup.clock.set(soon - Duration::from_millis(1));
    assert!(setup.cache.load(&setup.token).await.unwrap().is_some());
    setup.clock.set(soon);
    assert_eq!(setup.cache.load(&setup.token).await.unwrap(), None);
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_lengthen_an_entry() {
    let setup = setup().await;
    setup.cache.load(&setup.token).await.unwrap();
    setup.clock.set(START - HOUR);
    assert!(!is_cached(&setup).await);
}

#[tokio::test]
async fn an_entry_does_not_outlive_the_steady_clock_either() {
    let clock = clock();
    let inner = memory(&clock);
    let cache = NearCache::new(inner.clone(), Duration::from_nanos(1)).with_clock(clock);
    let token = cache.create(token(), &record("data")).await.unwrap();
    cache.load(&token).await.unwrap();
    inner.delete(&token, None).await.unwrap();
    assert_eq!(cache.load(&token).await.unwrap(), None);
}

#[tokio::test]
async fn absence_is_not_remembered() {
    let setup = setup().await;
    let other = token();
    assert_eq!(setup.cache.load(&other).await.unwrap(), None);
    setup
        .inner
        .create(other.clone(), &setup.record)
        .await
        .unwrap();
    assert!(setup.cache.load(&other).await.unwrap().is_some());
}

#[tokio::test]
async fn after_a_write_the_store_is_asked_whatever_came_of_it() {
    let wrong = Revision::from_bits(0);
    for write in 0..7 {
        let setup = setup().await;
        let (cache, at, record) = (&setup.cache, &setup.token, &setup.record);
        cache.load(at).await.unwrap();
        let changed = crate::support::record("changed");
        match write {
            0 => drop(cache.update(at, record.revision, &changed).await.unwrap()),
            1 => drop(cache.touch(at, START + HOUR / 2).await.unwrap()),
            2 => assert_eq!(
                kind(cache.update(at, wrong, &changed).await),
                ErrorKind::Conflict
            ),
            3 => assert_eq!(
                kind(cache.renew(at, wrong, &changed).await),
                ErrorKind::Conflict
            ),
            4 => assert_eq!(
                kind(cache.create(at.clone(), &changed).await),
                ErrorKind::Exists
            ),
            5 => assert_eq!(
                kind(cache.delete(at, Some(wrong)).await),
                ErrorKind::Conflict
            ),
            _ => {
                // Dropped before the store was asked, which the cache cannot know.
                let stepped = Stepped::new(setup.inner.clone());
                let cache = NearCache::new(stepped, STALENESS).with_clock(setup.clock.clone());
                let mut load = cache.load(at);
                assert!((&mut load).now_or_never().is_none());
                assert!(load.now_or_never().is_some());
                assert!(cache.touch(at, START + HOUR / 2).now_or_never().is_none());
                assert!(cache.load(at).now_or_never().is_none(), "it is a hit");
                continue;
            }
        }
        assert!(!is_cached(&setup).await, "{write}");
    }
}

#[tokio::test]
async fn an_entry_answers_only_the_whole_token_it_was_loaded_with() {
    let setup = setup().await;
    let (inner, cache, old) = (&setup.inner, &setup.cache, &setup.token);
    cache.load(old).await.unwrap();
    // Another process renews the session: its entry here knows the old secret only.
    let (new, record) = (renewed(old), record("renewed"));
    let revision = setup.record.revision;
    inner.renew(&new, revision, &record).await.unwrap();
    assert_eq!(cache.load(old).await.unwrap(), Some(setup.record.clone()));
    assert_eq!(cache.load(&new).await.unwrap(), Some(record.clone()));
    assert_eq!(cache.load(old).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_renewal_forgets_the_entry() {
    let setup = setup().await;
    let (cache, old) = (&setup.cache, &setup.token);
    cache.load(old).await.unwrap();
    let record = record("renewed");
    let (new, revision) = (renewed(old), setup.record.revision);
    cache.renew(&new, revision, &record).await.unwrap();
    assert_eq!(cache.load(old).await.unwrap(), Some(record.clone()));
    assert_eq!(cache.load(&new).await.unwrap(), Some(record));
}

#[tokio::test]
async fn revoked_sessions_are_forgotten() {
    let setup = setup().await;
    let (cache, at) = (&setup.cache, &setup.token);
    let index = cache.subjects().unwrap();
    cache.load(at).await.unwrap();
    assert!(index.revoke(&alice(), &at.key()).await.unwrap());
    assert_eq!(cache.load(at).await.unwrap(), None);

    // The entry says that the session is nobody's, the store that it is Alice's.
    let mut nobodys = setup.record.clone();
    nobodys.subject = None;
    let at = cache.create(token(), &nobodys).await.unwrap();
    cache.load(&at).await.unwrap();
    let inner = &setup.inner;
    inner
        .update(&at, nobodys.revision, &setup.record)
        .await
        .unwrap();
    assert_eq!(index.revoke_all(&alice(), None).await.unwrap(), 1);
    assert_eq!(cache.load(&at).await.unwrap(), None);
    assert_eq!(index.list(&alice(), None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn the_oldest_entries_make_room() {
    for max_entries in [0, 1, 10, 2_000] {
        let clock = clock();
        let inner = memory(&clock);
        let cache = NearCache::new(inner.clone(), STALENESS)
            .with_clock(clock)
            .with_max_entries(max_entries);
        let mut tokens = Vec::new();
        for _ in 0..3 * max_entries + 5 {
            let token = cache.create(token(), &record("data")).await.unwrap();
            cache.load(&token).await.unwrap();
            tokens.push(token);
        }
        let mut cached = 0;
        for token in &tokens {
            inner.delete(token, None).await.unwrap();
            cached += usize::from(cache.load(token).await.unwrap().is_some());
        }
        assert!(cached <= max_entries);
        assert!(cached >= max_entries / 2, "{cached} of {max_entries}");
        if max_entries == 10 {
            assert_eq!(cached, 10);
        }
    }
}

#[tokio::test]
async fn large_records_are_not_kept() {
    let setup = setup().await;
    let mut large = setup.record.clone();
    large.data = vec![0; (64 << 10) + 1].into();
    let at = setup.cache.create(token(), &large).await.unwrap();
    assert_eq!(setup.cache.load(&at).await.unwrap(), Some(large));
    setup.inner.delete(&at, None).await.unwrap();
    assert_eq!(setup.cache.load(&at).await.unwrap(), None);
}

/// The race that this cache exists to win, step by step.
#[tokio::test]
async fn a_load_that_was_fetching_during_a_delete_does_not_bring_the_session_back() {
    let clock = clock();
    let inner = memory(&clock);
    let record = record("data");
    let token = inner.create(token(), &record).await.unwrap();
    let stepped = Stepped::new(inner).with_waiting_answers();
    let cache = NearCache::new(stepped, STALENESS).with_clock(clock);

    let mut load = cache.load(&token);
    assert!((&mut load).now_or_never().is_none(), "it has missed");
    assert!((&mut load).now_or_never().is_none(), "it has fetched");
    let mut delete = cache.delete(&token, None);
    assert!((&mut delete).now_or_never().is_none());
    assert!((&mut delete).now_or_never().is_none());
    assert!(matches!(delete.now_or_never(), Some(Ok(true))));
    assert_eq!(load.now_or_never().unwrap().unwrap(), Some(record));

    let mut load = cache.load(&token);
    for _ in 0..2 {
        assert!((&mut load).now_or_never().is_none(), "it is no hit");
    }
    assert_eq!(load.now_or_never().unwrap().unwrap(), None);
}

/// An update that has reached the store and not been answered: loads must not go back in time.
#[tokio::test]
async fn an_entry_that_is_older_than_what_a_load_has_returned_goes() {
    let clock = clock();
    let inner = memory(&clock);
    let (first, changed) = (record("first"), record("changed"));
    let token = inner.create(token(), &first).await.unwrap();
    let stepped = Stepped::new(inner).with_waiting_answers();
    let cache = NearCache::new(stepped, STALENESS).with_clock(clock);

    let (mut early, mut late) = (cache.load(&token), cache.load(&token));
    assert!((&mut late).now_or_never().is_none(), "it has missed");
    for _ in 0..2 {
        assert!((&mut early).now_or_never().is_none());
    }
    let mut update = cache.update(&token, first.revision, &changed);
    for _ in 0..2 {
        assert!((&mut update).now_or_never().is_none());
    }
    assert_eq!(early.now_or_never().unwrap().unwrap(), Some(first));
    assert!((&mut late).now_or_never().is_none(), "it has fetched");
    let returned = late.now_or_never().unwrap().unwrap();
    assert_eq!(returned, Some(changed.clone()));

    let mut next = cache.load(&token);
    for _ in 0..2 {
        assert!((&mut next).now_or_never().is_none(), "it is no hit");
    }
    assert_eq!(next.now_or_never().unwrap().unwrap(), Some(changed.clone()));
    update.now_or_never().unwrap().unwrap();
}

struct Scene {
    at: Token,
    first: Record,
    writes: Vec<Op>,
}

impl Scene {
    fn new() -> Self {
        let at = token();
        let first = record("first");
        let writes = vec![
            Op::Update(at.clone(), first.revision, record("changed")),
            Op::Touch(at.clone(), START + 2 * HOUR),
            Op::Update(renewed(&at), first.revision, record("renewed")),
            Op::Delete(at.clone(), None),
            Op::Delete(at.clone(), Some(first.revision)),
            Op::Revoke(at.clone()),
            Op::RevokeAll(None),
            Op::RevokeAll(Some(at.clone())),
        ];
        Self { at, first, writes }
    }

    /// Runs the operations over a cache that has the session or not, followed by loads.
    fn trial(&self, judge: &mut Judge, ops: &[Op], warm: bool, chooser: &mut dyn Chooser) {
        let clock = clock();
        let inner = memory(&clock);
        now(inner.create(self.at.clone(), &self.first)).unwrap();
        let cache = NearCache::new(Stepped::new(inner).with_waiting_answers(), STALENESS);
        let store: Arc<dyn SessionStore> = Arc::new(cache.with_clock(clock));
        let alone = |token: &Token| {
            let op = Op::Load(token.clone());
            let outcome = alone(&store, &op);
            (op, outcome)
        };
        if warm {
            alone(&self.at);
        }
        let events = together(&store, ops, false, chooser);
        let epilogue = [alone(&self.at), alone(&renewed(&self.at)), alone(&self.at)];
        judge.check(&|| self.reference(), ops, &events, &epilogue);
    }

    fn reference(&self) -> Arc<dyn SessionStore> {
        let store = memory(&clock());
        now(store.create(self.at.clone(), &self.first)).unwrap();
        store
    }
}

#[test]
fn any_request_and_two_loads_meet_in_every_way() {
    let scene = Scene::new();
    let load = Op::Load(scene.at.clone());
    for write in &scene.writes {
        let ops = [write.clone(), load.clone(), load.clone()];
        let mut judge = Judge::default();
        for warm in [false, true] {
            exhaustively(|path| scene.trial(&mut judge, &ops, warm, path));
        }
    }
}

#[test]
fn any_two_requests_and_three_loads_agree_on_one_order() {
    let scene = Scene::new();
    let load = Op::Load(scene.at.clone());
    for one in &scene.writes {
        for other in &scene.writes {
            let mut ops = vec![one.clone(), other.clone()];
            ops.extend([load.clone(), load.clone(), load.clone()]);
            let mut judge = Judge::default();
            for warm in [false, true] {
                randomly(100, |dice| scene.trial(&mut judge, &ops, warm, dice));
            }
        }
    }
}
