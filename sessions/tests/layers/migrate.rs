use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use sessionkit::{
    ErrorKind, ManualClock, MemoryStore, Record, Revision, SessionStore, Token, layers::Migrate,
};

use crate::{
    explore::{Chooser, Judge, alone, exhaustively, randomly, together},
    support::{
        HOUR, Op, Outcome, START, Stepped, clock, kind, memory, now, record, renewed, token,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

/// One session in the old store, and what may be done to it.
struct Scene {
    token: Token,
    record: Record,
    changed: Record,
    renewed: Record,
}

struct World {
    clock: Arc<ManualClock>,
    store: Arc<dyn SessionStore>,
}

impl Scene {
    fn new() -> Self {
        Self {
            token: token(),
            record: record("first"),
            changed: record("changed"),
            renewed: record("renewed"),
        }
    }

    fn update(&self) -> Op {
        Op::Update(
            self.token.clone(),
            self.record.revision,
            self.changed.clone(),
        )
    }

    fn touch(&self) -> Op {
        Op::Touch(self.token.clone(), START + 2 * HOUR)
    }

    fn renew(&self) -> Op {
        let revision = self.record.revision;
        Op::Update(renewed(&self.token), revision, self.renewed.clone())
    }

    fn sign_out(&self) -> Op {
        Op::Delete(self.token.clone(), Some(self.record.revision))
    }

    fn writes(&self) -> Vec<Op> {
        vec![
            self.update(),
            self.touch(),
            self.renew(),
            Op::Delete(self.token.clone(), None),
            self.sign_out(),
            Op::Revoke(self.token.clone()),
            Op::RevokeAll(None),
            Op::RevokeAll(Some(self.token.clone())),
        ]
    }

    fn create(&self) -> Op {
        Op::Create(self.token.clone(), self.changed.clone())
    }

    /// A layer over an old store that has the session, whose move was begun and dropped after
    /// `steps` steps.
    fn world(&self, steps: usize, answers_wait: bool) -> World {
        let clock = clock();
        let (old, new) = (memory(&clock), memory(&clock));
        now(old.create(self.token.clone(), &self.record)).unwrap();
        let (old, new) = (Stepped::new(old), Stepped::new(new));
        {
            let store = Migrate::new(old.clone(), new.clone()).unwrap();
            // Moves the session, and changes nothing, because it expects another revision.
            let nothing = Revision::from_bits(0);
            let mut update = store.update(&self.token, nothing, &self.changed);
            for _ in 0..steps {
                if (&mut update).now_or_never().is_some() {
                    break;
                }
            }
        }
        let (old, new) = if answers_wait {
            (old.with_waiting_answers(), new.with_waiting_answers())
        } else {
            (old, new)
        };
        World {
            clock,
            store: Arc::new(Migrate::new(old, new).unwrap()),
        }
    }

    fn reference(&self) -> Arc<dyn SessionStore> {
        let store = memory(&clock());
        now(store.create(self.token.clone(), &self.record)).unwrap();
        store
    }

    /// What shows the state in which the operations have left the session.
    fn epilogue(&self) -> Vec<Op> {
        vec![
            Op::Load(self.token.clone()),
            Op::Load(renewed(&self.token)),
            Op::List,
            Op::Touch(self.token.clone(), START + 30 * MINUTE),
            Op::List,
            Op::Load(self.token.clone()),
        ]
    }

    fn trial(
        &self,
        judge: &mut Judge,
        ops: &[Op],
        steps: usize,
        may_drop: bool,
        chooser: &mut dyn Chooser,
    ) {
        let World { clock, store } = self.world(steps, may_drop);
        let events = together(&store, ops, may_drop, chooser);
        let epilogue: Vec<_> = self
            .epilogue()
            .into_iter()
            .map(|op| (op.clone(), alone(&store, &op)))
            .collect();
        judge.check(&|| self.reference(), ops, &events, &epilogue);
        // Whatever was left behind lives longer than the session, and must not show.
        clock.set(START + 40 * MINUTE);
        let outcome = alone(&store, &Op::Load(self.token.clone()));
        assert_eq!(outcome, Outcome::Loaded(None));
    }
}

/// The number of steps after which a move is over.
const STEPS: usize = 9;

#[test]
fn requests_that_write_and_requests_that_end_the_session_meet_in_every_way() {
    let scene = Scene::new();
    let writes = scene.writes();
    let mut schedules = 0;
    for (one, other) in [(0, 3), (1, 3), (2, 4), (0, 4), (0, 5), (1, 6), (1, 7)] {
        let ops = [writes[one].clone(), writes[other].clone()];
        let mut judge = Judge::default();
        schedules += exhaustively(|path| scene.trial(&mut judge, &ops, 0, false, path));
    }
    assert!(schedules > 3_000, "{schedules}");
}

#[test]
fn a_create_finds_the_session_wherever_it_is() {
    let scene = Scene::new();
    for steps in 0..=STEPS {
        for other in [scene.update(), scene.touch(), scene.renew(), scene.create()] {
            let ops = [scene.create(), other];
            let mut judge = Judge::default();
            randomly(40, |dice| {
                scene.trial(&mut judge, &ops, steps, false, dice);
            });
        }
    }
}

#[test]
fn any_two_requests_meet() {
    let scene = Scene::new();
    let writes = scene.writes();
    for (at, first) in writes.iter().enumerate() {
        for second in &writes[at..] {
            let ops = [first.clone(), second.clone()];
            let mut judge = Judge::default();
            randomly(200, |dice| scene.trial(&mut judge, &ops, 0, false, dice));
        }
    }
}

#[test]
fn any_request_and_a_load_meet_in_every_way_after_an_interrupted_move() {
    let scene = Scene::new();
    for steps in 0..=STEPS {
        for write in scene.writes() {
            let ops = [write, Op::Load(scene.token.clone())];
            let mut judge = Judge::default();
            exhaustively(|path| scene.trial(&mut judge, &ops, steps, false, path));
        }
    }
}

#[test]
fn any_two_requests_meet_after_an_interrupted_move() {
    let scene = Scene::new();
    let writes = scene.writes();
    for steps in 1..=STEPS {
        for (at, first) in writes.iter().enumerate() {
            for second in &writes[at..] {
                let ops = [first.clone(), second.clone()];
                let mut judge = Judge::default();
                randomly(40, |dice| {
                    scene.trial(&mut judge, &ops, steps, false, dice);
                });
            }
        }
    }
}

#[test]
fn a_request_that_is_dropped_anywhere_has_happened_or_not() {
    let scene = Scene::new();
    for steps in 0..=STEPS {
        for write in scene.writes() {
            let mut judge = Judge::default();
            exhaustively(|path| {
                scene.trial(&mut judge, std::slice::from_ref(&write), steps, true, path);
            });
        }
    }
}

#[test]
fn requests_that_meet_a_dropped_one_see_it_done_or_not() {
    let scene = Scene::new();
    let writes = scene.writes();
    for first in &writes {
        for second in &writes {
            let ops = [first.clone(), second.clone()];
            let mut judge = Judge::default();
            randomly(150, |dice| scene.trial(&mut judge, &ops, 0, true, dice));
        }
    }
}

#[test]
fn three_requests_and_a_load_agree_on_one_order() {
    let scene = Scene::new();
    let writes = [
        scene.update(),
        scene.touch(),
        scene.renew(),
        scene.sign_out(),
    ];
    for steps in [0, 3, 5, 7] {
        for skipped in 0..writes.len() {
            let mut ops = writes.to_vec();
            ops.remove(skipped);
            ops.push(Op::Load(scene.token.clone()));
            let mut judge = Judge::default();
            randomly(400, |dice| {
                scene.trial(&mut judge, &ops, steps, false, dice);
            });
        }
    }
}

struct Plain {
    old: Arc<MemoryStore>,
    new: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    store: Migrate<Arc<MemoryStore>, Arc<MemoryStore>>,
}

fn plain() -> Plain {
    let clock = clock();
    let (old, new) = (memory(&clock), memory(&clock));
    let store = Migrate::new(old.clone(), new.clone()).unwrap();
    Plain {
        old,
        new,
        clock,
        store,
    }
}

#[tokio::test]
async fn a_load_leaves_the_session_where_it_is() {
    let Plain {
        old, new, store, ..
    } = plain();
    let record = record("data");
    let token = old.create(token(), &record).await.unwrap();
    assert_eq!(store.load(&token).await.unwrap(), Some(record));
    assert_eq!((old.len(), new.len()), (1, 0));
}

#[tokio::test]
async fn the_first_write_moves_the_session() {
    for write in 0..3 {
        let Plain {
            old, new, store, ..
        } = plain();
        let (first, second) = (record("first"), record("second"));
        let from = old.create(token(), &first).await.unwrap();
        let at = match write {
            0 => store.update(&from, first.revision, &second).await.unwrap(),
            1 => store.touch(&from, START + 2 * HOUR).await.unwrap(),
            _ => {
                let to = renewed(&from);
                store.renew(&to, first.revision, &second).await.unwrap()
            }
        };
        assert_eq!((old.len(), new.len()), (0, 1));
        assert!(new.load(&at).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_record_moves_byte_for_byte() {
    let Plain {
        old, new, store, ..
    } = plain();
    let mut given = record("");
    given.data = (0..=255).collect();
    given.label = sessionkit::Label::new(&"é".repeat(127)).unwrap();
    let token = old.create(token(), &given).await.unwrap();
    let moved = store.touch(&token, START + 2 * HOUR).await.unwrap();
    given.expires_at = START + 2 * HOUR;
    assert_eq!(new.load(&moved).await.unwrap(), Some(given));
}

#[tokio::test]
async fn a_wrong_revision_is_a_conflict_before_and_after_the_move() {
    let Plain { old, store, .. } = plain();
    let (first, second) = (record("first"), record("second"));
    let at = old.create(token(), &first).await.unwrap();
    for _ in 0..2 {
        let wrong = second.revision;
        assert_eq!(
            kind(store.update(&at, wrong, &second).await),
            ErrorKind::Conflict
        );
        assert_eq!(
            kind(store.delete(&at, Some(wrong)).await),
            ErrorKind::Conflict
        );
        assert_eq!(store.load(&at).await.unwrap(), Some(first.clone()));
    }
}

#[tokio::test]
async fn create_sees_what_is_in_the_old_store() {
    let Plain {
        old, new, store, ..
    } = plain();
    let (one, two) = (record("one"), record("two"));
    let taken = old.create(token(), &one).await.unwrap();
    assert_eq!(
        kind(store.create(taken.clone(), &two).await),
        ErrorKind::Exists
    );
    let free = store.create(token(), &two).await.unwrap();
    assert_eq!((old.len(), new.len()), (1, 1));
    assert_eq!(store.load(&taken).await.unwrap(), Some(one));
    assert_eq!(store.load(&free).await.unwrap(), Some(two));
}

#[tokio::test]
async fn delete_removes_the_session_from_both() {
    let Plain {
        old, new, store, ..
    } = plain();
    let (one, two) = (record("one"), record("two"));
    let in_old = old.create(token(), &one).await.unwrap();
    let in_new = store.create(token(), &two).await.unwrap();
    for (token, live) in [(&in_old, true), (&in_new, true), (&token(), false)] {
        for live in [live, false] {
            assert_eq!(store.delete(token, None).await.unwrap(), live);
            assert_eq!(store.load(token).await.unwrap(), None);
        }
    }
    assert_eq!((old.len(), new.len()), (0, 0));
}

#[tokio::test]
async fn delete_removes_what_has_expired_from_both() {
    let Plain {
        old,
        new,
        store,
        clock,
    } = plain();
    let (one, two) = (record("one"), record("two"));
    let in_old = old.create(token(), &one).await.unwrap();
    let in_new = store.create(token(), &two).await.unwrap();
    clock.set(one.expires_at.max(two.expires_at));
    for token in [&in_old, &in_new] {
        assert!(!store.delete(token, None).await.unwrap());
    }
    assert_eq!((old.len(), new.len()), (0, 0));
    assert_eq!(store.sweep(10).await.unwrap(), 0);
}

#[tokio::test]
async fn an_expired_session_does_not_move() {
    let Plain {
        old,
        new,
        store,
        clock,
    } = plain();
    let first = record("first");
    let at = old.create(token(), &first).await.unwrap();
    clock.set(first.expires_at);
    assert_eq!(store.load(&at).await.unwrap(), None);
    assert_eq!(
        kind(store.touch(&at, START + 3 * HOUR).await),
        ErrorKind::Missing
    );
    assert_eq!(
        kind(store.update(&at, first.revision, &first).await),
        ErrorKind::Missing
    );
    assert_eq!(new.len(), 0);
    let mut later = record("later");
    later.expires_at = START + 3 * HOUR;
    store.create(at.clone(), &later).await.unwrap();
    assert_eq!(store.load(&at).await.unwrap(), Some(later));
    // What is left in the old store is not read again, nor revived by a clock that is set back.
    store.delete(&at, None).await.unwrap();
    clock.set(START);
    assert_eq!(store.load(&at).await.unwrap(), None);
}

#[tokio::test]
async fn a_full_new_store_keeps_the_session_readable_and_deletable() {
    let clock = clock();
    let old = memory(&clock);
    let new = MemoryStore::new()
        .with_clock(clock.clone())
        .with_max_sessions(0);
    let store = Migrate::new(old.clone(), new).unwrap();
    let first = record("first");
    let at = old.create(token(), &first).await.unwrap();
    assert_eq!(
        kind(store.update(&at, first.revision, &first).await),
        ErrorKind::Full
    );
    assert_eq!(store.load(&at).await.unwrap(), Some(first));
    store.delete(&at, None).await.unwrap();
    assert_eq!(store.load(&at).await.unwrap(), None);
}

#[tokio::test]
async fn sweep_goes_over_both_within_its_limit() {
    let Plain {
        old,
        new,
        store,
        clock,
    } = plain();
    for _ in 0..3 {
        old.create(token(), &record("old")).await.unwrap();
        new.create(token(), &record("new")).await.unwrap();
    }
    clock.set(START + HOUR);
    assert_eq!(store.sweep(4).await.unwrap(), 4);
    assert_eq!(old.len() + new.len(), 2);
    assert_eq!(store.sweep(4).await.unwrap(), 2);
    assert_eq!(store.sweep(4).await.unwrap(), 0);
}
